"""Terms of a sum in pairs, for instructions that multiply two bfloat16 numbers by two and add both products.

An odd number of terms has a last pair that begins one term early: the first number of it meets a weight of 0. So no
memory is read beyond the terms, and none is needed between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import halide as hl
import numpy as np

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array, Source


def in_pair(pair: hl.Expr, element: hl.Expr, terms: int) -> hl.Expr:
    """The index of a term: element 0 or 1 of a pair."""
    if terms == 1:
        return hl.i32(0) * element
    return (hl.min(2 * pair, terms - 2) if terms % 2 else 2 * pair) + element


def product(one: Source, at: Sequence[hl.Expr], other: Source, there: Sequence[hl.Expr], cpu: Cpu) -> hl.Expr:
    """The product, in float32, of an element of each, written so that the CPU's instruction for pairs is found."""
    if cpu.has_bfloat16:
        halves = (hl.reinterpret(hl.BFloat(16), element) for element in (one.param[at], other.param[there]))
        first, second = (hl.f32(half) for half in halves)
        return first * second
    return one[at] * other[there]


def paired(weights: Array) -> Array:
    """Weights (..., terms, panel) as (..., pairs, panel, 2)."""
    terms = weights.shape[-2]
    if terms % 2:
        zero = np.zeros_like(weights[..., :1, :])
        # A single term is read twice; otherwise the early one is already in the pair before.
        last = [weights[..., -1:, :], zero] if terms == 1 else [zero, weights[..., -1:, :]]
        weights = np.concatenate([weights[..., :-1, :], *last], -2)
    pairs = weights.reshape(*weights.shape[:-2], -1, 2, weights.shape[-1])
    return np.moveaxis(pairs, -2, -1)


def unpaired(packed: Array, terms: int) -> Array:
    """The inverse of `paired`: (..., pairs, panel, 2) as (..., terms, panel)."""
    pairs = np.moveaxis(packed, -1, -2)
    weights = pairs.reshape(*pairs.shape[:-3], -1, pairs.shape[-1])
    if terms % 2 == 0:
        return weights
    last = weights[..., terms - 1 : terms, :] if terms == 1 else weights[..., terms : terms + 1, :]
    return np.concatenate([weights[..., : terms - 1, :], last], -2)
