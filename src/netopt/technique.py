"""The framework of transformations: what a technique is, how it is applied to a model, and the report of that."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from rich.progress import TaskID
from torch import nn

from netopt.console import count, progress, render_table
from netopt.errors import InvalidType
from netopt.select import Layer, Selection, check_selection, layers_of, select


@dataclass(frozen=True)
class Cost:
    """What a layer costs.

    Attributes:
        parameters: numbers of weights and biases.
        multiply_adds: for one input vector of a dense layer, or one output position of a convolution.
    """

    parameters: int
    multiply_adds: int

    @classmethod
    def of(cls, module: nn.Module) -> Cost:
        """The cost of the dense and convolution layers in `module`.

        Its other parameters are counted, their arithmetic is not.
        """
        layers = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)]
        return cls(sum(p.numel() for p in module.parameters()), sum(layer.weight.numel() for layer in layers))


@dataclass(frozen=True)
class Keep:
    """A technique's answer for a layer that it leaves alone.

    Attributes:
        reason: why, for the report.
    """

    reason: str


@dataclass(frozen=True, kw_only=True)
class Technique(ABC):
    """A way to make layers cheaper.

    A subclass is a frozen, keyword-only dataclass of options, checked in `__post_init__`. It names the layer types that
    it handles and builds the replacement of one layer; selection, reports, retraining and lowering come with it.

    Attributes:
        select: which layers; None for all of the types handled. See `netopt.select`.
    """

    select: Selection | None = None

    # The exact types: a subclass of a layer may do more than the layer does.
    handles: ClassVar[tuple[type[nn.Module], ...]]

    def __post_init__(self) -> None:
        if not hasattr(self, "handles"):
            raise InvalidType(self.name, expected="a class attribute `handles`: the layer types", found="none")
        check_selection(self.select)

    @abstractmethod
    def replace(self, layer: Layer) -> nn.Module | Keep:
        """The module to put in the layer's place, or `Keep(reason)`.

        The layer is a copy that belongs to the new model: its parameters may be used. Device, dtype, training mode and
        requires_grad are the technique's to carry over; `inherit` does it.

        Raises:
            NetoptError: the layer cannot be replaced for a reason that the user must know.
        """

    def cost(self, module: nn.Module) -> Cost:
        """The cost of a layer or of its replacement. To be overridden for layers that `Cost.of` does not know."""
        return Cost.of(module)

    @property
    def name(self) -> str:
        """How the technique is called in reports."""
        return type(self).__name__


@dataclass(frozen=True)
class LayerReport:
    """What became of one candidate layer.

    Attributes:
        layer: qualified name.
        kind: type of the layer.
        technique: name of the technique.
        replaced: whether it was replaced.
        reason: why not, or what replaced it.
        before: cost of the layer.
        after: cost of what stands there now.
    """

    layer: str
    kind: str
    technique: str
    replaced: bool
    reason: str
    before: Cost
    after: Cost


@dataclass(frozen=True)
class Report:
    """A row for each candidate layer of each technique. `print(report)` shows a table."""

    rows: tuple[LayerReport, ...]

    def __str__(self) -> str:
        columns = ("layer", "type", "technique", "replaced", "note", "parameters", "->", "multiply-adds", "->")
        cells = [
            (
                row.layer or "(the model)",
                row.kind,
                row.technique,
                "yes" if row.replaced else "no",
                row.reason,
                count(row.before.parameters),
                count(row.after.parameters),
                count(row.before.multiply_adds),
                count(row.after.multiply_adds),
            )
            for row in self.rows
        ]
        table = render_table(columns, cells, text_columns=5)
        replaced = sum(row.replaced for row in self.rows)
        return f"{table}\n{replaced} of {len(self.rows)} candidate layers replaced"

    def __add__(self, other: Report) -> Report:
        return Report(self.rows + other.rows)


def transform(model: nn.Module, techniques: Technique | Sequence[Technique]) -> tuple[nn.Module, Report]:
    """A new model with layers replaced, and the report. The techniques are applied one after the other.

    The caller's model is not changed and shares no tensor with the new one.

    Raises:
        InvalidType: an argument is not what it should be.
        NetoptError: a layer cannot be replaced; names it.
    """
    if not isinstance(model, nn.Module):
        raise InvalidType("model", expected="a torch.nn.Module", found=type(model).__name__)
    sequence = [techniques] if isinstance(techniques, Technique) else techniques
    if not isinstance(sequence, Sequence) or not all(isinstance(technique, Technique) for technique in sequence):
        raise InvalidType("techniques", expected="a netopt.Technique or a sequence of them", found=repr(techniques))
    try:
        model = copy.deepcopy(model)
    except Exception as error:  # whatever the model's parts raise when they are copied
        raise InvalidType("model", expected="one that copy.deepcopy can copy", found=repr(error)) from error
    report = Report(())
    for technique in sequence:
        model, rows = _apply(model, technique)
        report += Report(rows)
    return model, report


def inherit(replacement: nn.Module, original: nn.Module) -> nn.Module:
    """Give the replacement the original's training mode, device, dtype and (from its weight) requires_grad."""
    weight = original.weight
    assert isinstance(weight, torch.Tensor)
    replacement.train(original.training).to(device=weight.device, dtype=weight.dtype)
    return replacement.requires_grad_(weight.requires_grad)


def _apply(model: nn.Module, technique: Technique) -> tuple[nn.Module, tuple[LayerReport, ...]]:
    candidates = [layer for layer in layers_of(model) if type(layer.module) in technique.handles]
    chosen = select(candidates, technique.select)
    obstacles = _obstacles(model)
    rows = []
    with progress(technique.name, len(candidates)) as bar:
        for layer, wanted in zip(candidates, chosen, strict=True):
            bar.update(TaskID(0), description=f"{technique.name} {layer.name}")
            before = technique.cost(layer.module)
            answer = _decide(technique, layer, wanted, obstacles.get(layer.module))
            if isinstance(answer, nn.Module):
                model = _put(model, layer.module, answer)
                after, note = technique.cost(answer), str(answer).splitlines()[0].rstrip("(")
            else:
                after, note = before, answer.reason
            kind = type(layer.module).__name__
            rows.append(
                LayerReport(layer.name, kind, technique.name, isinstance(answer, nn.Module), note, before, after)
            )
            bar.advance(TaskID(0))
    return model, tuple(rows)


def _decide(technique: Technique, layer: Layer, wanted: bool, obstacle: str | None) -> nn.Module | Keep:
    if not wanted:
        return Keep("filtered out")
    if obstacle is not None:
        return Keep(obstacle)
    answer: object = technique.replace(layer)
    if not isinstance(answer, nn.Module | Keep):
        raise InvalidType(
            f"{technique.name}.replace",
            expected="a module or Keep(reason)",
            found=type(answer).__name__,
            layer=layer.name,
        )
    return answer


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


def _put(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Put `new` wherever `old` stands, and return the model, which may itself be `old`."""
    if model is old:
        return new
    # The parents are listed first: `new` may hold `old`, and must keep it.
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
    return model
