"""From a trained model to a program."""

from __future__ import annotations

from torch import nn

from netopt.format import Network
from netopt.graph import capture, run_passes
from netopt.graph.capture import Example
from netopt.memory import check_plan, plan_memory
from netopt.program import Program, check_kernels, check_threads


def lower(
    model: nn.Module, example: Example, *, threads: int = 1, tune: bool = False, fallback: bool = False
) -> Program:
    """Compile a trained model into native code for this machine.

    The program computes what the model computes in eval mode. It shares nothing with the model, which is not changed.

    Args:
        model: float32 weights, on the CPU.
        example: an input, for its shapes: a tensor, a tuple of positional arguments or a dict of keyword arguments.
        threads: the most threads that a kernel uses.
        tune: measure each kernel's schedules on this machine, remember the winners on disk, and use them. Without it,
            what was remembered is used, and defaults for the rest.
        fallback: let PyTorch run the parts that cannot be lowered; `Program.summary` and `Program.fallbacks` name them.

    Raises:
        UnsupportedModel: torch.export cannot trace the model, or an op cannot be lowered and `fallback` is not set;
            names the layer.
        InvalidArgument, InvalidType: the example or an option cannot be used.
    """
    check_threads(threads)
    return Program(prepare(model, example, fallback=fallback), threads=threads, tune=tune)


def prepare(model: nn.Module, example: Example, *, fallback: bool = False) -> Network:
    """All of lowering that needs no machine: capture, passes, and a memory plan with its proof.

    Raises:
        UnsupportedModel, InvalidArgument, InvalidType: as `lower`.
    """
    graph, signature = capture(model, example, fallback=fallback)
    graph = run_passes(graph)
    check_kernels(graph)
    plan = plan_memory(graph)
    check_plan(graph, plan)
    return Network(graph, plan, signature)
