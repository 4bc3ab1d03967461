"""Padding in every mode, around images in every layout and row-major."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netopt.ops import CHANNELS_LAST, ROW_MAJOR, Layout, Pad
from netopt.ops.pad import MODES
from tests.kernels.harness import run_kernel
from tests.kernels.images import A, places, quick, randn

sizes = st.tuples(st.integers(0, 3), st.integers(0, 3))


@quick
@given(
    mode=st.sampled_from(MODES),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 35), st.integers(4, 7), st.integers(4, 7)),
    before=sizes,
    after=sizes,
    source=places | st.just(ROW_MAJOR),
    target=places | st.just(ROW_MAJOR),
)
def test_images(
    mode: str,
    shape: tuple[int, ...],
    before: tuple[int, int],
    after: tuple[int, int],
    source: Layout,
    target: Layout,
) -> None:
    if target == ROW_MAJOR:
        source = ROW_MAJOR
    op = Pad(mode, (0, 0, *before), (0, 0, *after), 2.5 if mode == "constant" else 0.0)
    x = randn(*shape)
    assert torch.equal(run_kernel(op, [x], layouts=[source], output=target), op.reference(x))


@pytest.mark.parametrize("target", [ROW_MAJOR, CHANNELS_LAST, A])
@pytest.mark.parametrize("value", [0.0, -1.5, float("-inf")])
def test_a_constant_around_every_axis(target: Layout, value: float) -> None:
    op, x = Pad("constant", (1, 3, 0, 2), (0, 17, 2, 1), value), randn(2, 20, 3, 5)
    source = CHANNELS_LAST if target.channels_last else ROW_MAJOR
    assert torch.equal(run_kernel(op, [x], layouts=[source], output=target), op.reference(x))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rank", [1, 2, 3, 5])
def test_tensors_of_any_rank(mode: str, rank: int) -> None:
    shape = (3, 4, 3, 5, 37)[-rank:]
    op, x = Pad(mode, (0, 1, 0, 2, 3)[-rank:], (0, 0, 2, 1, 2)[-rank:]), randn(*shape)
    assert torch.equal(run_kernel(op, [x]), op.reference(x))


def test_nan_is_passed_on() -> None:
    x = torch.full((1, 2, 3, 3), float("nan"))
    result = run_kernel(Pad("constant", (0, 0, 1, 1), (0, 0, 1, 1)), [x], layouts=[A], output=CHANNELS_LAST)
    assert result.isnan().sum() == x.numel()
