"""How techniques are applied to a model: which layers, which replacements are kept, and the report of that."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Literal

from torch import nn

from netopt.console import progress
from netopt.errors import InvalidArgument, InvalidType, name_of_layer
from netopt.example import Example
from netopt.transform.constraints import put
from netopt.transform.cost import Cost
from netopt.transform.layer_report import LayerReport, Report
from netopt.transform.observe import Calibration, Observer, input_shapes
from netopt.transform.select import WEIGHTED, Layer, layers_of, select
from netopt.transform.technique import Keep, Proposal, Technique

KeepIf = Literal["faster", "smaller", "always"]
# With "faster", a proposal of that many times the layer's parameters is not built: it is slow to make, and to run.
_TOO_LARGE = 1.5
Train = Callable[[nn.Module], nn.Module | None]


@dataclass(frozen=True)
class Verdict:
    """Whether a replacement is kept, by its time.

    Attributes:
        keeps: whether.
        reason: why not; empty if it is.
        before_ms: latency of the lowered layer; None if it could not be measured.
        after_ms: latency of its lowered replacement; None likewise.
    """

    keeps: bool
    reason: str
    before_ms: float | None = None
    after_ms: float | None = None


Judge = Callable[[Layer, nn.Module], Verdict]


def transform(
    model: nn.Module,
    techniques: Technique | Sequence[Technique],
    *,
    example: Example | None = None,
    calibration: Calibration | None = None,
    keep_if: KeepIf = "smaller",
    judge: Judge | None = None,
    recover: Train | None = None,
) -> tuple[nn.Module, Report]:
    """A new model with layers replaced, and the report. The techniques are applied one after the other.

    The caller's model is not changed and shares no tensor with the new one.

    Args:
        model: a trained network.
        techniques: in their order.
        example: an input, for the shapes that costs are counted for.
        calibration: inputs, for techniques that use them.
        keep_if: "smaller" keeps replacements with fewer bytes of parameters, "always" all, "faster" those that `judge`
            keeps; it is not asked about proposals with 1.5 times the layer's parameters or more.
        judge: needed for "faster".
        recover: trains the model after each replacement, in place, or returns another model.

    Raises:
        InvalidType: an argument is not what it should be.
        NetoptError: a layer cannot be replaced; names it.
    """
    if not isinstance(model, nn.Module):
        raise InvalidType("model", expected="a torch.nn.Module", found=type(model).__name__)
    sequence = [techniques] if isinstance(techniques, Technique) else techniques
    if not isinstance(sequence, Sequence) or not all(isinstance(technique, Technique) for technique in sequence):
        raise InvalidType("techniques", expected="a netopt.Technique or a sequence of them", found=repr(techniques))
    if keep_if not in ("faster", "smaller", "always"):
        raise InvalidArgument("keep_if", expected='"faster", "smaller" or "always"', found=repr(keep_if))
    if keep_if == "faster" and judge is None:
        raise InvalidArgument("judge", expected='one for keep_if="faster"', found="none", fix="use netopt.optimize")
    try:
        model = copy.deepcopy(model)
    except Exception as error:  # whatever the model's parts raise when they are copied
        raise InvalidType("model", expected="one that copy.deepcopy can copy", found=repr(error)) from error
    report = Report(())
    for technique in sequence:
        application = _Application(model, technique, example, calibration, keep_if, judge)
        rows = application.run(recover)
        model = application.model
        report += Report(rows)
    return model, report


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


class _Application:
    """One technique on one model."""

    def __init__(
        self,
        model: nn.Module,
        technique: Technique,
        example: Example | None,
        calibration: Calibration | None,
        keep_if: KeepIf,
        judge: Judge | None,
    ) -> None:
        self.model, self._technique, self._keep_if, self._judge = model, technique, keep_if, judge
        self._shapes = {} if example is None else input_shapes(model, example)
        self._observer = None if calibration is None else Observer(model, calibration)

    def run(self, recover: Train | None) -> tuple[LayerReport, ...]:
        """Ask for each candidate, and replace what is kept in `model`."""
        candidates = [self._handle(layer) for layer in layers_of(self.model)]
        total = reduce(
            Cost.__add__,
            [Cost.of(layer.module, layer.input_shapes) for layer in candidates if isinstance(layer.module, WEIGHTED)],
            Cost(0, 0),
        )
        candidates = [layer for layer in candidates if type(layer.module) in self._technique.handles]
        chosen = select(candidates, self._technique.select)
        obstacles = _obstacles(self.model)
        kept = {
            layer.name: obstacles.get(layer.module) if wanted else "filtered out"
            for layer, wanted in zip(candidates, chosen, strict=True)
        }
        technique = self._technique.prepare([layer for layer in candidates if kept[layer.name] is None], total)
        rows: list[LayerReport] = []
        with progress(technique.name, len(candidates)) as bar:
            for layer in candidates:
                bar.update(description=f"{technique.name} {layer.name}")
                outer = next((row.layer for row in rows if row.replaced and _is_within(layer.name, row.layer)), None)
                if outer is None:
                    layer, reason = self._as_it_is(layer), kept[layer.name]
                else:
                    reason = f"is part of {name_of_layer(outer)}, which was replaced"
                row = self._apply(technique, layer, None if reason is None else Keep(reason))
                rows.append(row)
                if row.replaced and recover is not None:
                    self.model = retrained(self.model, recover, "recover")
                bar.advance()
        return tuple(rows)

    def _as_it_is(self, layer: Layer) -> Layer:
        """The layer in the model as it is now: training may have returned another one."""
        try:
            module = self.model.get_submodule(layer.name)
        except AttributeError:
            module = None
        if type(module) is not type(layer.module):
            raise InvalidType(
                "recover",
                expected=f"a model with the layers it was given, here a {type(layer.module).__name__}",
                found="none" if module is None else f"a {type(module).__name__}",
                layer=layer.name,
            )
        return replace(layer, module=module)

    def _handle(self, layer: Layer) -> Layer:
        calibration = None if self._observer is None else partial(self._observer.inputs, layer.name)
        return replace(layer, input_shapes=self._shapes.get(layer.name, ()), calibration=calibration)

    def _apply(self, technique: Technique, layer: Layer, keep: Keep | None) -> LayerReport:
        """Replace one layer, or not; its row of the report."""
        before = _cost(technique, layer, layer.module)
        row = LayerReport(layer.name, type(layer.module).__name__, technique.name, False, "", before, before)
        trained = {parameter: parameter.requires_grad for parameter in layer.module.parameters()}
        row = self._decide(technique, layer, row, keep)
        if not row.replaced:
            # A replacement that was made and not kept may have had the layer's own parameters.
            for parameter, requires_grad in trained.items():
                parameter.requires_grad_(requires_grad)
        return row

    def _decide(self, technique: Technique, layer: Layer, row: LayerReport, keep: Keep | None) -> LayerReport:
        """Ask the technique, and put what is wanted in the layer's place."""
        before = row.before
        answer: object = keep or technique.replace(layer)
        if isinstance(answer, Keep):
            return replace(row, reason=answer.reason)
        if self._keep_if == "faster" and isinstance(answer, Proposal) and _is_too_large(answer, before):
            size = f"{answer.parameters:,} parameters, over {_TOO_LARGE} times those of the layer"
            return replace(row, reason=f"{answer.note} would have {size}: not tried".lstrip())
        if isinstance(answer, nn.Module):
            cost = _cost(technique, layer, answer)
            answer = Proposal(cost.parameters, partial(_identity, answer), bytes=cost.bytes)
        if not isinstance(answer, Proposal):
            raise InvalidType(
                f"{technique.name}.replace",
                expected="a module, a Proposal or Keep(reason)",
                found=type(answer).__name__,
                layer=layer.name,
            )
        if self._keep_if == "smaller" and answer.size >= before.bytes:
            return replace(row, reason=f"{answer.note} {_saves_nothing(answer, before)}".lstrip())
        new: object = answer.build()
        if not isinstance(new, nn.Module):
            raise InvalidType(
                f"Proposal.build of {technique.name}", expected="a module", found=type(new).__name__, layer=layer.name
            )
        row = replace(row, error=None if answer.error is None else answer.error(new))
        note = "; ".join(filter(None, (_title(new), answer.note)))
        if self._keep_if == "faster":
            assert self._judge is not None
            verdict = self._judge(layer, technique.deployed(new))
            row = replace(row, before_ms=verdict.before_ms, after_ms=verdict.after_ms)
            if not verdict.keeps:
                return replace(row, reason=f"{note}: {verdict.reason}")
        self.model = put(self.model, layer.module, new)
        return replace(row, replaced=True, reason=note, after=_cost(technique, layer, new))


def _saves_nothing(proposal: Proposal, before: Cost) -> str:
    if proposal.size == 4 * proposal.parameters and before.bytes == 4 * before.parameters:
        return f"saves nothing: {proposal.parameters:,} parameters, not fewer than {before.parameters:,}"
    return f"saves nothing: {proposal.size:,} bytes, not fewer than {before.bytes:,}"


def _is_too_large(proposal: Proposal, before: Cost) -> bool:
    # A layer without parameters, such as an activation, sets no limit.
    return proposal.parameters >= _TOO_LARGE * before.parameters > 0


def _cost(technique: Technique, layer: Layer, module: nn.Module) -> Cost:
    """What the layer costs, or a module in its place.

    Raises:
        InvalidArgument: it cannot be counted; names the layer.
    """
    try:
        return technique.cost(module, layer.input_shapes)
    except InvalidArgument as error:
        if error.layer is not None:
            raise
        raise InvalidArgument(str(error), layer=layer.name) from error


def _identity(module: nn.Module) -> nn.Module:
    return module


def _is_within(name: str, outer: str) -> bool:
    return name != outer and (outer == "" or name.startswith(f"{outer}."))


def _title(module: nn.Module) -> str:
    return str(module).splitlines()[0].rstrip("(")


def _obstacles(model: nn.Module) -> dict[nn.Module, str]:
    """Why some layers cannot be replaced by any technique: what they do beside computing their output would be lost."""
    owners: dict[int, set[nn.Module]] = {}
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            owners.setdefault(id(parameter), set()).add(module)
            names.setdefault(id(parameter), []).append(f"{name}.{key}" if name else key)
    result = {}
    for module in model.modules():
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
            result[module] = "has hooks, which a replacement would lose"
        for key, parameter in module.named_parameters(recurse=False):
            if len(owners[id(parameter)]) > 1:
                result[module] = f"its {key} is shared: {', '.join(sorted(names[id(parameter)]))}"
    return result
