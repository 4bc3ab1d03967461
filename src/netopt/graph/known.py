"""What of an exported program is known when it is lowered: computed once, whatever its ops are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

# Their values depend on the shape and the type of the tensor that they take, and not on its elements.
_BY_TYPE = frozenset(
    f"aten.{name}"
    for name in (
        *("zeros_like.default", "ones_like.default", "full_like.default", "empty_like.default"),
        *("new_zeros.default", "new_ones.default", "new_full.default", "new_empty.default"),
    )
)


def known_values(nodes: Sequence[fx.Node], state: Mapping[fx.Node, Any]) -> dict[fx.Node, Any]:
    """The state, and all that is computed from it alone: tensors of any type, numbers, and tuples of them.

    Args:
        nodes: all nodes of the exported program, in order.
        state: the values of parameters, buffers and constants.
    """
    known = dict(state)
    with torch.no_grad():
        for node in nodes:
            if node.op == "call_function" and is_repeatable(node):
                values = _arguments(node, known)
                if values is not None:
                    _compute(node, values, known)
    return known


def _arguments(node: fx.Node, known: Mapping[fx.Node, Any]) -> Mapping[fx.Node, Any] | None:
    """What stands for the nodes that it reads; None where it depends on what is not known."""
    if all(source in known for source in node.all_input_nodes):
        return known
    if str(node.target) not in _BY_TYPE or not _is_static(node):
        return None
    # A number for each, which takes no memory, whatever the shape.
    return {source: known.get(source, _stand_in(source)) for source in node.all_input_nodes}


def _compute(node: fx.Node, values: Mapping[fx.Node, Any], known: dict[fx.Node, Any]) -> None:
    assert callable(node.target)
    arguments, named = fx.map_arg((node.args, node.kwargs), values.__getitem__)
    try:
        known[node] = node.target(*arguments, **named)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError):
        # It does not take these values: its importer says so, or PyTorch when it runs.
        return


def is_repeatable(node: fx.Node) -> bool:
    """Whether the call gives the same again: it draws no random numbers."""
    tags = node.target.tags if isinstance(node.target, torch._ops.OpOverload) else ()
    return torch.Tag.nondeterministic_seeded not in tags


def _is_static(node: fx.Node) -> bool:
    return all(
        isinstance(value, torch.Tensor) and all(type(size) is int for size in value.shape)
        for value in (source.meta.get("val") for source in node.all_input_nodes)
    )


def _stand_in(source: fx.Node) -> torch.Tensor:
    value = source.meta["val"]
    return torch.zeros((), dtype=value.dtype).expand(value.shape)
