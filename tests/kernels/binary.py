"""What the tests of kernels on signs share: CPUs whose code is run, random signs, and the judgement of floats."""

from __future__ import annotations

import dataclasses

import halide as hl
import pytest
import torch

from netopt.kernels.machine.cpu import Cpu, host_cpu
from netopt.numerics import BFLOAT16, FLOAT32, NumberFormat
from netopt.ops import BinaryConv2d, BinaryDense
from tests.kernels.images import randn
from tests.tolerance import Bounded, gamma

BinaryOp = BinaryConv2d | BinaryDense
AVX2 = Cpu.of(hl.Target("x86-64-linux-avx-avx2-f16c-fma-sse41"))
AVX512 = Cpu.of(hl.Target("x86-64-linux-avx-avx2-avx512-avx512_skylake-f16c-fma-sse41"))


# Words of 32 are counted on the first where it has VPOPCNTDQ, and bytes on the others.
CPUS = {"host": host_cpu(), "AVX2": AVX2, "AVX-512 without VPOPCNTDQ": AVX512}
each_cpu = pytest.mark.parametrize("name", CPUS)


def cpu_of(name: str) -> Cpu:
    """The CPU, whose code is to be run; skips the test where the host cannot."""
    feature = {"AVX2": hl.TargetFeature.AVX2}.get(name, hl.TargetFeature.AVX512_Skylake)
    if name != "host" and not hl.get_host_target().has_feature(feature):
        pytest.skip(f"this CPU does not run code for {name}")
    return CPUS[name]


def signs(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random +1 and -1, as int8."""
    bits = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed))
    return (2 * bits - 1).to(torch.int8)


def with_epilogues(op: BinaryOp, x: torch.Tensor, weight: torch.Tensor) -> list[torch.Tensor]:
    """All inputs: these, and the thresholds, scale, bias and residual that the op has.

    Thresholds lie among the likely sums, and some of them beyond all sums.
    """
    generator = torch.Generator().manual_seed(2)
    outputs, spread = len(weight), int(weight[0].numel() ** 0.5) + 2
    result = [x, weight]
    if op.has_threshold:
        thresholds = torch.randint(-spread, spread + 1, (outputs,), generator=generator)
        thresholds[3::7], thresholds[5::7] = weight[0].numel() + 1, -weight[0].numel() - 1
        result.append(thresholds.to(torch.int32))
    if op.has_scale:
        result.append(randn(outputs, seed=3))
    if op.has_bias:
        result.append(randn(outputs, seed=4))
    if op.has_residual:
        plain = dataclasses.replace(op, has_scale=False, has_bias=False, has_residual=False)
        result.append(randn(*plain.reference(x.float(), weight.float()).shape, seed=5))
    return result


def expected_signs(op: BinaryOp, tensors: list[torch.Tensor]) -> torch.Tensor:
    """What the op computes of whole numbers, exactly, as int8."""
    return op.reference(*(tensor.double() for tensor in tensors)).to(torch.int8)


def judge(op: BinaryOp, tensors: list[torch.Tensor], format_: NumberFormat = FLOAT32) -> Bounded:
    """The exact value, and how far a float32 result may be from it; for activations of slope 1 at most.

    Sums of signs are exact; else each product is, and each addition rounds. Then at most a scale, two additions.
    """
    exact = [tensor.double() for tensor in tensors]
    plain = dataclasses.replace(op, has_scale=False, has_bias=False, has_residual=False, activation=None)
    is_exact = tensors[0].dtype == torch.int8
    along = (-1, 1, 1) if isinstance(op, BinaryConv2d) else (-1,)
    x, weight, *ends = exact
    size = (plain.reference(x, weight) if is_exact else plain.reference(x.abs(), weight.abs())).abs()
    if op.has_scale:
        size = size * ends.pop(0).abs().reshape(along)
    if op.has_bias:
        size = size + ends.pop(0).abs().reshape(along)
    if op.has_residual:
        size = size + ends.pop(0).abs()
    y, error = op.reference(*exact), gamma((0 if is_exact else weight[0].numel()) + 3) * size
    # To bfloat16: half of the last of 8 bits.
    return (y, error + 2.0**-8 * (y.abs() + error)) if format_ == BFLOAT16 else (y, error)
