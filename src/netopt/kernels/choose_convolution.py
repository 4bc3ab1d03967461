"""Whether a 3 x 3 convolution is faster directly or by Winograd's algorithm, and in tiles of which size.

Without measurements a model decides. Its figures are of one core of an AMD EPYC (Zen 5, AVX-512), at batch 1, in GMAC/s
of the direct convolution's multiply-adds; it chooses the fastest in each row but the last, where it is 6 % off:

    input          outputs   direct   tiles of 2   tiles of 4
    64 x 56 x 56   64        139      244          416
    128 x 28 x 28  128       138      263          408
    256 x 14 x 14  256       136      268          302
    512 x 7 x 7    512       115      142          125
    64 x 224 x 224 64        134      184          274
    256 x 56 x 56  256       132      251          402
    512 x 28 x 28  512       125      239          344
    512 x 14 x 14  512       125      204          192
"""

from __future__ import annotations

import dataclasses

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.machine.tune import Workload, fastest, tune
from netopt.kernels.registry import KERNELS
from netopt.numerics import BFLOAT16, FLOAT32
from netopt.ops import Conv2d, Layout, TensorType, Winograd2d
from netopt.ops.winograd2d import TRANSFORMS

# In multiply-adds: what reading a weight from the cache costs, and what the transforms cost for each element of V or M.
_WEIGHT, _TRANSFORM = 9.4, 11.0
# Below so many channels loops are short, and an element costs more: 28 multiply-adds for 32 channels.
_FEW_CHANNELS = 64


def choose_convolution(
    op: Conv2d,
    inputs: tuple[TensorType, ...],
    output: TensorType,
    *,
    threads: int,
    cpu: Cpu,
    streamed: bool,
    tuned: bool,
    narrow: bool = False,
) -> Conv2d | Winograd2d:
    """The convolution as it is, or as a Winograd2d: the fastest by measurement where there was one, else by the model.

    Args:
        op, inputs, output: a convolution that `fits_winograd`, and the types of its values.
        threads: the most threads that a kernel uses.
        cpu: what it is to run on.
        streamed: its weights come from memory rather than the cache.
        tuned: measure where there is no measurement yet.
        narrow: values, and the weights of a direct convolution, are stored in bfloat16.
    """
    candidates: list[Conv2d | Winograd2d] = [op]
    candidates += [Winograd2d(m, op.padding, op.has_bias, op.has_residual, op.activation) for m in TRANSFORMS]
    problems = [_problem(c, inputs, output, threads, narrow) for c in candidates]
    workloads = [Workload(KERNELS[type(p.op)], p, _constants(op), streamed) for p in problems]
    if tuned:
        tune(workloads, cpu)
    winner = fastest(workloads, cpu, tuned)
    if winner is None:
        costs = [_cost(problem) for problem in problems]
        winner = costs.index(min(costs))
    return candidates[winner]


def _constants(op: Conv2d) -> tuple[int, ...]:
    return (1, 2) if op.has_bias else (1,)


def _problem(
    op: Conv2d | Winograd2d, inputs: tuple[TensorType, ...], output: TensorType, threads: int, narrow: bool
) -> Problem[Conv2d | Winograd2d]:
    """The problem as it is between other convolutions of 3 x 3, whose padding is in memory."""
    x, weight, *rest = inputs
    halo = op.padding
    if isinstance(op, Winograd2d):
        weight = TensorType((*weight.shape[:2], op.points, op.points))
        halo = op.halo(x.shape, weight.shape)
    elif narrow:
        weight = dataclasses.replace(weight, format=BFLOAT16)
    inner, format_ = Layout(True, (1, 1, 1, 1)), BFLOAT16 if narrow else FLOAT32
    if op.has_residual:
        rest[-1] = TensorType(rest[-1].shape, format_, inner)
    types = (TensorType(x.shape, format_, Layout(True, halo)), weight, *rest)
    return Problem(op, types, TensorType(output.shape, format_, inner), threads)


def _cost(problem: Problem[Conv2d | Winograd2d]) -> float:
    """The time, in multiply-adds of a direct convolution."""
    op, inputs = problem.op, problem.inputs
    cost = op.multiply_adds(inputs) + _WEIGHT * inputs[1].elements
    if inputs[1].format == BFLOAT16:
        cost /= 2
    if isinstance(op, Winograd2d):
        (batch, channels, *_), outputs = inputs[0].shape, problem.output.shape[1]
        tiling = op.tiling(inputs[0].shape, outputs)
        few = max(1.0, 2 * _FEW_CHANNELS / (channels + outputs)) ** 1.35
        cost += few * _TRANSFORM * batch * tiling.rows * tiling.columns * op.points**2 * (channels + outputs)
    return cost
