"""Ops that move codes, or choose among them: as they are in one format, and rounded once into another."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.numerics import BOOL, FLOAT32, INT64, Affine, CodeFormat, NumberFormat
from netopt.ops import (
    CHANNELS_LAST,
    ROW_MAJOR,
    ChannelShuffle,
    Concat,
    Expand,
    Gather,
    Layout,
    Op,
    Pad,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Relayout,
    Resize,
    Slice,
    Where,
)
from tests.kernels.codes import KINDS, assert_exact, exact, fixed, random_codes
from tests.kernels.harness import run_kernel

HALO = Layout(True, (1, 2, 0, 1))
PITCH = Layout(True, (0, 1, 1, 0), 40)
AFFINE = Affine(8, 0.75, 9, signed=False)
# Ops of one image of shape (2, 12, 4, 6).
IMAGES: list[Op] = [
    Slice(1, 3, 9),
    Slice(3, 1, 6, 2),
    Slice(2, 1, 3),
    Pad("constant", (0, 0, 1, 2), (0, 0, 0, 1), 0.3),
    Pad("reflect", (0, 0, 1, 2), (0, 0, 0, 1)),
    Pad("circular", (0, 1, 0, 1), (0, 2, 0, 3)),
    ChannelShuffle(3),
    PixelShuffle(2),
    PixelUnshuffle(2),
    Resize("nearest", (8, 5), (0.5, 1.25)),
    Resize("nearest_exact", (3, 12), (1.25, 0.5)),
    Resize("bilinear", (8, 12), (0.5, 0.5)),
    Resize("bilinear", (7, 9), (0.5714285969734192, 0.6666666865348816)),
    Resize("bilinear_corners", (7, 9), (0.5, 0.625)),
    Relayout(),
]
ROWS: list[Op] = [
    Slice(1, 3, 9),
    Slice(3, 1, 6, 2),
    Pad("constant", (0, 0, 1, 2), (1, 0, 0, 1), -1e9),
    Pad("replicate", (0, 0, 1, 2), (0, 0, 0, 1)),
    ChannelShuffle(2),
    Permute((3, 1, 0, 2)),
    Permute((0, 2, 3, 1)),
    Expand((3, 2, 12, 4, 6)),
]
positions = st.integers(-8, 40)
kinds = st.sampled_from([*KINDS])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    op=st.sampled_from(IMAGES),
    kind=kinds,
    position=positions,
    layouts=st.tuples(*[st.sampled_from([CHANNELS_LAST, HALO, PITCH])] * 2),
    seed=st.integers(0, 99),
    extreme=st.booleans(),
)
def test_images_of_codes_of_one_format(
    op: Op, kind: str, position: int, layouts: tuple[Layout, Layout], seed: int, extreme: bool
) -> None:
    format_ = fixed(kind, position)
    codes = random_codes((2, 12, 4, 6), format_, seed, extreme=extreme)
    channels = {PixelShuffle: 3, PixelUnshuffle: 48}.get(type(op), 12)
    output = layouts[1] if channels < 40 else CHANNELS_LAST
    assert_exact(op, [codes], [format_], format_, layouts=[layouts[0]], output=output)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(op=st.sampled_from(ROWS), kind=kinds, position=positions, extreme=st.booleans())
def test_rows_of_codes_of_one_format(op: Op, kind: str, position: int, extreme: bool) -> None:
    format_ = fixed(kind, position)
    assert_exact(op, [random_codes((2, 12, 4, 6), format_, 1, extreme=extreme)], [format_], format_)


@pytest.mark.parametrize("op", IMAGES, ids=str)
def test_affine_codes_have_their_zero_in_halos_and_padding(op: Op) -> None:
    """What is outside the image is the number 0, which is the code 9; `assert_exact` compares the halo, too."""
    codes = random_codes((2, 12, 4, 6), AFFINE, 2)
    output = HALO if not isinstance(op, PixelUnshuffle) else CHANNELS_LAST
    assert_exact(op, [codes], [AFFINE], AFFINE, layouts=[HALO], output=output)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    op=st.sampled_from([Pad("constant", (0, 0, 1, 2), (0, 0, 0, 1), 0.3), PixelShuffle(2), IMAGES[9], *IMAGES[11:]]),
    read=st.builds(fixed, kinds, st.integers(-8, 40)),
    further=st.integers(-10, 10),
    written=kinds,
    seed=st.integers(0, 99),
)
def test_images_are_rounded_into_another_format(
    op: Op, read: CodeFormat, further: int, written: str, seed: int
) -> None:
    codes = random_codes((1, 12, 4, 6), read, seed)
    position = -round(torch.tensor(read.steps[0]).log2().item())
    assert_exact(op, [codes], [read], fixed(written, position + further), layouts=[HALO], output=HALO)


@pytest.mark.parametrize("affine", [AFFINE, Affine(16, 0.0029296875, -7)], ids=str)
@pytest.mark.parametrize("other", [fixed("s8", 3), fixed("u7", -1), Affine(8, 1.25, 3), FLOAT32], ids=str)
def test_affine_codes_become_others_and_come_back(affine: Affine, other: NumberFormat) -> None:
    codes = random_codes((1, 12, 4, 6), affine, 3)
    for op in (Relayout(), Pad("constant", (0, 0, 1, 0), (0, 0, 1, 0), 3.0), Resize("bilinear", (5, 9), (0.75, 0.625))):
        if isinstance(other, CodeFormat):
            assert_exact(op, [codes], [affine], other, layouts=[CHANNELS_LAST], output=HALO)
            given_ = random_codes((1, 12, 4, 6), other, 4)
        else:
            given_ = torch.randn(1, 12, 4, 6, generator=torch.Generator().manual_seed(0)) * 20
        if not (isinstance(op, Pad) and other == FLOAT32):
            assert_exact(op, [given_], [other], affine, layouts=[CHANNELS_LAST], output=HALO)


def test_padding_is_rounded_and_saturates() -> None:
    s8 = fixed("s8", 4)
    for value, code in ((0.03125, 1), (0.03, 0), (-0.03125, 0), (100.0, 127), (-100.0, -128), (float("inf"), 127)):
        pad = Pad("constant", (0, 1), (0, 0), value)
        found = assert_exact(pad, [torch.full((2, 3), 5, dtype=torch.int8)], [s8], s8)
        assert found[:, 0].tolist() == [code, code] and (found[:, 1:] == 5).all()


@pytest.mark.parametrize("layout", [ROW_MAJOR, CHANNELS_LAST, HALO])
@pytest.mark.parametrize("axis", [1, 3])
def test_parts_in_several_formats_are_put_together(layout: Layout, axis: int) -> None:
    """Each is rounded on its own."""
    formats: list[NumberFormat] = [fixed("s8", 3), fixed("u8", 5), fixed("s16", 9), AFFINE, FLOAT32]
    codes = [random_codes((1, 7, 3, 7), f, i) if isinstance(f, CodeFormat) else None for i, f in enumerate(formats)]
    tensors = [torch.linspace(-9, 9, 147).reshape(1, 7, 3, 7) if c is None else c for c in codes]
    for written in (fixed("s8", 3), fixed("u7", 2), fixed("s16", 10), AFFINE):
        layouts = [layout] * len(formats)
        assert_exact(Concat(axis), tensors, formats, written, layouts=layouts, output=layout)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(kind=kinds, position=positions, other=st.integers(-6, 6), seed=st.integers(0, 99))
def test_where_takes_codes_of_two_formats(kind: str, position: int, other: int, seed: int) -> None:
    one, two = fixed(kind, position), fixed("s8", position + other)
    condition = torch.rand(3, 1, 20, generator=torch.Generator().manual_seed(seed)) < 0.5
    codes = [random_codes((3, 5, 20), one, seed), random_codes((5, 1), two, seed + 1)]
    found = run_kernel(Where(), [condition, *codes], formats=[BOOL, one, two], output_format=one)
    numbers = [f.decode(c, torch.float64) for f, c in zip((one, two), codes, strict=True)]
    assert torch.equal(found.reshape(3, 5, 20), one.encode(torch.where(condition, *numbers)))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_gathered(axis: int, kind: str) -> None:
    format_, indices = fixed(kind, 4), torch.tensor([[0, -1, 3], [2, 2, 9]])
    codes = random_codes((6, 33), format_, 5)
    for written in (format_, fixed("s8", 2)):
        found = run_kernel(Gather(axis), [codes, indices], formats=[format_, INT64], output_format=written)
        numbers = Gather(axis).reference(format_.decode(codes, torch.float64), indices)
        assert torch.equal(found.reshape(numbers.shape), written.encode(numbers))


def test_the_exact_result_is_that_of_the_reference_rounded_once() -> None:
    """What all tests here compare with."""
    s8 = fixed("s8", 0)
    assert exact(Slice(0, 1, 3), [torch.tensor([1, -3, 5], dtype=torch.int8)], [s8], fixed("s8", -1)).tolist() == [
        -1,
        3,
    ]
