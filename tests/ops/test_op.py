"""What ops tell of themselves, against what their references compute."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from netopt.numerics import FLOAT32
from netopt.ops import (
    OPS,
    ROW_MAJOR,
    Affine,
    Arithmetic,
    Conv2d,
    ConvTranspose2d,
    Dense,
    LayerNorm,
    Layouts,
    Matmul,
    Op,
    Pointwise,
    Pool2d,
    Reshape,
    Softmax,
    TensorType,
    View,
)
from netopt.ops.epilogue import EpilogueOp

CUT = range(1, 4, 2)


def tensors(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def types(values: list[torch.Tensor]) -> list[TensorType]:
    return [TensorType(tuple(value.shape)) for value in values]


def part_of(value: torch.Tensor, axis: int) -> torch.Tensor:
    return value.index_select(axis, torch.tensor(list(CUT)))


def test_the_defaults_are_safe() -> None:
    op: Op = Softmax(0)
    (x,) = types(tensors((2, 4)))
    assert (op.layouts, op.formats, op.wanted_layout(0, [x], x)) == (Layouts.ROW_MAJOR, (FLOAT32,), ROW_MAJOR)
    assert not (op.elementwise or op.rearranges or op.keeps_format or op.has_strides or op.is_identity([x]))
    ends = op.with_activation(Pointwise("relu")), op.with_residual(), op.with_scale(2.0), op.with_padding((1, 1, 1, 1))
    assert set(ends) == {None}
    assert (op.constant_operands([x]), op.in_place_operands([x]), op.halo_read([x])) == ((), (), (0, 0, 0, 0))


@pytest.mark.parametrize(
    ("op", "shapes", "axis", "axes"),
    [
        (Pointwise("gelu"), [(4, 5)], 0, (0,)),
        (Arithmetic("mul"), [(3, 4, 5), (4, 1)], 1, (1, 0)),
        (Arithmetic("mul"), [(3, 4, 5), (5,)], 1, (1, None)),
        (Arithmetic("mul"), [(3, 1, 5), (3, 4, 5)], 1, (None, 1)),
        (Softmax(1), [(4, 5)], 0, (0,)),
        (Softmax(0), [(4, 5)], 0, None),
        (LayerNorm(1, 1e-5), [(3, 4, 5), (5,), (5,)], 1, (1, None, None)),
        (LayerNorm(2, 1e-5), [(3, 4, 5), (4, 5), (4, 5)], 1, None),
        (Dense(True, True), [(4, 5), (6, 5), (6,), (4, 6)], 0, (0, None, None, 0)),
        (Dense(), [(4, 5), (4, 5)], 1, None),
        (Matmul(), [(3, 4, 5), (5, 6)], 1, (1, None)),
        (Matmul(axes=(1, 0, 2)), [(3, 4, 5), (5, 6)], 0, (1, None)),
        (Matmul(), [(4, 5), (3, 5, 6)], 1, (0, None)),
        (Matmul(), [(3, 4, 5), (5, 6)], 2, None),
        (Matmul(first=View((2, 4, 3), (12, 1, 4))), [(24,), (3, 5)], 1, (None, None)),
        (Reshape((3, 4, 6)), [(3, 4, 2, 3)], 1, (1,)),
        (Reshape((4, 18)), [(3, 4, 2, 3)], 0, None),
        (Conv2d(), [(1, 3, 4, 4), (4, 3, 1, 1)], 2, None),
    ],
    ids=lambda value: value.name if isinstance(value, Op) else None,
)
def test_a_part_is_computed_from_parts(
    op: Op, shapes: list[tuple[int, ...]], axis: int, axes: tuple[int | None, ...] | None
) -> None:
    inputs = tensors(*shapes)
    assert op.parallel_axes(axis, types(inputs)) == axes
    if axes is None:
        return
    parts = [value if own is None else part_of(value, own) for value, own in zip(inputs, axes, strict=True)]
    result = op.of_part(axis, CUT).reference(*parts)
    torch.testing.assert_close(result, part_of(op.reference(*inputs), axis))


LAYERS: list[tuple[EpilogueOp, tuple[int, ...], tuple[int, ...]]] = [
    (Dense(True), (3, 4), (6, 4)),
    (Conv2d(has_bias=True), (2, 4, 5, 5), (6, 4, 3, 3)),
    (Conv2d(padding=(1, 1, 1, 1), groups=2, has_bias=True), (2, 4, 5, 5), (6, 2, 3, 3)),
    (ConvTranspose2d((2, 2), groups=2, has_bias=True), (2, 4, 5, 5), (4, 3, 2, 2)),
]


@pytest.mark.parametrize(("op", "x", "weight"), LAYERS, ids=[f"{op.name}" for op, *_ in LAYERS])
def test_scales_and_shifts_fold_into_weights(op: EpilogueOp, x: tuple[int, ...], weight: tuple[int, ...]) -> None:
    """Before a layer, those that can take it: without padding and groups."""
    value, w, bias = inputs = tensors(x, weight, (6,))
    along = (-1, *[1] * (len(x) - 2))
    scale, shift = tensors((6,), (6,))
    after = op.fold_after(Affine(scale, shift), w, bias, types(inputs))
    assert after is not None
    expected = scale.reshape(along) * op.reference(*inputs) + shift.reshape(along)
    torch.testing.assert_close(op.reference(value, *after), expected)
    scale, shift = scale[:4], shift[:4]
    before = op.fold_before(Affine(scale, shift), w, bias, types(inputs))
    assert (before is not None) == (op in (Dense(True), Conv2d(has_bias=True)))
    if before is not None:
        expected = op.reference(scale.reshape(along) * value + shift.reshape(along), w, bias)
        torch.testing.assert_close(op.reference(value, *before), expected)


@pytest.mark.parametrize(("op", "x", "weight"), LAYERS, ids=[f"{op.name}" for op, *_ in LAYERS])
def test_nothing_folds_past_what_a_layer_does_after_its_sum(
    op: EpilogueOp, x: tuple[int, ...], weight: tuple[int, ...]
) -> None:
    inputs = tensors(x, weight, (6,))
    affine = Affine(*tensors((6,), (6,)))
    for fused in (op.with_activation(Pointwise("relu")), op.with_residual()):
        assert fused is not None
        assert fused.fold_after(affine, *inputs[1:], types(inputs)) is None
        assert fused.with_residual() is None


def test_channels_of_rows_are_permuted_with_the_weight() -> None:
    x, weight = inputs = tensors((3, 4), (6, 4))
    order = torch.tensor([2, 0, 3, 1])
    ordered = Dense().permute_channels(order, weight, types(inputs))
    assert ordered is not None
    torch.testing.assert_close(Dense().reference(x[:, order], ordered), Dense().reference(x, weight))


@pytest.mark.parametrize(
    ("op", "weights", "pads"),
    [
        (Conv2d(padding=(1, 0, 0, 1)), [(2, 4, 3, 3)], True),
        (Pool2d("average", (2, 2), (1, 1)), [], True),
        (Pool2d("average", (2, 2), (1, 1), (1, 1, 1, 1)), [], False),
        (Pool2d("average_of_all", (2, 2), (1, 1), (1, 1, 1, 1)), [], True),
        (Pool2d("sum", (2, 2), (2, 2)), [], True),
        (Pool2d("max", (2, 2), (1, 1)), [], False),
    ],
    ids=lambda value: value.label if isinstance(value, Op) else None,
)
def test_zeros_around_an_image_become_padding(op: Op, weights: list[tuple[int, ...]], pads: bool) -> None:
    x, *rest = tensors((2, 4, 6, 6), *weights)
    padded = op.with_padding((1, 2, 0, 1))
    assert (padded is not None) == pads
    if padded is not None:
        torch.testing.assert_close(padded.reference(x, *rest), op.reference(F.pad(x, (0, 1, 1, 2)), *rest))


def test_ops_on_images_lie_so_and_elementwise_ops_lie_in_any_layout() -> None:
    images = {name for name, op in OPS.items() if op.layouts is Layouts.IMAGES}
    assert {"conv2d", "pool2d", "resize", "winograd2d"} < images
    assert all(op.layouts is Layouts.ANY for op in OPS.values() if op.elementwise)
