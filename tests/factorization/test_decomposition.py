"""What factorizations have in common: rules applied to modes, notes, grids and losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from netopt import Cost, InvalidType, Keep, Layer, optimize
from netopt.factorization import EVBMF, SVD, Budget, ChannelSVD, Energy, Tucker
from netopt.factorization.decomposition import Decomposition, Factorization, choices
from netopt.factorization.ranks import Allotted
from tests.factorization.methods import handle


class Modes(Decomposition):
    """Two modes with known energies; nothing is built."""

    full = (40, 10)
    spectra = ((30.0, 6.0, 3.0, 1.0, *(0.0,) * 36), (5.0, 3.0, 2.0, *(0.0,) * 7))

    def energies(self) -> list[torch.Tensor]:
        return [torch.tensor(values) for values in self.spectra]

    def unfoldings(self) -> list[list[torch.Tensor]]:
        noise = torch.randn(64, 27, generator=torch.Generator().manual_seed(0))
        return [[noise], [noise, noise]]

    def cost(self, ranks: tuple[int, ...]) -> Cost:
        return Cost(sum(ranks), 7 * sum(ranks))

    def build(self, ranks: tuple[int, ...]) -> nn.Module:
        return nn.Linear(*ranks)

    def error(self, module: nn.Module) -> float:
        return 0.5


class OnModes(Factorization):
    handles = (nn.Linear,)

    def decomposition(self, layer: Layer) -> Decomposition | Keep:
        return Keep("small") if layer.out_features == 1 else Modes(layer, torch.ones(2, 3))


def found_by(rule: Any, multiple: int = 8) -> tuple[tuple[int, int] | None, str]:
    return OnModes(rank=rule, multiple=multiple)._ranks(Modes(handle(nn.Linear(3, 2)), torch.ones(2, 3)))


@pytest.mark.parametrize(
    ("rule", "ranks", "note"),
    [
        (7, (7, 7), ""),
        ((7, 3), (7, 3), ""),
        ([7, 3], (7, 3), ""),
        (lambda w: int(w.sum()), (6, 6), ""),
        (lambda w: (6, 2), (6, 2), ""),
        (0.5, (24, 8), "rank 20 x 5 -> 24 x 8"),
        (0.4, (16, 8), "rank 16 x 4 -> 16 x 8"),
        (1.0, (40, 10), ""),
        (Energy(0.9), (8, 8), "rank 2 x 3 -> 8 x 8"),
        (EVBMF(), (8, 8), "EVBMF rank 0 x 0 -> 8 x 8"),
        (Allotted({"conv": (3, 4)}), (3, 4), ""),
        (Allotted({"conv": None}), None, "the budget leaves it whole"),
        (Allotted({}), None, "the budget leaves it whole"),
    ],
)
def test_rules_and_notes(rule: Any, ranks: tuple[int, int] | None, note: str) -> None:
    assert found_by(rule) == (ranks, note)


def test_rules_that_find_multiples_need_no_note_but_evbmf_always_has_one() -> None:
    assert found_by(0.4, multiple=4) == ((16, 4), "")
    assert found_by(Energy(0.9), multiple=1) == ((2, 3), "")
    assert found_by(EVBMF(), multiple=1) == ((1, 1), "EVBMF rank 0 x 0 -> 1 x 1")
    assert found_by(EVBMF(), multiple=16) == ((16, 1), "EVBMF rank 0 x 0 -> 16 x 1")


@pytest.mark.parametrize("rule", [(7,), (7, 3, 1), lambda w: [1, 2, 3], lambda w: (1.0, 2), lambda w: "7"])
def test_answers_that_are_no_ranks(rule: Any) -> None:
    with pytest.raises(InvalidType, match="layer 'conv': rank: expected an integer"):
        found_by(rule)


def test_the_loss_is_the_sum_over_the_modes() -> None:
    found = Modes(handle(nn.Linear(3, 2)), torch.ones(2, 3))
    assert found.loss((40, 10)) == 0
    assert found.loss((2, 10)) == pytest.approx(4 / 40)
    assert found.loss((2, 1)) == pytest.approx(4 / 40 + 5 / 10)
    assert found.loss((1, 1)) == pytest.approx(10 / 40 + 5 / 10)


def test_grids_hold_multiples_and_the_full_rank() -> None:
    found = Modes(handle(nn.Linear(3, 2)), torch.ones(2, 3))
    ranks = found.grid(16)
    # Of sixteens there would be but two: halves of them.
    assert sorted({first for first, _ in ranks}) == [8, 16, 24, 32, 40]
    # Ten is no more than the multiple: eighths of it, which are ones.
    assert sorted({second for _, second in ranks}) == list(range(1, 11))
    assert len(ranks) == 50
    found.full = (4096,)  # type: ignore[misc]
    thinned = [rank for (rank,) in found.grid(16)]
    assert len(thinned) <= 22 and thinned[-1] == 4096 and all(rank % 16 == 0 for rank in thinned)


def test_choices_save_parameters() -> None:
    found = Modes(handle(nn.Linear(3, 9, bias=False)), torch.ones(2, 3))
    assert found.parameters_of_layer == 27 and found.bias_parameters == 0
    assert {sum(choice.ranks or ()) for choice in choices(found, 16)} == set(range(9, 27))
    with_bias = Modes(handle(nn.Linear(3, 9)), torch.ones(2, 3))
    assert (with_bias.parameters_of_layer, with_bias.bias_parameters) == (36, 9)
    assert {choice.cost.parameters for choice in choices(with_bias, 16)} == set(range(18, 36))


def test_what_is_kept_is_not_built_and_has_no_choices() -> None:
    technique = OnModes(rank=3)
    layer = handle(nn.Linear(3, 1))
    assert technique.replace(layer) == Keep("small")
    assert technique.choices(layer) == []
    assert OnModes(rank=Allotted({})).replace(handle(nn.Linear(3, 2))) == Keep("the budget leaves it whole")


def test_techniques_without_a_budget_need_no_preparation() -> None:
    for rule in (3, 0.5, Energy(0.5), EVBMF()):
        technique = Tucker(rank=rule)
        assert technique.prepare([], Cost(0, 0)) is technique
    prepared = SVD(rank=Budget(parameters=0.5)).prepare([], Cost(0, 0))
    assert isinstance(prepared, SVD) and prepared.rank == Allotted({})


def test_options_are_keyword_only_and_frozen() -> None:
    with pytest.raises(TypeError):
        ChannelSVD(3)  # type: ignore[misc]
    with pytest.raises(AttributeError):
        ChannelSVD(rank=3).rank = 4  # type: ignore[misc]
    with pytest.raises(InvalidType, match="selection"):
        ChannelSVD(rank=3, select=5)  # type: ignore[arg-type]


def test_a_rank_is_checked_even_if_it_saves_nothing() -> None:
    row = optimize(nn.Conv2d(4, 4, 3), ChannelSVD(rank=4)).report.rows[0]
    assert row.reason == "saves nothing: 164 parameters, not fewer than 148"
