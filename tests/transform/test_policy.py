"""Policies: which of several proposals is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
from torch import nn

from netopt import Cost, Decision, Group, Layer, Policy, Proposal, Technique
from netopt.transform.candidate import Candidate
from netopt.transform.policy import Always, Faster, Smaller, Verdict


@dataclass(frozen=True, kw_only=True)
class Strengths(Technique):
    """A proposal of each of these numbers of parameters."""

    parameters: tuple[int, ...]
    built: list[int]
    bytes: int | None = None
    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)

    def propose(self, group: Group) -> list[Proposal]:
        return [Proposal(n, lambda n=n: self.build(n), f"{n} left", bytes=self.bytes) for n in self.parameters]

    def build(self, number: int) -> nn.Module:
        self.built.append(number)
        return nn.Identity()


def asked(policy: Policy, *parameters: int, before: int = 35, size: int | None = None) -> tuple[Decision, list[int]]:
    """What a policy answers, and what was built for it."""
    technique = Strengths(parameters=parameters, built=[], bytes=size)
    group = Group((Layer("fc", nn.Linear(6, 5), False, False),))
    found = Candidate.of(technique, group, Cost(before, before))
    assert isinstance(found, Candidate)
    return policy.choose(found), technique.built


def note(decision: Decision) -> str | None:
    return decision.chosen and decision.chosen.proposal.note


def test_always_takes_the_first() -> None:
    decision, built = asked(Always(), 100, 10)
    assert (note(decision), decision.reason, built) == ("100 left", "", [])


@pytest.mark.parametrize(("parameters", "kept"), [((10, 20), "10 left"), ((35, 34, 1), "34 left")])
def test_smaller_takes_the_first_that_saves(parameters: tuple[int, ...], kept: str) -> None:
    decision, built = asked(Smaller(), *parameters)
    assert (note(decision), built) == (kept, [])


def test_smaller_says_what_the_first_would_have_had() -> None:
    reason = "35 left saves nothing: 35 parameters, not fewer than 35"
    assert asked(Smaller(), 35)[0] == Decision(chosen=None, reason=reason)
    more = " (nor is one of 2 weaker proposals kept)"
    assert asked(Smaller(), 35, 40, 50)[0] == Decision(chosen=None, reason=reason + more)


def test_smaller_counts_bytes() -> None:
    assert note(asked(Smaller(), 40, size=139)[0]) == "40 left"
    reason = "40 left saves nothing: 140 bytes, not fewer than 140"
    assert asked(Smaller(), 40, size=140)[0].reason == reason


def test_faster_builds_and_measures_one_after_the_other() -> None:
    verdicts = iter([Verdict(False, "not faster by 5%", 2.0, 3.0), Verdict(True, "", 2.0, 1.0)])
    decision, built = asked(Faster(lambda parts: next(verdicts)), 10, 20, 30)
    assert (note(decision), built, decision.before_ms, decision.after_ms) == ("20 left", [10, 20], 2.0, 1.0)


def test_faster_tells_the_times_of_the_first_if_none_is() -> None:
    verdicts = iter([Verdict(False, "slow", 2.0, 3.0), Verdict(False, "slow", 2.0, 4.0)])
    decision, _ = asked(Faster(lambda parts: next(verdicts)), 10, 20)
    reason = "Identity(); 10 left: slow (nor is one of 1 weaker proposals kept)"
    assert decision == Decision(chosen=None, reason=reason, before_ms=2.0, after_ms=3.0)


def test_faster_does_not_build_what_is_far_larger() -> None:
    decision, built = asked(Faster(lambda parts: Verdict(True, "")), 53, 52)
    assert (note(decision), built) == ("52 left", [52])
    reason = "53 left would have 53 parameters, over 1.5 times those of the layer: not tried"
    assert asked(Faster(lambda parts: Verdict(True, "")), 53)[0].reason == reason
    # A layer without parameters sets no limit.
    assert note(asked(Faster(lambda parts: Verdict(True, "")), 53, before=0)[0]) == "53 left"


def test_faster_measures_a_module_that_is_there_whatever_its_size() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Large(Technique):
        handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)

        def replace(self, layer: Layer) -> nn.Module:
            return nn.Linear(60, 50)

    group = Group((Layer("fc", nn.Linear(6, 5), False, False),))
    found = Candidate.of(Large(), group, Cost(35, 30))
    assert isinstance(found, Candidate)
    assert Faster(lambda parts: Verdict(True, "")).choose(found).chosen is found.options[0]


def test_a_policy_of_its_own_need_not_look_at_all_of_them() -> None:
    policy = Always()

    def unseen():  # type: ignore[no-untyped-def]
        raise AssertionError
        yield

    assert policy.prepare(unseen(), Cost(0, 0)) is policy
