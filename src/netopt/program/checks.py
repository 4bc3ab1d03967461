"""What must hold before a program can be made, so that it is known before the work is done."""

from __future__ import annotations

from netopt.errors import InvalidArgument, UnsupportedModel
from netopt.graph import Graph, Node
from netopt.graph.passes.use_bfloat16 import takes_bfloat16
from netopt.kernels.registry import kernel_of
from netopt.numerics import BFLOAT16, FLOAT32, SIGNS
from netopt.ops import BinaryConv2d, BinaryDense, Op, Sign, SignPool2d, TorchRegion
from netopt.ops.epilogue import Epilogue


def check_threads(threads: object) -> None:
    """Raise InvalidArgument unless `threads` is an integer of at least 1."""
    if type(threads) is not int or threads < 1:
        raise InvalidArgument("threads", expected="an integer of at least 1", found=threads)


def check_kernels(graph: Graph) -> None:
    """Raise UnsupportedModel unless there is a kernel for every node, and it reads and writes the formats there."""
    for node in graph.nodes:
        for name in (*node.inputs, node.output):
            if not _takes(node, graph, name):
                expected = "sign" if name == node.output and _writes_words(node.op) else "float32"
                raise UnsupportedModel(
                    f"value '{name}'", expected=expected, found=graph.types[name].format.name, layer=node.layer
                )
        if has_kernel(node, graph):
            kernel_of(node.op, node.layer)
            _check_weights(graph, node)


def _takes(node: Node, graph: Graph, name: str) -> bool:
    """Whether the node's kernel reads or writes the value in its format."""
    format_ = graph.types[name].format
    if name == node.output and _writes_words(node.op):
        return format_ == SIGNS
    if format_ == BFLOAT16:
        return takes_bfloat16(node, graph, name)
    # What of signs and integers an op takes is in its type rule.
    if format_.is_real:
        return format_ == FLOAT32
    return isinstance(node.op, BinaryConv2d | BinaryDense | Sign | SignPool2d)


def _writes_words(op: Op) -> bool:
    """Whether the op's kernel writes packed signs alone; that of `Sign` also writes numbers."""
    return op.gives_signs and not isinstance(op, Sign)


def has_kernel(node: Node, graph: Graph) -> bool:
    """Whether the node is code of ours: neither a view nor a part in PyTorch."""
    is_view = node.op.is_view(graph.node_types(node), graph.types[node.output])
    return not is_view and not isinstance(node.op, TorchRegion)


def _check_weights(graph: Graph, node: Node) -> None:
    """Weights are packed when lowering, so they must be known then."""
    known: tuple[str, ...] = ()
    if isinstance(node.op, Epilogue):
        known = node.inputs[1 : node.op.residual_index + node.op.gives_signs]
    elif isinstance(node.op, Sign | SignPool2d):
        known = node.inputs[1:]
    if not all(name in graph.constants for name in known):
        raise UnsupportedModel(
            "a layer whose weight or bias is computed from the input",
            layer=node.layer,
            fix="lower with fallback=True, which runs this layer in PyTorch",
        )
