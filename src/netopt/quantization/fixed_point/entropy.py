"""Where numbers are cut off so that their distribution, rounded to few levels, tells the most of what it was."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from netopt.quantization.fixed_point.observer import Bins

# Bins of the reference in the widest step that is tried; in the narrowest there is one.
MOST_BINS_A_STEP = 16

_Numbers = NDArray[np.float64]


def divergences(bins: Bins, widest: float, steps: torch.Tensor, last: int) -> torch.Tensor:
    """For each step the divergence of Kullback and Leibler of the distribution of rounded magnitudes from their own.

    The reference has bins of even width. What lies beyond the last code is added to its last bin. For the rounded
    distribution the numbers of the bins that are nearest to one code are spread evenly over those of them that are
    not empty. The code of 0 is always there, so numbers that are 0 take no part.

    Source: Migacz, 8-bit inference with TensorRT, GTC 2017, slides 38 and 39.

    Args:
        bins: magnitudes; at least one number.
        widest: the step with which nothing is cut off.
        steps: (k,) to try, from `widest` / 16 to `widest`.
        last: the last code.

    Returns:
        (k,) float64.
    """
    width = widest / MOST_BINS_A_STEP
    edges = np.arange((last + 1) * MOST_BINS_A_STEP + 1, dtype=np.float64) * width
    counts = np.diff(_counts_below(bins, edges))
    found = [_divergence(counts, step / width, last) for step in steps.tolist()]
    return torch.tensor(found, dtype=torch.float64)


def _counts_below(bins: Bins, limits: _Numbers) -> _Numbers:
    """How many magnitudes are below each limit, if those of a bin lie evenly in it."""
    edges = torch.stack([bins.low, bins.high], 1).reshape(-1).numpy()
    sums = torch.stack([bins.counts.cumsum(0) - bins.counts, bins.counts.cumsum(0)], 1).reshape(-1).numpy()
    return np.asarray(np.interp(limits, edges, sums, left=0.0), np.float64)


def _divergence(counts: _Numbers, bins_a_step: float, last: int) -> float:
    codes = np.floor((np.arange(len(counts)) + 0.5) / bins_a_step + 0.5).astype(np.int64)
    kept = counts[codes <= last]
    codes = codes[codes <= last]
    filled = kept > 0
    sums = np.bincount(codes, kept, last + 1) / np.maximum(1, np.bincount(codes, filled, last + 1))
    reference, rounded = kept.copy(), np.where(filled, sums[codes], 0.0)
    reference[-1] += counts.sum() - kept.sum()
    if rounded.sum() == 0.0:
        return np.inf
    reference, rounded = reference / reference.sum(), rounded / rounded.sum()
    there = reference > 0
    # What the rounded distribution lacks altogether is counted as rarer than anything that it has.
    return float((reference[there] * np.log(reference[there] / np.maximum(rounded[there], 1e-12))).sum())
