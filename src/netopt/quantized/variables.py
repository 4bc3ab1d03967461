"""What settings list of a network: its variables with their types, and its functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from netopt.errors import InvalidArgument
from netopt.graph import Graph
from netopt.numerics import NumberFormat
from netopt.ops import Convert, Relayout
from netopt.quantized.assign import assign, layers_of
from netopt.quantized.types import TypeWish, Variable, VariableKind, type_name

# What lowering puts between ops: the same numbers, stored otherwise.
_COPIES = (Convert, Relayout)
# More bits than these have codes of sums alone, such as biases, whose format follows from what is summed.
_MOST_BITS = 16


def variables_of(graph: Graph, format_of: Callable[[str], NumberFormat | None] | None = None) -> tuple[Variable, ...]:
    """The variables of real numbers: inputs, then each op's parameters and what it computes, in order.

    Copies that lowering makes, whole numbers and codes of sums are not listed: there is nothing to choose.

    Args:
        graph: a network, lowered or not.
        format_of: the format of a value or constant, if it is not that of the graph.
    """
    rows: dict[str, Variable] = {}

    def add(name: str, kind: VariableKind) -> None:
        format_ = (format_of(name) if format_of is not None else None) or graph.types[name].format
        is_sum = getattr(format_, "bits", 0) > _MOST_BITS
        if name not in rows and not format_.is_whole and not is_sum:
            rows[name] = Variable(name, kind, graph.types[name].shape, type_name(format_))

    for name in graph.inputs:
        add(name, "input")
    for node in graph.nodes:
        for name in node.inputs:
            if name in graph.constants:
                add(name, "parameter")
        if node.output in graph.outputs:
            add(node.output, "output")
        elif not isinstance(node.op, _COPIES):
            add(node.output, "buffer")
    return tuple(rows.values())


def all_in(graph: Graph, variables: tuple[Variable, ...], wish: TypeWish) -> tuple[Variable, ...]:
    """The variables, with this type for all that layers multiply: their weights, and the values that need it then.

    Args:
        graph: the network that they are of, not lowered.
        variables: what is listed of it.
        wish: codes that values can have: of 8 or 16 bits.

    Raises:
        InvalidArgument: there are no values in such codes.
    """
    if wish.bits not in (8, 16) or wish.kind not in ("fixed", "affine"):
        raise InvalidArgument("type of all", expected="codes of 8 or 16 bits, such as FIXED8", found=str(wish))
    layers = {node.output: node for node in layers_of(graph)}
    chosen = assign(graph, lambda node: node.output in layers).values | {node.inputs[1] for node in layers.values()}
    return tuple(replace(v, type=str(wish)) if v.name in chosen else v for v in variables)


def functions_of(graph: Graph) -> tuple[tuple[str, str], ...]:
    """The name of what each op computes, and the op with what is fused into it, in order."""
    return tuple((node.output, node.op.label) for node in graph.nodes if not isinstance(node.op, _COPIES))
