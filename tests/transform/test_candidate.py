"""Proposals of a technique for a group, and what they build and cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from netopt import Cost, Group, InvalidType, Keep, Layer, Proposal, Technique
from netopt.transform.candidate import Candidate


@dataclass(frozen=True, kw_only=True)
class Answers(Technique):
    """Answers what it is given."""

    answer: Any
    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)

    def propose(self, group: Group) -> Any:
        return self.answer

    def deployed(self, module: nn.Module) -> nn.Module:
        return nn.Sequential(module)


def group(*modules: nn.Module, shape: tuple[int, ...] = (3, 6)) -> Group:
    shapes = (torch.Size(shape),)
    return Group(tuple(Layer(str(i), module, False, False, shapes) for i, module in enumerate(modules)))


def candidate(answer: Any, of: Group | None = None) -> Candidate:
    found = Candidate.of(Answers(answer=answer), of or group(nn.Linear(6, 5)), Cost(35, 90))
    assert isinstance(found, Candidate)
    return found


def test_a_module_stands_for_its_proposal_and_is_built_already() -> None:
    module = nn.Linear(6, 2)
    (option,) = candidate([module]).options
    assert option.is_built
    assert option.modules == (module,)
    assert (option.proposal.parameters, option.proposal.size, option.proposal.multiply_adds) == (14, 56, 36)
    assert option.title == "Linear(in_features=6, out_features=2, bias=True)"


def test_a_proposal_is_built_once() -> None:
    built: list[int] = []

    def build() -> nn.Module:
        built.append(1)
        return nn.Linear(6, 2)

    (option,) = candidate([Proposal(14, build, "two", lambda module: module.out_features / 10)]).options
    assert not option.is_built
    assert not built
    assert option.modules is option.modules
    assert (option.error, option.costs, len(built)) == (0.2, (Cost(14, 36),), 1)
    assert option.title == "Linear(in_features=6, out_features=2, bias=True); two"
    assert [type(part.module) for part in option.deployed] == [nn.Sequential]


def test_a_technique_that_keeps_the_layer_has_no_candidate() -> None:
    assert Candidate.of(Answers(answer=Keep("no")), group(nn.Linear(6, 5)), Cost(0, 0)) == Keep("no")


@pytest.mark.parametrize("answer", [[], None, "proposal", Proposal(1, nn.Identity), [3]])
def test_answers_that_are_no_proposals(answer: object) -> None:
    with pytest.raises(InvalidType, match="layer '0': Answers.propose: expected a sequence of proposals"):
        candidate(answer)


def test_a_module_is_no_proposal_for_several_layers() -> None:
    with pytest.raises(InvalidType, match="Answers.propose: expected a sequence of proposals"):
        candidate([nn.Linear(6, 2)], group(nn.Linear(6, 6), nn.Linear(6, 6)))


@pytest.mark.parametrize("built", [(nn.ReLU(),), nn.ReLU(), (nn.ReLU(), 3)])
def test_a_module_for_each_layer_of_a_group(built: Any) -> None:
    (option,) = candidate([Proposal(1, lambda: built)], group(nn.Linear(6, 6), nn.Linear(6, 6))).options
    with pytest.raises(InvalidType, match="expected 2 modules, one for each layer of the group, found ReLU"):
        _ = option.modules


@pytest.mark.parametrize(
    ("old", "new", "shape", "narrow", "multiply_adds"),
    [
        (nn.Linear(6, 5), nn.Linear(4, 5), (3, 2, 6), (3, 2, 4), 6 * 20),
        (nn.Conv2d(6, 5, 3), nn.Conv2d(2, 5, 3), (1, 6, 4, 4), (1, 2, 4, 4), 4 * 90),
        (nn.Conv1d(6, 5, 3), nn.Conv1d(2, 5, 3), (6, 4), (2, 4), 2 * 30),
        (nn.BatchNorm2d(6), nn.BatchNorm2d(2), (1, 6, 4, 4), (1, 2, 4, 4), 0),
        (nn.ReLU(), nn.ReLU(), (1, 6), (1, 6), 0),
    ],
)
def test_later_layers_of_a_group_take_the_channels_that_they_say(
    old: nn.Module, new: nn.Module, shape: tuple[int, ...], narrow: tuple[int, ...], multiply_adds: int
) -> None:
    """What they are measured with, and what they cost."""
    (option,) = candidate([Proposal(1, lambda: (nn.Identity(), new))], group(nn.ReLU(), old, shape=shape)).options
    assert [part.input_shapes for part in option.parts] == [(torch.Size(shape),), (torch.Size(narrow),)]
    assert option.costs[1].multiply_adds == multiply_adds


def test_the_error_of_a_group_is_asked_of_all_its_modules() -> None:
    modules = (nn.Linear(6, 2), nn.Linear(2, 6))
    proposal = Proposal(1, lambda: modules, error=lambda built: 0.5 if built == modules else 1.0)
    (option,) = candidate([proposal], group(nn.Linear(6, 6), nn.Linear(6, 6))).options
    assert option.error == 0.5
    assert option.title.count("Linear(") == 2
