"""A lowered network: compiled kernels, packed weights and one arena."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import halide as hl
import torch

from netopt.console import count, render_table
from netopt.errors import InvalidArgument, InvalidType, UnsupportedModel, name_of_layer
from netopt.format import Network, read_network, write_network
from netopt.graph import Graph, Node
from netopt.graph.capture import split_example
from netopt.graph.check_layouts import check_layouts
from netopt.graph.passes.use_bfloat16 import takes_bfloat16
from netopt.kernels.buffers import aligned_array, aligned_bytes, array_at, strides_of
from netopt.kernels.compile import KERNELS, bind_kernel, kernel_of
from netopt.kernels.cpu import host_cpu
from netopt.kernels.denormals import denormals_flushed, make_calls, run_of_kernels
from netopt.kernels.formats import Array, to_array, to_tensor
from netopt.kernels.kernel import Problem, Schedule
from netopt.kernels.torch_region import run_of_torch
from netopt.kernels.tune import Workload, choose_schedules, streams, tune
from netopt.memory import MemoryPlan, scratch_name
from netopt.numerics import BFLOAT16, FLOAT32, Shape
from netopt.ops import Conv2d, ConvTranspose2d, Dense, TorchRegion, Winograd2d
from netopt.step import Step, shape_text


@dataclasses.dataclass(frozen=True)
class _Step:
    """A node with a kernel: what it computes, how, and on which bytes."""

    node: Node
    problem: Problem
    schedule: Schedule
    calls: tuple[tuple[hl.Callable, tuple[hl.Buffer, ...]], ...]


class Program:
    """A network as native code, for inputs of one shape.

    Calls from several threads are safe; they run one after the other, since they share the arena. Results are copies:
    the next call does not change them.
    """

    def __init__(self, network: Network, *, threads: int = 1, tune: bool = False) -> None:
        """Compile the network's kernels, or take over those that this process has compiled already.

        Args:
            network: a verified graph with a checked plan. Its constants are copied.
            threads: the most threads that a kernel uses.
            tune: measure schedules that have not been measured on this machine yet.

        Raises:
            InvalidArgument: `threads` is below 1, or an op would read a layout that it does not know.
            UnsupportedModel: an op has no kernel.
        """
        check_threads(threads)
        check_kernels(network.graph)
        check_layouts(network.graph)
        self._graph = dataclasses.replace(network.graph, constants={})
        self._constant_names = tuple(network.graph.constants)
        self._signature = network.signature
        self._plan = network.plan
        self._lock = threading.Lock()
        self._arena = aligned_bytes(network.plan.arena_bytes)
        self._packed: dict[tuple[str, type, tuple[int, ...]], Array] = {}
        self._steps = self._prepare(network.graph, threads, tune)
        self._inputs = [self._view(name) for name in network.graph.inputs]
        self._halos = [self._halo(name) for name in network.graph.inputs]
        self._input_names = [*self._signature.positional.names("input"), *self._signature.keyword.names("input")]
        self._outputs = [self._output(name, network.graph) for name in network.graph.outputs]
        self._in_torch = self._parts_in_torch(network.graph)
        self._runs = self._runs_of(network.graph)
        self._is_single = network.signature.positional.is_single() and not network.signature.keyword.parts
        self._returns_tensor = network.signature.output.kind == "tensor"

    # --- running

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns for this input, called as the model is, or with an example as `lower` took it.

        Inputs need not be contiguous. No gradients are recorded.

        Raises:
            InvalidArgument: an input has another shape or is not on the CPU, or the inputs are nested otherwise.
            InvalidType: an input is not float32.
        """
        return self._call(self._runs, args, kwargs)

    def call_by_steps(self, watch: Callable[[int, Callable[[], None]], None], /, *args: Any, **kwargs: Any) -> Any:
        """What a call returns; but each step that runs anything is left to `watch`, which must run it once.

        Args:
            watch: called in order as watch(index, run), with the step's index in `steps` and what it runs. Denormals
                are flushed around it where they are in a call.
            args, kwargs: as a call takes them.

        Raises:
            InvalidArgument, InvalidType: as a call.
        """
        calls = {step.node.output: step.calls for step in self._steps}

        def run_all() -> None:
            for index, node in enumerate(self._graph.nodes):
                if node.output in self._in_torch:
                    watch(index, self._in_torch[node.output])
                elif node.output in calls:
                    with denormals_flushed():
                        watch(index, partial(make_calls, calls[node.output]))

        return self._call([run_all], args, kwargs)

    def _call(self, runs: Sequence[Callable[[], None]], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # One tensor in, one out is what most calls are, and what microseconds are counted in.
        single = self._is_single and len(args) == 1 and not kwargs and isinstance(args[0], torch.Tensor)
        tensors: Sequence[torch.Tensor] = args if single else self._flatten(args, kwargs)
        for tensor, place, name in zip(tensors, self._inputs, self._input_names, strict=True):
            if tensor.shape != place.shape or tensor.dtype != torch.float32 or tensor.device != place.device:
                _refuse(tensor, place, name)
        with self._lock:
            for tensor, place, halo in zip(tensors, self._inputs, self._halos, strict=True):
                if halo is not None:
                    halo.zero_()
                place.copy_(tensor.detach() if tensor.requires_grad else tensor)
            for run in runs:
                run()
            results = [place.clone(memory_format=torch.contiguous_format) for place in self._outputs]
        return results[0] if self._returns_tensor else self._signature.output.unflatten(iter(results))

    def _flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
        positional, keyword = self._signature.positional, self._signature.keyword
        if len(args) == 1 and not kwargs and not isinstance(args[0], torch.Tensor):
            is_example = isinstance(args[0], Mapping) if keyword.parts else len(positional.parts) != 1
            if is_example:
                args, kwargs = split_example(args[0])
        return [*positional.flatten(args, "positional arguments"), *keyword.flatten(kwargs, "keyword arguments")]

    # --- what it is

    @property
    def arena_bytes(self) -> int:
        """Bytes of the one arena that holds all inputs, activations and outputs."""
        return self._arena.nbytes

    @property
    def weight_bytes(self) -> int:
        """Bytes of the constants as they are held: packed, with padding."""
        in_torch = sum(node.op.constant_bytes for node in self._graph.nodes if isinstance(node.op, TorchRegion))
        return in_torch + sum(array.nbytes for array in self._packed.values())

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one run."""
        return self._graph.multiply_adds()

    @property
    def fallbacks(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The parts that PyTorch runs, in order: of each the layer, or layers, and its ATen ops."""
        return tuple((node.layer, node.op.aten) for node in self._graph.nodes if isinstance(node.op, TorchRegion))

    @property
    def memory_plan(self) -> MemoryPlan:
        """Where each value lives in the arena."""
        return self._plan

    @property
    def steps(self) -> tuple[Step, ...]:
        """What it does, in order; views, which run no code, included."""
        schedules = {step.node.output: step.schedule for step in self._steps}
        constants = set(self._constant_names)
        return tuple(
            Step(
                op=node.op,
                layer=node.layer,
                inputs=self._graph.node_types(node),
                output=self._graph.types[node.output],
                constants=tuple(index for index, name in enumerate(node.inputs) if name in constants),
                schedule=schedules.get(node.output),
            )
            for node in self._graph.nodes
        )

    def summary(self) -> str:
        """A table with a row for each step: op, layer, shapes, schedule chosen, bytes, multiply-adds; and totals."""
        rows = [
            (
                step.op.label,
                step.layer,
                shape_text(step.inputs[0]) if step.inputs else "none",
                shape_text(step.output),
                step.how,
                self._plan.offsets[node.output],
                count(step.output.bytes),
                count(step.constant_bytes),
                count(step.multiply_adds),
            )
            for node, step in zip(self._graph.nodes, self.steps, strict=True)
        ]
        columns = ("op", "layer", "input", "output", "schedule", "offset", "bytes", "weights", "multiply-adds")
        table = render_table(columns, rows, text_columns=5)
        totals = (
            f"arena {count(self.arena_bytes)} bytes (lower bound {count(self._plan.lower_bound)}), "
            f"weights {count(self.weight_bytes)} bytes, multiply-adds {count(self.multiply_adds)}, "
            f"for {host_cpu().target}"
        )
        return "\n".join([table, totals, *self._notes()])

    def _notes(self) -> list[str]:
        """What a reader of the totals must know: the parts that are not lowered."""
        if not self.fallbacks:
            return []
        parts = "; ".join(f"{name_of_layer(layer)}: {', '.join(ops)}" for layer, ops in self.fallbacks)
        return [f"in PyTorch: {parts}. The arena does not include the memory that PyTorch allocates there."]

    def save(self, path: str | Path) -> None:
        """Write the network to a .nopt file, atomically; `netopt.load` reads it.

        Raises:
            UnsupportedModel: a part of the network runs in PyTorch.
            OSError: the file cannot be written.
        """
        write_network(path, Network(self._whole_graph(), self._plan, self._signature))

    # --- preparing

    def _prepare(self, graph: Graph, threads: int, tuned: bool) -> list[_Step]:
        cpu = host_cpu()
        nodes = [n for n in graph.nodes if _has_kernel(n, graph)]
        streamed = streams(graph)
        workloads = []
        for node in nodes:
            constants = tuple(i for i, name in enumerate(node.inputs) if name in graph.constants)
            problem = Problem(node.op, graph.node_types(node), graph.types[node.output], threads)
            workloads.append(Workload(problem, constants, streamed))
        if tuned:
            tune(workloads, cpu)
        steps = []
        for node, workload, schedule in zip(nodes, workloads, choose_schedules(workloads, cpu), strict=True):
            arrays = self._arrays(graph, node, workload.problem, schedule)
            bound = bind_kernel(workload.problem, schedule, cpu, arrays, self._scratch(graph, node))
            calls = tuple((function, tuple(hl.Buffer(array) for array in each)) for function, each in bound)
            steps.append(_Step(node, workload.problem, schedule, calls))
        return steps

    def _runs_of(self, graph: Graph) -> list[Callable[[], None]]:
        """What a call does, in order: kernels one after the other, and between them parts in PyTorch."""
        steps = {step.node.output: step for step in self._steps}
        runs: list[Callable[[], None]] = []
        running = [n for n in graph.nodes if n.output in steps or n.output in self._in_torch]
        for in_torch, nodes in groupby(running, key=lambda node: node.output in self._in_torch):
            if in_torch:
                runs += [self._in_torch[node.output] for node in nodes]
            else:
                runs.append(run_of_kernels([call for node in nodes for call in steps[node.output].calls]))
        return runs

    def _parts_in_torch(self, graph: Graph) -> dict[str, Callable[[], None]]:
        """What PyTorch runs, by the value that it computes."""
        return {
            node.output: run_of_torch(
                node.op, [self._output(name, graph) for name in node.inputs], self._view(node.output)
            )
            for node in graph.nodes
            if isinstance(node.op, TorchRegion)
        }

    def _scratch(self, graph: Graph, node: Node) -> Array | None:
        """The memory that the node's kernel has for itself."""
        size = node.op.scratch_bytes(graph.node_types(node))
        return array_at(self._arena, self._plan.offsets[scratch_name(node)], (size // 4,)) if size else None

    def _arrays(self, graph: Graph, node: Node, problem: Problem, schedule: Schedule) -> list[Array]:
        cpu, kernel = host_cpu(), KERNELS[type(node.op)]
        shapes = kernel.argument_shapes(problem, schedule, cpu)
        arrays = []
        for index, (name, shape) in enumerate(zip((*node.inputs, node.output), shapes, strict=True)):
            if name not in graph.constants:
                arrays.append(self._array(name, shape))
                continue
            key = (name, type(node.op), shape)
            if key not in self._packed:
                packed = aligned_array(shape, graph.types[name].format)
                packed[...] = kernel.pack(problem, schedule, cpu, index, to_array(graph.constants[name]))
                self._packed[key] = packed
            arrays.append(self._packed[key])
        return arrays

    def _array(self, name: str, shape: Shape) -> Array:
        """The value in the arena as an array of the row-major shape `shape`."""
        type_ = self._graph.types[name]
        return array_at(self._arena, self._plan.offsets[name], shape, type_.format, strides_of(shape, type_))

    def _view(self, name: str) -> torch.Tensor:
        """The value in the arena, seen in its logical shape whatever its layout."""
        type_ = self._graph.types[name]
        memory = to_tensor(self._array(name, type_.layout.physical(type_.shape)))
        if not type_.layout.channels_last:
            return memory
        top, _, left, _ = type_.layout.halo
        _, _, height, width = type_.shape
        return memory[:, top : top + height, left : left + width].permute(0, 3, 1, 2)

    def _halo(self, name: str) -> torch.Tensor | None:
        """All memory of an input with a halo, which other values have used since the last call."""
        type_ = self._graph.types[name]
        if not any(type_.layout.halo):
            return None
        return to_tensor(self._array(name, type_.layout.physical(type_.shape)))

    def _output(self, name: str, graph: Graph) -> torch.Tensor:
        """Where the result is read from: the arena, or for a result that is a constant a copy of it."""
        if name not in graph.constants:
            return self._view(name)
        type_ = graph.types[name]
        copied = self._packed.setdefault((name, Program, type_.shape), aligned_array(type_.shape, type_.format))
        copied[...] = to_array(graph.constants[name])
        return to_tensor(copied)

    def _whole_graph(self) -> Graph:
        """The graph with its constants in their own layout again."""
        constants: dict[str, torch.Tensor] = {}
        for step in self._steps:
            for index, name in enumerate(step.node.inputs):
                if name in self._constant_names and name not in constants:
                    kernel, cpu = KERNELS[type(step.node.op)], host_cpu()
                    shape = kernel.argument_shapes(step.problem, step.schedule, cpu)[index]
                    packed = self._packed[name, type(step.node.op), shape]
                    constants[name] = to_tensor(kernel.unpack(step.problem, index, packed))
        for (name, kind, _), array in self._packed.items():
            if kind is Program:
                constants[name] = to_tensor(array)
        return dataclasses.replace(self._graph, constants={name: constants[name] for name in self._constant_names})


def load(path: str | Path, *, threads: int = 1, tune: bool = False) -> Program:
    """Read a .nopt file and compile its kernels for this machine.

    Args:
        path: what `Program.save` wrote.
        threads: the most threads that a kernel uses.
        tune: measure schedules that have not been measured on this machine yet.

    Raises:
        FileFormatError: the file is foreign, truncated, damaged or of another version.
        InvalidArgument, UnsupportedModel: the file is whole, but what it holds cannot be run.
        OSError: the file cannot be read.
    """
    return Program(read_network(path), threads=threads, tune=tune)


def check_threads(threads: object) -> None:
    """Raise InvalidArgument unless `threads` is an integer of at least 1."""
    if type(threads) is not int or threads < 1:
        raise InvalidArgument("threads", expected="an integer of at least 1", found=threads)


def check_kernels(graph: Graph) -> None:
    """Raise UnsupportedModel unless there is a kernel for every node, and it reads and writes the formats there."""
    for node in graph.nodes:
        for name in (*node.inputs, node.output):
            format_ = graph.types[name].format
            if format_ != FLOAT32 and not (format_ == BFLOAT16 and takes_bfloat16(node, graph, name)):
                raise UnsupportedModel(f"value '{name}'", expected="float32", found=format_.name, layer=node.layer)
        if _has_kernel(node, graph):
            kernel_of(node.op, node.layer)
            _check_weights(graph, node)


def _has_kernel(node: Node, graph: Graph) -> bool:
    """Whether the node is code of ours: neither a view nor a part in PyTorch."""
    is_view = node.op.is_view(graph.node_types(node), graph.types[node.output])
    return not is_view and not isinstance(node.op, TorchRegion)


def _check_weights(graph: Graph, node: Node) -> None:
    """Weights are packed when lowering, so they must be known then."""
    if isinstance(node.op, Dense | Conv2d | ConvTranspose2d | Winograd2d) and not all(
        name in graph.constants for name in node.inputs[1 : 2 + node.op.has_bias]
    ):
        raise UnsupportedModel(
            "a layer whose weight or bias is computed from the input",
            layer=node.layer,
            fix="lower with fallback=True, which runs this layer in PyTorch",
        )


def _refuse(tensor: torch.Tensor, place: torch.Tensor, name: str) -> None:
    if tensor.device.type != "cpu":
        raise InvalidArgument(name, expected="a tensor on the CPU", found=f"one on {tensor.device}")
    if tensor.dtype != torch.float32:
        raise InvalidType(name, expected="dtype torch.float32", found=tensor.dtype)
    raise InvalidArgument(
        name,
        expected=f"shape {tuple(place.shape)}",
        found=tuple(tensor.shape),
        fix="lower the model again with an example of that shape",
    )
