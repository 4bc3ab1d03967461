"""What the tests of the kernels of all kinds of convolutions share: their inputs, layouts and judgement."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from netopt.kernels.machine.kernel import Schedule
from netopt.ops import CHANNELS_LAST, Conv2d, ConvTranspose2d, Layout, TensorType, Winograd2d
from netopt.ops.spatial import Sides
from tests.kernels.harness import run_kernel
from tests.kernels.images import randn
from tests.tolerance import assert_within, judge_op

Convolution = Conv2d | ConvTranspose2d | Winograd2d


def with_epilogues(op: Convolution, x: torch.Tensor, weight: torch.Tensor) -> list[torch.Tensor]:
    """All inputs: these, and the bias and the residual that the op has."""
    plain = dataclasses.replace(op, has_bias=False, has_residual=False, activation=None)
    shape = plain.infer([TensorType(tuple(x.shape)), TensorType(tuple(weight.shape))]).shape
    bias = [randn(shape[1], seed=2)] if op.has_bias else []
    residual = [randn(*shape, seed=3)] if op.has_residual else []
    return [x, weight, *bias, *residual]


def run(
    op: Convolution,
    tensors: list[torch.Tensor],
    *,
    halo: Sides = (0, 0, 0, 0),
    pitch: int = 0,
    output: Layout = CHANNELS_LAST,
    schedule: Schedule | None = None,
    threads: int = 1,
    in_place: bool = False,
) -> torch.Tensor:
    """The kernel's result.

    Args:
        halo: what the input has beyond what is read; `pitch` is its own, too.
        in_place: the output is written over the residual, which else has another halo and pitch.
    """
    reads = op.halo(tuple(tensors[0].shape), tuple(tensors[1].shape))
    top, bottom, left, right = (read + more for read, more in zip(reads, halo, strict=True))
    residual = output if in_place else Layout(True, (0, 1, 2, 0), 97)
    return run_kernel(
        op,
        tensors,
        constants=(1, 2) if op.has_bias else (1,),
        schedule=schedule,
        threads=threads,
        layouts=[
            Layout(True, (top, bottom, left, right), pitch),
            *[Layout()] * (1 + op.has_bias),
            *[residual] * op.has_residual,
        ],
        output=output,
        in_place=op.residual_index if in_place else None,
    )


def assert_matches(op: Convolution, tensors: list[torch.Tensor], **options: Any) -> None:
    """The result of `run` with these options is within its bound."""
    assert_within(run(op, tensors, **options), judge_op(op, tensors))
