"""Let the ops after a padding with zeros, such as convolutions, pad by themselves."""

from __future__ import annotations

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.ops import Op, Pad


def fold_pad(graph: Graph) -> Graph:
    """pad -> conv2d or average pooling becomes one node, where all that read the padded image can pad by themselves."""
    users, outputs = graph.users(), set(graph.outputs)
    padded: dict[str, Op] = {}  # what the readers of a padded image write -> the op that does both
    sources: dict[str, str] = {}
    for node in graph.nodes:
        if not isinstance(node.op, Pad) or node.op.zero_sides is None or node.output in outputs:
            continue
        readers = users[node.output]
        ops = {reader.output: _padding(reader, node) for reader in readers}
        fitting = {name: op for name, op in ops.items() if op is not None}
        if readers and len(fitting) == len(ops):
            padded |= fitting
            sources[node.output] = node.inputs[0]
    builder = GraphBuilder(graph)
    for node in graph.nodes:
        if node.output in sources:
            continue
        if node.output in padded:
            inputs = (sources[node.inputs[0]], *node.inputs[1:])
            node = Node(padded[node.output], inputs, node.output, node.layer)
        builder.nodes.append(node)
    return builder.finish()


def _padding(node: Node, pad: Node) -> Op | None:
    """The op that takes the zeros around its first input as its own padding; None if there is none."""
    assert isinstance(pad.op, Pad)
    if node.inputs[0] != pad.output or node.inputs.count(pad.output) > 1 or pad.op.zero_sides is None:
        return None
    return node.op.with_padding(pad.op.zero_sides)
