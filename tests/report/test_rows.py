"""Inputs cut into what a network takes at a time, and inputs that do not fit."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from netopt.errors import InvalidArgument
from netopt.graph.graph import Graph, GraphBuilder
from netopt.numerics import INT64
from netopt.ops import TensorType
from netopt.report.rows import Rows

_TOKENS = torch.zeros(2, dtype=torch.int64)


def _graph(*types: TensorType) -> Graph:
    builder = GraphBuilder()
    builder.inputs = builder.outputs = tuple(f"x{index}" for index in range(len(types)))
    builder.types = dict(zip(builder.inputs, types, strict=True))
    return builder.finish()


def test_runs_in_order_and_what_is_left() -> None:
    rows = Rows(_graph(TensorType((2, 3))), [torch.arange(15.0).reshape(5, 3)])
    assert (rows.runs, rows.left) == (2, 1)
    assert [[tensor.tolist() for tensor in run] for run in rows] == [
        [[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]],
        [[[6.0, 7.0, 8.0], [9.0, 10.0, 11.0]]],
    ]


def test_inputs_of_several_sizes_and_a_scalar() -> None:
    graph = _graph(TensorType((1, 2)), TensorType((3,)), TensorType(()))
    rows = Rows(graph, [torch.zeros(2, 2), torch.arange(6.0), torch.tensor(7.0)])
    assert [[tuple(tensor.shape) for tensor in run] for run in rows] == [[(1, 2), (3,), ()]] * 2
    assert list(rows)[1][1].tolist() == [3.0, 4.0, 5.0]


def test_scalars_alone_are_one_run() -> None:
    rows = Rows(_graph(TensorType(())), [torch.tensor(1.0)])
    assert rows.runs == len(list(rows)) == 1


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([torch.zeros(2, 3)], "inputs: expected a tensor for each of x0, x1, found 1 tensors"),
        ([torch.zeros(2, 4), _TOKENS], r"'x0': expected shape \(2 or more, 3\), found \(2, 4\)"),
        ([torch.zeros(1, 3), _TOKENS], r"'x0': expected shape \(2 or more, 3\), found \(1, 3\)"),
        ([torch.zeros(3), _TOKENS], r"'x0': expected shape"),
        ([torch.zeros(2, 3), torch.zeros(2)], "'x1': expected dtype torch.int64, found torch.float32"),
        ([torch.zeros(4, 3), _TOKENS[:1]], "rows for as many runs in each, found for 2 and 1 runs"),
    ],
)
def test_what_does_not_fit_is_refused(tensors: Sequence[torch.Tensor], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Rows(_graph(TensorType((2, 3)), TensorType((1,), INT64)), tensors)


def test_a_scalar_is_no_row() -> None:
    with pytest.raises(InvalidArgument, match=r"'x0': expected shape \(\), found \(1,\)"):
        Rows(_graph(TensorType(())), [torch.zeros(1)])
