"""Techniques that replace several layers together, and policies that choose among their proposals."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from netopt import Cost, Decision, Group, InvalidArgument, InvalidType, Keep, Layer, Policy, Proposal, Technique
from netopt.factorization import SVD, Budget
from netopt.program.options import Lowering
from netopt.search.measure import FasterBy
from netopt.transform.apply import transform
from netopt.transform.candidate import Candidate, Replacement
from netopt.transform.policy import Verdict
from netopt.transform.technique import inherit


@dataclass(frozen=True, kw_only=True)
class CutWidth(Technique):
    """Keep the units between two dense layers that weigh most: half of them, or three quarters."""

    shares: tuple[float, ...] = (0.5, 0.75)
    pairs: tuple[tuple[str, str], ...] = (("0", "2"),)
    built: list[float] = field(default_factory=list)
    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)

    def groups(self, layers: Sequence[Layer]) -> list[Group]:
        by_name = {layer.name: layer for layer in layers}
        return [Group(tuple(by_name[name] for name in pair)) for pair in self.pairs if by_name.keys() >= set(pair)]

    def propose(self, group: Group) -> list[Proposal] | Keep:
        first, second = group.layers
        if first.out_features != second.in_features:
            return Keep("do not follow one another")
        return [self.cut(first, second, share) for share in self.shares]

    def cut(self, first: Layer, second: Layer, share: float) -> Proposal:
        units = first.weight.norm(dim=1).topk(round(share * first.out_features)).indices

        def build() -> tuple[nn.Module, nn.Module]:
            self.built.append(share)
            a, b = nn.Linear(first.in_features, len(units)), nn.Linear(len(units), second.out_features)
            a.weight.data, a.bias.data = first.weight[units].detach(), first.bias[units].detach()
            b.weight.data, b.bias.data = second.weight[:, units].detach(), second.bias.detach()
            return inherit(a, first.module), inherit(b, second.module)

        weights = len(units) * (first.in_features + second.out_features)
        return Proposal(
            weights + len(units) + second.out_features,
            build,
            f"{len(units)} units",
            lambda built: float(len(built)) / 10,
            multiply_adds=weights,
            loss=1 - share,
        )


def network() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight[::2], model[0].bias[::2] = 0.0, 0.0  # four units that do nothing
    return model


def widths(model: nn.Module) -> list[int]:
    return [layer.out_features for layer in model.modules() if isinstance(layer, nn.Linear)]


def test_all_layers_of_a_group_are_replaced() -> None:
    model, x = network().eval(), torch.randn(3, 6)
    new, report = transform(model, CutWidth(), example=x)
    assert widths(new) == [4, 4, 2]
    torch.testing.assert_close(new(x), model(x))
    first, second, third = report.rows
    assert first.reason == "Linear(in_features=6, out_features=4, bias=True); 4 units; together with layer '2'"
    assert second.reason == "Linear(in_features=4, out_features=4, bias=True); 4 units; together with layer '0'"
    assert (third.replaced, third.reason) == (False, "is in no group of CutWidth")
    # The numbers of a group are in its first row; costs are those of each layer.
    assert (first.error, second.error) == (0.2, None)
    assert [(row.before, row.after) for row in report.rows] == [
        (Cost(56, 3 * 48), Cost(28, 3 * 24)),
        (Cost(36, 3 * 32), Cost(20, 3 * 16)),
        (Cost(10, 3 * 8), Cost(10, 3 * 8)),
    ]


def test_none_is_replaced_where_the_policy_wants_none() -> None:
    model = network()
    model[2].bias.requires_grad_(False)
    technique = CutWidth(shares=(1.0, 1.5), built=[])
    new, report = transform(model, replace(technique, shares=(1.0,)), keep_if="smaller")
    assert widths(new) == widths(model)
    assert [row.replaced for row in report.rows] == [False] * 3
    assert report.rows[0].reason == report.rows[1].reason
    assert report.rows[0].reason == "8 units saves nothing: 92 parameters, not fewer than 92"
    assert not technique.built
    assert not new[2].bias.requires_grad


def test_nothing_is_replaced_if_one_module_cannot_be_made() -> None:
    class Half(CutWidth):
        def propose(self, group: Group) -> list[Proposal]:
            return [Proposal(1, lambda: (nn.Linear(6, 4), "no module"))]  # type: ignore[arg-type, return-value]

    model = network()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InvalidType, match="layer '0': Proposal.build of Half: expected 2 modules"):
        transform(model, Half(), keep_if="always")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_times_of_a_group_are_added() -> None:
    seen: list[list[tuple[str, tuple[torch.Size, ...], int]]] = []

    def judge(parts: Sequence[Replacement]) -> Verdict:
        seen.append([(part.layer.name, part.input_shapes, part.module.in_features) for part in parts])  # type: ignore[misc]
        return Verdict(len(seen) > 1, "slow", 3.0, 2.0)

    technique = CutWidth(built=[])
    new, report = transform(network(), technique, example=torch.zeros(3, 6), keep_if="faster", judge=judge)
    assert technique.built == [0.5, 0.75]
    assert seen == [[("0", (torch.Size((3, 6)),), 6), ("2", (torch.Size((3, width)),), width)] for width in (4, 6)]
    assert widths(new) == [6, 4, 2]
    assert [(row.before_ms, row.after_ms) for row in report.rows] == [(3.0, 2.0), (None, None), (None, None)]


def test_a_group_is_measured_on_the_kernels_that_ship() -> None:
    """Of 8 million multiply-adds 6 % are left."""
    model = nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 2048))
    judge = FasterBy(margin=0.05, options=Lowering())
    technique = CutWidth(shares=(0.0625,), built=[])
    new, report = transform(model, technique, example=torch.zeros(1, 2048), keep_if="faster", judge=judge)
    assert widths(new) == [128, 2048]
    before, after = report.rows[0].before_ms, report.rows[0].after_ms
    assert before is not None and after is not None and 0 < after < before


def test_recover_runs_once_for_a_group() -> None:
    seen: list[list[int]] = []
    transform(network(), [CutWidth(), SVD(rank=1)], recover=lambda model: seen.append(widths(model)))
    assert seen[0] == [4, 4, 2]
    assert len(seen) == 1 + 3


def test_layers_that_were_left_out_of_a_group() -> None:
    _, report = transform(network(), CutWidth(select=["0", "3"]))
    assert [row.reason for row in report.rows] == [
        "is in no group of CutWidth",
        "filtered out",
        "is in no group of CutWidth",
    ]


def test_a_group_that_the_technique_keeps() -> None:
    _, report = transform(network(), CutWidth(pairs=(("0", "3"),)))
    assert [row.reason for row in report.rows] == [
        "do not follow one another",
        "is in no group of CutWidth",
        "do not follow one another",
    ]


def test_groups_are_checked() -> None:
    with pytest.raises(InvalidArgument, match="layer '0': CutWidth.groups: expected each of the layers given, once"):
        transform(network(), CutWidth(pairs=(("0", "2"), ("0", "3"))))


@dataclass(frozen=True, kw_only=True)
class Blocks(Technique):
    """Replace the first layer of type `Sequential`; and two layers, of which one is in it, together."""

    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Sequential, nn.Linear)

    def groups(self, layers: Sequence[Layer]) -> list[Group]:
        block, inner, outer = [layer for layer in layers if layer.name in ("0", "0.0", "1")]
        return [Group((block,)), Group((outer, inner))]

    def propose(self, group: Group) -> list[Any]:
        return [Proposal(0, lambda: tuple(nn.Identity() for _ in group.layers))]


def test_a_group_with_a_layer_that_is_gone_stays() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2))
    new, report = transform(model, Blocks(select=["0", "0.0", "1"]))
    assert isinstance(new[0], nn.Identity) and isinstance(new[1], nn.Linear)
    assert [(row.layer, row.replaced, row.reason) for row in report.rows] == [
        ("", False, "filtered out"),
        ("0", True, "Identity()"),
        ("0.0", False, "is part of layer '0', which was replaced"),
        ("1", False, "is replaced only together with layer '0.0', which is gone"),
    ]


# --- policies


@dataclass(frozen=True)
class LeastLoss(Policy):
    """What loses least."""

    def choose(self, candidate: Candidate) -> Decision:
        best = min(candidate.options, key=lambda option: option.proposal.loss or 0.0)
        return Decision(chosen=best, reason="loses least")


def test_a_policy_of_ones_own_chooses() -> None:
    technique = CutWidth(built=[])
    new, report = transform(network(), technique, keep_if=LeastLoss())
    assert widths(new) == [6, 4, 2]
    assert technique.built == [0.75]
    assert report.rows[0].reason.endswith("; 6 units; loses least; together with layer '2'")


def test_a_policy_that_answers_something_else() -> None:
    class Confused(LeastLoss):
        def choose(self, candidate: Candidate) -> Decision:
            return candidate.options[0]  # type: ignore[return-value]

    class Foreign(LeastLoss):
        def choose(self, candidate: Candidate) -> Decision:
            return Decision(chosen="the best")  # type: ignore[arg-type]

    for policy in (Confused(), Foreign()):
        with pytest.raises(InvalidType, match=rf"layer '0': {type(policy).__name__}.choose: expected a Decision"):
            transform(network(), CutWidth(), keep_if=policy)


@dataclass(frozen=True)
class Watching(LeastLoss):
    """Sees all candidates together first."""

    seen: list[tuple[tuple[str, ...], int, Cost, Cost]]

    def prepare(self, candidates: Iterable[Candidate], network: Cost) -> Policy:
        self.seen.extend((found.group.names, len(found.options), found.before, network) for found in candidates)
        return LeastLoss()


def test_a_policy_may_see_all_candidates_before_the_first_is_replaced() -> None:
    policy = Watching([])
    transform(network(), [CutWidth(), SVD(rank=1)], keep_if=policy)
    assert policy.seen[0] == (("0", "2"), 2, Cost(92, 80), Cost(102, 88))
    # The second technique sees what the first has left: 6 and not 8 units.
    assert [names for names, *_ in policy.seen[1:]] == [("0",), ("2",), ("3",)]
    assert policy.seen[1][2:] == (Cost(42, 36), Cost(42 + 28 + 10, 36 + 24 + 8))


def test_looking_at_candidates_changes_no_layer() -> None:
    """A replacement that is made to be looked at may have the layer's own bias."""

    @dataclass(frozen=True, kw_only=True)
    class Borrow(Technique):
        handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)

        def replace(self, layer: Layer) -> nn.Module:
            replacement = nn.Linear(layer.in_features, layer.out_features)
            replacement.bias = layer.bias
            return inherit(replacement, layer.module)

    class Refusing(Watching):
        def prepare(self, candidates: Iterable[Candidate], network: Cost) -> Policy:
            super().prepare(candidates, network)
            return self

        def choose(self, candidate: Candidate) -> Decision:
            return Decision(chosen=None, reason="no")

    model = network()
    model[3].bias.requires_grad_(False)
    new, _ = transform(model, Borrow(), keep_if=Refusing([]))
    assert [layer.bias.requires_grad for layer in new if isinstance(layer, nn.Linear)] == [True, True, False]


@pytest.mark.parametrize(("share", "units"), [(0.95, [6, 4, 2]), (0.7, [4, 4, 2])])
def test_a_budget_is_a_policy_for_any_technique(share: float, units: list[int]) -> None:
    """Of 102 parameters, 6 units leave 82 and 4 leave 58."""
    new, report = transform(network(), CutWidth(), keep_if=Budget(parameters=share))
    assert widths(new) == units
    assert sum(row.after.parameters for row in report.rows) <= share * 102


def test_a_budget_that_leaves_a_group_whole() -> None:
    model = nn.Sequential(*network(), nn.ReLU(), nn.Linear(2, 8), nn.Linear(8, 4))
    technique = CutWidth(pairs=(("0", "2"), ("5", "6")), shares=(0.5,))
    _, report = transform(model, technique, example=torch.zeros(1, 6), keep_if=Budget(multiply_adds=0.9))
    assert [row.replaced for row in report.rows].count(True) == 2
    assert "the budget leaves it whole" in [row.reason for row in report.rows]


def test_a_budget_for_proposals_that_do_not_say_what_they_lose() -> None:
    with pytest.raises(InvalidArgument, match="Budget: expected proposals that say their loss, found one for '0'"):
        transform(network(), SVD(rank=1), keep_if=Budget(parameters=0.5))
