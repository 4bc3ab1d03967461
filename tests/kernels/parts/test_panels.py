"""Packed panels are undone to the bit, and hold each weight once; terms that are read twice meet a zero."""

from __future__ import annotations

import halide as hl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.kernels.parts.panels import _places, pack_panels, pad_outputs, term_at, unpack_panels

quick = settings(max_examples=60, derandomize=True, deadline=None)


@quick
@given(
    groups=st.integers(1, 3),
    outputs=st.integers(1, 40),
    taps=st.sampled_from([(), (3,), (2, 3)]),
    inputs=st.integers(1, 19),
    panel=st.sampled_from([4, 8, 16]),
    panels=st.integers(0, 2),
    neighbours=st.sampled_from([1, 2, 4]),
    dtype=st.sampled_from([np.float32, np.uint16, np.uint32, np.int8]),
)
def test_panels_are_undone(
    groups: int,
    outputs: int,
    taps: tuple[int, ...],
    inputs: int,
    panel: int,
    panels: int,
    neighbours: int,
    dtype: type[np.generic],
) -> None:
    """Whatever the number of outputs and inputs; `panels` is how many there are more than needed."""
    shape = (groups, outputs, *taps, inputs)
    weights = np.random.default_rng(0).integers(1, 100, shape).astype(dtype)
    padded = (-(-outputs // panel) + panels) * panel
    packed = pack_panels(weights, panel, padded, neighbours)
    together = () if neighbours == 1 else (neighbours,)
    assert packed.shape == (groups, padded // panel, *taps, -(-inputs // neighbours), panel, *together)
    assert packed.dtype == dtype
    assert packed.flags.c_contiguous
    again = unpack_panels(packed, outputs, inputs, neighbours)
    assert again.dtype == dtype
    assert np.array_equal(again, weights)
    assert np.count_nonzero(packed) == weights.size, "no weight is there twice"


@pytest.mark.parametrize("terms", [1, 2, 3, 4, 7])
def test_pairs_are_undone(terms: int) -> None:
    weights = np.arange(1, 2 * terms * 3 + 1, dtype=np.uint16).reshape(1, 6, terms)
    pairs = pack_panels(weights, 3, 6, 2)
    assert pairs.shape == (1, 2, -(-terms // 2), 3, 2)
    assert np.array_equal(unpack_panels(pairs, 6, terms, 2), weights)
    assert int((pairs == 0).sum()) == (6 if terms % 2 else 0)


def test_where_a_weight_lies() -> None:
    """Output 5 of group 1 is the second of the second panel of 4; of pairs, input 4 begins the third."""
    weights = np.zeros((2, 6, 3, 6), np.float32)
    weights[1, 5, 2, 4] = 1.0
    assert np.argwhere(pack_panels(weights, 4, 8)).tolist() == [[1, 1, 2, 4, 1]]
    assert np.argwhere(pack_panels(weights, 4, 8, 2)).tolist() == [[1, 1, 2, 2, 1, 0]]
    # The second step of four begins at input 2, whose weight is in the first.
    assert np.argwhere(pack_panels(weights, 4, 8, 4)).tolist() == [[1, 1, 2, 1, 1, 2]]


@pytest.mark.parametrize("neighbours", [2, 4])
@pytest.mark.parametrize("terms", range(1, 11))
def test_what_is_read_beside_a_weight_is_its_term(terms: int, neighbours: int) -> None:
    """No term outside is read, and each weight that is not zero meets the term it belongs to."""
    steps = -(-terms // neighbours)
    step, neighbour, out = hl.Var("step"), hl.Var("neighbour"), hl.Func("out")
    out[neighbour, step] = term_at(step, neighbour, terms, neighbours)
    read = np.asarray(out.realize([neighbours, steps]))
    places = _places(terms, neighbours)
    assert 0 <= read.min() <= read.max() < terms
    assert np.array_equal(read[places >= 0], places[places >= 0])
    assert sorted(places[places >= 0]) == list(range(terms))


def test_numbers_of_outputs_are_filled_up_in_each_group() -> None:
    found = pad_outputs(np.arange(6, dtype=np.int32), 2, 4, fill=-9)
    assert found.tolist() == [[0, 1, 2, -9], [3, 4, 5, -9]]
