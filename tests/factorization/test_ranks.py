"""Rules for ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt import InvalidArgument, InvalidType
from netopt.factorization import Energy
from netopt.factorization.ranks import check_rule, resolve_rank

W = torch.zeros(6, 10)


@pytest.mark.parametrize(
    ("rule", "rank"),
    [
        (1, 1),
        (6, 6),
        (0.5, 3),
        (0.01, 1),
        (1.0, 6),
        (0.42, 3),
        (lambda w: w.shape[0] // 2, 3),
        (lambda w: np.int64(4), 4),
    ],
)
def test_numbers_fractions_and_functions(rule: object, rank: int) -> None:
    check_rule(rule)
    assert resolve_rank(rule, W, None, "fc") == rank  # type: ignore[arg-type]


@pytest.mark.parametrize("rank", [0, -1, 7])
def test_a_rank_out_of_range_names_layer_and_range(rank: int) -> None:
    with pytest.raises(InvalidArgument, match=rf"layer 'fc': rank: expected an integer from 1 to .* = 6, found {rank}"):
        resolve_rank(lambda w: rank, W, None, "fc")


def test_a_number_above_the_full_rank() -> None:
    with pytest.raises(InvalidArgument, match="layer 'fc': rank: .*found 7; give a fraction"):
        resolve_rank(7, W, None, "fc")


@pytest.mark.parametrize("rank", [2.0, "2", None, True, torch.ones(2)])
def test_a_function_must_return_an_integer(rank: object) -> None:
    with pytest.raises(InvalidType, match="layer 'fc': rank: expected an integer"):
        resolve_rank(lambda w: rank, W, None, "fc")  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("rule", [0, -3, 0.0, 1.5, -0.1, float("nan")])
def test_impossible_numbers(rule: float) -> None:
    with pytest.raises(InvalidArgument, match="rank"):
        check_rule(rule)


@pytest.mark.parametrize("rule", ["half", None, True, [3], int])
def test_what_is_no_rule(rule: object) -> None:
    with pytest.raises(InvalidType, match="rank"):
        check_rule(rule)


@pytest.mark.parametrize("share", [0, -1, 1.01, "1", True, float("nan")])
def test_impossible_shares(share: object) -> None:
    with pytest.raises(InvalidArgument, match="share of Energy"):
        Energy(share)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spectrum", "share", "rank"),
    [
        ([3.0, 2.0, 1.0], 9 / 14, 1),
        ([3.0, 2.0, 1.0], 0.65, 2),
        ([3.0, 2.0, 1.0], 0.95, 3),
        ([3.0, 2.0, 1.0], 1.0, 3),
        ([3.0, 0.0, 0.0], 1.0, 1),
        ([0.0, 0.0, 0.0], 0.9, 1),
    ],
)
def test_energy(spectrum: list[float], share: float, rank: int) -> None:
    assert resolve_rank(Energy(share), W, torch.tensor(spectrum), "fc") == rank


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=12), st.floats(0.01, 0.999))
def test_energy_is_the_least_rank_that_keeps_the_share(values: list[float], share: float) -> None:
    spectrum = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    rank = resolve_rank(Energy(share), torch.zeros(12, 12), spectrum, "fc")
    kept = (spectrum.square().cumsum(0) / spectrum.square().sum()).tolist()
    slack = 2e-7  # the rule forgives float32's rounding of the spectrum
    assert kept[rank - 1] >= share - slack
    assert rank == 1 or kept[rank - 2] < share
