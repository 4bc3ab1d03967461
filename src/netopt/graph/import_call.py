"""One call of an exported program: to nodes of the graph, or to an error that says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from netopt.errors import InvalidArgument, InvalidType, NetoptError, UnsupportedModel, name_of_layer
from netopt.graph.aten import IMPORTERS, OF_COMPLEX, Context, Imported, Importer
from netopt.graph.export_error import place_in_trace
from netopt.graph.graph import GraphBuilder
from netopt.numerics import FLOAT32, WHOLES, format_of

# The remedy that is always there.
FALLBACK = "lower with fallback=True, which runs this part in PyTorch"


def import_call(
    node: fx.Node, values: Mapping[str, Imported], builder: GraphBuilder, known: Mapping[fx.Node, Any]
) -> Imported:
    """Add a call of an exported program to the builder.

    Args:
        node: a call_function node.
        values: by the name of each node before it, the value in the builder, or a tuple of values.
        known: what is known when lowering, of which an importer takes numbers as they are.

    Raises:
        UnsupportedModel: its ATen op has no importer, or the importer does not take it; names layer, op and remedy.
    """
    layer = layer_of(node)
    if getattr(node.target, "__name__", "") == "getitem":
        source, index = node.args
        assert isinstance(source, fx.Node) and isinstance(index, int)
        result = values[source.name][index] if source.name in values else ""
        if not result and node.users:
            raise UnsupportedModel(
                f"{_place(node)}result {index} of op '{source.target}' is not lowered",
                layer=layer,
                fix=f"use the others alone, or {FALLBACK}",
            )
        return result
    op = str(node.target).removeprefix("aten.")
    importer = _importer(op, node) if isinstance(node.target, torch._ops.OpOverload) else None
    if importer is None:
        raise UnsupportedModel(
            f"{_place(node)}op '{node.target}' is not lowered{_reason(node)}",
            layer=layer,
            fix=f"write the layer with the ops that docs/ops.md lists, or {FALLBACK}",
        )
    try:
        return importer(Context(builder, node.name, layer, _dtype_of(node)), _arguments(node, values, known))
    except (InvalidArgument, InvalidType) as error:
        raise UnsupportedModel(f"op '{node.target}': {error}", layer=layer, fix=FALLBACK) from error
    except UnsupportedModel as error:
        text = str(error) if error.layer is not None else f"{name_of_layer(layer)}: {_place(node)}{error}"
        told = UnsupportedModel(f"{text}{', or' if error.fix else ';'} {FALLBACK}")
        told.layer = layer
        raise told from error


def import_known(
    node: fx.Node, values: Mapping[str, Imported], builder: GraphBuilder, known: Mapping[fx.Node, Any]
) -> Imported | None:
    """Add what is computed from constants alone.

    Large tensors in float32 that are made of such tensors are left to the importers, where there are some: what they
    add is computed when lowering, too, but in float64. All else is a constant; None where it is none that a graph has.
    """
    if _is_large(known[node]) and _is_of_numbers(node, known):
        imported = try_call(node, values, builder, known)
        if imported is not None:
            return imported
    return constant_of(node.name, known[node], builder)


def _importer(op: str, node: fx.Node) -> Importer | None:
    """The importer of an op; of one that reads complex values that of pairs."""
    if op in OF_COMPLEX and any(_is_complex(source) for source in node.all_input_nodes):
        return OF_COMPLEX[op]
    return IMPORTERS.get(op)


def _is_complex(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_complex()


def number_of(
    node: fx.Node, values: Mapping[str, Imported], builder: GraphBuilder, known: Mapping[fx.Node, Any]
) -> float | None:
    """A Python number that a call gives, of sizes that are known by now; None where it gives none.

    torch.export leaves a size open where it depends on values, also on those of constants, such as a mask.
    """
    if str(node.target) == "aten.sym_size.int":
        source, axis = node.args
        name = values.get(source.name) if isinstance(source, fx.Node) else None
        return builder.types[name].shape[axis] if isinstance(name, str) and name else None  # type: ignore[index]
    if getattr(node.target, "__module__", "") not in ("_operator", "builtins", "math"):
        return None
    if not node.all_input_nodes or not all(isinstance(known.get(n), bool | int | float) for n in node.all_input_nodes):
        return None
    assert callable(node.target)
    result = node.target(*fx.map_arg(node.args, known.__getitem__))
    return result if isinstance(result, bool | int | float) else None


def try_call(
    node: fx.Node, values: Mapping[str, Imported], builder: GraphBuilder, known: Mapping[fx.Node, Any]
) -> Imported | None:
    """What `import_call` gives; None where it fails, and then the builder is left as it was."""
    before = len(builder.nodes)
    try:
        return import_call(node, values, builder, known)
    except NetoptError:
        del builder.nodes[before:]
        return None


def constant_of(wish: str, value: object, builder: GraphBuilder) -> Imported | None:
    """A known value as a constant, a tuple as constants; None where it is none that a graph has."""
    if isinstance(value, tuple | list):
        parts = [constant_of(wish, part, builder) for part in value]
        return tuple(part if isinstance(part, str) else "" for part in parts)
    if not isinstance(value, torch.Tensor) or not value.numel():
        return None
    if value.is_complex():
        return constant_of(wish, (value.real, value.imag), builder)
    format_ = format_of(value.dtype)
    return None if format_ is None else builder.add_constant(builder.fresh_name(wish), value, format_)


def _is_large(value: object) -> bool:
    """Whether it may be a weight, rather than a number that an importer needs to know."""
    parts = value if isinstance(value, tuple | list) else [value]
    return any(isinstance(part, torch.Tensor) and part.numel() > 64 for part in parts)


def _is_of_numbers(node: fx.Node, known: Mapping[fx.Node, Any]) -> bool:
    """Whether all tensors that it reads, and those that it gives, are float32."""
    results = known[node] if isinstance(known[node], tuple | list) else [known[node]]
    read = [known[source] for source in node.all_input_nodes if source in known]
    if not read or len(read) < len(node.all_input_nodes):
        return False
    flat = [part for value in read for part in (value if isinstance(value, tuple | list) else [value])]
    return all(isinstance(value, torch.Tensor) and value.dtype == torch.float32 for value in (*results, *flat))


def _dtype_of(node: fx.Node) -> torch.dtype | None:
    value = node.meta.get("val")
    return value.dtype if isinstance(value, torch.Tensor) else None


def _arguments(node: fx.Node, values: Mapping[str, Imported], known: Mapping[fx.Node, Any]) -> dict[str, Any]:
    """The call's arguments by name, with defaults; names of graph values, or known numbers, in place of nodes."""
    assert isinstance(node.target, torch._ops.OpOverload)
    result: dict[str, Any] = {}
    for index, argument in enumerate(node.target._schema.arguments):
        if index < len(node.args):
            value = node.args[index]
        elif argument.name in node.kwargs:
            value = node.kwargs[argument.name]
        else:
            value = argument.default_value
        result[argument.name] = fx.map_arg(value, lambda source: _value_of(source, values, known))
    return result


def _value_of(source: fx.Node, values: Mapping[str, Imported], known: Mapping[fx.Node, Any]) -> Imported | float:
    if source.name in values:
        return values[source.name]
    number = known.get(source)
    if isinstance(number, bool | int | float):
        return number
    value = source.meta.get("val", number)
    found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)
    expected = f"{', '.join(format_.name for format_ in (FLOAT32, *WHOLES))}, of a shape that is known, and not empty"
    raise UnsupportedModel(f"'{name_of(source)}'", expected=expected, found=found, fix="convert it, as with .float()")


def name_of(node: fx.Node) -> str:
    """What the user calls a value: of the model's own tensors their qualified names."""
    return str(node.meta.get("netopt_name", node.name))


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
