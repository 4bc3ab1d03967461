from __future__ import annotations

import pytest
import torch
from torch import nn

import netopt
from netopt.errors import InvalidArgument
from netopt.graph import Graph
from netopt.graph.graph import GraphBuilder, Node
from netopt.numerics import BFLOAT16, FLOAT32, INT32, INT64, SIGN_BITS, SIGNS, FixedPoint, NumberFormat
from netopt.ops import (
    BatchNorm,
    BinaryDense,
    Cast,
    Dense,
    Gather,
    Op,
    Permute,
    Pointwise,
    Reshape,
    Slice,
    Softmax,
    TensorType,
)
from netopt.program.checks import check_kernels, has_kernel, index_range


def _builder(format_: NumberFormat | None = None) -> GraphBuilder:
    """A graph of x (3, 4)."""
    builder = GraphBuilder()
    builder.inputs = ("x",)
    builder.types = {"x": TensorType((3, 4), format_) if format_ else TensorType((3, 4))}
    return builder


def test_every_node_but_a_view_has_a_kernel() -> None:
    builder = _builder()
    builder.add_node(Pointwise("relu"), ("x",), "r", "")
    builder.outputs = (builder.add_node(Reshape((12,)), ("r",), "y", ""),)
    graph = builder.finish()
    assert [has_kernel(node, graph) for node in graph.nodes] == [True, False]
    check_kernels(graph)


def test_an_op_that_no_kernel_computes() -> None:
    builder = _builder()
    constants = tuple(builder.add_constant(name, torch.ones(4)) for name in ("w", "b", "m", "v"))
    builder.outputs = (builder.add_node(BatchNorm(1e-5), ("x", *constants), "y", "norm"),)
    with pytest.raises(netopt.UnsupportedModel, match="layer 'norm': op 'batch_norm' has no kernel: expected one of"):
        check_kernels(builder.finish())


def test_a_weight_that_is_computed() -> None:
    builder = _builder()
    builder.add_node(Pointwise("relu"), ("x",), "w", "")
    builder.outputs = (builder.add_node(Dense(), ("x", "w"), "y", "fc"),)
    with pytest.raises(netopt.UnsupportedModel, match=r"layer 'fc': .*weight or bias is computed.*fallback=True"):
        check_kernels(builder.finish())


@pytest.mark.parametrize("format_", [FLOAT32, BFLOAT16])
def test_kernels_of_thresholds_write_signs_alone(format_: NumberFormat) -> None:
    builder = _builder(SIGNS)
    weight = builder.add_constant("w", torch.ones(5, 4, dtype=torch.int8), SIGN_BITS)
    threshold = builder.add_constant("t", torch.ones(5, dtype=torch.int32), INT32)
    builder.outputs = (builder.add_node(BinaryDense(True), ("x", weight, threshold), "y", "fc"),)
    builder.types["y"] = TensorType((3, 5), SIGNS)
    check_kernels(builder.finish())
    builder.types["y"] = TensorType((3, 5), format_)
    message = rf"layer 'fc': value 'y': expected sign, found {format_.name}"
    with pytest.raises(netopt.UnsupportedModel, match=message):
        check_kernels(builder.finish())


@pytest.mark.parametrize(
    ("format_", "softmax", "value"), [(BFLOAT16, True, "x"), (FixedPoint(8, 4), True, "x"), (BFLOAT16, False, None)]
)
def test_formats_that_no_kernel_reads(format_: NumberFormat, softmax: bool, value: str | None) -> None:
    builder = _builder(format_)
    builder.outputs = ("y",)
    op = Softmax(1, False) if softmax else Pointwise("relu")
    builder.nodes.append(Node(op, ("x",), "y", "last"))
    builder.types["y"] = TensorType((3, 4))
    if value is None:
        check_kernels(builder.finish())
        return
    message = rf"layer 'last': value '{value}': expected float32, found {format_.name}"
    with pytest.raises(netopt.UnsupportedModel, match=message):
        check_kernels(builder.finish())


def _looking_up(rows: int, *moves: Op) -> Graph:
    """A table of so many rows, read at indices (2, 3) after some ops."""
    builder = GraphBuilder()
    builder.inputs, builder.types = ("ids",), {"ids": TensorType((2, 3), INT64)}
    table, name = builder.add_constant("table", torch.zeros(rows, 4)), "ids"
    for op in moves:
        name = builder.add_node(op, (name,), "moved", "")
    builder.outputs = (builder.add_node(Gather(), (table, name), "y", ""),)
    return builder.finish()


@pytest.mark.parametrize("moves", [(), (Reshape((6,)),), (Permute((1, 0)), Cast("int32"))], ids=str)
def test_indices_are_within_what_is_read(moves: tuple[Op, ...]) -> None:
    assert index_range(_looking_up(20, *moves), "ids") == range(-20, 20)


def test_what_is_cut_or_computed_is_not_checked() -> None:
    assert index_range(_looking_up(20, Slice(1, 0, 2)), "ids") is None
    assert index_range(_looking_up(20), "table") is None


@pytest.mark.parametrize(("index", "fits"), [(19, True), (-20, True), (20, False), (-21, False), (2**40, False)])
def test_a_program_refuses_indices_out_of_range(index: int, fits: bool) -> None:
    program = netopt.lower(nn.Embedding(20, 4), torch.tensor([0, 1]))
    if fits:
        assert program(torch.tensor([3, index])).shape == (2, 4)
        return
    with pytest.raises(InvalidArgument, match=rf"^input\[0\]: expected indices from -20 to 19, found {index}$"):
        program(torch.tensor([3, index]))
