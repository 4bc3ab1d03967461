"""Packed weights: panels of a few vectors of outputs, in which a register tile reads one vector after the other.

Weights (groups, outputs, *taps, inputs) are packed as (groups, outputs / panel, *taps, steps, panel), or with several
neighbours a step as (..., steps, panel, neighbours). Outputs that fill the last tile have weights of zero.

The last step of inputs whose number is no multiple of the neighbours begins early, and those of its neighbours that
belong to the step before have weights of 0. So no memory is read beyond the inputs, and none is needed between them.
"""

from __future__ import annotations

import halide as hl
import numpy as np
from numpy.typing import NDArray

from netopt.kernels.machine.formats import Array


def term_at(step: hl.Expr, neighbour: hl.Expr, terms: int, neighbours: int) -> hl.Expr:
    """Which term a neighbour of a step is; see `_places`."""
    if terms < neighbours:
        return hl.min(neighbour, terms - 1) if terms > 1 else hl.i32(0) * neighbour
    first = neighbours * step
    return (hl.min(first, terms - neighbours) if terms % neighbours else first) + neighbour


def pack_panels(weights: Array, panel: int, outputs: int, neighbours: int = 1) -> Array:
    """Weights (groups, out, *taps, inputs) in panels.

    Args:
        weights: elements as the product reads them.
        panel: outputs in a panel.
        outputs: their number with padding, a multiple of `panel`.
        neighbours: inputs of one step.
    """
    groups, out, *taps, inputs = weights.shape
    padded = np.pad(weights, [(0, 0), (0, outputs - out)] + [(0, 0)] * (len(taps) + 1))
    if neighbours > 1:
        places = _places(inputs, neighbours)
        padded = np.where(places >= 0, padded[..., places], np.zeros((), weights.dtype))
    steps = padded.shape[2:]
    split = padded.reshape(groups, outputs // panel, panel, *steps)
    return np.ascontiguousarray(np.moveaxis(split, 2, 2 + len(taps) + 1))


def unpack_panels(packed: Array, outputs: int, inputs: int, neighbours: int = 1) -> Array:
    """The inverse of `pack_panels`: (groups, outputs, *taps, inputs)."""
    panel_axis = packed.ndim - (1 if neighbours == 1 else 2)
    by_output = np.moveaxis(packed, panel_axis, 2)
    groups, panels, panel, *steps = by_output.shape
    weights = by_output.reshape(groups, panels * panel, *steps)[:, :outputs]
    if neighbours > 1:
        steps_of, number = np.divmod(_where(inputs, neighbours), neighbours)
        weights = weights[..., steps_of, number]
    return np.ascontiguousarray(weights)


def pad_outputs(vector: Array, groups: int, outputs: int, fill: int = 0) -> Array:
    """A number for each output, as (groups, outputs) with `fill` behind the last of each group."""
    grouped = vector.reshape(groups, -1)
    return np.pad(grouped, [(0, 0), (0, outputs - grouped.shape[1])], constant_values=fill)


def _places(terms: int, neighbours: int) -> NDArray[np.int64]:
    """(steps, neighbours): the term whose weight lies there; -1: a weight of 0, of a term that counts elsewhere."""
    steps = -(-terms // neighbours)
    number = np.arange(neighbours * steps).reshape(steps, neighbours)
    if terms < neighbours:
        return np.where(number < terms, number, -1)
    number[-1] += terms - neighbours * steps
    number[-1][number[-1] < neighbours * (steps - 1)] = -1
    return number


def _where(terms: int, neighbours: int) -> NDArray[np.int64]:
    """Where each term's weight is in the flat `_places`."""
    places = _places(terms, neighbours).reshape(-1)
    return np.argsort(places, kind="stable")[places.size - terms :]
