"""What tests of kernels on codes share: random codes, and the exact result in float64, rounded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st

from netopt.numerics import CodeFormat, FixedPoint, NumberFormat
from netopt.ops import Op
from tests.kernels.harness import run_kernel

# Codes as layers leave them: unsigned of 7 and 8 bits, signed of 8 and 16.
KINDS = {"u7": (7, False), "u8": (8, False), "s8": (8, True), "s16": (16, True)}


def fixed(kind: str, fraction_bits: int) -> FixedPoint:
    """A format of one of the kinds."""
    bits, signed = KINDS[kind]
    return FixedPoint(bits, fraction_bits, signed)


def weight_format(draw: st.DrawFn, outputs: int) -> FixedPoint:
    """A format of weights: of 8 bits, or fewer, or 16, of one position or of one for each output."""
    bits, place = draw(st.sampled_from([8, 8, 7, 4, 16])), draw(st.integers(-8, 40))
    if draw(st.booleans()):
        return FixedPoint(bits, place)
    return FixedPoint(bits, tuple(place + draw(st.integers(0, 4)) for _ in range(outputs)))


def bias_format(x: FixedPoint, weight: FixedPoint, bits: int = 24) -> FixedPoint:
    """The format of a bias at the step of the sums."""
    places = tuple(x.fractions[0] + place for place in weight.fractions)
    return FixedPoint(bits, places if weight.is_by_channel else places[0])


def random_codes(shape: Sequence[int], format_: CodeFormat, seed: int, *, extreme: bool = False) -> torch.Tensor:
    """Codes of all sizes, or the largest and the smallest alone."""
    generator = torch.Generator().manual_seed(seed)
    low, high = format_.codes.start, format_.codes.stop
    if extreme:
        ends = torch.tensor([low, high - 1])
        return ends[torch.randint(0, 2, tuple(shape), generator=generator)].to(format_.tensor_dtype)
    return torch.randint(low, high, tuple(shape), generator=generator).to(format_.tensor_dtype)


def exact(op: Op, codes: Sequence[torch.Tensor], formats: Sequence[NumberFormat], output: NumberFormat) -> torch.Tensor:
    """The reference in float64, rounded once."""
    numbers = [format_.decode(value, torch.float64) for value, format_ in zip(codes, formats, strict=True)]
    return output.encode(op.reference(*numbers))


def assert_exact(
    op: Op, codes: Sequence[torch.Tensor], formats: Sequence[NumberFormat], written: NumberFormat, **options: Any
) -> torch.Tensor:
    """The kernel's codes in the format `written` are those of the reference; returns them."""
    found = run_kernel(op, codes, formats=formats, output_format=written, **options)
    expected = exact(op, codes, formats, written)
    assert found.dtype == expected.dtype
    differing = int((found != expected).sum())
    assert differing == 0, f"{differing} of {expected.numel()} codes differ"
    return found
