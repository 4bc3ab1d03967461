"""What a program runs: each node as calls of machine code, or of PyTorch, on fixed places in its memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import halide as hl
import torch

from netopt.graph import Graph, Node
from netopt.kernels.machine.compile import bind_kernel
from netopt.kernels.machine.cpu import host_cpu
from netopt.kernels.machine.denormals import Call, run_of_kernels
from netopt.kernels.machine.kernel import Problem, Schedule
from netopt.kernels.machine.tune import Workload, choose_schedules, streams, tune
from netopt.kernels.registry import KERNELS
from netopt.kernels.torch_region import run_of_torch
from netopt.ops import Op, TorchRegion
from netopt.program.checks import has_kernel
from netopt.program.memory_image import MemoryImage

Run = Callable[[], None]


@dataclass(frozen=True)
class BoundStep:
    """A node with a kernel: what it computes, how, and on which bytes."""

    node: Node
    problem: Problem[Op]
    schedule: Schedule
    calls: tuple[Call, ...]


def bind_kernels(graph: Graph, memory: MemoryImage, threads: int, tuned: bool) -> list[BoundStep]:
    """Choose a schedule for each node that has a kernel, pack its constants, and bind its code to its places.

    With `tuned`, schedules that have not been measured on this machine are measured first.
    """
    cpu = host_cpu()
    nodes = [node for node in graph.nodes if has_kernel(node, graph)]
    streamed = streams(graph)
    workloads = []
    for node in nodes:
        constants = tuple(i for i, name in enumerate(node.inputs) if name in graph.constants)
        problem = Problem(node.op, graph.node_types(node), graph.types[node.output], threads)
        workloads.append(Workload(KERNELS[type(node.op)], problem, constants, streamed))
    if tuned:
        tune(workloads, cpu)
    schedules, steps = choose_schedules(workloads, cpu), []
    problems = [workload.problem for workload in workloads]
    memory.reserve(graph, list(zip(nodes, problems, schedules, strict=True)))
    for node, workload, schedule in zip(nodes, workloads, schedules, strict=True):
        arrays = memory.arguments(graph, node, workload.problem, schedule)
        bound = bind_kernel(workload.kernel, workload.problem, schedule, cpu, arrays, memory.scratch(graph, node))
        calls = tuple((function, tuple(hl.Buffer(array) for array in each)) for function, each in bound)
        steps.append(BoundStep(node, workload.problem, schedule, calls))
    return steps


def bind_torch(graph: Graph, memory: MemoryImage) -> dict[str, Run]:
    """What PyTorch runs, by the value that it computes."""
    return {
        node.output: run_of_torch(
            node.op, [memory.place_or_copy(name, graph) for name in node.inputs], memory.place(node.output)
        )
        for node in graph.nodes
        if isinstance(node.op, TorchRegion)
    }


def runs_of(graph: Graph, steps: Sequence[BoundStep], in_torch: dict[str, Run]) -> list[Run]:
    """What a call does, in order: kernels one after the other, and between them parts in PyTorch."""
    calls = {step.node.output: step.calls for step in steps}
    runs: list[Run] = []
    running = [node for node in graph.nodes if node.output in calls or node.output in in_torch]
    for is_torch, nodes in groupby(running, key=lambda node: node.output in in_torch):
        if is_torch:
            runs += [in_torch[node.output] for node in nodes]
        else:
            runs.append(run_of_kernels([call for node in nodes for call in calls[node.output]]))
    return runs


def unpack_constants(names: Sequence[str], steps: Sequence[BoundStep], memory: MemoryImage) -> dict[str, torch.Tensor]:
    """The constants of these names in their own layout again, in this order."""
    constants: dict[str, torch.Tensor] = {}
    for step in steps:
        for index, name in enumerate(step.node.inputs):
            if name in names and name not in constants:
                constants[name] = memory.unpack(step.node, step.problem, step.schedule, index)
    constants |= memory.copies()
    return {name: constants[name] for name in names}
