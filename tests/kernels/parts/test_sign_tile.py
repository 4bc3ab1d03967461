"""What a lane of signs counts at once, and the register tiles that fit."""

from __future__ import annotations

import numpy as np
import pytest

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.parts.sign_tile import Unit, fits, tiles
from tests.kernels.binary import AVX2, AVX512

POPCOUNT = Cpu("popcount", 16, 32, has_popcount=True)
NEON = Cpu("neon", 4, 32)


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [(POPCOUNT, Unit(32, 16)), (AVX512, Unit(8, 64)), (AVX2, Unit(8, 32)), (NEON, Unit(8, 16))],
    ids=["popcount", "AVX-512", "AVX2", "Neon"],
)
def test_the_unit_that_suits_a_cpu(cpu: Cpu, expected: Unit) -> None:
    assert Unit.of(cpu) == expected


@pytest.mark.parametrize(("channels", "words"), [(1, 1), (31, 1), (32, 1), (33, 2), (8192, 256)])
def test_units_of_the_words_of_some_channels(channels: int, words: int) -> None:
    assert Unit(32, 16).steps(channels) == words
    assert Unit(8, 32).steps(channels) == 4 * words


def test_a_word_is_seen_as_its_bytes_from_the_lowest() -> None:
    words = np.array([[0x04030201, 0x08070605]], np.uint32)
    assert Unit(8, 32).view(words).tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert Unit(32, 16).view(words).tolist() == words.tolist()


@pytest.mark.parametrize("cpu", [POPCOUNT, AVX512, AVX2, NEON], ids=["popcount", "AVX-512", "AVX2", "Neon"])
@pytest.mark.parametrize("rows", [1, 7, 56])
@pytest.mark.parametrize("outputs", [1, 33, 512])
def test_tiles_fit_the_registers_and_words(cpu: Cpu, rows: int, outputs: int) -> None:
    unit = Unit.of(cpu)
    for height, vectors in tiles(rows, outputs, cpu, whole_words=True):
        assert vectors * unit.lanes % 32 == 0
        assert fits(height, vectors, cpu)
        assert 1 <= height <= rows
    assert (1, 1) in tiles(rows, outputs, cpu, whole_words=False)
