"""The invariants of a graph, checked after capture, after each pass and when a file is loaded."""

from __future__ import annotations

import math

import torch

from netopt.errors import InvalidArgument, NetoptError
from netopt.graph.graph import Graph, Node
from netopt.numerics import FLOATS, SIGNS, WHOLES, NumberFormat, Shape
from netopt.ops import Op, TensorType
from netopt.ops.op import is_code_of_values

# More than any network has, and fewer than NumPy and Halide take.
MOST_AXES = 32


def verify(graph: Graph) -> None:
    """Check names, order and types.

    Raises:
        InvalidArgument: a value is written twice or read before it is written, a type is not the one that the op
            infers, a format cannot store its shape or is of constants alone, an input or output is neither of floating
            nor of whole numbers nor of codes, a constant is not a contiguous CPU tensor of its type or is not used, or
            a value has no type or no place.
    """
    known: set[str] = set()
    for name, type_ in graph.types.items():
        _check_format(name, type_)
        if name not in graph.constants and not type_.format.is_of_values:
            raise InvalidArgument(f"graph: format of '{name}'", expected="one of values", found=type_.format)
    for name in (*graph.inputs, *graph.constants):
        _define(name, known)
    for name, value in graph.constants.items():
        _check_constant(name, value, graph)
    for node in graph.nodes:
        _check_node(node, graph, known)
    _check_ends(graph, known)
    read = {name for node in graph.nodes for name in node.inputs} | set(graph.outputs)
    if not set(graph.constants) <= read:
        raise InvalidArgument("graph: constants", expected="no unused ones", found=sorted(set(graph.constants) - read))
    if set(graph.types) != known:
        raise InvalidArgument("graph: typed values", expected=str(sorted(known)), found=sorted(graph.types))


def _check_ends(graph: Graph, known: set[str]) -> None:
    for name in graph.outputs:
        if name not in known:
            raise InvalidArgument(f"graph: output '{name}'", expected="a value defined in the graph")
    for name in (*graph.inputs, *graph.outputs):
        if name in graph.types and not _is_of_ends(graph.types[name].format):
            found = graph.types[name].format.name
            expected = ", ".join([*(format_.name for format_ in (*FLOATS, *WHOLES)), "codes of 8 or 16 bits"])
            raise InvalidArgument(f"graph: format of '{name}', an input or output", expected=expected, found=found)


def _is_of_ends(format_: NumberFormat) -> bool:
    return format_ in (*FLOATS, *WHOLES) or is_code_of_values(format_)


def check_shape(name: str, shape: Shape) -> None:
    """Raise InvalidArgument unless a value has elements, no more than kernels can count, and no more axes."""
    if len(shape) > MOST_AXES:
        raise InvalidArgument(f"axes of '{name}'", expected=f"at most {MOST_AXES}", found=len(shape))
    if min(shape, default=1) < 1 or math.prod(shape) >= 2**31:
        raise InvalidArgument(f"shape of '{name}'", expected="from 1 to 2^31 - 1 elements", found=shape)


def _check_format(name: str, type_: TensorType) -> None:
    check_shape(name, type_.shape)
    try:
        type_.format.parts(type_.shape)
    except InvalidArgument as error:
        raise InvalidArgument(f"graph: format of '{name}': {error}") from error


def _define(name: str, known: set[str]) -> None:
    if name in known:
        raise InvalidArgument(f"graph: value '{name}'", expected="one definition", found="two")
    known.add(name)


def _check_node(node: Node, graph: Graph, known: set[str]) -> None:
    for name in node.inputs:
        if name not in known or name not in graph.types:
            raise InvalidArgument(
                f"graph: input '{name}' of '{node.output}'", expected="a value defined before", layer=node.layer
            )
    _define(node.output, known)
    try:
        inferred = node.op.infer(graph.node_types(node))
    except NetoptError as error:
        raise InvalidArgument(f"graph: '{node.output}': {error}", layer=node.layer) from error
    found = graph.types.get(node.output)
    if found is None or found.shape != inferred.shape or not _same_kind(found, inferred, node.op):
        raise InvalidArgument(f"graph: type of '{node.output}'", expected=str(inferred), found=found)


def _same_kind(found: TensorType, inferred: TensorType, op: Op) -> bool:
    """Whether the formats are equal, or both can hold the value: how it is stored is the graph's to choose."""
    if found.format == SIGNS:
        return op.gives_signs
    return found.format == inferred.format or (found.format.is_real and inferred.format.is_real)


def _check_constant(name: str, value: torch.Tensor, graph: Graph) -> None:
    type_ = graph.types.get(name)
    fits = type_ is not None and tuple(value.shape) == type_.shape and type_.format.tensor_dtype == value.dtype
    if not fits or value.device.type != "cpu" or not value.is_contiguous():
        raise InvalidArgument(
            f"graph: constant '{name}'",
            expected=f"a contiguous CPU tensor of type {type_}",
            found=f"{value.dtype} {tuple(value.shape)} on {value.device}",
        )
