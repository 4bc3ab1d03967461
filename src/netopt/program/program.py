"""A lowered network: compiled kernels, packed weights and one arena."""

from __future__ import annotations

import dataclasses
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from netopt.console import count, render_table
from netopt.errors import InvalidArgument, name_of_layer
from netopt.example import split_example
from netopt.graph import Graph
from netopt.graph.check_layouts import check_layouts
from netopt.kernels.machine.buffers import aligned_bytes
from netopt.kernels.machine.denormals import ReadyCall, denormals_flushed, make_calls
from netopt.memory import MemoryPlan
from netopt.numerics import CodeFormat
from netopt.ops import TorchRegion
from netopt.program.binding import Run, bind_kernels, bind_torch, pack_steps, runs_of, unpack_constants
from netopt.program.checks import check_kernels, index_range
from netopt.program.file import Network, network_chunks, network_of, read_network, write_network
from netopt.program.memory_image import MemoryImage
from netopt.program.options import Lowering
from netopt.program.port import Port
from netopt.program.step import Step, shape_text
from netopt.torch_state import plain_torch

# Those that live: a process that is forked while a thread is in one must not wait for that thread, which it has not.
_programs: weakref.WeakSet[Program] = weakref.WeakSet()


# Seconds that a fork waits for calls that run: kernels hold locks of Halide's own, which a child would find held.
_LONGEST_WAIT = 10.0
_held: list[threading.Lock] = []


def _before_fork() -> None:
    _held.extend(program._lock for program in list(_programs) if program._lock.acquire(timeout=_LONGEST_WAIT))


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().release()


def _after_fork_in_child() -> None:
    _held.clear()
    for program in _programs:
        program._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


class Program:
    """A network as native code, for inputs of one shape.

    Calls from several threads are safe; they run one after the other, since they share the arena. Results are copies:
    the next call does not change them.
    """

    @plain_torch()
    def __init__(self, network: Network, options: Lowering) -> None:
        """Compile the network's kernels, or take over those that this process has compiled already.

        For a CPU that is not this machine's, choose schedules and pack weights alone.

        Args:
            network: a verified graph with a checked plan. Its constants are copied.
            options: of these, `threads`, `tune` and `target`; the network has what became of the others.

        Raises:
            InvalidArgument: an op would read a layout that it does not know.
            UnsupportedModel: an op has no kernel.
        """
        check_kernels(network.graph)
        check_layouts(network.graph)
        self._graph = dataclasses.replace(network.graph, constants={})
        self._constant_names = tuple(network.graph.constants)
        self._signature = network.signature
        self._plan = network.plan
        self._options = options
        self._lock = threading.Lock()
        _programs.add(self)
        self._memory = MemoryImage(self._graph, network.plan, options.cpu)
        self._steps = pack_steps(network.graph, self._memory, options)
        self._places = [self._memory.place(name) for name in network.graph.inputs]
        ranges = [index_range(network.graph, name) for name in network.graph.inputs]
        self._indices = [(number, range_) for number, range_ in enumerate(ranges) if range_ is not None]
        # Other values have used a halo's memory since the last call.
        self._halos = [self._memory.with_halo(name) for name in network.graph.inputs]
        self._results = [self._memory.place_or_copy(name, network.graph) for name in network.graph.outputs]
        names = [*self._signature.positional.names("input"), *self._signature.keyword.names("input")]
        self._inputs = _ports(network.graph, names, network.graph.inputs)
        self._dtypes = [port.dtype for port in self._inputs]
        formats = [network.graph.types[name].format for name in network.graph.inputs]
        self._codes = [(number, f) for number, f in enumerate(formats) if isinstance(f, CodeFormat)]
        self._outputs = _ports(network.graph, self._signature.output.names("output"), network.graph.outputs)
        self._in_torch = bind_torch(network.graph, self._memory)
        self._is_single = network.signature.positional.is_single() and not network.signature.keyword.parts
        self._returns_tensor = network.signature.output.kind == "tensor"
        self._loads: list[Callable[[torch.Tensor], None] | None] = []
        self._calls: dict[str, tuple[ReadyCall, ...]] = {}
        self._runs: list[Run] = []
        self._runs_here = options.runs_here
        if self._runs_here:
            self._compile()

    def _compile(self) -> None:
        """Make machine code of all that a call runs."""
        self._loads = [self._memory.loader(name) for name in self._graph.inputs]
        self._calls = bind_kernels(self._graph, self._steps, self._memory, self._options.cpu)
        self._runs = runs_of(self._graph, self._calls, self._in_torch)

    # --- running

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns for this input, called as the model is, or with an example as `lower` took it.

        Inputs need not be contiguous. No gradients are recorded.

        Raises:
            InvalidArgument: an input has another shape or is not on the CPU, the inputs are nested otherwise, an input
                of codes has one that there is not, or the program is for another CPU.
            InvalidType: an input has another type: float32, or that of whole numbers of the example or of its codes.
        """
        return self._call(self._runs, args, kwargs)

    def run_codes(self, *args: Any, **kwargs: Any) -> Any:
        """As a call, but outputs that are stored as codes are returned as they are: see `outputs`.

        Raises:
            InvalidArgument, InvalidType: as a call.
        """
        return self._call(self._runs, args, kwargs, as_codes=True)

    def call_by_steps(self, watch: Callable[[int, Callable[[], None]], None], /, *args: Any, **kwargs: Any) -> Any:
        """What a call returns; but each step that runs anything is left to `watch`, which must run it once.

        Args:
            watch: called in order as watch(index, run), with the step's index in `steps` and what it runs. Denormals
                are flushed around it where they are in a call.
            *args: as a call takes them.
            **kwargs: as a call takes them.

        Raises:
            InvalidArgument, InvalidType: as a call.
        """

        def run_all() -> None:
            for index, node in enumerate(self._graph.nodes):
                if node.output in self._in_torch:
                    watch(index, self._in_torch[node.output])
                elif node.output in self._calls:
                    with denormals_flushed():
                        watch(index, partial(make_calls, self._calls[node.output]))

        return self._call([run_all], args, kwargs)

    def _call(
        self, runs: Sequence[Callable[[], None]], args: tuple[Any, ...], kwargs: dict[str, Any], as_codes: bool = False
    ) -> Any:
        if not self._runs_here:
            self._options.check_runs_here()
        # One tensor in, one out is what most calls are, and what microseconds are counted in.
        single = self._is_single and len(args) == 1 and not kwargs and isinstance(args[0], torch.Tensor)
        tensors: Sequence[torch.Tensor] = args if single else self._flatten(args, kwargs)
        for tensor, place, dtype, port in zip(tensors, self._places, self._dtypes, self._inputs, strict=True):
            fits = tensor.dtype in (dtype, place.dtype)
            if tensor.shape != place.shape or not fits or tensor.device != place.device:
                port.refuse(tensor)
        for number, range_ in self._indices:
            _check_indices(tensors[number], range_, self._inputs[number].name)
        for number, format_ in self._codes:
            if tensors[number].dtype == format_.tensor_dtype:
                format_.check(tensors[number], self._inputs[number].name)
        with self._lock:
            for number, tensor in enumerate(tensors):
                self._load(number, tensor)
            for run in runs:
                run()
            ends = zip(self._outputs, self._results, strict=True)
            results = [port.result(place, as_codes=as_codes) for port, place in ends]
        return results[0] if self._returns_tensor else self._signature.output.unflatten(iter(results))

    def _load(self, number: int, tensor: torch.Tensor) -> None:
        """Put an input in its place."""
        load, port, halo = self._loads[number], self._inputs[number], self._halos[number]
        if load is not None and tensor.dtype == self._dtypes[number]:
            load(tensor)
            return
        if halo is not None:
            halo.fill_(port.format.zero if isinstance(port.format, CodeFormat) else 0)
        port.store(tensor, self._places[number])

    def _flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
        positional, keyword = self._signature.positional, self._signature.keyword
        if len(args) == 1 and not kwargs and not isinstance(args[0], torch.Tensor):
            is_example = isinstance(args[0], Mapping) if keyword.parts else len(positional.parts) != 1
            if is_example:
                args, kwargs = split_example(args[0])
        return [*positional.flatten(args, "positional arguments"), *keyword.flatten(kwargs, "keyword arguments")]

    # --- what it is

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What a call takes, in order: of each the name, the shape, and the format that it is stored in."""
        return self._inputs

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What a call returns, in order."""
        return self._outputs

    @property
    def arena_bytes(self) -> int:
        """Bytes of the one arena that holds all inputs, activations and outputs."""
        return self._memory.arena.nbytes

    @property
    def weight_bytes(self) -> int:
        """Bytes of the constants as they are held: packed, with padding."""
        in_torch = sum(node.op.constant_bytes for node in self._graph.nodes if isinstance(node.op, TorchRegion))
        return in_torch + self._memory.constant_bytes

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
            f"for {self._options.cpu.target}"
        )
        return "\n".join([table, totals, *self._notes()])

    def _notes(self) -> list[str]:
        """What a reader must know besides: inputs and outputs that are codes, and the parts that are not lowered."""
        ports = [*(("takes", port) for port in self.inputs), *(("gives", port) for port in self.outputs)]
        notes = [f"{verb} {port}" for verb, port in ports if port.has_codes]
        if not self.fallbacks:
            return notes
        parts = "; ".join(f"{name_of_layer(layer)}: {', '.join(ops)}" for layer, ops in self.fallbacks)
        return [*notes, f"in PyTorch: {parts}. The arena does not include the memory that PyTorch allocates there."]

    def save(self, path: str | Path) -> None:
        """Write the network to a .nopt file, atomically; `netopt.load` reads it.

        Raises:
            UnsupportedModel: a part of the network runs in PyTorch.
            OSError: the file cannot be written.
        """
        write_network(path, self._network())

    def _network(self) -> Network:
        constants = unpack_constants(self._constant_names, self._steps, self._memory)
        graph = dataclasses.replace(self._graph, constants=constants)
        return Network(graph, self._plan, self._signature)

    def __reduce__(self) -> tuple[Callable[..., Program], tuple[bytes, Lowering]]:
        """Pickled, copied and saved by torch as the bytes of its .nopt file, and compiled again where it arrives.

        Raises:
            UnsupportedModel: a part of the network runs in PyTorch.
        """
        return _program_of, (b"".join(network_chunks(self._network())), dataclasses.replace(self._options, tune=False))


def _program_of(data: bytes, options: Lowering) -> Program:
    memory = aligned_bytes(len(data))
    memory[:] = np.frombuffer(data, np.uint8)
    return Program(network_of(memory.data, "a pickled program"), options)


def load(path: str | Path, *, threads: int = 1, tune: bool = False, target: str | None = None) -> Program:
    """Read a .nopt file and compile its kernels for this machine, or plan them for another.

    Args:
        path: what `Program.save` wrote.
        threads: the most threads that a kernel uses.
        tune: measure schedules that have not been measured on this machine yet.
        target: the CPU; see `netopt.lower`.

    Raises:
        FileFormatError: the file is foreign, truncated, damaged or of another version.
        InvalidArgument, UnsupportedModel: an option cannot be used, or the file is whole, but what it holds cannot be
            run.
        OSError: the file cannot be read.
    """
    options = Lowering(threads=threads, tune=tune, target=target)
    return Program(read_network(path), options)


def _check_indices(tensor: torch.Tensor, range_: range, name: str) -> None:
    least, most = (int(value) for value in torch.aminmax(tensor))
    if least < range_.start or most >= range_.stop:
        raise InvalidArgument(
            name,
            expected=f"indices from {range_.start} to {range_.stop - 1}",
            found=least if least < range_.start else most,
        )


def _ports(graph: Graph, names: Iterable[str], values: Sequence[str]) -> tuple[Port, ...]:
    types = (graph.types[value] for value in values)
    return tuple(
        Port(name=name, shape=type_.shape, format=type_.format) for name, type_ in zip(names, types, strict=True)
    )
