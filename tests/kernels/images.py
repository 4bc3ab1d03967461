"""What the tests of kernels for images share: layouts, and one op against its judged reference."""

from __future__ import annotations

import torch
from hypothesis import settings
from hypothesis import strategies as st

from netopt.ops import Layout, Op
from tests.kernels.harness import run_kernel
from tests.tolerance import assert_within, judge_op

quick = settings(max_examples=25, derandomize=True, deadline=None)
# Beside each other, or among the channels of a wider image; the tests have up to 64 channels.
places = st.tuples(st.tuples(*[st.integers(0, 2)] * 4), st.sampled_from([0, 70])).map(
    lambda pair: Layout(True, pair[0], pair[1])
)
A, B = Layout(True, (1, 0, 2, 0)), Layout(True, (0, 1, 1, 1))
C, D = Layout(True, (0, 0, 0, 0), 70), Layout(True, (1, 0, 0, 2), 81)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_matches(op: Op, tensors: list[torch.Tensor], layouts: list[Layout], output: Layout) -> None:
    assert_within(run_kernel(op, tensors, layouts=layouts, output=output), judge_op(op, tensors))
