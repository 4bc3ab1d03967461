from __future__ import annotations

import pytest
import torch
from torch import nn

from netopt import zoo
from netopt.graph import Graph, interpret, verify
from netopt.graph.capture import capture
from netopt.graph.graph import GraphBuilder
from netopt.graph.passes.use_bfloat16 import use_bfloat16
from netopt.numerics import BFLOAT16, FLOAT32
from netopt.ops import Conv2d, Dense, Pointwise, Softmax, TensorType
from tests.pipelines import run_passes


def narrowed(graph: Graph) -> Graph:
    result = use_bfloat16(graph)
    verify(result)
    assert str(use_bfloat16(result)) == str(result)
    return result


def formats(graph: Graph) -> dict[str, str]:
    return {name: type_.format.name for name, type_ in graph.types.items() if name not in graph.constants}


def graph_of(model: nn.Module, *shape: int) -> Graph:
    torch.manual_seed(0)
    return run_passes(capture(model.eval(), torch.randn(shape))[0])


def test_weights_and_inner_values_become_bfloat16_and_outputs_and_biases_do_not() -> None:
    graph = graph_of(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), 3, 6)
    result = narrowed(graph)
    assert formats(result) == {"input": "bfloat16", "relu": "bfloat16", "linear_1": "float32"}
    for node in result.nodes:
        assert [result.types[name].format for name in node.inputs[1:]] == [BFLOAT16, FLOAT32]
        assert torch.equal(
            result.constants[node.inputs[1]], graph.constants[node.inputs[1].removesuffix("_bfloat16")].bfloat16()
        )


def test_a_value_that_one_reader_cannot_take_stays() -> None:
    """Softmax has a kernel for float32 alone; the layer that reads the same value then multiplies float32."""
    b = GraphBuilder()
    b.inputs, b.types = ("x",), {"x": TensorType((3, 8))}
    weight = b.add_constant("w", torch.randn(8, 8))
    y = b.add_node(Dense(), ("x", weight), "y", "")
    b.outputs = (b.add_node(Dense(), (y, weight), "z", ""), b.add_node(Softmax(1), (y,), "s", ""))
    result = narrowed(b.finish())
    assert formats(result) == {"x": "bfloat16", "y": "float32", "z": "float32", "s": "float32"}
    first, second = (node for node in result.nodes if isinstance(node.op, Dense))
    assert (first.inputs[1], second.inputs[1]) == ("w_bfloat16", "w")


def test_depthwise_weights_stay_and_their_images_do_not() -> None:
    layers = [nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1), nn.Flatten()]
    result = narrowed(graph_of(nn.Sequential(*layers), 1, 4, 6, 6))
    weights = [result.types[node.inputs[1]].format for node in result.nodes if isinstance(node.op, Conv2d)]
    assert weights == [BFLOAT16, FLOAT32, BFLOAT16]
    images = [result.types[node.inputs[0]].format for node in result.nodes if isinstance(node.op, Conv2d)]
    assert images == [BFLOAT16] * 3


def test_views_have_one_format() -> None:
    """The output of the network is a view: so is what it views, in float32."""
    result = narrowed(graph_of(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Unflatten(1, (2, 4))), 3, 6))
    assert formats(result) == {"input": "bfloat16", "relu": "float32", "view": "float32"}


def test_one_product_makes_no_pair() -> None:
    result = narrowed(graph_of(nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1)), 3, 1))
    weights = [result.types[node.inputs[1]].format for node in result.nodes]
    assert weights == [FLOAT32, BFLOAT16]


@pytest.mark.parametrize("make", [zoo.lenet5, zoo.resnet23])
def test_the_interpreter_rounds_what_is_stored(make: object) -> None:
    """Each value has 8 bits: the result is as far from float32 as that, and no nearer."""
    shape = (1, 1, 28, 28) if make is zoo.lenet5 else (1, 3, 32, 32)
    graph = graph_of(make(), *shape)  # type: ignore[operator]
    result, x = narrowed(graph), torch.randn(shape, generator=torch.Generator().manual_seed(1))
    (exact,), (rounded,) = interpret(graph, [x]), interpret(result, [x])
    error = float((rounded - exact).abs().max() / exact.abs().max())
    assert 1e-4 < error < 2e-2


def test_a_bfloat16_value_that_is_read_again_is_rounded() -> None:
    b = GraphBuilder()
    b.inputs, b.types = ("x",), {"x": TensorType((1,))}
    y = b.add_node(Pointwise("relu"), ("x",), "y", "")
    b.outputs = (b.add_node(Pointwise("square"), (y,), "z", ""),)
    (z,) = interpret(narrowed(b.finish()), [torch.tensor([1.0 + 2.0**-7 + 2.0**-9])])
    assert z.item() == (1.0 + 2.0**-7) ** 2
