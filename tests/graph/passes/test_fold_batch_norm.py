from __future__ import annotations

import pytest
import torch

from netopt.errors import UnsupportedModel
from netopt.graph import Graph, Node, interpret, verify
from netopt.graph.graph import GraphBuilder
from netopt.graph.passes.fold_batch_norm import fold_batch_norm
from netopt.ops import Arithmetic, BatchNorm, Conv2d, ConvTranspose2d, Dense, Permute, Pointwise, Reshape, TensorType

RELU, ADD = Pointwise("relu"), Arithmetic("add")
WIDTH = 5


def _normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Builder(GraphBuilder):
    """A graph of x with dense layers and batch norms, each with constants of its own."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.inputs = ("x",)
        self.types = {"x": TensorType(shape)}

    def constant(self, *shape: int) -> str:
        return self.add_constant("c", _normal(*shape, seed=len(self.types)))

    def dense(self, x: str, name: str, *, bias: bool = True, width: int = WIDTH) -> str:
        inputs = (x, self.constant(width, self.types[x].shape[-1]), *([self.constant(width)] if bias else []))
        return self.add_node(Dense(has_bias=bias), inputs, name, f"layer.{name}")

    def norm(self, x: str, name: str) -> str:
        channels = self.types[x].shape[1]
        variance = self.add_constant("variance", _normal(channels, seed=len(self.types)).exp())
        statistics = (*(self.constant(channels) for _ in range(3)), variance)
        return self.add_node(BatchNorm(1e-3), (x, *statistics), name, f"layer.{name}")

    def give(self, *outputs: str) -> Graph:
        self.outputs = outputs
        return self.finish()


def _folded(graph: Graph) -> Graph:
    """The graph after the pass, which must be valid, have no batch norm, and compute the same."""
    folded = fold_batch_norm(graph)
    verify(folded)
    assert not any(isinstance(node.op, BatchNorm) for node in folded.nodes)
    assert str(fold_batch_norm(folded)) == str(folded)
    x = _normal(*graph.types["x"].shape, seed=99)
    exact = interpret(graph, [x], dtype=torch.float64)
    for right, result in zip(exact, interpret(folded, [x], dtype=torch.float64), strict=True):
        # Both in float64: all that differs is that folded weights are rounded to float32, each by at most 2^-24 of
        # its size. A result sums at most 2 layers of 6 terms whose sizes are below 16 here (weights, inputs and
        # scales of a few units): 2 * 6 * 16 * 2^-24.
        torch.testing.assert_close(result, right, rtol=0.0, atol=192 * 2.0**-24)
    return folded


def _ops(graph: Graph) -> list[str]:
    return [node.op.label for node in graph.nodes]


@pytest.mark.parametrize("bias", [True, False])
def test_into_the_dense_layer_before(bias: bool) -> None:
    b = Builder(3, 4)
    folded = _folded(b.give(b.norm(b.dense("x", "d", bias=bias), "y")))
    (node,) = folded.nodes
    assert node.op == Dense(has_bias=True)
    assert (node.output, node.layer) == ("y", "layer.d")
    assert len(folded.constants) == 2


@pytest.mark.parametrize("bias", [True, False])
def test_into_the_dense_layer_after(bias: bool) -> None:
    b = Builder(3, 4)
    folded = _folded(b.give(b.dense(b.norm("x", "n"), "y", bias=bias)))
    (node,) = folded.nodes
    assert node.op == Dense(has_bias=True)
    assert node.inputs[0] == "x"
    assert (node.output, node.layer) == ("y", "layer.y")


@pytest.mark.parametrize("groups", [1, 2])
def test_into_the_transposed_convolution_before(groups: int) -> None:
    b = Builder(2, 4, 3, 3)
    op = ConvTranspose2d((2, 2), groups=groups)
    y = b.add_node(op, ("x", b.constant(4, 6 // groups, 2, 2)), "c", "layer.c")
    (node,) = _folded(b.give(b.norm(y, "y"))).nodes
    assert node.op == ConvTranspose2d((2, 2), groups=groups, has_bias=True)


def test_between_two_dense_layers_the_one_before_takes_it() -> None:
    b = Builder(3, 4)
    first = b.dense("x", "first")
    second = b.dense(b.norm(first, "n"), "y")
    graph = b.give(second)
    folded = _folded(graph)
    assert _ops(folded) == ["dense", "dense"]
    assert folded.nodes[1].inputs[1:] == graph.nodes[2].inputs[1:], "the layer after keeps its weights"


def test_all_dense_layers_after_take_it() -> None:
    b = Builder(3, 4)
    n = b.norm("x", "n")
    folded = _folded(b.give(b.dense(n, "y"), b.dense(n, "z", bias=False, width=2)))
    assert _ops(folded) == ["dense", "dense"]
    assert [node.inputs[0] for node in folded.nodes] == ["x", "x"]


def test_a_weight_that_another_layer_shares_is_not_changed() -> None:
    b = Builder(3, WIDTH)
    weight = b.constant(WIDTH, WIDTH)
    first = b.add_node(Dense(), ("x", weight), "first", "")
    normed = b.norm(first, "n")
    second = b.add_node(Dense(), (normed, weight), "second", "")
    graph = b.give(second)
    folded = _folded(graph)
    assert torch.equal(folded.constants[folded.nodes[1].inputs[1]], graph.constants[weight])


def test_a_dense_layer_after_keeps_its_activation_and_residual() -> None:
    b = Builder(3, WIDTH)
    n = b.norm("x", "n")
    op = Dense(has_bias=True, has_residual=True, activation=RELU)
    y = b.add_node(op, (n, b.constant(WIDTH, WIDTH), b.constant(WIDTH), "x"), "y", "")
    folded = _folded(b.give(y))
    (node,) = folded.nodes
    assert node.op == op
    assert (node.inputs[0], node.inputs[3]) == ("x", "x")


def test_one_after_the_other() -> None:
    b = Builder(3, 4)
    folded = _folded(b.give(b.norm(b.norm(b.dense("x", "d"), "n"), "y")))
    assert _ops(folded) == ["dense"]


def test_a_chain_of_layers_and_norms() -> None:
    b = Builder(3, 4)
    y = b.norm(b.dense(b.add_node(RELU, (b.norm(b.dense("x", "d1"), "n1"),), "r", ""), "d2"), "y")
    assert _ops(_folded(b.give(y))) == ["dense", "relu", "dense"]


# --- where it cannot be folded it is written out as a multiplication and an addition


def test_alone() -> None:
    b = Builder(3, 4)
    folded = _folded(b.give(b.norm("x", "y")))
    assert _ops(folded) == ["mul", "add"]
    assert {node.layer for node in folded.nodes} == {"layer.y"}
    assert folded.outputs == ("y",)


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 1, 4, 5), (2, 3, 4, 5, 2)])
def test_channels_are_axis_1_of_any_rank(shape: tuple[int, ...]) -> None:
    b = Builder(*shape)
    folded = _folded(b.give(b.norm("x", "y")))
    assert _ops(folded) == ["mul", "add"]
    expected = {(shape[1],) + (1,) * (len(shape) - 2)}
    assert {tuple(value.shape) for value in folded.constants.values()} == expected


def test_of_images_is_a_depthwise_convolution() -> None:
    b = Builder(2, 3, 4, 5)
    (node,) = _folded(b.give(b.norm("x", "y"))).nodes
    assert node.op == Conv2d(groups=3, has_bias=True)
    assert (node.inputs[0], node.output, node.layer) == ("x", "y", "layer.y")


def test_not_into_a_dense_layer_of_rank_3_whose_features_are_no_channels() -> None:
    b = Builder(2, WIDTH, WIDTH)
    assert _ops(_folded(b.give(b.norm(b.dense("x", "d"), "y")))) == ["dense", "mul", "add"]
    b = Builder(2, WIDTH, WIDTH)
    assert _ops(_folded(b.give(b.dense(b.norm("x", "n"), "y")))) == ["mul", "add", "dense"]


def test_not_into_a_dense_layer_before_that_others_read() -> None:
    b = Builder(3, 4)
    d = b.dense("x", "d")
    n = b.norm(d, "n")
    folded = _folded(b.give(b.add_node(ADD, (n, d), "y", "")))
    assert _ops(folded) == ["dense", "mul", "add", "add"]


def test_not_into_a_dense_layer_before_that_is_an_output() -> None:
    b = Builder(3, 4)
    d = b.dense("x", "d")
    assert _ops(_folded(b.give(b.norm(d, "y"), d))) == ["dense", "mul", "add"]


@pytest.mark.parametrize("op", [Dense(activation=RELU), Dense(has_residual=True)], ids=lambda op: op.label)
def test_not_into_a_dense_layer_before_that_does_more(op: Dense) -> None:
    b = Builder(3, WIDTH)
    residual = ("x",) if op.has_residual else ()
    d = b.add_node(op, ("x", b.constant(WIDTH, WIDTH), *residual), "d", "")
    assert _ops(_folded(b.give(b.norm(d, "y")))) == [op.label, "mul", "add"]


def test_not_into_the_layers_after_where_it_is_an_output() -> None:
    b = Builder(3, 4)
    n = b.norm("x", "n")
    folded = _folded(b.give(b.dense(n, "y"), n))
    assert _ops(folded) == ["mul", "add", "dense"]
    assert folded.outputs == ("y", "n")


def test_not_into_the_layers_after_where_one_is_no_dense_layer() -> None:
    b = Builder(3, 4)
    n = b.norm("x", "n")
    folded = _folded(b.give(b.dense(n, "y"), b.add_node(RELU, (n,), "z", "")))
    assert _ops(folded) == ["mul", "add", "dense", "relu"]


def test_not_into_a_layer_after_that_reads_it_as_residual() -> None:
    b = Builder(3, WIDTH)
    n = b.norm("x", "n")
    y = b.add_node(Dense(has_residual=True), ("x", b.constant(WIDTH, WIDTH), n), "y", "")
    assert _ops(_folded(b.give(y))) == ["mul", "add", "dense + add"]


def test_not_into_a_layer_after_that_reads_it_twice() -> None:
    b = Builder(3, WIDTH)
    n = b.norm("x", "n")
    y = b.add_node(Dense(has_residual=True), (n, b.constant(WIDTH, WIDTH), n), "y", "")
    assert _ops(_folded(b.give(y))) == ["mul", "add", "dense + add"]


def test_not_into_a_dense_layer_whose_weight_is_computed() -> None:
    b = Builder(4, 4)
    weight = b.add_node(Permute((1, 0)), ("x",), "w", "")
    d = b.add_node(Dense(), ("x", weight), "d", "")
    assert _ops(_folded(b.give(b.norm(d, "y")))) == ["permute", "dense", "mul", "add"]


def test_not_into_a_norm_that_a_layer_reads_as_its_weight() -> None:
    b = Builder(4, 4)
    n = b.norm("x", "n")
    y = b.add_node(Dense(), ("x", n), "y", "")
    assert _ops(_folded(b.give(y))) == ["mul", "add", "dense"]


def test_a_norm_that_nothing_reads_is_written_out() -> None:
    b = Builder(3, 4)
    b.norm("x", "n")
    assert _ops(_folded(b.give("x"))) == ["mul", "add"]


@pytest.mark.parametrize("after_dense", [True, False])
def test_computed_statistics_are_refused(after_dense: bool) -> None:
    b = Builder(4, 4)
    mean = b.add_node(Reshape((16,)), ("x",), "flat", "")
    wide = b.dense("x", "d", width=16) if after_dense else b.add_constant("wide", _normal(3, 16, seed=1))
    ones = b.add_constant("ones", torch.ones(16))
    y = b.add_node(BatchNorm(1e-3), (wide, ones, ones, mean, ones), "y", "features.1")
    with pytest.raises(
        UnsupportedModel,
        match=r"^layer 'features.1': batch normalization with computed statistics; lower with fallback=True",
    ):
        fold_batch_norm(b.give(y))


def _float64(graph: Graph, node: Node) -> list[torch.Tensor]:
    """The constants that a node reads."""
    return [graph.constants[name].double() for name in node.inputs if name in graph.constants]


def test_weights_folded_into_the_layer_before_are_rounded_once() -> None:
    """s W is formed in float64 and then rounded; from a rounded s it would differ in the last bit."""
    b = Builder(3, 4)
    graph = b.give(b.norm(b.dense("x", "d"), "y"))
    dense, norm = graph.nodes
    weight, bias = _float64(graph, dense)
    gamma, beta, mean, variance = _float64(graph, norm)
    scale = gamma / (variance + 1e-3).sqrt()
    folded = fold_batch_norm(graph)
    folded_weight, folded_bias = (folded.constants[name] for name in folded.nodes[0].inputs[1:])
    assert torch.equal(folded_weight, (scale[:, None] * weight).float())
    assert torch.equal(folded_bias, (scale * bias + (beta - mean * scale)).float())


def test_weights_folded_into_the_layer_after_are_rounded_once() -> None:
    b = Builder(3, 4)
    graph = b.give(b.dense(b.norm("x", "n"), "y"))
    norm, dense = graph.nodes
    weight, bias = _float64(graph, dense)
    gamma, beta, mean, variance = _float64(graph, norm)
    scale = gamma / (variance + 1e-3).sqrt()
    folded = fold_batch_norm(graph)
    folded_weight, folded_bias = (folded.constants[name] for name in folded.nodes[0].inputs[1:])
    assert torch.equal(folded_weight, (weight * scale).float())
    assert torch.equal(folded_bias, (weight @ (beta - mean * scale) + bias).float())


def test_the_graph_is_built_once_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Building it for each makes the time grow with the square of their number."""
    b = Builder(3, 4)
    y = "x"
    for number in range(20):
        y = b.norm(b.dense(y, f"d{number}"), f"n{number}")
    graph = b.give(b.norm(b.add_node(RELU, (y,), "r", ""), "z"))
    built: list[GraphBuilder] = []
    finish = GraphBuilder.finish
    monkeypatch.setattr(GraphBuilder, "finish", lambda builder: built.append(builder) or finish(builder))
    folded = fold_batch_norm(graph)
    assert _ops(folded) == ["dense"] * 20 + ["relu", "mul", "add"]
    assert len(built) == 1
