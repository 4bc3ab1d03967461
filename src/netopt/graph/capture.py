"""From a PyTorch module to a graph, through torch.export."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, OutputKind

from netopt.errors import InvalidArgument, InvalidType, UnsupportedModel
from netopt.graph.aten import IMPORTERS, Context, Imported
from netopt.graph.graph import Graph, GraphBuilder
from netopt.graph.structure import Structure
from netopt.graph.verify import verify
from netopt.ops import TensorType

Example = torch.Tensor | tuple[Any, ...] | Mapping[str, Any]


@dataclass(frozen=True)
class Signature:
    """How a network is called.

    Attributes:
        positional: structure of the positional arguments (a tuple).
        keyword: structure of the keyword arguments (a dict).
        output: structure of the result.
    """

    positional: Structure
    keyword: Structure
    output: Structure


def capture(model: nn.Module, example: Example) -> tuple[Graph, Signature]:
    """Trace `model` in eval mode.

    Args:
        model: float32, on the CPU; it is not changed.
        example: one input: a tensor, a tuple of positional arguments or a dict of keyword arguments.

    Raises:
        InvalidType, InvalidArgument: the example cannot be used.
        UnsupportedModel: torch.export cannot trace the model, or an op has no importer.
    """
    if not isinstance(model, nn.Module):
        raise InvalidType("model", expected="a torch.nn.Module", found=repr(model))
    args, kwargs = split_example(example)
    positional = Structure.of(args, "example")
    keyword = Structure.of(kwargs, "example")
    _check_tensors(model, [*positional.flatten(args, "example"), *keyword.flatten(kwargs, "example")])
    # Copies: torch.export takes one tensor given twice, or a parameter of the model given as input, for one value.
    args = positional.unflatten(t.detach().clone() for t in positional.flatten(args, "example"))
    kwargs = keyword.unflatten(t.detach().clone() for t in keyword.flatten(kwargs, "example"))
    exported = _export(_in_eval_mode(model), args, kwargs)
    return _import(exported, positional, keyword)


def split_example(example: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and the keyword arguments that an example stands for."""
    if isinstance(example, torch.Tensor):
        return (example,), {}
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, tuple):
        return example, {}
    raise InvalidType(
        "example",
        expected="a tensor, a tuple of positional arguments or a dict of keyword arguments",
        found=type(example).__name__,
    )


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
    with warnings.catch_warnings(), torch.no_grad():
        # Deprecations inside torch.export are none of the caller's.
        warnings.simplefilter("ignore")
        try:
            exported = torch.export.export(model, args, kwargs)
            # An empty table makes the graph functional and leaves linear, layer_norm ... whole.
            functional: ExportedProgram = exported.run_decompositions({})
            return functional
        except Exception as error:  # torch.export raises errors of many unrelated types for what the model does
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UnsupportedModel(
                f"torch.export cannot trace the model: {reason[0]}",
                fix="the example must fit forward; shapes and control flow must not depend on values of tensors",
            ) from error


def _import(exported: ExportedProgram, positional: Structure, keyword: Structure) -> tuple[Graph, Signature]:
    builder = GraphBuilder()
    values: dict[str, Imported] = {}
    specs = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
    tensors: dict[tuple[object, ...], str] = {}
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            values[node.name] = _import_placeholder(node, specs[node.name], exported, builder, tensors)
        elif node.op == "call_function":
            values[node.name] = _import_call(node, values, builder)
        elif node.op == "output":
            builder.outputs = _import_outputs(exported, node, values)
        else:
            raise UnsupportedModel(f"torch.export node '{node.name}' of kind '{node.op}'", layer=_layer(node))
    graph = builder.finish()
    _check_constants(graph)
    verify(graph)
    tree = torch.utils._pytree.tree_unflatten([torch.empty(0)] * len(graph.outputs), exported.call_spec.out_spec)
    return graph, Signature(positional, keyword, Structure.of(tree, "output of the model"))


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
                    fix="convert it when building the model",
                )


def _import_call(node: torch.fx.Node, values: dict[str, Imported], builder: GraphBuilder) -> Imported:
    layer = _layer(node)
    if getattr(node.target, "__name__", "") == "getitem":
        source, index = node.args
        assert isinstance(source, torch.fx.Node) and isinstance(index, int)
        value = values[source.name][index]
        if not value:
            raise UnsupportedModel(f"result {index} of op '{source.target}' is not lowered", layer=layer)
        return value
    op = str(node.target).removeprefix("aten.")
    importer = IMPORTERS.get(op) if isinstance(node.target, torch._ops.OpOverload) else None
    if importer is None:
        raise UnsupportedModel(
            f"op '{node.target}' is not lowered",
            layer=layer,
            fix="write the layer with the ops that docs/ops.md lists, or keep this part of the model in PyTorch",
        )
    try:
        return importer(Context(builder, node.name, layer), _arguments(node, values))
    except (InvalidArgument, InvalidType) as error:
        raise UnsupportedModel(f"op '{node.target}': {error}", layer=layer) from error


def _arguments(node: torch.fx.Node, values: dict[str, Imported]) -> dict[str, Any]:
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
        result[argument.name] = torch.fx.map_arg(value, lambda source: values[source.name])
    return result


def _import_outputs(exported: ExportedProgram, node: torch.fx.Node, values: dict[str, Imported]) -> tuple[str, ...]:
    names: list[str] = []
    for spec, result in zip(exported.graph_signature.output_specs, node.args[0], strict=True):  # type: ignore[arg-type]
        if spec.kind is not OutputKind.USER_OUTPUT:
            raise UnsupportedModel(
                f"the model writes to '{spec.target}' in forward", fix="return it as an output instead"
            )
        if not isinstance(result, torch.fx.Node):
            raise UnsupportedModel("output of the model", expected="tensors only", found=repr(result))
        name = values[result.name]
        assert isinstance(name, str)
        names.append(name)
    if not names:
        raise UnsupportedModel("output of the model", expected="at least one tensor", found="none")
    return tuple(names)


def _layer(node: torch.fx.Node) -> str:
    """Qualified name of the innermost module that the node was traced in."""
    stack = node.meta.get("nn_module_stack") or {}
    path = [name for name, _ in stack.values()]
    return str(path[-1]) if path else ""
