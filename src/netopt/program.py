"""A lowered network: compiled kernels, packed weights and one arena."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable, Mapping, Sequence
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
from netopt.kernels.buffers import aligned_bytes, aligned_floats, floats_at, strides_of
from netopt.kernels.compile import KERNELS, bind_kernel, kernel_of
from netopt.kernels.cpu import host_cpu
from netopt.kernels.denormals import run_of_kernels
from netopt.kernels.kernel import Array, Problem, Schedule
from netopt.kernels.torch_region import run_of_torch
from netopt.kernels.tune import Workload, choose_schedules, streams, tune
from netopt.memory import MemoryPlan, scratch_name
from netopt.numerics import ALIGNMENT, FLOAT32, Shape
from netopt.ops import Conv2d, ConvTranspose2d, Dense, Relayout, TensorType, TorchRegion, Winograd2d

# Elements of an input from which on a kernel of ours, which takes 2 us to call, copies it faster than PyTorch does.
_SMALLEST_FILL = 8192
# A constant as a kernel takes it: its name, the type of the op, its shape when packed.
_Key = tuple[str, type, Shape]


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
        self._packed: dict[_Key, Array] = {}
        self._steps = self._prepare(network.graph, threads, tune)
        self._inputs = [self._view(name) for name in network.graph.inputs]
        self._halos = [self._halo(name) for name in network.graph.inputs]
        self._fills = [self._fill(name) for name in network.graph.inputs]
        self._input_names = [*self._signature.positional.names("input"), *self._signature.keyword.names("input")]
        self._outputs = [self._output(name, network.graph) for name in network.graph.outputs]
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
        # One tensor in, one out is what most calls are, and what microseconds are counted in.
        single = self._is_single and len(args) == 1 and not kwargs and isinstance(args[0], torch.Tensor)
        tensors: Sequence[torch.Tensor] = args if single else self._flatten(args, kwargs)
        for tensor, place, name in zip(tensors, self._inputs, self._input_names, strict=True):
            if tensor.shape != place.shape or tensor.dtype != place.dtype or tensor.device != place.device:
                _refuse(tensor, place, name)
        with self._lock:
            for tensor, place, halo, fill in zip(tensors, self._inputs, self._halos, self._fills, strict=True):
                if fill is not None and tensor.is_contiguous() and not tensor.data_ptr() % ALIGNMENT:
                    fill(tensor)
                    continue
                if halo is not None:
                    halo.zero_()
                place.copy_(tensor.detach() if tensor.requires_grad else tensor)
            for run in self._runs:
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

    def summary(self) -> str:
        """A table with a row for each step: op, layer, shapes, schedule chosen, bytes, multiply-adds; and totals."""
        by_output = {step.node.output: step for step in self._steps}
        rows = []
        for node in self._graph.nodes:
            types = self._graph.node_types(node)
            output = self._graph.types[node.output]
            step = by_output.get(node.output)
            constants = sum(self._graph.types[name].bytes for name in node.inputs if name in self._constant_names)
            in_torch = isinstance(node.op, TorchRegion)
            if isinstance(node.op, TorchRegion):
                constants += node.op.constant_bytes
            rows.append(
                (
                    node.op.label,
                    node.layer,
                    _shape(types[0].shape) if types else "none",
                    _shape(output.shape),
                    str(step.schedule).strip() if step else "runs in PyTorch" if in_torch else "a view, no code",
                    self._plan.offsets[node.output],
                    count(output.bytes),
                    count(constants),
                    count(node.op.multiply_adds(types)),
                )
            )
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
        schedules, steps = choose_schedules(workloads, cpu), []
        places = self._places(nodes, workloads, schedules)
        for node, workload, schedule in zip(nodes, workloads, schedules, strict=True):
            arrays = self._arrays(graph, node, workload.problem, schedule, places)
            bound = bind_kernel(workload.problem, schedule, cpu, arrays, self._scratch(graph, node))
            calls = tuple((function, tuple(hl.Buffer(array) for array in each)) for function, each in bound)
            steps.append(_Step(node, workload.problem, schedule, calls))
        return steps

    def _runs_of(self, graph: Graph) -> list[Callable[[], None]]:
        """What a call does, in order: kernels one after the other, and between them parts in PyTorch."""
        steps = {step.node.output: step for step in self._steps}
        runs: list[Callable[[], None]] = []
        running = [n for n in graph.nodes if n.output in steps or isinstance(n.op, TorchRegion)]
        for in_torch, nodes in groupby(running, key=lambda node: isinstance(node.op, TorchRegion)):
            if not in_torch:
                own = [steps[node.output] for node in nodes]
                runs.append(run_of_kernels([call for step in own for call in step.calls]))
                continue
            for node in nodes:
                assert isinstance(node.op, TorchRegion)
                inputs = [self._output(name, graph) for name in node.inputs]
                runs.append(run_of_torch(node.op, inputs, self._view(node.output)))
        return runs

    def _scratch(self, graph: Graph, node: Node) -> Array | None:
        """The memory that the node's kernel has for itself."""
        size = node.op.scratch_bytes(graph.node_types(node))
        return floats_at(self._arena, self._plan.offsets[scratch_name(node)], (size // 4,)) if size else None

    @staticmethod
    def _places(
        nodes: Sequence[Node], workloads: Sequence[Workload], schedules: Sequence[Schedule]
    ) -> dict[_Key, Array]:
        """Where each constant is packed: one after the other in one piece of memory, in the order of their use."""
        offsets: dict[_Key, int] = {}
        size = 0
        for node, workload, schedule in zip(nodes, workloads, schedules, strict=True):
            shapes = KERNELS[type(node.op)].argument_shapes(workload.problem, schedule, host_cpu())
            for index in workload.constants:
                key = (node.inputs[index], type(node.op), shapes[index])
                if key not in offsets:
                    offsets[key] = size
                    size += -(-4 * math.prod(shapes[index]) // ALIGNMENT) * ALIGNMENT
        memory = aligned_bytes(size)
        return {key: floats_at(memory, offset, key[2]) for key, offset in offsets.items()}

    def _arrays(
        self, graph: Graph, node: Node, problem: Problem, schedule: Schedule, places: Mapping[_Key, Array]
    ) -> list[Array]:
        cpu, kernel = host_cpu(), KERNELS[type(node.op)]
        shapes = kernel.argument_shapes(problem, schedule, cpu)
        arrays = []
        for index, (name, shape) in enumerate(zip((*node.inputs, node.output), shapes, strict=True)):
            if name not in graph.constants:
                arrays.append(self._floats(name, shape))
                continue
            key = (name, type(node.op), shape)
            if key not in self._packed:
                places[key][...] = kernel.pack(problem, schedule, cpu, index, graph.constants[name].numpy())
                self._packed[key] = places[key]
            arrays.append(self._packed[key])
        return arrays

    def _floats(self, name: str, shape: Shape) -> Array:
        """The value in the arena as an array of the row-major shape `shape`."""
        strides = strides_of(shape, self._graph.types[name])
        return floats_at(self._arena, self._plan.offsets[name], shape, strides)

    def _view(self, name: str) -> torch.Tensor:
        """The value in the arena, seen in its logical shape whatever its layout."""
        type_ = self._graph.types[name]
        memory = torch.from_numpy(self._floats(name, type_.layout.physical(type_.shape)))
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
        return torch.from_numpy(self._floats(name, type_.layout.physical(type_.shape)))

    def _fill(self, name: str) -> Callable[[torch.Tensor], None] | None:
        """A kernel that copies an input to its place, zeros around it included, where it is faster than PyTorch."""
        type_ = self._graph.types[name]
        is_plain = type_.format != FLOAT32 or not type_.layout.channels_last or type_.shape[1] == 1
        if is_plain or type_.elements < _SMALLEST_FILL:
            return None
        problem = Problem(Relayout(), (TensorType(type_.shape),), type_)
        shapes = KERNELS[Relayout].argument_shapes(problem, Schedule(), host_cpu())
        arrays = [aligned_floats(shapes[0]), self._floats(name, shapes[1])]
        ((function, _),) = bind_kernel(problem, Schedule(), host_cpu(), arrays)
        target = hl.Buffer(arrays[1])

        def fill(tensor: torch.Tensor) -> None:
            function(hl.Buffer(tensor.detach().numpy()), target)

        return fill

    def _output(self, name: str, graph: Graph) -> torch.Tensor:
        """Where the result is read from: the arena, or for a result that is a constant a copy of it."""
        if name not in graph.constants:
            return self._view(name)
        shape = graph.types[name].shape
        copied = self._packed.setdefault((name, Program, shape), aligned_floats(shape))
        copied[...] = graph.constants[name].numpy()
        return torch.from_numpy(copied)

    def _whole_graph(self) -> Graph:
        """The graph with its constants in their own layout again."""
        constants: dict[str, torch.Tensor] = {}
        for step in self._steps:
            for index, name in enumerate(step.node.inputs):
                if name in self._constant_names and name not in constants:
                    kernel, cpu = KERNELS[type(step.node.op)], host_cpu()
                    shape = kernel.argument_shapes(step.problem, step.schedule, cpu)[index]
                    packed = self._packed[name, type(step.node.op), shape]
                    constants[name] = torch.from_numpy(kernel.unpack(step.problem, index, packed))
        for (name, kind, _), array in self._packed.items():
            if kind is Program:
                constants[name] = torch.from_numpy(array)
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
    """Raise UnsupportedModel unless there is a kernel for every node."""
    for name in (*graph.inputs, *(node.output for node in graph.nodes)):
        if graph.types[name].format != FLOAT32:
            raise UnsupportedModel(f"value '{name}'", expected="float32", found=graph.types[name].format.name)
    for node in graph.nodes:
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
    if tensor.dtype != place.dtype:
        raise InvalidType(name, expected=f"dtype {place.dtype}", found=tensor.dtype)
    raise InvalidArgument(
        name,
        expected=f"shape {tuple(place.shape)}",
        found=tuple(tensor.shape),
        fix="lower the model again with an example of that shape",
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
