"""Arithmetic on codes: the float64 reference, rounded once, whatever the formats."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.numerics import FLOAT32, Affine, CodeFormat, NumberFormat
from netopt.ops import CHANNELS_LAST, ROW_MAJOR, Arithmetic, Layout
from netopt.ops.arithmetic import OF_NUMBERS
from tests.kernels.codes import KINDS, assert_exact, exact, fixed, random_codes
from tests.kernels.harness import run_kernel

HALO = Layout(True, (1, 2, 0, 1))
kinds = st.sampled_from([*KINDS])
SHAPES = [((2, 3, 5, 33), (2, 3, 5, 33)), ((2, 3, 4, 5), (3, 1, 1)), ((1, 5), (4, 1)), ((40,), ())]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    function=st.sampled_from(OF_NUMBERS),
    one=st.builds(fixed, kinds, st.integers(-8, 40)),
    other=kinds,
    apart=st.integers(-20, 20),
    written=kinds,
    to=st.integers(-12, 12),
    shapes=st.sampled_from(SHAPES),
    seed=st.integers(0, 99),
    extreme=st.booleans(),
)
def test_codes_of_any_positions(
    function: str,
    one: CodeFormat,
    other: str,
    apart: int,
    written: str,
    to: int,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    seed: int,
    extreme: bool,
) -> None:
    position = -round(torch.tensor(one.steps[0]).log2().item())
    # Of products the positions add up: one near that has codes that are neither 0 nor the last.
    near = {"mul": 2 * position + apart, "prelu": position, "div": -apart}.get(function, position)
    formats = [one, fixed(other, position + apart)]
    codes = [random_codes(shapes[i], formats[i], seed + i, extreme=extreme) for i in (0, 1)]
    assert_exact(Arithmetic(function), codes, formats, fixed(written, max(-112, min(125, near + to))))


@pytest.mark.parametrize("function", OF_NUMBERS)
@pytest.mark.parametrize("written", [fixed("s8", 3), fixed("s16", 30), fixed("u7", -2)], ids=str)
def test_every_pair_of_bytes(function: str, written: CodeFormat) -> None:
    s8, u8 = fixed("s8", 2), fixed("u8", 4)
    codes = [torch.arange(-128, 128).to(torch.int8).reshape(256, 1), torch.arange(256).to(torch.uint8)]
    assert_exact(Arithmetic(function), codes, [s8, u8], written)


@pytest.mark.parametrize("function", OF_NUMBERS)
def test_affine_codes_and_floats_beside_codes(function: str) -> None:
    affine, s8 = Affine(8, 0.3125, 7, signed=False), fixed("s8", 3)
    numbers = torch.randn(1, 5, 1, 1, generator=torch.Generator().manual_seed(1))
    shape = (2, 5, 3, 4)
    pairs: list[tuple[torch.Tensor, NumberFormat, torch.Tensor, NumberFormat]] = [
        (random_codes(shape, affine, 1), affine, random_codes(shape, affine, 2), affine),
        (random_codes(shape, affine, 3), affine, random_codes(shape, s8, 4), s8),
        (random_codes(shape, s8, 5), s8, numbers, FLOAT32),
        (numbers, FLOAT32, random_codes(shape, affine, 6), affine),
    ]
    for x, read, y, other in pairs:
        for written in (affine, fixed("s8", 1), Affine(16, 0.0078125, -300)):
            for layout in (ROW_MAJOR, HALO):
                # One pixel lies in memory as it does in any layout.
                layouts = [layout if value.shape == shape else ROW_MAJOR for value in (x, y)]
                assert_exact(Arithmetic(function), [x, y], [read, other], written, layouts=layouts, output=layout)


def test_sums_saturate_and_halves_go_up() -> None:
    s8 = fixed("s8", 0)
    low = torch.tensor([-128, 127, -3, 3, -1], dtype=torch.int8)
    assert assert_exact(Arithmetic("add"), [low, low], [s8, s8], s8).tolist() == [-128, 127, -6, 6, -2]
    # In units of 4: -256, 254, -6, 6, -2 are -64, 63.5, -1.5, 1.5, -0.5 of them.
    found = assert_exact(Arithmetic("add"), [low, low], [s8, s8], fixed("s8", -2))
    assert found.tolist() == [-64, 64, -1, 2, 0]
    # In units of 1/4 nearly all is beyond the codes.
    assert assert_exact(Arithmetic("add"), [low, low], [s8, s8], fixed("s8", 2)).tolist() == [-128, 127, -24, 24, -8]


def test_quotients_by_zero_saturate_and_none_is_zero() -> None:
    s8 = fixed("s8", 0)
    x, y = torch.tensor([5, -5, 0], dtype=torch.int8), torch.zeros(3, dtype=torch.int8)
    assert assert_exact(Arithmetic("div"), [x, y], [s8, s8], s8).tolist() == [127, -128, 0]


@pytest.mark.parametrize("layouts", [(CHANNELS_LAST, HALO), (HALO, CHANNELS_LAST), (ROW_MAJOR, HALO)])
def test_images_in_other_layouts(layouts: tuple[Layout, Layout]) -> None:
    s8, u7 = fixed("s8", 4), fixed("u7", 6)
    codes = [random_codes((2, 37, 4, 3), s8, 1), random_codes((2, 37, 4, 3), u7, 2)]
    assert_exact(Arithmetic("add"), codes, [s8, u7], s8, layouts=layouts, output=HALO)


def test_in_place_over_codes_of_another_kind() -> None:
    s8, u8 = fixed("s8", 4), fixed("u8", 5)
    codes = [random_codes((100,), s8, 1), random_codes((100,), u8, 2)]
    for operand in (0, 1):
        assert_exact(Arithmetic("sub"), codes, [s8, u8], s8, in_place=operand)


def test_the_floats_of_codes() -> None:
    """Exact here, where float32 holds every sum and product."""
    s8, u7 = fixed("s8", 4), fixed("u7", 6)
    codes = [random_codes((50,), s8, 1), random_codes((50,), u7, 2)]
    for function in ("add", "sub", "mul", "maximum", "minimum"):
        found = run_kernel(Arithmetic(function), codes, formats=[s8, u7])
        assert torch.equal(found, exact(Arithmetic(function), codes, [s8, u7], FLOAT32))
