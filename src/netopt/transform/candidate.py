"""What may stand in the place of layers: the proposals of a technique for one group, with their costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from netopt.errors import InvalidArgument, InvalidType
from netopt.transform.cost import Cost
from netopt.transform.group import Group
from netopt.transform.select import Layer
from netopt.transform.technique import Keep, Proposal, Technique

# The attribute by which layers of PyTorch's say how many channels they take.
_CHANNELS = ("in_features", "in_channels", "num_features")


@dataclass(frozen=True)
class Replacement:
    """One layer of a group, and what may stand in its place.

    Attributes:
        layer: as it is, with the shapes of its inputs.
        module: the replacement.
        input_shapes: of the replacement, which in a group may take fewer channels than the layer.
    """

    layer: Layer
    module: nn.Module
    input_shapes: tuple[torch.Size, ...]


class Option:
    """One proposal of a technique for a group. It is built, once, when its modules are first asked for."""

    def __init__(self, technique: Technique, group: Group, answer: nn.Module | Proposal) -> None:
        """Take a proposal, or for a group of one a module that is made already."""
        self._technique, self._group = technique, group
        if isinstance(answer, nn.Module):
            cost = cost_of(technique, group.layer, answer)
            made = (answer,)
            answer = Proposal(cost.parameters, lambda: made, bytes=cost.bytes, multiply_adds=cost.multiply_adds)
            self.modules = made
        self.proposal = answer

    @cached_property
    def modules(self) -> tuple[nn.Module, ...]:
        """A module for each layer of the group.

        Raises:
            InvalidType: something else was built.
        """
        built: object = self.proposal.build()
        count = len(self._group.layers)
        modules = tuple(built) if isinstance(built, tuple | list) else (built,)
        if len(modules) != count or not all(isinstance(module, nn.Module) for module in modules):
            raise InvalidType(
                f"Proposal.build of {self._technique.name}",
                expected="a module" if count == 1 else f"{count} modules, one for each layer of the group",
                found=", ".join(type(module).__name__ for module in modules),
                layer=self._group.layers[0].name,
            )
        return modules

    @property
    def is_built(self) -> bool:
        """Whether its modules are there."""
        return "modules" in vars(self)

    @property
    def parts(self) -> tuple[Replacement, ...]:
        """The layers of the group and what may stand in their places; builds it."""
        several = len(self.modules) > 1
        return tuple(
            Replacement(layer, module, _shapes_for(layer, module) if several else layer.input_shapes)
            for layer, module in zip(self._group.layers, self.modules, strict=True)
        )

    @property
    def deployed(self) -> tuple[Replacement, ...]:
        """The same, as it will be lowered."""
        return tuple(replace(part, module=self._technique.deployed(part.module)) for part in self.parts)

    @property
    def costs(self) -> tuple[Cost, ...]:
        """What each module costs; builds it."""
        technique = self._technique
        return tuple(
            cost_of(technique, replace(part.layer, input_shapes=part.input_shapes), part.module) for part in self.parts
        )

    @property
    def error(self) -> float | None:
        """See `LayerReport.error`; None where it is not known. Builds it."""
        if self.proposal.error is None:
            return None
        given: Any = self.modules if len(self.modules) > 1 else self.modules[0]
        return self.proposal.error(given)

    @property
    def title(self) -> str:
        """What it is, and its note; builds it."""
        return "; ".join(filter(None, (" + ".join(map(title_of, self.modules)), self.proposal.note)))


@dataclass(frozen=True)
class Candidate:
    """A group of layers, and what may stand in its place.

    Attributes:
        group: the layers.
        before: what they cost together.
        options: the technique's proposals, the strongest saving first; empty where it keeps the layers.
    """

    group: Group
    before: Cost
    options: tuple[Option, ...] = ()

    @classmethod
    def of(cls, technique: Technique, group: Group, before: Cost) -> Candidate | Keep:
        """What a technique proposes for a group that costs `before`, or why it keeps it.

        Raises:
            InvalidType: it answers something else than proposals.
        """
        answer: object = technique.propose(group)
        if isinstance(answer, Keep):
            return answer
        proposals = answer if isinstance(answer, Sequence) else ()
        kinds = nn.Module | Proposal if len(group.layers) == 1 else Proposal
        if not proposals or not all(isinstance(proposal, kinds) for proposal in proposals):
            raise InvalidType(
                f"{technique.name}.propose",
                expected="a sequence of proposals, at least one, or Keep(reason)",
                found=repr(answer),
                layer=group.layers[0].name,
            )
        return cls(group, before, tuple(Option(technique, group, proposal) for proposal in proposals))


def cost_of(technique: Technique, layer: Layer, module: nn.Module) -> Cost:
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


def title_of(module: nn.Module) -> str:
    """The first line of what PyTorch prints for a module."""
    return str(module).splitlines()[0].rstrip("(")


def _shapes_for(layer: Layer, module: nn.Module) -> tuple[torch.Size, ...]:
    """The shapes of a layer's inputs with as many channels as its replacement says that it takes."""
    for attribute in _CHANNELS:
        before, after = (getattr(given, attribute, None) for given in (layer.module, module))
        if isinstance(before, int) and isinstance(after, int):
            return tuple(
                _with_channels(shape, _axis(layer.module, attribute, shape), after) for shape in layer.input_shapes
            )
    return layer.input_shapes


def _axis(module: nn.Module, attribute: str, shape: torch.Size) -> int:
    """The axis of an input along which its channels lie."""
    if attribute == "in_channels":
        assert isinstance(module.kernel_size, tuple)
        return len(shape) - len(module.kernel_size) - 1
    return len(shape) - 1 if attribute == "in_features" else 1


def _with_channels(shape: torch.Size, axis: int, channels: int) -> torch.Size:
    return torch.Size((*shape[:axis], channels, *shape[axis + 1 :]))
