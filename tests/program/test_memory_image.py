from __future__ import annotations

import numpy as np
import pytest
import torch

from netopt.graph import Graph
from netopt.graph.graph import GraphBuilder, Node
from netopt.kernels.machine.cpu import host_cpu
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.registry import KERNELS
from netopt.memory import plan_memory
from netopt.ops import Conv2d, Layout, Relayout, TensorType
from netopt.program.memory_image import MemoryImage


def _graph() -> Graph:
    """An image with a halo (2, 3, 4, 5), a convolution of it with a shared weight, twice, and an image row-major."""
    builder = GraphBuilder()
    builder.inputs = ("x",)
    builder.types["x"] = TensorType((2, 3, 4, 5), layout=Layout(True, (1, 1, 1, 1)))
    weight = builder.add_constant("w", torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(0)))
    op = Conv2d((1, 1), (1, 1, 1, 1), (1, 1), 1, False, False, None)
    for name in ("a", "b"):
        builder.nodes.append(Node(op, ("x", weight), name, name))
        builder.types[name] = TensorType((2, 8, 4, 5), layout=Layout(True))
    builder.nodes.append(Node(Relayout(), ("a",), "y", ""))
    builder.types["y"] = TensorType((2, 8, 4, 5))
    builder.outputs = ("y", "b", "w")
    return builder.finish()


def _image(graph: Graph) -> MemoryImage:
    return MemoryImage(graph, plan_memory(graph), host_cpu())


def test_an_image_is_seen_in_its_logical_shape_within_its_halo() -> None:
    image = _image(_graph())
    image.arena[:] = 0
    place, around = image.place("x"), image.with_halo("x")
    assert around is not None
    assert (place.shape, around.shape) == ((2, 3, 4, 5), (2, 6, 7, 3))
    place.copy_(torch.arange(120.0).reshape(2, 3, 4, 5))
    assert torch.equal(around[:, 1:-1, 1:-1].permute(0, 3, 1, 2), torch.arange(120.0).reshape(2, 3, 4, 5))
    assert around.sum() == torch.arange(120.0).sum()
    assert image.with_halo("y") is None


def test_places_are_where_the_plan_says() -> None:
    graph = _graph()
    plan = plan_memory(graph)
    image = MemoryImage(graph, plan, host_cpu())
    assert image.arena.nbytes == plan.arena_bytes
    image.place("y").fill_(3.0)
    start = plan.offsets["y"]
    assert (image.arena[start : start + graph.types["y"].bytes].view(np.float32) == 3.0).all()


def test_constants_are_packed_once_for_a_kind_of_kernel_and_unpacked_to_the_bit() -> None:
    graph, cpu = _graph(), host_cpu()
    image = _image(graph)
    packed = []
    for node in graph.nodes[:2]:
        problem = Problem(node.op, graph.node_types(node), graph.types[node.output])
        schedule = KERNELS[Conv2d].schedules(problem, cpu)[0]
        if not packed:
            image.reserve(graph, [(node, problem, schedule)])
        packed.append(image.arguments(graph, node, problem, schedule)[1])
        assert torch.equal(image.unpack(node, problem, schedule, 1), graph.constants["w"])
    assert packed[0] is packed[1]
    assert image.constant_bytes == packed[0].nbytes >= graph.types["w"].bytes
    assert packed[0].ctypes.data % 64 == 0


def test_a_constant_that_is_read_as_it_is_is_copied_once() -> None:
    graph = _graph()
    image = _image(graph)
    copied = image.place_or_copy("w", graph)
    assert torch.equal(copied, graph.constants["w"])
    assert copied.data_ptr() != graph.constants["w"].data_ptr()
    assert image.place_or_copy("w", graph).data_ptr() == copied.data_ptr()
    assert image.constant_bytes == graph.types["w"].bytes
    assert list(image.copies()) == ["w"]
    image.place("b").fill_(5.0)
    assert (image.place_or_copy("b", graph) == 5.0).all()


@pytest.mark.parametrize("name", ["a", "y"])
def test_ops_without_scratch_memory_get_none(name: str) -> None:
    graph = _graph()
    node = next(node for node in graph.nodes if node.output == name)
    assert _image(graph).scratch(graph, node) is None
