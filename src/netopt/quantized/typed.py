"""Types that users give to the variables of a network: checked against what its ops can do, placed, and applied."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace

from netopt.errors import InvalidArgument
from netopt.graph import Graph, Node
from netopt.graph.spread import spread
from netopt.numerics import CodeFormat, SignFormat
from netopt.quantization.fixed_point.calibration import Kind, Observer
from netopt.quantization.fixed_point.quantizer import Quantizer
from netopt.quantization.fixed_point.techniques import FixedPoint
from netopt.quantized.assign import LAYERS, keeps_codes, layers_of
from netopt.quantized.network import QuantizedNetwork
from netopt.quantized.place import weight_format
from netopt.quantized.types import TypeRefused, TypeWish

Types = Mapping[str, TypeWish]


def check_types(network: QuantizedNetwork, types: Types) -> None:
    """Raise unless each variable is there and can have its type.

    Raises:
        InvalidArgument: there is no such variable.
        TypeRefused: the variable cannot have the type.
    """
    graph = network.example_graph
    weights = {node.inputs[1] for node in layers_of(graph)}
    for name, wish in types.items():
        if name not in graph.types:
            close = difflib.get_close_matches(name, list(graph.types), 3, 0.5)
            fix = f"did you mean {' or '.join(close)}?" if close else None
            raise InvalidArgument(f"types: unknown variable '{name}'", fix=fix)
        if wish.kind == "sign" or isinstance(graph.types[name].format, SignFormat):
            _check_sign(graph, name, wish)
        elif wish.kind == "float32":
            continue
        elif name in graph.constants:
            _check_constant(name, wish, weights)
        else:
            _check_value(graph, name, wish)


def _check_sign(graph: Graph, name: str, wish: TypeWish) -> None:
    is_sign = isinstance(graph.types[name].format, SignFormat)
    if is_sign and wish.kind != "sign":
        raise TypeRefused(name, expected="SIGN, for it is +1 and -1", found=wish)
    if not is_sign:
        fix = "binarize the layer first (netopt.quantization)"
        raise TypeRefused(name, expected="codes or FLOAT32, for it is not +1 and -1 alone", found=wish, fix=fix)


def _check_constant(name: str, wish: TypeWish, weights: set[str]) -> None:
    if name not in weights:
        fix = "remove the line; biases are rounded as what is added to them"
        raise TypeRefused(name, expected="FLOAT32 for what is no weight of a layer", found=wish, fix=fix)
    if not wish.signed:
        raise TypeRefused(name, expected="signed codes for a weight", found=wish, fix=f"write {str(wish)[1:]}")


def _check_value(graph: Graph, name: str, wish: TypeWish) -> None:
    if wish.bits not in ((8, 16) if wish.signed else (7, 8)):
        raise TypeRefused(name, expected="codes of 8 or 16 bits for what is computed", found=wish)
    if graph.types[name].format.is_whole:
        raise TypeRefused(name, expected="whole numbers as they are", found=wish)
    around = [node for node in graph.nodes if name == node.output or name in node.inputs]
    if not any(isinstance(node.op, LAYERS) or node.op.takes_codes for node in around):
        ops = " and ".join(sorted({node.op.label for node in around})) or "no op"
        raise TypeRefused(name, expected=f"FLOAT32, for {ops} cannot compute on codes", found=wish)


def to_observe(network: QuantizedNetwork, types: Types) -> dict[str, Observer]:
    """An observer for each value whose type leaves its place open; those of an op that moves codes share one."""
    graph = network.example_graph
    values = [*graph.inputs, *(node.output for node in graph.nodes)]
    open_ = {name: types[name] for name in values if name in types and types[name].format is None}
    tied = []
    for node in graph.nodes:
        if keeps_codes(node.op) and node.output in open_:
            members = {*node.inputs, node.output}
            tied.append({name for name in members if open_.get(name) == open_[node.output]})
    observers: dict[str, Observer] = {}
    for name in open_:
        if name not in observers:
            observers |= dict.fromkeys(spread([name], tied), Observer())
    return observers


def apply_types(
    network: QuantizedNetwork, types: Types, observers: Mapping[str, Observer], technique: FixedPoint
) -> None:
    """Round values and weights to these types; those that are not named are not rounded.

    Args:
        observers: what has been seen of each value whose type has no n.
        technique: its `method` places values, and its `per_channel` weights.

    Raises:
        InvalidArgument: nothing has been seen of a value whose type has no n.
    """
    graph = network.example_graph
    layers = {node.inputs[1]: node for node in reversed(layers_of(graph))}
    network.leave_all()
    groups: dict[int, list[str]] = {}
    for name, observer in observers.items():
        groups.setdefault(id(observer), []).append(name)
    for names in groups.values():
        format_ = _placed(observers[names[0]], types[names[0]], names[0], technique)
        network.round_to(tuple(names), Quantizer.of(format_))
    for name, wish in types.items():
        if name in layers and wish.kind in ("fixed", "affine"):
            network.round_to((name,), Quantizer.of(_weight_format(network, layers[name], wish, technique)))
        elif isinstance(wish.format, CodeFormat) and name not in graph.constants:
            network.round_to((name,), Quantizer.of(wish.format))


def _placed(observer: Observer, wish: TypeWish, name: str, technique: FixedPoint) -> CodeFormat:
    if not observer.count:
        fix = "give calibration inputs, or n"
        raise TypeRefused(name, expected="calibration inputs, from which n is found", found="none", fix=fix)
    kind: Kind = "real" if wish.kind == "affine" else "power"
    return technique.method.place(observer, wish.bits, wish.signed, kind)


def _weight_format(network: QuantizedNetwork, node: Node, wish: TypeWish, technique: FixedPoint) -> CodeFormat:
    if isinstance(wish.format, CodeFormat):
        return wish.format
    scales: Kind = "real" if wish.kind == "affine" else "power"
    options = replace(technique, weights=wish.bits, scales=scales)
    return weight_format(network.weight(node.inputs[1]), node, network.example_graph, options)
