"""A network as its graph, with a number format at each value: a module that is trained, evaluated and lowered.

It runs the references of the graph's ops, as the interpreter does, and rounds each value as the format says, so what it
computes in float64 is what the interpreter and the native program compute, to the bit. Gradients pass the rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from netopt.errors import InvalidArgument
from netopt.example import Example, split_example
from netopt.graph import Graph, Nesting, Node, Signature
from netopt.graph.capture import capture
from netopt.graph.graph import GraphBuilder
from netopt.graph.passes import run_passes
from netopt.graph.passes.structure import STRUCTURE
from netopt.graph.source import GraphSource
from netopt.numerics import FLOAT32, CodeFormat, NumberFormat
from netopt.ops.epilogue import EpilogueOp
from netopt.quantization.fixed_point.quantizer import Quantizer
from netopt.quantized.assign import separate_outputs
from netopt.quantized.bias import bias_format, rounded_bias
from netopt.quantized.rounding import FormatRounding

if TYPE_CHECKING:
    from netopt.quantized.report import QuantizationReport

# Graphs for inputs of other shapes that are kept: those of a training have two, for the last batch is smaller.
_MOST_GRAPHS = 8


Traced = tuple[Graph, Signature]
Rounding = Quantizer | FormatRounding


class _Step(NamedTuple):
    """A value that has been computed, before it is rounded, and for computed ones by which op of what."""

    name: str
    value: torch.Tensor
    node: Node | None = None
    inputs: Sequence[torch.Tensor] = ()


class QuantizedNetwork(nn.Module, GraphSource):
    """A trained network, batch normalization folded, whose values and weights are rounded to number formats.

    It is called as the model is, with inputs of any batch size: for each shape the model is traced once more. In
    float32 sums are rounded as PyTorch rounds them, for training; `exact` computes as the lowered program does.

    Attributes:
        constants: the weights and biases that are trained, by their names in the graph.
        quantizers: by the name of a value, or of a weight, what rounds it; several values may share one.
        example: the input that it was made for.
        example_graph: its graph for inputs of that shape, in float32.
        report: what became of each op, once that has been decided.
    """

    def __init__(self, model: nn.Module, example: Example) -> None:
        """Take a copy of the model, as it is: nothing is rounded yet.

        Args:
            model: float32, on the CPU; it is not changed.
            example: one input.

        Raises:
            InvalidType, InvalidArgument, UnsupportedModel: the model cannot be traced; see `netopt.lower`.
        """
        super().__init__()
        # In a tuple, so that it is none of the modules: its weights are those of before training.
        self._source = (copy.deepcopy(model).eval(),)
        self._traced: dict[object, Traced] = {}
        self.constants = nn.ParameterDict()
        self.quantizers = nn.ModuleDict()
        self._quantizer_of: dict[str, str] = {}
        graph, _ = self._trace(example)
        for name, value in graph.constants.items():
            if graph.types[name].format == FLOAT32:
                self.constants[_key(name)] = nn.Parameter(value.clone())
        self.example_graph, self.example = graph, example
        self.report: QuantizationReport | None = None

    # --- formats

    def weight(self, name: str) -> torch.Tensor:
        """A weight or bias as it is trained by now, not rounded."""
        weight: torch.Tensor = self.constants[_key(name)]
        return weight.detach()

    def weights(self) -> dict[str, torch.Tensor]:
        """Copies of all weights and biases as they are trained by now, by their names."""
        names = [name for name in self.example_graph.constants if _key(name) in self.constants]
        return {name: self.weight(name).clone() for name in names}

    def set_weight(self, name: str, value: torch.Tensor) -> None:
        """Put other numbers in the place of a weight or bias."""
        with torch.no_grad():
            self.constants[_key(name)].copy_(value)

    def round_to(self, names: tuple[str, ...], quantizer: Rounding) -> None:
        """Let a quantizer round a weight, or values that share a format; it is kept under the first name."""
        self.quantizers[_key(names[0])] = quantizer
        self._quantizer_of |= dict.fromkeys(names, _key(names[0]))

    def leave_all(self) -> None:
        """Round nothing any more."""
        self.quantizers.clear()
        self._quantizer_of.clear()

    @contextmanager
    def all_off(self, but: Collection[str] = ()) -> Iterator[None]:
        """Round nothing inside, but for the values and weights of these names."""
        kept = {self._quantizer_of[name] for name in but if name in self._quantizer_of}
        quantizers = {key: q for key, q in self.quantizers.items() if isinstance(q, Quantizer | FormatRounding)}
        before = {key: quantizer.enabled for key, quantizer in quantizers.items()}
        try:
            for key, quantizer in quantizers.items():
                quantizer.enabled = before[key] and key in kept
            yield
        finally:
            for key, quantizer in quantizers.items():
                quantizer.enabled = before[key]

    def quantizer(self, name: str) -> Rounding | None:
        """What rounds a value or a weight; None where nothing does."""
        key = self._quantizer_of.get(name)
        if key is None:
            return None
        quantizer = self.quantizers[key]
        assert isinstance(quantizer, Quantizer | FormatRounding)
        return quantizer if quantizer.enabled else None

    def format_of(self, name: str) -> NumberFormat | None:
        """The format that a value or a weight is rounded to; None for what it is in the float network."""
        quantizer = self.quantizer(name)
        return None if quantizer is None else quantizer.format

    def bias_steps(self, node: Node) -> torch.Tensor | None:
        """The steps of a layer's sums, for each output or for all; None where it does not multiply codes by codes."""
        if not isinstance(node.op, EpilogueOp):
            return None
        of_x, of_weight = (self.quantizer(name) for name in node.inputs[:2])
        if not isinstance(of_x, Quantizer) or not isinstance(of_weight, Quantizer):
            return None
        return of_x.step.detach() * of_weight.step.detach()

    # --- running

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network gives for this input, rounded at each value; of the input's floating type."""
        (graph, signature), tensors = self._trace_of(args, kwargs)
        values: dict[str, torch.Tensor] = {}
        for _ in self._run(graph, tensors, values):
            pass
        return signature.output.unflatten(iter([values[name] for name in graph.outputs]))

    def exact(self, *args: Any, **kwargs: Any) -> Any:
        """What the lowered program gives, to the bit where it computes on codes: in float64, without gradients."""
        with torch.no_grad():
            return self(*_doubled(args), **_doubled(kwargs))

    def watch(self, example: Example) -> Iterator[tuple[str, torch.Tensor]]:
        """Each input and computed value before it is rounded, in order, for an input."""
        (graph, _), tensors = self._trace_of(*split_example(example))
        for step in self._run(graph, tensors, {}):
            yield step.name, step.value

    def calls(self, example: Example) -> Iterator[tuple[Node, Sequence[torch.Tensor]]]:
        """Each op and what it is given, rounded, in order, for an input."""
        (graph, _), tensors = self._trace_of(*split_example(example))
        for step in self._run(graph, tensors, {}):
            if step.node is not None:
                yield step.node, step.inputs

    def _run(self, graph: Graph, tensors: list[torch.Tensor], values: dict[str, torch.Tensor]) -> Iterator[_Step]:
        """Compute value after value; what nothing reads any more goes."""
        dtype = next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)
        values |= {name: self._constant(graph, name, dtype) for name in graph.constants}
        last = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}
        for name, tensor in zip(graph.inputs, tensors, strict=True):
            values[name] = self._rounded(name, tensor)
            yield _Step(name, tensor)
        for index, node in enumerate(graph.nodes):
            inputs = self._inputs(node, values)
            y = node.op.reference(*inputs)
            values[node.output] = self._rounded(node.output, y)
            yield _Step(node.output, y, node, inputs)
            for name in node.inputs:
                if last[name] == index and name not in graph.outputs:
                    values.pop(name, None)

    def _inputs(self, node: Node, values: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        inputs = [values[name] for name in node.inputs]
        steps = self.bias_steps(node)
        if steps is not None:
            assert isinstance(node.op, EpilogueOp)
            at = node.op.bias_index
            # A bias that has a format of its own is rounded to that.
            if node.op.has_bias and self.quantizer(node.inputs[at]) is None:
                inputs[at] = rounded_bias(inputs[at], steps.to(inputs[at]))
        return inputs

    def _rounded(self, name: str, value: torch.Tensor) -> torch.Tensor:
        quantizer = self.quantizer(name)
        rounded: torch.Tensor = value if quantizer is None else quantizer(value)
        return rounded

    def _constant(self, graph: Graph, name: str, dtype: torch.dtype) -> torch.Tensor:
        """A constant as it is trained by now; what depends on the shape of the input, as it was traced."""
        if graph.types[name].format != FLOAT32:
            return graph.numbers(name, dtype)
        return self._rounded(name, self._trained(graph, name).to(dtype))

    def _trained(self, graph: Graph, name: str) -> torch.Tensor:
        trained = self.constants.get(_key(name))
        given = graph.constants[name]
        return given if trained is None or trained.shape != given.shape else trained

    # --- its graph

    def as_graph(self, example: Example) -> tuple[Graph, Signature]:
        graph, signature = self._trace(example)
        builder = GraphBuilder(graph)
        for name in [*graph.inputs, *(node.output for node in graph.nodes)]:
            format_ = self.format_of(name)
            if format_ is not None:
                builder.types[name] = replace(graph.types[name], format=format_)
        for name in graph.constants:
            if graph.types[name].format == FLOAT32:
                value, format_ = self._trained(graph, name).detach(), self.format_of(name) or FLOAT32
                builder.constants[name] = format_.encode(value).contiguous()
                builder.types[name] = replace(graph.types[name], format=format_)
        builder.nodes = [self._with_bias_codes(node, builder) for node in graph.nodes]
        return builder.finish(), signature

    def _with_bias_codes(self, node: Node, builder: GraphBuilder) -> Node:
        steps = self.bias_steps(node)
        if steps is None or not isinstance(node.op, EpilogueOp) or not node.op.has_bias:
            return node
        name = node.inputs[node.op.bias_index]
        if builder.types[name].format != FLOAT32:
            return node
        x, weight = (builder.types[given].format for given in node.inputs[:2])
        assert isinstance(x, CodeFormat) and isinstance(weight, CodeFormat)
        value = builder.constants[name]
        format_ = bias_format(value, x, weight)
        if format_ is None:
            return node
        codes = builder.add_constant(f"{name}_codes", format_.encode(value), format_)
        inputs = (*node.inputs[: node.op.bias_index], codes, *node.inputs[node.op.bias_index + 1 :])
        return replace(node, inputs=inputs)

    def _trace(self, example: Example) -> Traced:
        return self._trace_of(*split_example(example))[0]

    def _trace_of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Traced, list[torch.Tensor]]:
        """The graph for inputs of these shapes, and the tensors among them."""
        positional, keyword = Nesting.of(args, "positional arguments"), Nesting.of(kwargs, "keyword arguments")
        tensors = [*positional.flatten(args, "input"), *keyword.flatten(kwargs, "input")]
        key = (positional, keyword, tuple((tuple(t.shape), t.is_floating_point()) for t in tensors))
        if key not in self._traced:
            if args and kwargs:
                raise InvalidArgument("input", expected="positional or keyword arguments", found="both")
            graph, signature = capture(self._source[0], _in_float32(kwargs or args))
            while len(self._traced) >= _MOST_GRAPHS:
                del self._traced[next(iter(self._traced))]
            self._traced[key] = separate_outputs(run_passes(graph, STRUCTURE)), signature
        return self._traced[key], tensors


def _in_float32(value: Any) -> Any:
    return torch.utils._pytree.tree_map_only(
        torch.Tensor, lambda tensor: tensor.detach().float() if tensor.is_floating_point() else tensor.detach(), value
    )


def _doubled(value: Any) -> Any:
    return torch.utils._pytree.tree_map_only(
        torch.Tensor, lambda tensor: tensor.double() if tensor.is_floating_point() else tensor, value
    )


def _key(name: str) -> str:
    """A name of the graph as one that modules may have."""
    return name.replace(".", "/")
