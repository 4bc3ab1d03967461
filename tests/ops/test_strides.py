"""Strides against PyTorch's own views."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.ops import Expand, Op, Permute, Relayout, Reshape, Slice
from netopt.ops.strides import Strides, merge


def _draw_op(data: st.DataObject, shape: tuple[int, ...]) -> Op:
    match data.draw(st.sampled_from(["permute", "reshape", "slice", "expand"])):
        case "permute":
            return Permute(tuple(data.draw(st.permutations(range(len(shape))))))
        case "reshape":
            factors = [factor for size in shape for factor in ((2, 2) if size == 4 else (size,))]
            cuts = sorted(data.draw(st.lists(st.integers(0, len(factors)), max_size=3)))
            groups = [factors[a:b] for a, b in zip([0, *cuts], [*cuts, len(factors)], strict=True)]
            return Reshape(tuple(int(torch.Size(group).numel()) for group in groups))
        case "slice":
            axis = data.draw(st.integers(0, len(shape) - 1))
            start = data.draw(st.integers(0, shape[axis] - 1))
            return Slice(axis, start, data.draw(st.integers(start + 1, shape[axis])), data.draw(st.integers(1, 2)))
        case _:
            return Expand((*data.draw(st.sampled_from([(), (2,)])), *(size if size > 1 else 3 for size in shape)))


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.data())
def test_a_view_reads_what_the_ops_compute(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=4)))
    x = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    y, strides = x, Strides.whole(shape)
    for _ in range(data.draw(st.integers(1, 4))):
        op = _draw_op(data, tuple(y.shape))
        y = op.reference(y)
        after = op.strided(strides)
        if after is None:
            return  # no strides: what reads it in place is elsewhere
        strides = after
        assert strides.shape == tuple(y.shape)
    view = strides.view()
    if view is not None:
        assert torch.equal(view.of(x), y)


def test_a_merged_axis_can_be_taken_apart_again() -> None:
    """As nn.MultiheadAttention does: (tokens, batch, heads x dim) -> (batch x heads, tokens, dim) and back."""
    strides: Strides | None = Strides.whole((4, 2, 6))
    for op in (Reshape((4, 6, 2)), Permute((1, 0, 2)), Reshape((2, 3, 4, 2))):
        assert strides is not None
        strides = op.strided(strides)
    assert strides is not None
    view = strides.view()
    assert view is not None
    assert (view.shape, view.strides) == ((2, 3, 4, 2), (6, 2, 12, 1))


def test_what_has_no_strides() -> None:
    turned = Permute((1, 0)).strided(Strides.whole((2, 3)))
    assert turned is not None
    flat = Reshape((6,)).strided(turned)
    assert flat is not None
    assert flat.view() is None
    assert Slice(0, 0, 2).strided(flat) is None
    assert Reshape((2, 3)).strided(flat) is None  # 3 x 2 that lie as 2 x 3 have no third
    assert Relayout().strided(flat) is None


def test_parts_that_follow_each_other_are_one() -> None:
    assert merge(((2, 12), (3, 4), (4, 1))) == ((24, 1),)
    assert merge(((2, 12), (3, 3))) == ((2, 12), (3, 3))
