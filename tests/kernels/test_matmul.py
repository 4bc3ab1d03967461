"""The product of computed tensors: broadcast batches, views, output axes, every schedule, against `reference`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.graph import Graph, Node
from netopt.kernels.machine.cpu import host_cpu
from netopt.kernels.machine.kernel import Schedule
from netopt.kernels.registry import KERNELS
from netopt.ops import Matmul, TensorType, View
from tests.kernels.harness import problem_of, run_kernel
from tests.tolerance import assert_within, judge


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_matches(
    op: Matmul, inputs: Sequence[torch.Tensor], schedule: Schedule | None = None, threads: int = 1
) -> None:
    types = {f"x{i}": TensorType(tuple(x.shape)) for i, x in enumerate(inputs)}
    types["y"] = op.infer(list(types.values()))
    graph = Graph(("x0", "x1"), ("y",), (Node(op, ("x0", "x1"), "y", ""),), types, {})
    (expected,) = judge(graph, inputs)
    assert_within(run_kernel(op, inputs, schedule=schedule, threads=threads), expected)


@settings(max_examples=25, derandomize=True, deadline=None)
@given(st.data())
def test_any_sizes_and_broadcasts(data: st.DataObject) -> None:
    m, k, n = (data.draw(st.integers(1, 70)) for _ in range(3))
    batch = data.draw(st.lists(st.integers(1, 3), max_size=2))
    first = [data.draw(st.sampled_from([1, size])) for size in batch]
    second = [1 if data.draw(st.booleans()) else size for size in batch][data.draw(st.integers(0, len(batch))) :]
    assert_matches(Matmul(0.3), [randn(*first, m, k), randn(*second, k, n, seed=1)])


# Queries, keys and values of 3 heads of 8 dimensions in one matrix, (batch, tokens, 3 x 3 x 8).
TOKENS = 37
STRIDES = (TOKENS * 72, 8, 72, 1)
QUERY = View((2, 3, TOKENS, 8), STRIDES)
KEY = View((2, 3, 8, TOKENS), (TOKENS * 72, 8, 1, 72), 24)
VALUE = View((2, 3, TOKENS, 8), STRIDES, 48)


def test_attention_reads_heads_where_they_lie() -> None:
    qkv = randn(2, TOKENS, 72)
    assert_matches(Matmul(8**-0.5, QUERY, KEY), [qkv, qkv])
    assert_matches(Matmul(1.0, None, VALUE, (0, 2, 1, 3)), [randn(2, 3, TOKENS, TOKENS), qkv])
    q, k, v = (part.transpose(1, 2) for part in qkv.reshape(2, TOKENS, 3, 3, 8).unbind(2))
    scores = run_kernel(Matmul(8**-0.5, QUERY, KEY), [qkv, qkv])
    y = run_kernel(Matmul(1.0, None, VALUE, (0, 2, 1, 3)), [scores.softmax(-1), qkv])
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)  # two ways of float32


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1)])
def test_output_axes(axes: tuple[int, ...]) -> None:
    assert_matches(Matmul(axes=axes), [randn(3, 5, 7), randn(3, 7, 19, seed=1)])


def test_a_view_that_broadcasts_steps_and_begins_within() -> None:
    first, second = View((3, 5, 4), (0, 12, 2), 1), View((4, 20), (1, 4))
    assert_matches(Matmul(1.0, first, second), [randn(5, 12), randn(20, 4, seed=1)])


@pytest.mark.parametrize(("rows", "inputs", "columns"), [(1, 33, 50), (3, 20, 17), (29, 40, 70), (50, 6, 1)])
def test_every_schedule(rows: int, inputs: int, columns: int) -> None:
    tensors = [randn(2, rows, inputs), randn(2, inputs, columns, seed=1)]
    table = KERNELS[Matmul].schedules(problem_of(Matmul(), tensors), host_cpu())
    assert len({str(schedule) for schedule in table}) == len(table) >= 2
    for schedule in table[::3]:
        assert_matches(Matmul(), tensors, schedule)


@pytest.mark.parametrize("batch", [1, 5])
def test_several_threads(batch: int) -> None:
    tensors = [randn(batch, 60, 50), randn(batch, 50, 150, seed=1)]
    assert_matches(Matmul(), tensors, threads=2)
    assert torch.equal(run_kernel(Matmul(), tensors, threads=2), run_kernel(Matmul(), tensors))


def test_a_panel_too_large_for_the_stack() -> None:
    assert_matches(Matmul(), [randn(40, 2100), randn(2100, 20, seed=1)])


def test_nan_stays_nan() -> None:
    x, y = randn(20, 9), randn(9, 21, seed=1)
    x[3, 4] = math.nan
    y[2, 20] = math.nan
    assert torch.equal(run_kernel(Matmul(), [x, y]).isnan(), (x @ y).isnan())
