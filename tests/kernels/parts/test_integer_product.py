"""Which product there is for which codes on which CPU, and that its instructions are found."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import halide as hl
import pytest

from netopt.kernels.machine.buffers import aligned_array, strides_of
from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.integer_product import CodeProduct, PairsOfBytes, WideCodeProduct, product_of_codes
from netopt.kernels.registry import KERNELS
from netopt.numerics import FixedPoint
from netopt.ops import CHANNELS_LAST, Conv2d, TensorType
from tests.kernels.binary import AVX2, AVX512
from tests.kernels.codes import fixed
from tests.kernels.parts.test_product import VNNI

ARM, DOT = (Cpu.of(hl.Target(f"arm-64-linux{feature}")) for feature in ("", "-arm_dot_prod"))
W4, W8, W16 = (FixedPoint(bits, 0) for bits in (4, 8, 16))


@pytest.mark.parametrize(
    ("cpu", "x", "weight", "together", "converted", "offset"),
    [
        (VNNI, "u8", W8, 4, None, 0),
        (VNNI, "u7", W4, 4, None, 0),
        (VNNI, "s8", W8, 4, hl.UInt(8), 128),
        (VNNI, "s16", W8, 2, None, 0),
        (VNNI, "u8", W16, 2, hl.Int(16), 0),
        (AVX2, "u7", W8, 4, None, 0),
        (AVX2, "u8", W4, 4, None, 0),
        # 2 x 255 x 128 is beyond 16 bits.
        (AVX2, "u8", W8, 2, hl.Int(16), 0),
        (AVX2, "s8", W4, 2, hl.Int(16), 0),
        (AVX2, "s16", W8, 2, None, 0),
        (AVX512, "u7", W8, 2, hl.Int(16), 0),
        (ARM, "u7", W8, 1, None, 0),
        (DOT, "s8", W8, 4, hl.Int(8), 0),
        (DOT, "u7", W8, 4, hl.Int(8), 0),
        (DOT, "u8", W8, 4, hl.Int(8), -128),
        (DOT, "s16", W8, 1, None, 0),
    ],
)
def test_the_product_for_codes(
    cpu: Cpu, x: str, weight: FixedPoint, together: int, converted: hl.Type | None, offset: int
) -> None:
    product = product_of_codes(fixed(x, 0), weight, 16, 1, cpu)
    assert isinstance(product, CodeProduct)
    assert isinstance(product, PairsOfBytes) == (cpu is AVX2 and together == 4)
    assert (product.together, product.converted, product.offset) == (together, converted, offset)
    assert product.lanes == cpu.lanes
    assert product.blocks(8) == 1


@pytest.mark.parametrize(
    ("x", "weight", "terms", "window"), [("s16", W8, 64, 9), ("s16", W8, 4096, 1), ("u8", W16, 32, 9)]
)
def test_sums_beyond_32_bits_are_cut_into_blocks(x: str, weight: FixedPoint, terms: int, window: int) -> None:
    """Into the fewest of which each is below 2^30, where codes are the largest."""
    product = product_of_codes(fixed(x, 0), weight, terms, window, AVX2)
    assert isinstance(product, CodeProduct)
    steps = product.steps(terms)
    blocks = product.blocks(steps)
    assert blocks > 1
    assert steps % blocks == 0
    largest = 2 * steps // blocks * window * (2**22 if x == "s16" else 255 * 2**15)
    assert largest <= 2**30
    assert product.zero.type() == hl.Float(64)
    assert product.zero_of_block.type() == hl.Int(32)


@pytest.mark.parametrize(("weight", "terms", "window"), [(W16, 8, 9), (W16, 8, 1), (W8, 100, 49)])
def test_sums_that_blocks_do_not_hold_are_floats(weight: FixedPoint, terms: int, window: int) -> None:
    product = product_of_codes(fixed("s16", 0), weight, terms, window, AVX512)
    assert isinstance(product, WideCodeProduct)
    assert product.lanes == 8
    assert product.blocks(terms) == 1


def assembly(problem: Problem[Any], cpu: Cpu, file: Path) -> str:
    """The code of the default schedule."""
    kernel = KERNELS[type(problem.op)]
    schedule = kernel.schedules(problem, cpu)[0]
    types = (*problem.inputs, problem.output)
    shapes = kernel.argument_shapes(problem, schedule, cpu)
    arrays = [aligned_array(s, t.format, strides_of(s, t)) for s, t in zip(shapes, types, strict=True)]
    (call,) = kernel.calls(problem, schedule, cpu, arrays, None)
    pipeline = call.build()
    params = [source.param for source in pipeline.inputs]
    pipeline.output.compile_to_assembly(str(file), params, "f", hl.Target(f"{cpu.target}-no_runtime"))
    return file.read_text()


@pytest.mark.parametrize(
    ("cpu", "x", "weight", "instructions"),
    [
        (VNNI, "u8", W8, {"vpdpbusd"}),
        (VNNI, "s8", W8, {"vpdpbusd"}),
        (VNNI, "s16", W8, {"vpdpwssd"}),
        (AVX2, "u7", W8, {"vpmaddubsw", "vpmaddwd"}),
        (AVX2, "u8", W8, {"vpmaddwd"}),
        (AVX512, "s8", W8, {"vpmaddwd"}),
        (DOT, "u8", W8, {"sdot"}),
        (DOT, "s8", W8, {"sdot"}),
    ],
)
def test_instructions_are_found(cpu: Cpu, x: str, weight: FixedPoint, instructions: set[str], tmp_path: Path) -> None:
    """And nothing else multiplies."""
    types = TensorType((1, 16, 8, 8), fixed(x, 0), CHANNELS_LAST), TensorType((32, 16, 3, 3), weight)
    problem = Problem(Conv2d(), types, TensorType((1, 32, 6, 6), fixed("s8", -6), CHANNELS_LAST))
    text = assembly(problem, cpu, tmp_path / "code.s")
    # Of vectors, of x86-64 and Arm; addresses are computed with others.
    found = re.findall(r"\bvpmadd\w+|\bvpmul\w+|\bvpdp\w+|\b[su]dot\b|\b[su]m(?:ul|la)l\w*\b|\bmla\b", text)
    assert set(found) == instructions
