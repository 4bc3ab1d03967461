"""The passes together, in their order."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netopt.errors import InvalidArgument
from netopt.graph import Graph, interpret, verify
from netopt.graph.capture import capture
from netopt.graph.graph import GraphBuilder
from netopt.graph.passes import pass_name
from netopt.graph.passes import run_passes as run
from netopt.ops import (
    Arithmetic,
    BatchNorm,
    Concat,
    Dense,
    Op,
    Permute,
    Pointwise,
    Reshape,
    Slice,
    TensorType,
)
from tests.pipelines import PASSES, run_passes

# --- random graphs of small integers and halves, so that every way of computing them in float64 gives the same bits


class RandomGraph(GraphBuilder):
    """Nodes over two inputs, with the patterns that the passes look for made likely."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.inputs = ("x0", "x1")
        shapes = [(2, 4), (3, 4), (4, 4), (2, 3, 4)]
        self.types = {name: TensorType(self.random.choice(shapes)) for name in self.inputs}
        self.values = list(self.inputs)

    def constant(self, shape: tuple[int, ...], size: int = 2) -> str:
        generator = torch.Generator().manual_seed(self.random.randrange(10**6))
        return self.add_constant("c", torch.randint(-size, size + 1, shape, generator=generator).float())

    def grow(self) -> None:
        """Add a node, more often to the last value than to an older one: chains are what is fused."""
        x = self.values[-1] if self.random.random() < 0.7 else self.random.choice(self.values)
        shape = self.types[x].shape
        kinds = [self.dense, self.dense, self.activation, self.activation, self.add, self.add, self.arithmetic]
        kinds += [self.reshape, self.slice, self.permute, self.concat]
        kinds += [self.batch_norm, self.batch_norm] if len(shape) > 1 else []
        self.values.append(self.random.choice(kinds)(x, shape))
        if self.random.random() < 0.1:
            self.values.append(self.constant(shape))

    def node(self, op: Op, *inputs: str) -> str:
        return self.add_node(op, inputs, "v", "")

    def dense(self, x: str, shape: tuple[int, ...]) -> str:
        width = self.random.choice([shape[-1], shape[-1], 3])
        weight = self.constant((width, shape[-1]), size=1)
        if self.random.random() < 0.3:
            weight = self.node(Permute((1, 0)), self.constant((shape[-1], width), size=1))
        bias = [self.constant((width,))] if self.random.random() < 0.5 else []
        return self.node(Dense(has_bias=bool(bias)), x, weight, *bias)

    def activation(self, x: str, shape: tuple[int, ...]) -> str:
        parameters = {"relu": (), "hardtanh": (-2.0, 3.0), "leaky_relu": (0.5,)}
        function = self.random.choice(list(parameters))
        return self.node(Pointwise(function, parameters[function]), x)

    def batch_norm(self, x: str, shape: tuple[int, ...]) -> str:
        # A variance of 4 and no epsilon: scales are halves.
        variance = self.add_constant("variance", torch.full((shape[1],), 4.0))
        return self.node(BatchNorm(0.0), x, *(self.constant(shape[1:2]) for _ in range(3)), variance)

    def add(self, x: str, shape: tuple[int, ...]) -> str:
        other = self.random.choice([value for value in self.values if self.types[value].shape == shape])
        return self.node(Arithmetic("add"), *self.random.sample([x, other], 2))

    def arithmetic(self, x: str, shape: tuple[int, ...]) -> str:
        other = self.constant(shape[self.random.randint(0, len(shape)) :])
        return self.node(Arithmetic(self.random.choice(["add", "sub", "mul"])), *self.random.sample([x, other], 2))

    def reshape(self, x: str, shape: tuple[int, ...]) -> str:
        elements = self.types[x].elements
        targets = [shape, (elements,), (1, *shape), (4, elements // 4) if elements % 4 == 0 else shape]
        return self.node(Reshape(self.random.choice(targets)), x)

    def slice(self, x: str, shape: tuple[int, ...]) -> str:
        axis = self.random.randrange(len(shape))
        start = self.random.randint(0, min(1, shape[axis] - 1))
        return self.node(Slice(axis, start, shape[axis]), x)

    def permute(self, x: str, shape: tuple[int, ...]) -> str:
        return self.node(Permute(tuple(self.random.sample(range(len(shape)), len(shape)))), x)

    def concat(self, x: str, shape: tuple[int, ...]) -> str:
        return self.node(Concat(len(shape) - 1), *[x] * self.random.randint(1, 2))


def _random_graph(seed: int) -> Graph:
    builder = RandomGraph(seed)
    for _ in range(builder.random.randint(2, 14)):
        builder.grow()
    builder.outputs = (builder.values[-1], *builder.random.sample(builder.values, builder.random.randint(0, 2)))
    return builder.finish()


# One seed for the whole graph: hypothesis would rather try its simplest choices, which are no chains to fuse.
GRAPHS = st.integers(0, 2**32).map(_random_graph)


def _inputs(graph: Graph) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(-3, 4, graph.types[name].shape, generator=generator).float() for name in graph.inputs]


@given(graph=GRAPHS)
@settings(derandomize=True, deadline=None, max_examples=300)
def test_random_graphs_keep_their_outputs(graph: Graph) -> None:
    """To the bit: values stay below 2^50 in steps of 2^-12 or so."""
    verify(graph)
    text = str(graph)
    result = run_passes(graph)
    verify(result)
    assert result.inputs == graph.inputs
    # An output may be an image: the call copies it from its layout.
    outputs = [result.types[name].logical for name in result.outputs]
    assert outputs == [graph.types[name] for name in graph.outputs]
    inputs = _inputs(graph)
    exact = interpret(graph, inputs, dtype=torch.float64)
    for before, after in zip(exact, interpret(result, inputs, dtype=torch.float64), strict=True):
        assert torch.equal(before, after)
    assert str(graph) == text, "a pass does not change the graph that it is given"


@given(graph=GRAPHS)
@settings(derandomize=True, deadline=None, max_examples=150)
def test_what_the_passes_leave(graph: Graph) -> None:
    result = run_passes(graph)
    users, read = result.users(), {name for node in result.nodes for name in node.inputs} | set(result.outputs)
    for node in result.nodes:
        assert not isinstance(node.op, BatchNorm)
        assert node.output in read, "dead code"
        assert not all(name in result.constants for name in node.inputs), "a constant that is computed"
        if isinstance(node.op, Reshape | Slice):
            assert result.types[node.output] != result.types[node.inputs[0]], "an identity"
        if isinstance(node.op, Dense) and node.op.activation is None and node.output not in result.outputs:
            readers = users[node.output]
            assert len(readers) > 1 or not isinstance(readers[0].op, Pointwise), "an activation of its own"
    assert set(result.constants) <= read


@pytest.mark.parametrize("index", range(len(PASSES)), ids=lambda i: f"{i + 1}_{PASSES[i].__name__}")
@given(graph=GRAPHS)
@settings(derandomize=True, deadline=None, max_examples=60)
def test_each_pass_keeps_the_outputs_and_finds_nothing_in_its_own_result(index: int, graph: Graph) -> None:
    result = PASSES[index](graph)
    verify(result)
    inputs = _inputs(graph)
    exact = interpret(graph, inputs, dtype=torch.float64)
    for before, after in zip(exact, interpret(result, inputs, dtype=torch.float64), strict=True):
        assert torch.equal(before, after)
    assert str(PASSES[index](result)) == str(result)


# --- on a whole model


class Block(nn.Module):
    """Has something for every pass: a transposed weight, dropout, batch norms, a residual, an unused branch."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.norm1 = nn.Linear(6, 6), nn.BatchNorm1d(6)
        self.weight = nn.Parameter(torch.randn(6, 6))
        self.norm2, self.fc2 = nn.BatchNorm1d(6), nn.Linear(6, 3)
        for norm in (self.norm1, self.norm2):
            norm.running_mean.normal_()  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        unused, x = x.chunk(2, dim=1)
        unused.sigmoid()
        y = nn.functional.dropout(self.norm1(self.fc1(x)), 0.5, self.training)
        y = x + nn.functional.linear(y, self.weight.T.contiguous())
        y = torch.relu(y.unsqueeze(1).squeeze(1))
        return self.fc2(self.norm2(y))


def test_a_block_becomes_three_dense_layers() -> None:
    torch.manual_seed(0)
    model, x = Block().eval(), torch.randn(4, 12)
    graph, _ = capture(model, x)
    result = run_passes(graph)
    assert [(node.op.label, node.layer) for node in result.nodes] == [
        ("slice", ""),
        ("dense", "fc1"),
        ("dense + add + relu", ""),
        ("dense", "fc2"),
    ]
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(x.double())
    # In float64, all that differs are the roundings of folded weights to float32, each 2^-24 of its size: 3 layers of
    # 6 terms below 16, the last one's scaled by weights below 2.
    torch.testing.assert_close(interpret(result, [x], dtype=torch.float64)[0], exact, rtol=0.0, atol=576 * 2.0**-24)


def test_a_model_without_work_for_them_passes_as_it_is() -> None:
    graph, _ = capture(nn.Sequential(nn.Softmax(-1), nn.ReLU()), torch.ones(2, 3))
    assert str(run_passes(graph)) == str(graph)


# --- verifying and dumping


def _breaking(graph: Graph) -> Graph:
    """A pass that leaves an output without a value."""
    builder = GraphBuilder(graph)
    builder.outputs = ("nothing",)
    return builder.finish()


@pytest.mark.parametrize("place", range(3))
def test_the_graph_is_verified_after_each_pass(place: int) -> None:
    ran: list[str] = []

    def following(graph: Graph) -> Graph:
        ran.append("following")
        return graph

    order = [following] * 3
    order[place] = _breaking
    graph, _ = capture(nn.ReLU(), torch.ones(2))
    with pytest.raises(InvalidArgument, match="graph: output 'nothing'"):
        run(graph, order)
    assert len(ran) == place, "no pass runs on a broken graph"


def test_dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "new" / "folder"
    monkeypatch.setenv("NETOPT_DUMP", str(folder))
    torch.manual_seed(0)
    graph, _ = capture(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.ReLU()), torch.randn(2, 3))
    result = run_passes(graph)
    names = ["00_captured", *(f"{number:02d}_{name}" for number, name in enumerate(map(pass_name, PASSES), 1))]
    assert sorted(path.name for path in folder.iterdir()) == [f"{name}.txt" for name in names]
    expected = graph
    assert (folder / "00_captured.txt").read_text() == f"{expected}\n"
    for step, name in zip(PASSES, names[1:], strict=True):
        expected = step(expected)
        assert (folder / f"{name}.txt").read_text() == f"{expected}\n"
    assert str(expected) == str(result)


@pytest.mark.parametrize("value", [None, ""])
def test_no_dump_without_a_folder(value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NETOPT_DUMP", raising=False)
    if value is not None:
        monkeypatch.setenv("NETOPT_DUMP", value)
    graph, _ = capture(nn.ReLU(), torch.ones(2))
    run_passes(graph)
    assert list(tmp_path.iterdir()) == []
