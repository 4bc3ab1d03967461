"""From a PyTorch module to a graph, through torch.export."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
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
from netopt.graph.import_call import import_call, import_known, layer_of, number_of
from netopt.graph.known import known_values
from netopt.graph.side_effects import trace_without_effects
from netopt.graph.signature import Nesting, Signature
from netopt.graph.verify import verify
from netopt.numerics import FLOAT32, WHOLES, format_of
from netopt.ops import TensorType
from netopt.torch_state import tracing


@tracing()
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
    given = [(f"example {i}", t) for i, t in enumerate(example)]
    for name, tensor in [*model.named_parameters(), *model.named_buffers(), *given]:
        if tensor.device.type != "cpu":
            raise InvalidArgument(name, expected="a tensor on the CPU", found=tensor.device, fix="move it with .cpu()")
    # A buffer of another type may be read by what is computed when lowering.
    for name, tensor in [*model.named_parameters(), *given]:
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise InvalidType(name, expected="float32", found=tensor.dtype, fix="convert it with .float()")
    for index, tensor in enumerate(example):
        if format_of(tensor.dtype) is None or tensor.numel() == 0:
            formats = ", ".join(format_.name for format_ in (FLOAT32, *WHOLES))
            raise InvalidArgument(
                f"example {index}",
                expected=f"a tensor of {formats} that is not empty",
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
    def trace() -> ExportedProgram:
        try:
            exported = torch.export.export(model, args, kwargs)
            # An empty table makes the graph functional and leaves linear, layer_norm ... whole.
            functional: ExportedProgram = exported.run_decompositions({})
            return functional
        except NetoptError:
            raise
        except Exception as error:  # torch.export raises errors of many unrelated types for what the model does
            raise explain(error, model) from error

    # A model that was made in inference mode can be traced in it alone.
    inference = any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers()))
    with warnings.catch_warnings(), torch.no_grad(), torch.inference_mode(inference), quiet_torch():
        # Deprecations inside torch.export are none of the caller's.
        warnings.simplefilter("ignore")
        calls = [lambda: model(*args, **kwargs), lambda: model(*_other_inputs(args), **_other_inputs(kwargs))]
        return trace_without_effects(model, trace, calls)


def _other_inputs(value: Any) -> Any:
    """Arguments of the same types and shapes with other numbers in their tensors; of indices those given, or 0."""
    return torch.utils._pytree.tree_map_only(torch.Tensor, _other_numbers, value)


def _other_numbers(tensor: torch.Tensor) -> torch.Tensor:
    turned = tensor.flip(list(range(tensor.dim())))
    if tensor.is_floating_point():
        return turned * 0.5 + 0.25
    return torch.zeros_like(tensor) if torch.equal(turned, tensor) else turned


def _import(
    exported: ExportedProgram, positional: Nesting, keyword: Nesting, fallback: bool
) -> tuple[Graph, Signature]:
    _check_writes(exported)
    builder = GraphBuilder()
    values: dict[str, Imported] = {}
    _drop_assertions(exported)
    nodes = list(exported.graph.nodes)
    state = _import_placeholders(exported, values, builder)
    known = known_values(nodes, state)
    results = _results(nodes[-1], exported)
    for part in _parts(nodes, results, known, fallback):
        if isinstance(part, Region):
            import_region(part, values, builder)
            continue
        number = number_of(part, values, builder, known)
        if number is not None:
            known[part] = number
            continue
        imported = import_known(part, values, builder, known) if part in known else None
        # Of what is known and no constant of a graph, those who read it may be known, too.
        if imported is None and part not in known:
            imported = import_call(part, values, builder, known)
        if imported is not None:
            values[part.name] = imported
    builder.outputs = _import_outputs(results, values)
    graph = builder.finish()
    verify(graph)
    return graph, Signature(positional, keyword, _nesting_of_outputs(results, exported))


def _drop_assertions(exported: ExportedProgram) -> None:
    """Take out what checks types and sizes, which are static here, and so reads values that nothing else does."""
    for node in reversed(list(exported.graph.nodes)):
        if node.op == "call_function" and str(node.target).startswith("aten._assert") and not node.users:
            exported.graph.erase_node(node)


def _parts(
    nodes: list[torch.fx.Node], results: Sequence[object], known: dict[torch.fx.Node, Any], fallback: bool
) -> Sequence[torch.fx.Node | Region]:
    """What is to be imported, in order: all calls, or with `fallback` those that can be, and regions of the others."""
    if not fallback:
        return [node for node in nodes if node.op == "call_function"]
    _check_outputs(results, known)
    return plan_fallback(nodes, known).parts


def _import_placeholders(
    exported: ExportedProgram, values: dict[str, Imported], builder: GraphBuilder
) -> dict[torch.fx.Node, Any]:
    """Import inputs and state; what of it is known when lowering, by its node."""
    specs = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
    tensors: dict[tuple[object, ...], str] = {}
    state: dict[torch.fx.Node, Any] = {}
    for node in exported.graph.nodes:
        if node.op == "placeholder" and specs[node.name].kind is InputKind.USER_INPUT:
            values.update(_import_input(node, builder))
        elif node.op == "placeholder":
            node.meta["netopt_name"] = specs[node.name].target
            state[node] = _state_of(specs[node.name], exported)
            name = _import_state(specs[node.name], state[node], builder, tensors)
            if name is not None:
                values[node.name] = name
        elif node.op == "get_attr":  # a part that torch.cond, for example, may or may not call
            state[node] = getattr(exported.graph_module, str(node.target))
    return state


def _import_input(node: torch.fx.Node, builder: GraphBuilder) -> dict[str, Imported]:
    """An input that is a tensor: the others, such as None, are part of the signature, and of what was traced."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return {}
    name = builder.fresh_name(node.name)
    format_ = format_of(value.dtype)
    assert format_ is not None
    builder.types[name] = TensorType(tuple(value.shape), format_)
    builder.inputs += (name,)
    return {node.name: name}


def _state_of(spec: InputSpec, exported: ExportedProgram) -> Any:
    assert spec.target is not None
    state = exported.state_dict.get(spec.target)
    return exported.constants[spec.target] if state is None else state


def _import_state(
    spec: InputSpec, tensor: Any, builder: GraphBuilder, tensors: dict[tuple[object, ...], str]
) -> str | None:
    """A parameter, buffer or constant; None where a graph has none of its type: nothing may read it then."""
    if not isinstance(tensor, torch.Tensor):
        return None
    format_ = format_of(tensor.dtype)
    if format_ is None or not tensor.numel():
        return None
    # Tied weights are one constant. torch.export may give each name an object of its own, on the same memory.
    key = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
    if key not in tensors:
        assert spec.target is not None
        tensors[key] = builder.add_constant(builder.fresh_name(spec.target), tensor, format_)
    return tensors[key]


def _import_outputs(results: Sequence[object], values: dict[str, Imported]) -> tuple[str, ...]:
    """The outputs that are tensors."""
    names: list[str] = []
    for number, result in enumerate(results):
        if isinstance(result, torch.fx.Node):
            name = values.get(result.name)
            if not isinstance(name, str) or not name:
                raise _refused_output(number, result)
            names.append(name)
    if not names:
        raise UnsupportedModel("output of the model", expected="at least one tensor", found="none")
    return tuple(names)


def _nesting_of_outputs(results: Sequence[object], exported: ExportedProgram) -> Nesting:
    """How the outputs are nested; those that are no tensors, such as None, are what they were when it was traced."""
    leaves = [torch.empty(0) if isinstance(result, torch.fx.Node) else result for result in results]
    tree = torch.utils._pytree.tree_unflatten(leaves, exported.call_spec.out_spec)
    return Nesting.of(tree, "output of the model")


def _results(node: torch.fx.Node, exported: ExportedProgram) -> list[object]:
    """What forward returns: not what it writes to its inputs, which a program leaves as they are."""
    kinds = (spec.kind for spec in exported.graph_signature.output_specs)
    pairs = zip(node.args[0], kinds, strict=True)  # type: ignore[arg-type]
    return [result for result, kind in pairs if kind is OutputKind.USER_OUTPUT]


def _check_writes(exported: ExportedProgram) -> None:
    """Raise where forward writes to a buffer: the next call would find it changed."""
    for spec in exported.graph_signature.output_specs:
        if spec.kind not in (OutputKind.USER_OUTPUT, OutputKind.USER_INPUT_MUTATION):
            raise UnsupportedModel(
                f"the model writes to '{spec.target}' in forward", fix="return it as an output instead"
            )


def _check_outputs(results: Sequence[object], known: Mapping[torch.fx.Node, Any]) -> None:
    """What comes out of a part in PyTorch may be anything; what comes out of a program may not."""
    for number, result in enumerate(results):
        if isinstance(result, torch.fx.Node) and result not in known and not can_leave(result):
            raise _refused_output(number, result)


def _refused_output(number: int, result: torch.fx.Node) -> UnsupportedModel:
    value = result.meta.get("val")
    found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)
    formats = ", ".join(format_.name for format_ in (FLOAT32, *WHOLES))
    return UnsupportedModel(
        f"output {number} of the model",
        expected=f"a tensor of {formats}, of a shape that does not depend on values, and not empty",
        found=found,
        layer=layer_of(result),
        fix="convert it in forward, as with .float(), or compute it from the program's output",
    )
