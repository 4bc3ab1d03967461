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

from netopt.errors import NetoptError
from netopt.graph.aten import Imported
from netopt.graph.graph import GraphBuilder
from netopt.graph.import_call import import_call, layer_of
from netopt.graph.regions import partition
from netopt.numerics import Shape
from netopt.ops import Reshape, Slice, TensorType, TorchRegion

Values = dict[str, Imported]
_BOOKKEEPING = ("aten._assert", "aten.sym_")


@dataclass(frozen=True)
class Region:
    """Nodes that PyTorch runs at one point.

    Attributes:
        nodes: in order.
        inputs: the nodes outside whose values it reads, float32.
        outputs: those of its nodes whose values are read outside, float32.
        known: the values of the constants that it reads, of any type.
    """

    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]
    known: Mapping[fx.Node, Any]

    def op(self) -> TorchRegion:
        """The region as an op, with constants of its own."""
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
        graph.output(tuple(copies[node] for node in self.outputs))
        takes, gives = (tuple(_shape(node) for node in nodes) for nodes in (self.inputs, self.outputs))
        return TorchRegion(fx.GraphModule(root, graph), takes, gives, self.aten)

    @property
    def aten(self) -> tuple[str, ...]:
        """The ops that it runs, each once; without the checks and sizes that torch.export has put in."""
        names = [str(node.target) for node in self.nodes if isinstance(node.target, torch._ops.OperatorBase)]
        return tuple(name for name in dict.fromkeys(names) if not name.startswith(_BOOKKEEPING))


@dataclass(frozen=True)
class Plan:
    """How an exported program is imported.

    Attributes:
        computed: constants that are computed from constants by ops without importer, float32.
        parts: the other calls in an order of execution: nodes to be imported, and regions.
    """

    computed: Mapping[fx.Node, torch.Tensor]
    parts: tuple[fx.Node | Region, ...]


def plan_fallback(nodes: Sequence[fx.Node], state: Mapping[fx.Node, Any]) -> Plan:
    """Decide which calls are imported and which run in PyTorch.

    Args:
        nodes: all nodes of the exported program, in order.
        state: the values of parameters, buffers and constants.
    """
    known = _known_values(nodes, state)
    unlowered = _unlowered(nodes, known)
    computed = {n: value for n, value in known.items() if n in unlowered and _is_float32(value)}
    calls = [n for n in nodes if n.op == "call_function"]
    # What is computed from constants needs no place in the order: it ties nothing together, and comes first.
    parts: list[fx.Node | Region] = [n for n in calls if n in known and n not in unlowered]
    running = [n for n in calls if n not in known]
    among = set(running)
    reads = {n: [source for source in n.all_input_nodes if source in among] for n in running}
    # Only single float32 tensors of a known shape go from one part to another.
    inseparable = [(source, n) for n in running for source in reads[n] if not can_leave(source)]
    for group in partition(running, reads, unlowered & among, inseparable):
        if unlowered.isdisjoint(group):
            parts += group
        else:
            region = _region(group, known)
            # What nobody reads is not run: an assertion on values, for example.
            parts += [region] if region.outputs else []
    return Plan(computed, tuple(parts))


def import_region(region: Region, values: Values, builder: GraphBuilder) -> None:
    """Add a region to the builder, and its results to `values`."""
    op = region.op()
    # What stands in the model itself has no name; it is told only where nothing else is.
    layer = ", ".join(filter(None, dict.fromkeys(map(layer_of, region.nodes))))
    inputs: list[str] = []
    for node in region.inputs:
        name = values[node.name]
        assert isinstance(name, str)
        inputs.append(name)
    whole = builder.add_node(op, tuple(inputs), f"{region.outputs[0].name}_in_torch", layer)
    if len(region.outputs) == 1:
        values[region.outputs[0].name] = whole
        return
    ends = list(accumulate(TensorType(shape).elements for shape in op.gives))
    for node, shape, start, stop in zip(region.outputs, op.gives, [0, *ends], ends, strict=False):
        part = builder.add_node(Slice(0, start, stop, 1), (whole,), f"{node.name}_flat", layer)
        values[node.name] = builder.add_node(Reshape(shape), (part,), node.name, layer)


def can_leave(node: fx.Node) -> bool:
    """Whether the node's value is what the graph has: a float32 tensor of a static shape that is not empty."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
        return False
    return all(type(size) is int and size > 0 for size in value.shape)


def _known_values(nodes: Sequence[fx.Node], state: Mapping[fx.Node, Any]) -> dict[fx.Node, Any]:
    """The state, and all that is computed from it alone."""
    known = dict(state)
    with torch.no_grad():
        for node in nodes:
            if node.op == "call_function" and _is_repeatable(node) and all(n in known for n in node.all_input_nodes):
                assert callable(node.target)
                arguments, named = fx.map_arg((node.args, node.kwargs), known.__getitem__)
                known[node] = node.target(*arguments, **named)
    return known


def _is_repeatable(node: fx.Node) -> bool:
    tags = node.target.tags if isinstance(node.target, torch._ops.OpOverload) else ()
    return torch.Tag.nondeterministic_seeded not in tags


def _unlowered(nodes: Sequence[fx.Node], known: Mapping[fx.Node, Any]) -> set[fx.Node]:
    """The calls that cannot be imported, found by trying: in a builder that is thrown away."""
    builder, values = GraphBuilder(), Values()
    fixed: set[str] = set()
    unlowered: set[fx.Node] = set()
    for node in nodes:
        if node.op == "call_function":
            imported = _try(node, values, builder, fixed)
            if imported is not None:
                values[node.name] = imported
                continue
            unlowered.add(node)
        if node in known and _is_float32(known[node]):
            values[node.name] = builder.add_constant(node.name, known[node])
            fixed.update(builder.constants)
        elif node not in known and can_leave(node):
            name = builder.fresh_name(node.name)
            builder.types[name] = TensorType(_shape(node))
            values[node.name] = name
    return unlowered


def _try(node: fx.Node, values: Values, builder: GraphBuilder, fixed: set[str]) -> Imported | None:
    """What importing the node gives; None where that fails, or gives a layer that has no kernel."""
    if not all(source.name in values for source in node.all_input_nodes):
        return None
    before = len(builder.nodes)
    try:
        imported = import_call(node, values, builder)
    except NetoptError:
        del builder.nodes[before:]
        return None
    fixed.update(builder.constants)
    for new in builder.nodes[before:]:
        known = new.op.constant_operands([builder.types[name] for name in new.inputs])
        if not fixed.issuperset(new.inputs[index] for index in known):
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


def _is_float32(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32 and value.numel() > 0


def _shape(node: fx.Node) -> Shape:
    return tuple(node.meta["val"].shape)
