"""Let a dense layer after a flattened image read it channels last: its weights are permuted, not the image."""

from __future__ import annotations

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.ops import Dense, Permute, Reshape


def permute_flattened_weights(graph: Graph) -> Graph:
    """reshape (batch, channels, height, width) -> (batch, features) -> dense with constant weights.

    becomes permute to (batch, height, width, channels) -> reshape -> dense with the columns of W in that order. On a
    channels-last image the permutation is a view.
    """
    users, producers = graph.users(), graph.producers()
    builder = GraphBuilder(graph)
    weights: dict[str, str] = {}  # output of a dense layer -> its permuted weight
    for node in graph.nodes:
        if _flattens_for_dense(graph, node, users[node.output]) and node.inputs[0] in producers:
            _, channels, height, width = graph.types[node.inputs[0]].shape
            image = builder.add_node(Permute((0, 2, 3, 1)), node.inputs, f"{node.output}_pixels", node.layer)
            node = Node(node.op, (image,), node.output, node.layer)
            for user in users[node.output]:
                weight = graph.constants[user.inputs[1]]
                ordered = weight.reshape(-1, channels, height, width).permute(0, 2, 3, 1).reshape(weight.shape)
                format_ = graph.types[user.inputs[1]].format
                weights[user.output] = builder.add_constant(f"{user.inputs[1]}_by_pixel", ordered, format_)
        elif node.output in weights:
            node = Node(node.op, (node.inputs[0], weights[node.output], *node.inputs[2:]), node.output, node.layer)
        builder.nodes.append(node)
    return builder.finish()


def _flattens_for_dense(graph: Graph, node: Node, users: list[Node]) -> bool:
    source, target = graph.types[node.inputs[0]].shape if node.inputs else (), graph.types[node.output].shape
    return (
        isinstance(node.op, Reshape)
        and len(source) == 4
        and target == (source[0], source[1] * source[2] * source[3])
        and source[2:] != (1, 1)
        and source[1] > 1
        and node.output not in graph.outputs
        and bool(users)
        and all(
            isinstance(user.op, Dense)
            and user.inputs.count(node.output) == 1
            and user.inputs[0] == node.output
            and user.inputs[1] in graph.constants
            for user in users
        )
    )
