from __future__ import annotations

import pytest
import torch

from netopt.graph import Graph, interpret, verify
from netopt.graph.graph import GraphBuilder
from netopt.graph.passes.choose_layouts import choose_layouts
from netopt.graph.passes.use_winograd import use_winograd
from netopt.ops import Conv2d, Op, Pointwise, TensorType, Winograd2d
from netopt.ops.winograd2d import transform_weight

PADDING = (1, 1, 1, 1)


def graph_of(op: Conv2d, kernel: tuple[int, int] = (3, 3), *, constant: bool = True) -> Graph:
    b = GraphBuilder()
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 4 // op.groups, *kernel, generator=generator)
    b.inputs, b.types = ("x",), {"x": TensorType((1, 4, 9, 10))}
    if constant:
        w = b.add_constant("w", weight)
    else:
        b.inputs, b.types["w"] = ("x", "w"), TensorType(tuple(weight.shape))
        w = "w"
    bias = b.add_constant("b", torch.randn(8, generator=generator))
    b.outputs = (b.add_node(op, ("x", w, bias), "y", "layer"),)
    return b.finish()


def always(tile: int) -> object:
    def choose(op: Conv2d, *_: object) -> Op:
        return Winograd2d(tile, op.padding, op.has_bias, op.has_residual, op.activation)

    return lambda _: choose


@pytest.mark.parametrize("tile", [2, 4])
def test_a_3x3_convolution_is_replaced_and_its_weight_transformed(tile: int) -> None:
    graph = graph_of(Conv2d(padding=PADDING, has_bias=True, activation=Pointwise("relu")))
    changed = use_winograd(graph, always(tile))  # type: ignore[arg-type]
    verify(changed)
    (node,) = changed.nodes
    assert node.op == Winograd2d(tile, PADDING, True, False, Pointwise("relu"))
    assert node.inputs == ("x", f"w_winograd{tile}", "b")
    assert torch.equal(changed.constants[node.inputs[1]], transform_weight(graph.constants["w"], tile))
    assert "w" not in changed.constants
    x = torch.randn(1, 4, 9, 10)
    (before,), (after,) = (interpret(g, [x], dtype=torch.float64) for g in (graph, changed))
    # What rounding the transformed weights to float32 leaves.
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("op", "kernel"),
    [
        (Conv2d((2, 2), PADDING, has_bias=True), (3, 3)),
        (Conv2d((1, 1), PADDING, (2, 2), has_bias=True), (3, 3)),
        (Conv2d((1, 1), PADDING, (1, 1), 2, True), (3, 3)),
        (Conv2d(has_bias=True), (1, 1)),
        (Conv2d(has_bias=True), (3, 1)),
    ],
)
def test_others_are_not_even_asked_about(op: Conv2d, kernel: tuple[int, int]) -> None:
    def refuse(*_: object) -> Op:
        raise AssertionError("asked")

    graph = graph_of(op, kernel)
    assert str(use_winograd(graph, lambda _: refuse)) == str(graph)


def test_a_computed_weight_cannot_be_transformed() -> None:
    graph = graph_of(Conv2d(has_bias=True), constant=False)
    assert str(use_winograd(graph, always(2))) == str(graph)  # type: ignore[arg-type]


def test_the_chooser_decides() -> None:
    graph = graph_of(Conv2d(padding=PADDING, has_bias=True))
    assert str(use_winograd(graph, lambda _: lambda op, inputs, output: op)) == str(graph)


def test_the_halo_holds_what_the_last_tiles_read() -> None:
    graph = choose_layouts(use_winograd(graph_of(Conv2d(padding=PADDING, has_bias=True)), always(4)))  # type: ignore[arg-type]
    assert graph.types["x"].layout.halo == (1, 4, 1, 3)
