"""From a trained model to a program."""

from __future__ import annotations

from torch import nn

from netopt.example import Example
from netopt.graph import verify
from netopt.graph.capture import capture
from netopt.graph.passes import run_passes
from netopt.graph.source import GraphSource
from netopt.memory import check_plan, order_for_memory, plan_memory
from netopt.program.checks import check_kernels
from netopt.program.file import Network
from netopt.program.options import Lowering, Precision
from netopt.program.pipeline import pipeline, storage
from netopt.program.program import Program
from netopt.torch_state import plain_torch


def lower(
    model: nn.Module,
    example: Example,
    *,
    threads: int = 1,
    tune: bool = False,
    exact: bool = True,
    precision: Precision = "float32",
    fallback: bool = False,
    target: str | None = None,
) -> Program:
    """Compile a trained model into native code for this machine, or plan it for another.

    The program computes what the model computes in eval mode. It shares nothing with the model, which is not changed.

    Args:
        model: float32 weights, on the CPU.
        example: an input, for its shapes: a tensor, a tuple of positional arguments or a dict of keyword arguments.
        threads: the most threads that a kernel uses.
        tune: measure each kernel's schedules on this machine, remember the winners on disk, and use them. Without it,
            what was remembered is used, and defaults for the rest.
        exact: with False, 3 x 3 convolutions may be computed by Winograd's algorithm, where that is faster: about three
            times at best. Rounding errors then grow to about ten times those of a direct convolution, and the weights
            of these layers take up to four times the bytes. Beside an outlier they are relative to it; docs/lowering.md
            has the bound.
        precision: "float32", or "bf16" where the CPU multiplies such numbers: weights and activations are then stored
            in bfloat16, with 8 bits of precision, and sums are float32.
        fallback: let PyTorch run the parts that cannot be lowered; `Program.summary` and `Program.fallbacks` name them.
        target: the CPU to lower for, as Halide describes it, such as "x86-64-linux-avx2-f16c-fma-sse41" or
            "arm-64-linux"; None for this machine's. Where this machine's CPU lacks something that the target names,
            nothing is compiled: the program tells its sizes and can be saved, and calling it is refused.

    Raises:
        UnsupportedModel: torch.export cannot trace the model, or an op cannot be lowered and `fallback` is not set;
            names the layer.
        InvalidArgument, InvalidType: the example or an option cannot be used.
    """
    options = Lowering(threads=threads, tune=tune, exact=exact, precision=precision, fallback=fallback, target=target)
    return lower_as(model, example, options)


def lower_as(model: nn.Module, example: Example, options: Lowering) -> Program:
    """As `lower`, with its options as one object."""
    return Program(prepare(model, example, options), options)


@plain_torch()
def prepare(model: nn.Module, example: Example, options: Lowering) -> Network:
    """All of lowering but the kernels: capture, passes, order of execution, and a memory plan with its proof.

    With `exact=False` the way to compute a convolution is chosen for the target, and with `tune` measured.

    Raises:
        UnsupportedModel, InvalidArgument, InvalidType: as `lower`.
    """
    if isinstance(model, GraphSource):
        graph, signature = model.as_graph(example)
        graph = run_passes(graph, storage(options))
    else:
        graph, signature = capture(model, example, fallback=options.fallback)
        graph = run_passes(graph, pipeline(options))
    check_kernels(graph)
    graph = order_for_memory(graph)
    verify(graph)
    plan = plan_memory(graph)
    check_plan(graph, plan)
    return Network(graph, plan, signature)
