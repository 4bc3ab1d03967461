"""Which parts of an exported program run in PyTorch, where the user has asked for that, and the op that runs each.

known values -> which nodes can be imported -> regions of the others -> parts, in an order of execution
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import fx

from netopt.errors import UnsupportedModel
from netopt.graph.aten import Imported
from netopt.graph.graph import GraphBuilder
from netopt.graph.import_call import constant_of, import_known, layer_of, number_of, try_call
from netopt.graph.known import is_repeatable
from netopt.graph.regions import partition
from netopt.numerics import FLOAT32, format_of
from netopt.ops import Reshape, Slice, TensorType, TorchRegion

Values = dict[str, Imported]
_BOOKKEEPING = ("aten._assert", "aten.sym_")


@dataclass(frozen=True)
class Region:
    """Nodes that PyTorch runs at one point.

    Attributes:
        nodes: in order.
        inputs: the nodes outside whose values it reads.
        outputs: those of its nodes whose values are read outside.
        known: the values of the constants that it reads, of any type.
    """

    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]
    known: Mapping[fx.Node, Any]

    def op(self, outputs: Sequence[fx.Node]) -> TorchRegion:
        """The region as an op that gives these of its outputs, with constants of its own."""
        graph, root = fx.Graph(), torch.nn.Module()
        copies = {node: graph.placeholder(f"input_{number}") for number, node in enumerate(self.inputs)}
        for number, (node, value) in enumerate(self.known.items()):
            name = f"constant_{number}"
            if isinstance(value, torch.Tensor):
                # Nobody else's memory: a program does not follow its model.
                root.register_buffer(name, value.detach().clone())
            else:
                setattr(root, name, value)
            copies[node] = graph.get_attr(name)
        for node in self.nodes:
            copies[node] = graph.node_copy(node, copies.__getitem__)
            copies[node].meta = {}  # it refers to the model
        graph.output(tuple(copies[node] for node in outputs))
        takes, gives = (tuple(map(type_of, nodes)) for nodes in (self.inputs, outputs))
        return TorchRegion(fx.GraphModule(root, graph), takes, gives, self.aten)

    def separate_outputs(self) -> list[tuple[fx.Node, ...]]:
        """The outputs, apart where they cannot be one tensor: numbers together, and each of whole numbers alone.

        The region runs once for each; so it must give the same again.
        """
        numbers = tuple(node for node in self.outputs if type_of(node).format == FLOAT32)
        wholes = [(node,) for node in self.outputs if node not in numbers]
        separate = [*([numbers] if numbers else []), *wholes]
        if len(separate) > 1 and not all(map(is_repeatable, self.nodes)):
            raise UnsupportedModel(
                "a part that draws random numbers and gives both numbers and indices",
                layer=layer_of(self.outputs[0]),
                fix="draw the numbers outside of the model, and give them as an input",
            )
        return separate

    @property
    def aten(self) -> tuple[str, ...]:
        """The ops that it runs, each once; without the checks and sizes that torch.export has put in."""
        names = [str(node.target) for node in self.nodes if isinstance(node.target, torch._ops.OperatorBase)]
        return tuple(name for name in dict.fromkeys(names) if not name.startswith(_BOOKKEEPING))


@dataclass(frozen=True)
class Plan:
    """How an exported program is imported.

    Attributes:
        parts: calls that are known, then the others in an order of execution: nodes to be imported, and regions.
    """

    parts: tuple[fx.Node | Region, ...]


def plan_fallback(nodes: Sequence[fx.Node], known: dict[fx.Node, Any]) -> Plan:
    """Decide which calls are imported and which run in PyTorch.

    Args:
        nodes: all nodes of the exported program, in order.
        known: the values of parameters, buffers and constants, and of all that is computed from them alone. Sizes of
            what can be imported are added.
    """
    unlowered = _unlowered(nodes, known)
    calls = [n for n in nodes if n.op == "call_function"]
    # What is computed from constants needs no place in the order: it ties nothing together, and comes first.
    parts: list[fx.Node | Region] = [n for n in calls if n in known]
    running = [n for n in calls if n not in known]
    among = set(running)
    reads = {n: [source for source in n.all_input_nodes if source in among] for n in running}
    # Only single tensors of a format that a graph has, and of a known shape, go from one part to another.
    inseparable = [(source, n) for n in running for source in reads[n] if not can_leave(source)]
    for group in partition(running, reads, unlowered & among, inseparable):
        if unlowered.isdisjoint(group):
            parts += group
        else:
            region = _region(group, known)
            # What nobody reads is not run: an assertion on values, for example.
            parts += [region] if region.outputs else []
    return Plan(tuple(parts))


def import_region(region: Region, values: Values, builder: GraphBuilder) -> None:
    """Add a region to the builder, and its results to `values`."""
    # What stands in the model itself has no name; it is told only where nothing else is.
    layer = ", ".join(filter(None, dict.fromkeys(map(layer_of, region.nodes))))
    inputs: list[str] = []
    for node in region.inputs:
        name = values[node.name]
        assert isinstance(name, str)
        inputs.append(name)
    for outputs in region.separate_outputs():
        op = region.op(outputs)
        whole = builder.add_node(op, tuple(inputs), f"{outputs[0].name}_in_torch", layer)
        if len(outputs) == 1:
            values[outputs[0].name] = whole
            continue
        ends = list(accumulate(type_.elements for type_ in op.gives))
        for node, type_, start, stop in zip(outputs, op.gives, [0, *ends], ends, strict=False):
            part = builder.add_node(Slice(0, start, stop, 1), (whole,), f"{node.name}_flat", layer)
            values[node.name] = builder.add_node(Reshape(type_.shape), (part,), node.name, layer)


def can_leave(node: fx.Node) -> bool:
    """Whether the node's value is what a graph has: a tensor of such a format, of a static shape, and not empty."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or format_of(value.dtype) is None:
        return False
    return all(type(size) is int and size > 0 for size in value.shape)


def type_of(node: fx.Node) -> TensorType:
    """The type of a value that can leave its part."""
    value = node.meta["val"]
    format_ = format_of(value.dtype)
    assert format_ is not None
    return TensorType(tuple(value.shape), format_)


def _unlowered(nodes: Sequence[fx.Node], known: dict[fx.Node, Any]) -> set[fx.Node]:
    """The calls that cannot be imported, found by trying: in a builder that is thrown away."""
    builder, values = GraphBuilder(), Values()
    fixed: set[str] = set()
    unlowered: set[fx.Node] = set()
    for node in nodes:
        if node in known:
            _add_known(node, values, builder, fixed, known)
            continue
        if node.op == "call_function":
            number = number_of(node, values, builder, known)
            if number is not None:
                known[node] = number
                continue
            imported = _try(node, values, builder, fixed, known)
            if imported is not None:
                values[node.name] = imported
                continue
            unlowered.add(node)
        if can_leave(node):
            name = builder.fresh_name(node.name)
            builder.types[name] = type_of(node)
            values[node.name] = name
    return unlowered


def _add_known(
    node: fx.Node, values: Values, builder: GraphBuilder, fixed: set[str], known: Mapping[fx.Node, Any]
) -> None:
    """Add what is known as it will be imported."""
    before = len(builder.nodes)
    if node.op == "call_function":
        constant = import_known(node, values, builder, known)
    else:
        constant = constant_of(node.name, known[node], builder)
    if constant is not None:
        values[node.name] = constant
    fixed.update(builder.constants)
    fixed.update(new.output for new in builder.nodes[before:])


def _try(
    node: fx.Node, values: Values, builder: GraphBuilder, fixed: set[str], known: Mapping[fx.Node, Any]
) -> Imported | None:
    """What importing the node gives; None where that fails, or gives a layer that has no kernel."""
    before = len(builder.nodes)
    imported = try_call(node, values, builder, known)
    if imported is None:
        return None
    fixed.update(builder.constants)
    for new in builder.nodes[before:]:
        weights = new.op.constant_operands([builder.types[name] for name in new.inputs])
        if not fixed.issuperset(new.inputs[index] for index in weights):
            del builder.nodes[before:]
            return None
        if fixed.issuperset(new.inputs):
            fixed.add(new.output)
    return imported


def _region(nodes: tuple[fx.Node, ...], known: Mapping[fx.Node, Any]) -> Region:
    inside = set(nodes)
    read = list(dict.fromkeys(source for node in nodes for source in node.all_input_nodes if source not in inside))
    return Region(
        nodes,
        tuple(node for node in read if node not in known),
        tuple(node for node in nodes if any(user not in inside for user in node.users)),
        {node: known[node] for node in read if node in known},
    )
