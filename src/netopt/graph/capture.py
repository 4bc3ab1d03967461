"""From a PyTorch module to a graph, through torch.export."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, OutputKind

from netopt.errors import InvalidArgument, InvalidType, NetoptError, UnsupportedModel
from netopt.example import Example, split_example
from netopt.graph.aten import Imported
from netopt.graph.export_error import explain, quiet_torch
from netopt.graph.fallback import Region, can_leave, import_region, plan_fallback
from netopt.graph.graph import Graph, GraphBuilder
from netopt.graph.import_call import FALLBACK, import_call, layer_of
from netopt.graph.side_effects import unchanged_attributes
from netopt.graph.signature import Nesting, Signature
from netopt.graph.verify import verify
from netopt.ops import TensorType


def capture(model: nn.Module, example: Example, *, fallback: bool = False) -> tuple[Graph, Signature]:
    """Trace `model` in eval mode.

    Args:
        model: float32, on the CPU; it is not changed.
        example: one input: a tensor, a tuple of positional arguments or a dict of keyword arguments.
        fallback: put what cannot be imported into the graph as parts that PyTorch runs.

    Raises:
        InvalidType, InvalidArgument: the example cannot be used.
        UnsupportedModel: torch.export cannot trace the model, or an op has no importer and `fallback` is not set.
    """
    if not isinstance(model, nn.Module):
        raise InvalidType("model", expected="a torch.nn.Module", found=repr(model))
    args, kwargs = split_example(example)
    positional = Nesting.of(args, "example")
    keyword = Nesting.of(kwargs, "example")
    _check_tensors(model, [*positional.flatten(args, "example"), *keyword.flatten(kwargs, "example")])
    # Copies: torch.export takes one tensor given twice, or a parameter of the model given as input, for one value.
    args = positional.unflatten(t.detach().clone() for t in positional.flatten(args, "example"))
    kwargs = keyword.unflatten(t.detach().clone() for t in keyword.flatten(kwargs, "example"))
    exported = _export(_in_eval_mode(model), args, kwargs)
    return _import(exported, positional, keyword, fallback)


def _check_tensors(model: nn.Module, example: list[torch.Tensor]) -> None:
    named = [*model.named_parameters(), *model.named_buffers(), *((f"example {i}", t) for i, t in enumerate(example))]
    for name, tensor in named:
        if tensor.device.type != "cpu":
            raise InvalidArgument(name, expected="a tensor on the CPU", found=tensor.device, fix="move it with .cpu()")
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise InvalidType(name, expected="float32", found=tensor.dtype, fix="convert it with .float()")
    for index, tensor in enumerate(example):
        if tensor.dtype != torch.float32 or tensor.numel() == 0:
            raise InvalidArgument(
                f"example {index}",
                expected="a float32 tensor that is not empty",
                found=f"{tensor.dtype} {tuple(tensor.shape)}",
            )


def _in_eval_mode(model: nn.Module) -> nn.Module:
    """The model, or where a part of it is in training mode a copy in eval mode that shares all tensors."""
    if not any(module.training for module in model.modules()):
        return model
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    try:
        return copy.deepcopy(model, shared).eval()
    except Exception as error:  # whatever the model's parts raise when they are copied
        raise UnsupportedModel(
            f"the model is in training mode and cannot be copied: {error}", fix="call model.eval() first"
        ) from error


def _export(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ExportedProgram:
    with warnings.catch_warnings(), torch.no_grad(), quiet_torch(), unchanged_attributes(model):
        # Deprecations inside torch.export are none of the caller's.
        warnings.simplefilter("ignore")
        try:
            exported = torch.export.export(model, args, kwargs)
            # An empty table makes the graph functional and leaves linear, layer_norm ... whole.
            functional: ExportedProgram = exported.run_decompositions({})
            return functional
        except NetoptError:
            raise
        except Exception as error:  # torch.export raises errors of many unrelated types for what the model does
            raise explain(error, model) from error


def _import(
    exported: ExportedProgram, positional: Nesting, keyword: Nesting, fallback: bool
) -> tuple[Graph, Signature]:
    _check_writes(exported)
    builder = GraphBuilder()
    values: dict[str, Imported] = {}
    nodes = list(exported.graph.nodes)
    state = _import_placeholders(exported, values, builder)
    for part in _parts(nodes, state, builder, values, fallback):
        if isinstance(part, Region):
            import_region(part, values, builder)
        else:
            values[part.name] = import_call(part, values, builder)
    builder.outputs = _import_outputs(nodes[-1], values)
    graph = builder.finish()
    _check_constants(graph)
    verify(graph)
    tree = torch.utils._pytree.tree_unflatten([torch.empty(0)] * len(graph.outputs), exported.call_spec.out_spec)
    return graph, Signature(positional, keyword, Nesting.of(tree, "output of the model"))


def _parts(
    nodes: list[torch.fx.Node],
    state: dict[torch.fx.Node, Any],
    builder: GraphBuilder,
    values: dict[str, Imported],
    fallback: bool,
) -> Sequence[torch.fx.Node | Region]:
    """What is to be imported, in order: all calls, or with `fallback` those that can be, and regions of the others."""
    if not fallback:
        return [node for node in nodes if node.op == "call_function"]
    _check_outputs(nodes[-1])
    plan = plan_fallback(nodes, state)
    for node, value in plan.computed.items():
        values[node.name] = builder.add_constant(builder.fresh_name(node.name), value)
    return plan.parts


def _import_placeholders(
    exported: ExportedProgram, values: dict[str, Imported], builder: GraphBuilder
) -> dict[torch.fx.Node, Any]:
    """Import inputs and state; what of it is known when lowering, by its node."""
    specs = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
    tensors: dict[tuple[object, ...], str] = {}
    state: dict[torch.fx.Node, Any] = {}
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            name = _import_placeholder(node, specs[node.name], exported, builder, tensors)
            values[node.name] = name
            if name in builder.constants:
                state[node] = builder.constants[name]
        elif node.op == "get_attr":  # a part that torch.cond, for example, may or may not call
            state[node] = getattr(exported.graph_module, str(node.target))
    return state


def _import_placeholder(
    node: torch.fx.Node,
    spec: InputSpec,
    exported: ExportedProgram,
    builder: GraphBuilder,
    tensors: dict[tuple[object, ...], str],
) -> str:
    if spec.kind is InputKind.USER_INPUT:
        name = builder.fresh_name(node.name)
        builder.types[name] = TensorType(tuple(node.meta["val"].shape))
        builder.inputs += (name,)
        return name
    assert spec.target is not None
    state = exported.state_dict.get(spec.target)
    tensor = exported.constants[spec.target] if state is None else state
    # Tied weights are one constant. torch.export may give each name an object of its own, on the same memory.
    key = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
    if key not in tensors:
        # A buffer of integers (a counter of batches) may be there as long as no node reads it: see _check_constants.
        tensors[key] = builder.add_constant(builder.fresh_name(spec.target), tensor)
    return tensors[key]


def _check_constants(graph: Graph) -> None:
    for node in graph.nodes:
        for name in node.inputs:
            if name in graph.constants and graph.constants[name].dtype != torch.float32:
                raise UnsupportedModel(
                    f"parameter or buffer '{name}'",
                    expected="float32 where an op reads it",
                    found=graph.constants[name].dtype,
                    layer=node.layer,
                    fix=f"convert it when building the model, or {FALLBACK}",
                )


def _import_outputs(node: torch.fx.Node, values: dict[str, Imported]) -> tuple[str, ...]:
    names: list[str] = []
    for result in node.args[0]:  # type: ignore[union-attr]
        if not isinstance(result, torch.fx.Node):
            raise UnsupportedModel("output of the model", expected="tensors only", found=repr(result))
        name = values[result.name]
        assert isinstance(name, str)
        names.append(name)
    if not names:
        raise UnsupportedModel("output of the model", expected="at least one tensor", found="none")
    return tuple(names)


def _check_writes(exported: ExportedProgram) -> None:
    for spec in exported.graph_signature.output_specs:
        if spec.kind is not OutputKind.USER_OUTPUT:
            raise UnsupportedModel(
                f"the model writes to '{spec.target}' in forward", fix="return it as an output instead"
            )


def _check_outputs(node: torch.fx.Node) -> None:
    """What comes out of a part in PyTorch may be anything; what comes out of a program may not."""
    results: Sequence[object] = node.args[0]  # type: ignore[assignment]
    for number, result in enumerate(results):
        if isinstance(result, torch.fx.Node) and not can_leave(result):
            value = result.meta.get("val")
            found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)
            raise UnsupportedModel(
                f"output {number} of the model",
                expected="float32, of a shape that does not depend on values, and not empty",
                found=found,
                layer=layer_of(result),
                fix="convert it in forward, as with .float(), or compute it from the program's output",
            )
