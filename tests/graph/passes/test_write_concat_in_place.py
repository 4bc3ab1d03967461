"""Which concatenations and slices need no copy; and that networks with them still compute what the model does."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import netopt
from netopt import zoo
from netopt.graph import Graph, interpret, verify
from netopt.graph.capture import capture
from netopt.graph.passes import run_passes as run
from netopt.graph.passes.write_concat_in_place import write_concat_in_place
from netopt.kernels.machine import tune as tuning
from netopt.ops import Concat, Layout, Op, Relayout, Slice
from netopt.program.lower import prepare
from netopt.program.options import Lowering
from tests.pipelines import PASSES, run_passes
from tests.tolerance import assert_within, judge


class Net(nn.Module):
    """A few convolutions that `wire` connects."""

    def __init__(self, wire: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3)
        self.a, self.b, self.c = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 5, 1)
        self.wire = wire

    def forward(self, x: torch.Tensor) -> Any:
        return self.wire(self, self.stem(x))


def of_kind(graph: Graph, kind: type[Op]) -> list[Any]:
    return [node for node in graph.nodes if isinstance(node.op, kind)]


def in_place(graph: Graph, kind: type[Op] = Concat) -> list[bool]:
    return [node.op.in_place for node in of_kind(graph, kind)]


def lowered(wire: Callable[..., Any], *, batch: int = 2) -> Graph:
    """The graph, after the program has been found to compute what the model computes."""
    model, x = Net(wire).eval(), torch.randn(batch, 3, 9, 8, generator=torch.Generator().manual_seed(1))
    graph = run_passes(capture(model, x)[0])
    verify(graph)
    results, bounded = netopt.lower(model, x)(x), judge(graph, [x])
    for result, expected in zip(results if isinstance(results, tuple) else (results,), bounded, strict=True):
        assert_within(result, expected)
    return graph


def test_two_branches() -> None:
    graph = lowered(lambda net, x: torch.cat([net.a(x), net.c(x)], 1))
    assert in_place(graph) == [True]
    (joined,) = of_kind(graph, Concat)
    assert [graph.types[name].layout for name in joined.inputs] == [Layout(True, pitch=13)] * 2
    assert graph.types[joined.output].layout == Layout(True)


def test_the_halo_is_that_of_whole_and_parts() -> None:
    """The part is read by a convolution with padding 1, the whole by one with padding 1 on the left alone."""

    def wire(net: Net, x: torch.Tensor) -> Any:
        y = net.a(x)
        return net.b(y), torch.cat([y, net.c(x)], 1) * 2

    graph = lowered(wire)
    (joined,) = of_kind(graph, Concat)
    assert joined.op.in_place
    assert {graph.types[name].layout.halo for name in (*joined.inputs, joined.output)} == {(1, 1, 1, 1)}


def test_a_dense_block_is_one_buffer() -> None:
    def wire(net: Net, x: torch.Tensor) -> Any:
        features = [x]
        for layer in (net.a, net.b, net.c):
            features.append(layer(torch.cat(features, 1)[:, -8:].relu()))
        return torch.cat(features, 1)

    graph = lowered(wire)
    assert in_place(graph) == [True] * 3
    assert all(in_place(graph, Slice))
    assert not of_kind(graph, Relayout)
    assert {graph.types[node.output].layout.pitch for node in of_kind(graph, Concat)} == {0, 29}


def test_nested() -> None:
    graph = lowered(lambda net, x: torch.cat([net.c(x), torch.cat([net.a(x), net.b(x)], 1), net.c(x).relu()], 1))
    assert in_place(graph) == [True, True]
    assert {graph.types[name].layout.pitch for node in of_kind(graph, Concat) for name in node.inputs} == {26}


def test_a_value_has_its_place_in_one_buffer_and_is_copied_into_others() -> None:
    def wire(net: Net, x: torch.Tensor) -> Any:
        a, b, c = net.a(x), net.b(x), net.c(x)
        return torch.cat([a, b], 1), torch.cat([b, a], 1), torch.cat([b, c], 1)

    graph = lowered(wire)
    assert in_place(graph) == [True, False, True]
    assert len(of_kind(graph, Relayout)) == 1


def test_twice_the_same_part() -> None:
    graph = lowered(lambda net, x: torch.cat([x, net.a(x), x], 1))
    assert in_place(graph) == [True]
    assert len(of_kind(graph, Relayout)) == 1


def test_an_input_of_the_network_is_copied() -> None:
    class FromInput(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.grid = nn.Conv2d(3, 4, 3, padding=1), nn.Parameter(torch.randn(1, 2, 6, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, self.conv(x), self.grid], 1)

    model, x = FromInput(), torch.randn(1, 3, 6, 6)
    graph = run_passes(capture(model, x)[0])
    assert in_place(graph) == [True]
    assert len(of_kind(graph, Relayout)) == 2
    (expected,) = judge(graph, [x])
    assert_within(netopt.lower(model, x)(x), expected)


@pytest.mark.parametrize("axis", [0, 2, 3])
def test_along_other_axes_it_is_copied(axis: int) -> None:
    assert in_place(lowered(lambda net, x: torch.cat([net.a(x), net.b(x)], axis))) == [False]


def test_what_is_read_as_rows_keeps_its_pixels_together() -> None:
    """Flattened for a dense layer, an image is a view: among other channels it could not be."""

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 5, 3), nn.Linear(4 * 16, 3)

        def forward(self, x: torch.Tensor) -> Any:
            a = self.a(x)
            return self.fc(a.flatten(1)), torch.cat([a, self.b(x)], 1)

    model, x = Flat(), torch.randn(2, 3, 6, 6)
    graph = run_passes(capture(model, x)[0])
    assert in_place(graph) == [True]
    assert len(of_kind(graph, Relayout)) == 1
    for result, expected in zip(netopt.lower(model, x)(x), judge(graph, [x]), strict=True):
        assert_within(result, expected)


def test_halves_are_read_where_they_lie() -> None:
    """The unit of ShuffleNetV2, without the shuffle."""

    def wire(net: Net, x: torch.Tensor) -> Any:
        first, second = net.b(x).chunk(2, 1)
        return torch.cat([F.max_pool2d(first, 3, 1, 1), second.sigmoid()], 1), first

    graph = lowered(wire)
    assert in_place(graph) == [True]
    assert in_place(graph, Slice) == [True, True]
    assert {graph.types[node.output].layout for node in of_kind(graph, Slice)} == {Layout(True, pitch=8)}


def test_a_slice_with_steps_is_copied() -> None:
    assert in_place(lowered(lambda net, x: net.a(x)[:, 1::2].relu()), Slice) == [False]


def test_rows_that_begin_at_a_multiple_of_the_alignment() -> None:
    class Rows(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, width), nn.Linear(8, width), nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> Any:
            y = torch.cat([self.a(x), self.b(x).relu()], 1)
            return y[:, :16].tanh(), self.c(y[:, 16:])

    for width, batch, expected in ((16, 1, [True]), (16, 2, [False]), (20, 1, [False])):
        model, x = Rows(width), torch.randn(batch, 8)
        if width != 16:
            model.c = nn.Linear(2 * width - 16, 4)
        graph = run_passes(capture(model, x)[0])
        assert in_place(graph) == expected
        if all(expected):
            for result, bound in zip(netopt.lower(model, x)(x), judge(graph, [x]), strict=True):
                assert_within(result, bound)


def test_from_a_file_and_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers among others are made in three places: for the program, for one that is loaded, for measuring."""
    monkeypatch.setenv("NETOPT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tuning, "_SECONDS", 0.01)

    def wire(net: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([net.b(torch.cat([net.c(x), net.b(x)[:, :3]], 1)[:, :8]), net.a(x)], 1)

    model, x = Net(wire).eval(), torch.randn(1, 3, 9, 8)
    program = netopt.lower(model, x)
    program.save(tmp_path / "a.nopt")
    assert "concat in place" in program.summary()
    assert torch.equal(netopt.load(tmp_path / "a.nopt")(x), program(x))
    torch.testing.assert_close(netopt.lower(model, x, tune=True)(x), program(x), rtol=1e-4, atol=1e-5)


def test_a_concatenation_that_is_to_copy_and_one_that_is_not() -> None:
    def wire(net: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([net.a(torch.cat([net.c(x), net.b(x)[:, :3]], 1)), net.b(x)], 1)

    graph, _ = capture(Net(wire).eval(), torch.randn(1, 3, 9, 8))
    first, second = (node.output for node in of_kind(graph, Concat))
    for copied, expected in (((), [True, True]), ((first,), [False, True]), ((second,), [True, False])):
        copying = partial(write_concat_in_place, copies=partial(_given, copied))
        assert in_place(run(graph, (*PASSES[:-1], copying))) == expected


def _given(names: tuple[str, ...], _: Graph) -> tuple[str, ...]:
    return names


def test_a_network_without_concatenation_is_left_alone() -> None:
    graph = lowered(lambda net, x: net.a(x))
    assert write_concat_in_place(graph) is graph


def test_all_concatenations_of_squeezenet() -> None:
    network = prepare(zoo.squeezenet1_1().eval(), torch.randn(1, 3, 64, 64), Lowering())
    assert in_place(network.graph) == [True] * 8
    assert not of_kind(network.graph, Relayout)


@pytest.mark.parametrize("seed", range(5))
def test_random_wirings(seed: int) -> None:
    """Parts that are shared, nested, repeated, sliced and returned, in networks drawn at random."""

    def wire(net: Net, x: torch.Tensor) -> Any:
        choose = random.Random(seed)
        values = [x, net.a(x), net.b(x), net.c(x)]
        for _ in range(5):
            kind = choose.choice(["cat", "cat", "slice", "relu", "sum", "conv", "pool"])
            y = choose.choice(values[-4:])
            if kind == "cat":
                values.append(torch.cat(choose.sample(values, choose.randint(2, 3)), 1))
            elif kind == "slice":
                start = choose.randint(0, min(2, y.shape[1] - 1))
                values.append(y[:, start : start + choose.randint(1, 4)])
            elif kind == "conv":
                values.append(net.b(torch.cat([y, y], 1)[:, :8] if y.shape[1] < 8 else y[:, :8]))
            elif kind == "pool":
                values.append(F.avg_pool2d(y, 3, 1, 1))
            else:
                values.append(y.relu() if kind == "relu" else y + 2 * choose.choice(values)[:, :1])
        return (values[-1], *choose.sample(values, 2))

    graph = lowered(wire)
    x = torch.randn(2, 3, 9, 8)
    plain = capture(Net(wire).eval(), x)[0]
    for result, expected in zip(interpret(graph, [x]), interpret(plain, [x]), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
