"""What must hold before a program can be made, so that it is known before the work is done."""

from __future__ import annotations

from netopt.errors import UnsupportedModel
from netopt.graph import Graph, Node
from netopt.kernels.registry import kernel_of
from netopt.numerics import BFLOAT16, FLOAT32, SIGN_BITS, SIGNS, WHOLES
from netopt.ops import Cast, Gather, TorchRegion

# The formats that some kernel reads or writes, the usual one first.
_OF_KERNELS = (FLOAT32, BFLOAT16, *WHOLES, SIGNS, SIGN_BITS)


def check_kernels(graph: Graph) -> None:
    """Raise UnsupportedModel unless there is a kernel for every node, and it reads and writes the formats there."""
    for node in graph.nodes:
        for name in (*node.inputs, node.output):
            found = graph.types[name].format
            if not graph.takes(node, name, found):
                expected = next((kind.name for kind in _OF_KERNELS if graph.takes(node, name, kind)), "another format")
                raise UnsupportedModel(f"value '{name}'", expected=expected, found=found.name, layer=node.layer)
        if has_kernel(node, graph):
            kernel_of(node.op, node.layer)
            _check_weights(graph, node)


def index_range(graph: Graph, name: str) -> range | None:
    """The indices that an input may have: those that all who gather by it have parts for; None where nobody does.

    Through ops that only move elements, and conversions to whole numbers. One who cuts a part of it is not asked.
    """
    names, sizes = {name}, []
    for node in graph.nodes:
        if isinstance(node.op, Gather) and node.inputs[1] in names:
            sizes.append(graph.types[node.inputs[0]].shape[node.op.axis])
        keeps = node.op.rearranges or isinstance(node.op, Cast)
        if keeps and len(node.inputs) == 1 and node.inputs[0] in names and graph.types[node.output].format.is_whole:
            names.add(node.output)
    return range(-min(sizes), min(sizes)) if sizes else None


def has_kernel(node: Node, graph: Graph) -> bool:
    """Whether the node is code of ours: neither a view nor a part in PyTorch."""
    is_view = node.op.is_view(graph.node_types(node), graph.types[node.output])
    return not is_view and not isinstance(node.op, TorchRegion)


def _check_weights(graph: Graph, node: Node) -> None:
    """Weights are packed when lowering, so they must be known then."""
    known = node.op.constant_operands(graph.node_types(node))
    if not all(node.inputs[index] in graph.constants for index in known):
        raise UnsupportedModel(
            "a layer whose weight or bias is computed from the input",
            layer=node.layer,
            fix="lower with fallback=True, which runs this layer in PyTorch",
        )
