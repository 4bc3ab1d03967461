"""What a program runs: each node as calls of machine code, or of PyTorch, on fixed places in its memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import halide as hl
import torch

from netopt.graph import Graph, Node
from netopt.kernels.machine.compile import bind_kernel
from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.denormals import ReadyCall, run_of_kernels
from netopt.kernels.machine.formats import Array
from netopt.kernels.machine.kernel import Problem, Schedule
from netopt.kernels.machine.tune import Workload, choose_schedules, streams, tune
from netopt.kernels.registry import KERNELS
from netopt.kernels.torch_region import run_of_torch
from netopt.ops import Op, TorchRegion
from netopt.program.checks import has_kernel
from netopt.program.memory_image import MemoryImage
from netopt.program.options import Lowering

Run = Callable[[], None]


@dataclass(frozen=True)
class PackedStep:
    """A node with a kernel: what it computes, how, and on which bytes, with its constants packed."""

    node: Node
    problem: Problem[Op]
    schedule: Schedule
    arrays: Sequence[Array]


def pack_steps(graph: Graph, memory: MemoryImage, options: Lowering) -> list[PackedStep]:
    """Choose a schedule for each node that has a kernel, and pack its constants.

    With `tune`, schedules that have not been measured on this machine are measured first.
    """
    cpu = options.cpu
    nodes = [node for node in graph.nodes if has_kernel(node, graph)]
    streamed = streams(graph)
    workloads = []
    for node in nodes:
        constants = tuple(i for i, name in enumerate(node.inputs) if name in graph.constants)
        problem = Problem(node.op, graph.node_types(node), graph.types[node.output], options.threads)
        workloads.append(Workload(KERNELS[type(node.op)], problem, constants, streamed))
    if options.tune:
        tune(workloads, cpu)
    schedules = choose_schedules(workloads, cpu)
    problems = [workload.problem for workload in workloads]
    memory.reserve(graph, list(zip(nodes, problems, schedules, strict=True)))
    return [
        PackedStep(node, problem, schedule, memory.arguments(graph, node, problem, schedule))
        for node, problem, schedule in zip(nodes, problems, schedules, strict=True)
    ]


def bind_kernels(
    graph: Graph, steps: Sequence[PackedStep], memory: MemoryImage, cpu: Cpu
) -> dict[str, tuple[ReadyCall, ...]]:
    """Compile the code of each step, and bind it to its places: calls, by the value that they compute."""
    calls = {}
    for step in steps:
        kernel, scratch = KERNELS[type(step.node.op)], memory.scratch(graph, step.node)
        bound = bind_kernel(kernel, step.problem, step.schedule, cpu, step.arrays, scratch)
        buffers = ((function, tuple(hl.Buffer(array) for array in arrays)) for function, arrays in bound)
        calls[step.node.output] = tuple(buffers)
    return calls


def bind_torch(graph: Graph, memory: MemoryImage) -> dict[str, Run]:
    """What PyTorch runs, by the value that it computes."""
    return {
        node.output: run_of_torch(
            node.op, [memory.place_or_copy(name, graph) for name in node.inputs], memory.place(node.output)
        )
        for node in graph.nodes
        if isinstance(node.op, TorchRegion)
    }


def runs_of(graph: Graph, calls: Mapping[str, tuple[ReadyCall, ...]], in_torch: Mapping[str, Run]) -> list[Run]:
    """What a call does, in order: kernels one after the other, and between them parts in PyTorch."""
    runs: list[Run] = []
    running = [node for node in graph.nodes if node.output in calls or node.output in in_torch]
    for is_torch, nodes in groupby(running, key=lambda node: node.output in in_torch):
        if is_torch:
            runs += [in_torch[node.output] for node in nodes]
        else:
            runs.append(run_of_kernels([call for node in nodes for call in calls[node.output]]))
    return runs


def unpack_constants(names: Sequence[str], steps: Sequence[PackedStep], memory: MemoryImage) -> dict[str, torch.Tensor]:
    """The constants of these names in their own layout again, in this order."""
    constants: dict[str, torch.Tensor] = {}
    for step in steps:
        for index, name in enumerate(step.node.inputs):
            if name in names and name not in constants:
                constants[name] = memory.unpack(step.node, step.problem, step.schedule, index)
    constants |= memory.copies()
    return {name: constants[name] for name in names}
