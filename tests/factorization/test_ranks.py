"""Rules for ranks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netopt import InvalidArgument, InvalidType, optimize
from netopt.factorization import EVBMF, SVD, Budget, ChannelSVD, Energy
from netopt.factorization.ranks import (
    as_integer,
    check_multiple,
    check_rank,
    check_rule,
    rank_for_energy,
    rank_for_evbmf,
    rank_for_fraction,
    rounded,
)


@pytest.mark.parametrize(
    ("rule", "rank"),
    [
        (1, 1),
        (6, 6),
        ((4,), 4),
        ([4], 4),
        (0.5, 3),
        (0.01, 1),
        (1.0, 6),
        (0.42, 3),
        (Energy(1.0), 6),
        (lambda w: w.shape[0] // 2, 3),
        (lambda w: np.int64(4), 4),
        (lambda w: torch.tensor(2), 2),
        (lambda w: (5,), 5),
    ],
)
def test_rules_for_a_layer(rule: Any, rank: int) -> None:
    assert optimize(nn.Linear(10, 6), SVD(rank=rule), keep_if="always").model.rank == rank


@pytest.mark.parametrize("rank", [0, -1, 7])
def test_a_rank_out_of_range_names_layer_and_range(rank: int) -> None:
    message = rf"layer 'fc': rank: expected an integer from 1 to the full rank 6, found {rank}; give a fraction"
    with pytest.raises(InvalidArgument, match=message):
        check_rank(rank, 6, "fc")
    with pytest.raises(InvalidArgument, match="the model itself: rank: expected an integer from 1 to the full rank 6"):
        optimize(nn.Linear(10, 6), SVD(rank=lambda w: rank))


@pytest.mark.parametrize("rank", [2.0, "2", None, True, torch.ones(2)])
def test_a_function_must_return_an_integer(rank: object) -> None:
    with pytest.raises(InvalidType, match="layer 'fc': rank: expected an integer"):
        as_integer(rank, "fc")
    with pytest.raises(InvalidType, match="the model itself: rank: expected an integer"):
        optimize(nn.Linear(10, 6), SVD(rank=lambda w: rank))  # type: ignore[arg-type, return-value]


def test_more_ranks_than_modes() -> None:
    for technique in (SVD(rank=(2, 3)), SVD(rank=lambda w: [2, 3])):
        with pytest.raises(InvalidType, match=r"rank: expected one integer, found .2, 3.*Tucker"):
            optimize(nn.Linear(10, 6), technique)


@pytest.mark.parametrize("rule", [0, -3, 0.0, 1.5, -0.1, float("nan"), (3, 0), [-1]])
def test_impossible_numbers(rule: Any) -> None:
    with pytest.raises(InvalidArgument, match="rank"):
        check_rule(rule)
    with pytest.raises(InvalidArgument, match="rank"):
        ChannelSVD(rank=rule)


@pytest.mark.parametrize("rule", ["half", None, True, (), [], (3, 2.0), (True,), int, Energy])
def test_what_is_no_rule(rule: Any) -> None:
    with pytest.raises(InvalidType, match="rank"):
        check_rule(rule)
    with pytest.raises(InvalidType, match="rank"):
        ChannelSVD(rank=rule)


@pytest.mark.parametrize("share", [0, -1, 1.01, "1", True, float("nan")])
def test_impossible_shares(share: object) -> None:
    with pytest.raises(InvalidArgument, match="share of Energy"):
        Energy(share)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.0, 1.0, 1, -0.5, "half", True, float("nan")])
def test_impossible_budgets(share: Any) -> None:
    with pytest.raises(InvalidArgument, match="share of Budget: expected a number above 0, below 1"):
        Budget(multiply_adds=share)
    with pytest.raises(InvalidArgument, match="share of Budget: expected a number above 0, below 1"):
        Budget(parameters=share)


def test_a_budget_of_one_thing() -> None:
    with pytest.raises(InvalidArgument, match="Budget: expected multiply_adds or parameters, found both"):
        Budget(multiply_adds=0.5, parameters=0.5)
    with pytest.raises(InvalidArgument, match="Budget: expected multiply_adds or parameters, found neither"):
        Budget()
    assert (Budget(multiply_adds=0.5).share, Budget(parameters=0.25).share) == (0.5, 0.25)


@pytest.mark.parametrize("multiple", [0, -8, 2.0, True, "16", math.nan])
def test_impossible_multiples(multiple: Any) -> None:
    with pytest.raises(InvalidArgument, match="multiple: expected an integer of at least 1"):
        check_multiple(multiple)
    with pytest.raises(InvalidArgument, match="multiple: expected an integer of at least 1"):
        ChannelSVD(rank=1, multiple=multiple)


@pytest.mark.parametrize(
    ("rank", "full", "multiple", "result"),
    [
        (17, 64, 16, 16),
        (23, 64, 16, 16),
        (24, 64, 16, 32),
        (1, 64, 16, 16),
        (60, 64, 16, 64),
        (29, 30, 16, 30),
        (20, 20, 16, 20),  # full stays full
        (19, 20, 16, 16),
        (5, 16, 16, 5),  # no choice but the full rank
        (5, 12, 16, 5),
        (5, 64, 1, 5),
    ],
)
def test_rounding(rank: int, full: int, multiple: int, result: int) -> None:
    assert rounded(rank, full, multiple) == result


def test_fractions_are_rounded_to_nearest() -> None:
    assert [rank_for_fraction(share, 10) for share in (0.01, 0.14, 0.15, 0.25, 0.94, 1.0)] == [1, 1, 2, 3, 9, 10]


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
    assert rank_for_energy(share, torch.tensor(spectrum).square()) == rank


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=12), st.floats(0.01, 0.999))
def test_energy_is_the_least_rank_that_keeps_the_share(values: list[float], share: float) -> None:
    energy = torch.tensor(sorted(values, reverse=True), dtype=torch.float64).square()
    rank = rank_for_energy(share, energy)
    kept = (energy.cumsum(0) / energy.sum()).tolist()
    slack = 2e-7  # the rule forgives float32's rounding of the spectrum
    assert kept[rank - 1] >= share - slack
    assert rank == 1 or kept[rank - 2] < share


def test_evbmf_of_several_matrices_is_the_largest() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(40, 30, generator=generator)
    one = 20 * torch.outer(torch.randn(40, generator=generator), torch.randn(30, generator=generator))
    assert rank_for_evbmf([noise]) == 0
    assert rank_for_evbmf([noise, noise + one, noise]) == 1


def test_evbmf_of_noise_becomes_one_and_the_report_says_so() -> None:
    layer = nn.Linear(27, 64)
    nn.init.normal_(layer.weight)
    row = optimize(layer, SVD(rank=EVBMF())).report.rows[0]
    assert row.reason == "FactoredDense(27 -> 1 -> 64, bias=True); EVBMF rank 0 -> 1"
