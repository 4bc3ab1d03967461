from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from netopt.graph import Graph, interpret
from netopt.graph.capture import capture
from netopt.graph.graph import GraphBuilder
from netopt.numerics import FixedPoint
from netopt.ops import Arithmetic, Pointwise, TensorType


def _difference(*outputs: str) -> Graph:
    """d = a - b, n = d * 0.1, for a and b (3,)."""
    builder = GraphBuilder()
    builder.inputs = ("a", "b")
    builder.types = {"a": TensorType((3,)), "b": TensorType((3,))}
    number = builder.add_constant("number", torch.tensor(0.1))
    difference = builder.add_node(Arithmetic("sub"), ("a", "b"), "d", "")
    builder.add_node(Arithmetic("mul"), (difference, number), "n", "")
    builder.outputs = outputs
    return builder.finish()


A, B = torch.tensor([3.0, 5.0, 7.0]), torch.tensor([1.0, 2.0, 4.0])


def test_inputs_and_outputs_are_in_order() -> None:
    n, d = interpret(_difference("n", "d"), [A, B])
    assert torch.equal(d, torch.tensor([2.0, 3.0, 3.0]))
    assert torch.equal(n, torch.tensor([2.0, 3.0, 3.0]) * 0.1)


def test_an_output_may_be_an_input_or_stand_twice() -> None:
    b, d, again = interpret(_difference("b", "d", "d"), [A, B])
    assert torch.equal(b, B)
    assert torch.equal(d, again)


def test_the_type_to_compute_in() -> None:
    (n,) = interpret(_difference("n"), [A, B], dtype=torch.float64)
    assert n.dtype == torch.float64
    # The constant is the float32 one: a program cannot know it better.
    assert torch.equal(n, torch.tensor([2.0, 3.0, 3.0], dtype=torch.float64) * torch.tensor(0.1).double())
    assert interpret(_difference("n"), [A, B])[0].dtype == torch.float32


def test_float64_inputs_are_not_rounded() -> None:
    a = torch.full((3,), 1.0 + 2.0**-40, dtype=torch.float64)
    (d,) = interpret(_difference("d"), [a, torch.ones(3, dtype=torch.float64)], dtype=torch.float64)
    assert torch.equal(d, torch.full((3,), 2.0**-40, dtype=torch.float64))


def test_values_are_watched_before_and_after_they_are_rounded() -> None:
    graph = _difference("n")
    graph = dataclasses.replace(graph, types={**graph.types, "d": TensorType((3,), FixedPoint(8, 0))})
    seen = []
    a = torch.tensor([3.25, 500.0, 7.5])
    interpret(graph, [a, B], watch=lambda name, computed, stored: seen.append((name, computed, stored)))
    assert [name for name, _, _ in seen] == ["a", "b", "d", "n"]
    assert torch.equal(seen[0][1], a) and torch.equal(seen[0][2], a)
    assert torch.equal(seen[2][1], torch.tensor([2.25, 498.0, 3.5]))
    assert torch.equal(seen[2][2], torch.tensor([2.0, 127.0, 4.0]))
    assert torch.equal(seen[3][1], torch.tensor([2.0, 127.0, 4.0]) * 0.1)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_the_number_of_inputs_must_be_right(number: int) -> None:
    with pytest.raises(ValueError, match="argument"):
        interpret(_difference("d"), [A] * number)


def test_no_gradients_are_recorded() -> None:
    (d,) = interpret(_difference("d"), [A.clone().requires_grad_(), B])
    assert not d.requires_grad


def test_inputs_and_constants_stay_as_they_are() -> None:
    builder = GraphBuilder()
    builder.inputs = ("x",)
    builder.types = {"x": TensorType((3,))}
    constant = builder.add_constant("c", torch.tensor([-1.0, 0.0, 1.0]))
    x = builder.add_node(Pointwise("relu"), ("x",), "y", "")
    c = builder.add_node(Pointwise("relu"), (constant,), "z", "")
    builder.outputs = (x, c)
    graph = builder.finish()
    given = torch.tensor([-2.0, 0.0, 2.0])
    results = interpret(graph, [given])
    assert torch.equal(results[0], torch.tensor([0.0, 0.0, 2.0]))
    assert torch.equal(results[1], torch.tensor([0.0, 0.0, 1.0]))
    assert torch.equal(given, torch.tensor([-2.0, 0.0, 2.0]))
    assert torch.equal(graph.constants["c"], torch.tensor([-1.0, 0.0, 1.0]))


def test_float64_is_nearer_to_the_truth_than_float32() -> None:
    """What the tolerances of all other tests stand on."""
    model = nn.Sequential(nn.Linear(300, 100), nn.Tanh(), nn.Linear(100, 10)).requires_grad_(False)
    x = torch.randn(4, 300, generator=torch.Generator().manual_seed(1))
    graph, _ = capture(model, x)
    truth = model.double()(x.double())
    error32 = (interpret(graph, [x])[0] - truth).abs().max()
    error64 = (interpret(graph, [x], dtype=torch.float64)[0] - truth).abs().max()
    # Sums of 300 and 100 terms of size below 1: at most 400 roundings of 2^-53 each.
    assert error64 < 400 * 2.0**-53
    assert error64 < error32 < 400 * 2.0**-24
