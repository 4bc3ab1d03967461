"""Which of a technique's proposals stand in the model: policies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from netopt.transform.candidate import Candidate, Option, Replacement
from netopt.transform.cost import Cost

# With `Faster`, a proposal of that many times the layer's parameters is not built: it is slow to make, and to run.
_TOO_LARGE = 1.5


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A policy's answer for one group of layers.

    Attributes:
        chosen: one of the candidate's options, or None to leave the layers as they are.
        reason: why not; of a chosen one, what its note is to say besides; may be empty.
        before_ms: latency of the lowered layers; None if it was not measured.
        after_ms: latency of what is chosen, or was refused, lowered; None likewise.
    """

    chosen: Option | None
    reason: str = ""
    before_ms: float | None = None
    after_ms: float | None = None


class Policy(ABC):
    """Chooses among the proposals that a technique has for each group of layers.

    `keep_if` of `netopt.optimize` takes one.
    """

    def prepare(self, candidates: Iterable[Candidate], network: Cost) -> Policy:  # for policies that ask
        """The policy that will choose for each of these: itself, unless it must see them together.

        Args:
            candidates: of one technique, with a group each; made one by one, as they are asked for.
            network: cost of all dense and convolution layers of the network.
        """
        return self

    @abstractmethod
    def choose(self, candidate: Candidate) -> Decision:
        """Which of a candidate's options is put in the place of its layers, if any."""


@dataclass(frozen=True)
class Verdict:
    """Whether one option is kept.

    Attributes:
        keeps: whether.
        reason: why not; empty if it is.
        before_ms: latency of the lowered layers; None if it could not be measured.
        after_ms: latency of their lowered replacements; None likewise.
    """

    keeps: bool
    reason: str
    before_ms: float | None = None
    after_ms: float | None = None


class FirstThat(Policy):
    """Keeps the first option, which is the strongest, that passes a test of its own."""

    @abstractmethod
    def judge_option(self, candidate: Candidate, option: Option) -> Verdict:
        """Whether this one is kept."""

    def choose(self, candidate: Candidate) -> Decision:
        refused: Verdict | None = None
        for option in candidate.options:
            verdict = self.judge_option(candidate, option)
            if verdict.keeps:
                return Decision(chosen=option, before_ms=verdict.before_ms, after_ms=verdict.after_ms)
            refused = refused or verdict
        assert refused is not None
        others = len(candidate.options) - 1
        more = f" (nor is one of {others} weaker proposals kept)" if others else ""
        return Decision(
            chosen=None, reason=refused.reason + more, before_ms=refused.before_ms, after_ms=refused.after_ms
        )


class Always(FirstThat):
    """Keeps the strongest proposal, whatever it saves."""

    def judge_option(self, candidate: Candidate, option: Option) -> Verdict:
        return Verdict(True, "")


class Smaller(FirstThat):
    """Keeps what has fewer bytes of parameters; nothing else is built."""

    def judge_option(self, candidate: Candidate, option: Option) -> Verdict:
        proposal, before = option.proposal, candidate.before
        if proposal.size < before.bytes:
            return Verdict(True, "")
        if proposal.size == 4 * proposal.parameters and before.bytes == 4 * before.parameters:
            numbers = f"{proposal.parameters:,} parameters, not fewer than {before.parameters:,}"
        else:
            numbers = f"{proposal.size:,} bytes, not fewer than {before.bytes:,}"
        return Verdict(False, f"{proposal.note} saves nothing: {numbers}".lstrip())


# Whether these replacements, all together, are faster than their layers.
Judge = Callable[[Sequence[Replacement]], Verdict]


@dataclass(frozen=True)
class Faster(FirstThat):
    """Keeps what was measured to be faster. What has 1.5 times the parameters of the layers, or more, is not built.

    Attributes:
        judge: measures; see `netopt.search.measure`.
    """

    judge: Judge

    def judge_option(self, candidate: Candidate, option: Option) -> Verdict:
        proposal, before = option.proposal, candidate.before
        # A layer without parameters, such as an activation, sets no limit.
        if not option.is_built and proposal.parameters >= _TOO_LARGE * before.parameters > 0:
            whose = "layer" if len(candidate.group.layers) == 1 else "layers"
            size = f"{proposal.parameters:,} parameters, over {_TOO_LARGE} times those of the {whose}"
            return Verdict(False, f"{proposal.note} would have {size}: not tried".lstrip())
        verdict = self.judge(option.deployed)
        reason = "" if verdict.keeps else f"{option.title}: {verdict.reason}"
        return Verdict(verdict.keeps, reason, verdict.before_ms, verdict.after_ms)
