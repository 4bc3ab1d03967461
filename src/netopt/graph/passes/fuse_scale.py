"""Let a matrix product multiply by the number that its operand or its result is multiplied by."""

from __future__ import annotations

import dataclasses
import math

from netopt.graph.edit import GraphEditor
from netopt.graph.graph import Graph, Node
from netopt.ops import Arithmetic


def fuse_scale(graph: Graph) -> Graph:
    """mul or div by a constant of one element goes into the op before it that takes a scale, or after it.

    Past reshapes and permutations of its result, and where nothing else reads the value between them.
    """
    editor = GraphEditor(graph)
    for node in editor.walk():
        following: Node | None = node
        # A number before this one may now see the product that this one has hidden.
        while following is not None and _fuse(editor, following):
            following = _above(editor, following.inputs[0])
    return editor.finish()


def _fuse(editor: GraphEditor, node: Node) -> bool:
    factor = _factor(editor, node)
    if factor is None:
        return False
    for product in (_writer(editor, node), _reader(editor, node)):
        scaled = product.op.with_scale(factor) if product is not None else None
        if product is not None and scaled is not None:
            editor.replace(dataclasses.replace(product, op=scaled))
            editor.rename(node.output, node.inputs[0])
            editor.remove(node)
            return True
    return False


def _factor(editor: GraphEditor, node: Node) -> float | None:
    """The number that a node multiplies its first input by, if that is what it does."""
    if node.op not in (Arithmetic("mul"), Arithmetic("div")):
        return None
    number = editor.constants.get(node.inputs[1])
    if number is None or number.numel() != 1 or editor.types[node.output] != editor.types[node.inputs[0]]:
        return None
    value = float(number)
    factor = value if node.op == Arithmetic("mul") else (1.0 / value if value else math.inf)
    return factor if math.isfinite(factor) else None


def _writer(editor: GraphEditor, node: Node) -> Node | None:
    """The node whose result is multiplied, if that is not read otherwise."""
    return editor.producer(node.inputs[0]) if editor.only_user(node.inputs[0]) is not None else None


def _reader(editor: GraphEditor, node: Node) -> Node | None:
    """The node that reads the product with the number, past what gives its elements another order."""
    user = editor.only_user(node.output)
    while user is not None and user.op.rearranges:
        user = editor.only_user(user.output)
    return user


def _above(editor: GraphEditor, value: str) -> Node | None:
    """The node that has written the value, before what gives its elements another order."""
    writer = editor.producer(value)
    while writer is not None and writer.op.rearranges:
        writer = editor.producer(writer.inputs[0])
    return writer
