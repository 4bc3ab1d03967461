"""From a trained model to a program."""

from __future__ import annotations

from functools import partial

from torch import nn

from netopt.errors import InvalidArgument
from netopt.example import Example
from netopt.graph import Graph, verify
from netopt.graph.capture import capture
from netopt.graph.passes import Pass, run_passes
from netopt.graph.passes.use_bfloat16 import use_bfloat16
from netopt.graph.passes.use_winograd import Chooser, use_winograd
from netopt.kernels.choose_convolution import choose_convolution
from netopt.kernels.machine.cpu import host_cpu
from netopt.kernels.machine.tune import streams
from netopt.memory import check_plan, concats_for_memory, order_for_memory, plan_memory
from netopt.program.checks import check_kernels, check_threads
from netopt.program.file import Network
from netopt.program.program import Program


def lower(
    model: nn.Module,
    example: Example,
    *,
    threads: int = 1,
    tune: bool = False,
    exact: bool = True,
    precision: str = "float32",
    fallback: bool = False,
) -> Program:
    """Compile a trained model into native code for this machine.

    The program computes what the model computes in eval mode. It shares nothing with the model, which is not changed.

    Args:
        model: float32 weights, on the CPU.
        example: an input, for its shapes: a tensor, a tuple of positional arguments or a dict of keyword arguments.
        threads: the most threads that a kernel uses.
        tune: measure each kernel's schedules on this machine, remember the winners on disk, and use them. Without it,
            what was remembered is used, and defaults for the rest.
        exact: with False, 3 x 3 convolutions may be computed by Winograd's algorithm, where that is faster: about three
            times at best. Rounding errors then grow to about ten times those of a direct convolution, and the weights
            of these layers take up to four times the bytes.
        precision: "float32", or "bf16" where the CPU multiplies such numbers: weights and activations are then stored
            in bfloat16, with 8 bits of precision, and sums are float32.
        fallback: let PyTorch run the parts that cannot be lowered; `Program.summary` and `Program.fallbacks` name them.

    Raises:
        UnsupportedModel: torch.export cannot trace the model, or an op cannot be lowered and `fallback` is not set;
            names the layer.
        InvalidArgument, InvalidType: the example or an option cannot be used.
    """
    check_threads(threads)
    network = prepare(model, example, threads=threads, tune=tune, exact=exact, precision=precision, fallback=fallback)
    return Program(network, threads=threads, tune=tune)


def prepare(
    model: nn.Module,
    example: Example,
    *,
    threads: int = 1,
    tune: bool = False,
    exact: bool = True,
    precision: str = "float32",
    fallback: bool = False,
) -> Network:
    """All of lowering but the kernels: capture, passes, order of execution, and a memory plan with its proof.

    With `exact=False` the way to compute a convolution is chosen for this machine, and with `tune` measured.

    Raises:
        UnsupportedModel, InvalidArgument, InvalidType: as `lower`.
    """
    graph, signature = capture(model, example, fallback=fallback)
    wanted: dict[str, Pass] = {"write_concat_in_place": concats_for_memory}
    narrow = _is_bfloat16(precision)
    # Winograd's errors are far below those of rounding to bfloat16.
    if narrow or not exact:
        wanted["use_winograd"] = lambda graph: use_winograd(graph, _chooser(graph, threads, tune, narrow))
    if narrow:
        wanted["use_bfloat16"] = use_bfloat16
    graph = run_passes(graph, wanted)
    check_kernels(graph)
    graph = order_for_memory(graph)
    verify(graph)
    plan = plan_memory(graph)
    check_plan(graph, plan)
    return Network(graph, plan, signature)


def _chooser(graph: Graph, threads: int, tune: bool, narrow: bool) -> Chooser:
    return partial(
        choose_convolution, threads=threads, cpu=host_cpu(), streamed=streams(graph), tuned=tune, narrow=narrow
    )


def _is_bfloat16(precision: str) -> bool:
    if precision not in ("float32", "bf16"):
        raise InvalidArgument("precision", expected='"float32" or "bf16"', found=repr(precision))
    if precision == "bf16" and not host_cpu().has_bfloat16:
        raise InvalidArgument(
            "precision",
            expected='"float32" on this CPU, which has no bfloat16 instructions',
            found='"bf16"',
            fix="lower for float32",
        )
    return precision == "bf16"
