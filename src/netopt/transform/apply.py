"""How techniques are applied to a model: which layers, which proposals a policy keeps, and the report of that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Literal, get_args

from torch import nn

from netopt.console import doing, progress
from netopt.errors import InvalidArgument, InvalidType, name_of_layer
from netopt.example import Example
from netopt.torch_state import plain_torch
from netopt.transform.candidate import Candidate, cost_of, title_of
from netopt.transform.cost import Cost
from netopt.transform.group import Group, check_groups, is_within
from netopt.transform.layer_report import LayerReport, Report
from netopt.transform.observe import Calibration, Observer, input_shapes
from netopt.transform.policy import Always, Decision, Faster, Judge, Policy, Smaller
from netopt.transform.reparametrized import copied
from netopt.transform.replace import put
from netopt.transform.select import WIDEST_LANES, Layer, select
from netopt.transform.site import Site, cost_of_network, sites_of
from netopt.transform.technique import Keep, Technique

KeptBy = Literal["faster", "smaller", "always"]
KeepIf = KeptBy | Policy
Train = Callable[[nn.Module], nn.Module | None]


@plain_torch()
def transform(
    model: nn.Module,
    techniques: Technique | Sequence[Technique],
    *,
    example: Example | None = None,
    calibration: Calibration | None = None,
    keep_if: KeepIf = "smaller",
    judge: Judge | None = None,
    recover: Train | None = None,
    lanes: int = WIDEST_LANES,
) -> tuple[nn.Module, Report]:
    """A new model with layers replaced, and the report. The techniques are applied one after the other.

    The caller's model is not changed and shares no tensor with the new one.

    Args:
        model: a trained network.
        techniques: in their order.
        example: an input, for the shapes that costs are counted for.
        calibration: inputs, for techniques that use them.
        keep_if: a policy: "smaller" keeps replacements with fewer bytes of parameters, "always" all, "faster" those
            that `judge` keeps; it is not asked about proposals with 1.5 times the layer's parameters or more.
        judge: needed for "faster".
        recover: trains the model after each replacement, in place, or returns another model.
        lanes: float32 numbers in a vector register of the CPU that the network is for.

    Raises:
        InvalidType: an argument is not what it should be.
        NetoptError: a layer cannot be replaced; names it.
    """
    sequence = checked(model, techniques)
    policy = _policy(keep_if, judge)
    try:
        model = copied(model)
    except Exception as error:  # whatever the model's parts raise when they are copied
        raise InvalidType("model", expected="one that copy.deepcopy can copy", found=repr(error)) from error
    report, earlier = Report(()), _Earlier()
    for technique in sequence:
        application = _Application(model, technique, policy, example, calibration, lanes)
        rows = application.run(recover, earlier)
        model = application.model
        report += Report(rows)
    return model, report


def checked(model: object, techniques: object) -> Sequence[Technique]:
    """The techniques as a sequence.

    Raises:
        InvalidType: they are none, or the model is no module.
    """
    if not isinstance(model, nn.Module):
        raise InvalidType("model", expected="a torch.nn.Module", found=type(model).__name__)
    sequence: object = [techniques] if isinstance(techniques, Technique) else techniques
    if not isinstance(sequence, Sequence) or not all(isinstance(technique, Technique) for technique in sequence):
        raise InvalidType("techniques", expected="a netopt.Technique or a sequence of them", found=repr(techniques))
    return sequence


def check_keep_if(keep_if: object) -> None:
    """Raise InvalidArgument unless it is a policy, or the name of one."""
    if not isinstance(keep_if, Policy) and keep_if not in get_args(KeptBy):
        expected = '"faster", "smaller" or "always"'
        raise InvalidArgument("keep_if", expected=expected, found=repr(keep_if), fix="or give a netopt.Policy")


def retrained(model: nn.Module, train: Train, name: str = "train") -> nn.Module:
    """What `train` makes of the model: what it returns, or the model itself, trained in place.

    Raises:
        InvalidType: `train` returns something else.
    """
    trained: object = train(model)
    if trained is None:
        return model
    if not isinstance(trained, nn.Module):
        raise InvalidType(name, expected="a model, or None after training in place", found=type(trained).__name__)
    return trained


def _policy(keep_if: KeepIf, judge: Judge | None) -> Policy:
    check_keep_if(keep_if)
    if isinstance(keep_if, Policy):
        return keep_if
    if keep_if != "faster":
        return Smaller() if keep_if == "smaller" else Always()
    if judge is None:
        raise InvalidArgument("judge", expected='one for keep_if="faster"', found="none", fix="use netopt.optimize")
    return Faster(judge)


def _trained(layers: Sequence[Layer]) -> list[tuple[nn.Parameter, bool]]:
    """Which parameters of layers are trained."""
    return [(parameter, parameter.requires_grad) for layer in layers for parameter in layer.module.parameters()]


def _train_again(trained: Sequence[tuple[nn.Parameter, bool]]) -> None:
    """What a replacement that was made and not kept may have changed: it may have had the layers' own parameters."""
    for parameter, requires_grad in trained:
        parameter.requires_grad_(requires_grad)


class _Earlier:
    """What techniques before this one have replaced, for the rows of layers that are no longer there."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[type[nn.Module], LayerReport]] = {}

    def add(self, kind: type[nn.Module], row: LayerReport) -> None:
        """Note a layer of this type that was replaced."""
        self._rows[row.layer] = kind, row

    def rows(self, technique: Technique, present: Sequence[Site]) -> Iterator[LayerReport]:
        """For each layer that the technique would have handled, and of which no part is left to it."""
        for name, (kind, row) in self._rows.items():
            is_left = any(site.layer.name == name or is_within(site.layer.name, name) for site in present)
            if kind in technique.handles and not is_left:
                reason = f"was replaced by {row.technique}"
                yield LayerReport(name, row.kind, technique.name, False, reason, row.after, row.after)


class _Application:
    """One technique on one model."""

    def __init__(
        self,
        model: nn.Module,
        technique: Technique,
        policy: Policy,
        example: Example | None,
        calibration: Calibration | None,
        lanes: int,
    ) -> None:
        self.model, self._technique, self._policy, self._lanes = model, technique, policy, lanes
        self._shapes = {} if example is None else input_shapes(model, example)
        self._observer = None if calibration is None else Observer(model, calibration)
        self._sites: dict[str, Site] = {}
        self._rows: dict[str, LayerReport] = {}

    def run(self, recover: Train | None, earlier: _Earlier) -> tuple[LayerReport, ...]:
        """Ask for each candidate, and replace what is kept in `model`."""
        order = [name for name, _ in self.model.named_modules()]
        self._sites = {site.layer.name: site for site in self._candidates()}
        for row in earlier.rows(self._technique, list(self._sites.values())):
            self._rows[row.layer] = row
        network = cost_of_network(self.model, self._shapes)
        free = [site.layer for site in self._sites.values() if site.obstacle is None]
        with progress(self._technique.name, len(self._sites)) as bar:
            with doing("looking at all layers"):
                self._technique = self._technique.prepare(free, network)
                groups = check_groups(self._technique.groups(free), free, self._technique.name)
                self._policy = self._policy.prepare(self._proposed(groups), network)
            group_of = {name: group for group in groups for name in group.names}
            for name in self._sites:
                bar.update(description=f"{self._technique.name} {name}")
                if name not in self._rows and self._visit(group_of.get(name), name):
                    for done in group_of[name].names:
                        earlier.add(type(self._sites[done].layer.module), self._rows[done])
                    if recover is not None:
                        self.model = retrained(self.model, recover, "recover")
                bar.advance()
        return tuple(self._rows[name] for name in order if name in self._rows)

    def _candidates(self) -> list[Site]:
        """All layers that the technique handles, with what it is to know of them."""
        sites = [self._informed(site) for site in sites_of(self.model, self._technique.handles)]
        chosen = select([site.layer for site in sites], self._technique.select)
        return [
            site if wanted else replace(site, obstacle="filtered out")
            for site, wanted in zip(sites, chosen, strict=True)
        ]

    def _informed(self, site: Site) -> Site:
        name = site.layer.name
        calibration = None if self._observer is None else partial(self._observer.inputs, name)
        layer = replace(site.layer, input_shapes=self._shapes.get(name, ()), calibration=calibration, lanes=self._lanes)
        return replace(site, layer=layer)

    def _proposed(self, groups: Sequence[Group]) -> Iterator[Candidate]:
        """What the technique proposes for each group, for policies that ask for all of them together."""
        for group in groups:
            costs = [cost_of(self._technique, layer, layer.module) for layer in group.layers]
            trained = _trained(group.layers)
            found = Candidate.of(self._technique, group, reduce(Cost.__add__, costs))
            if isinstance(found, Candidate):
                yield found
            _train_again(trained)

    def _visit(self, group: Group | None, name: str) -> bool:
        """Replace a layer, with all of its group, or not, and write the rows; whether they were replaced."""
        names = (name,) if group is None else group.names
        if (gone := self._gone(names)) is not None:
            for part in names:
                reason = gone.reason_for(part)
                self._rows[part] = self._row(self._sites[part], reason)
            return False
        sites = [self._sites[part].in_model(self.model) for part in names]
        self._sites.update((site.layer.name, site) for site in sites)
        rows = [self._row(site, site.obstacle or f"is in no group of {self._technique.name}") for site in sites]
        if group is not None:
            trained = _trained([site.layer for site in sites])
            rows = self._decide(sites, rows)
            if not rows[0].replaced:
                _train_again(trained)
        self._rows.update((row.layer, row) for row in rows)
        return rows[0].replaced

    def _gone(self, names: Sequence[str]) -> _Gone | None:
        """Whether one of these layers is no longer there."""
        for name in names:
            for row in self._rows.values():
                if row.replaced and is_within(name, row.layer):
                    return _Gone(name, row.layer)
        return None

    def _row(self, site: Site, reason: str) -> LayerReport:
        """That of a layer that stays."""
        layer = site.layer
        cost = cost_of(self._technique, layer, layer.module)
        return LayerReport(layer.name, type(layer.module).__name__, self._technique.name, False, reason, cost, cost)

    def _decide(self, sites: Sequence[Site], rows: Sequence[LayerReport]) -> list[LayerReport]:
        """Ask the technique and the policy, and put what is wanted in the places of the layers of a group."""
        group, before = Group(tuple(site.layer for site in sites)), reduce(Cost.__add__, (row.before for row in rows))
        candidate = Candidate.of(self._technique, group, before)
        if isinstance(candidate, Keep):
            return [replace(row, reason=candidate.reason) for row in rows]
        decision: object = self._policy.choose(candidate)
        chosen = decision.chosen if isinstance(decision, Decision) else self
        if not isinstance(decision, Decision) or chosen not in (None, *candidate.options):
            raise InvalidType(
                f"{type(self._policy).__name__}.choose",
                expected="a Decision with one of the candidate's options, or None",
                found=repr(decision),
                layer=group.names[0],
            )
        # The numbers of a group are in the row of its first layer; what was refused may have been built to be measured.
        shown = decision.chosen or candidate.options[0]
        error = shown.error if decision.chosen or shown.is_built else None
        first = replace(rows[0], error=error, before_ms=decision.before_ms, after_ms=decision.after_ms)
        rows = [first, *rows[1:]]
        if decision.chosen is None:
            return [replace(row, reason=decision.reason) for row in rows]
        return self._replace(sites, rows, decision)

    def _replace(self, sites: Sequence[Site], rows: Sequence[LayerReport], decision: Decision) -> list[LayerReport]:
        """Put what was chosen in the places of the layers of a group; all is made before the model is changed."""
        option = decision.chosen
        assert option is not None
        done = []
        for site, row, module, after in zip(sites, rows, option.modules, option.costs, strict=True):
            others = [name_of_layer(other.layer.name) for other in sites if other is not site]
            together = f"together with {', '.join(others)}" if others else ""
            notes = (title_of(module), option.proposal.note, decision.reason, site.note, together)
            done.append(replace(row, replaced=True, reason="; ".join(filter(None, notes)), after=after))
        for site, module in zip(sites, option.modules, strict=True):
            self.model = put(self.model, site.standing, module)
        return done


@dataclass(frozen=True)
class _Gone:
    """A layer that is part of another one, which was replaced."""

    name: str
    outer: str

    def reason_for(self, name: str) -> str:
        """For the report, of a layer of its group."""
        if name == self.name:
            return f"is part of {name_of_layer(self.outer)}, which was replaced"
        return f"is replaced only together with {name_of_layer(self.name)}, which is gone"
