"""One call of an exported program: to nodes of the graph, or to an error that says what to do."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from netopt.errors import InvalidArgument, InvalidType, UnsupportedModel
from netopt.graph.aten import IMPORTERS, Context, Imported
from netopt.graph.export_error import place_in_trace
from netopt.graph.graph import GraphBuilder

# The remedy that is always there.
FALLBACK = "lower with fallback=True, which runs this part in PyTorch"


def import_call(node: fx.Node, values: dict[str, Imported], builder: GraphBuilder) -> Imported:
    """Add a call of an exported program to the builder.

    Args:
        node: a call_function node.
        values: by the name of each node before it, the value in the builder, or a tuple of values.

    Raises:
        UnsupportedModel: its ATen op has no importer, or the importer does not take it; names layer, op and remedy.
    """
    layer = layer_of(node)
    if getattr(node.target, "__name__", "") == "getitem":
        source, index = node.args
        assert isinstance(source, fx.Node) and isinstance(index, int)
        result = values[source.name][index]
        if not result and node.users:
            raise UnsupportedModel(
                f"{_place(node)}result {index} of op '{source.target}' is not lowered",
                layer=layer,
                fix=f"use the others alone, or {FALLBACK}",
            )
        return result
    op = str(node.target).removeprefix("aten.")
    importer = IMPORTERS.get(op) if isinstance(node.target, torch._ops.OpOverload) else None
    if importer is None:
        raise UnsupportedModel(
            f"{_place(node)}op '{node.target}' is not lowered{_reason(node)}",
            layer=layer,
            fix=f"write the layer with the ops that docs/ops.md lists, or {FALLBACK}",
        )
    try:
        return importer(Context(builder, node.name, layer), _arguments(node, values))
    except (InvalidArgument, InvalidType) as error:
        raise UnsupportedModel(f"op '{node.target}': {error}", layer=layer, fix=FALLBACK) from error
    except UnsupportedModel as error:
        told = UnsupportedModel(f"{error}{', or' if error.fix else ';'} {FALLBACK}")
        told.layer = layer
        raise told from error


def _arguments(node: fx.Node, values: dict[str, Imported]) -> dict[str, Any]:
    """The call's arguments by name, with defaults, and names of graph values in place of nodes."""
    assert isinstance(node.target, torch._ops.OpOverload)
    result: dict[str, Any] = {}
    for index, argument in enumerate(node.target._schema.arguments):
        if index < len(node.args):
            value = node.args[index]
        elif argument.name in node.kwargs:
            value = node.kwargs[argument.name]
        else:
            value = argument.default_value
        result[argument.name] = fx.map_arg(value, lambda source: values[source.name])
    return result


def layer_of(node: fx.Node) -> str:
    """Qualified name of the innermost module that the node was traced in."""
    stack = node.meta.get("nn_module_stack") or {}
    path = [name for name, _ in stack.values()]
    return str(path[-1]) if path else ""


def _place(node: fx.Node) -> str:
    place = place_in_trace(node.meta.get("stack_trace"))
    return f"{place}: " if place else ""


def _reason(node: fx.Node) -> str:
    is_number = isinstance(node.meta.get("val"), torch.SymInt | torch.SymFloat | torch.SymBool)
    return ": it reads a Python number from a tensor, as .item() and float() do" if is_number else ""
