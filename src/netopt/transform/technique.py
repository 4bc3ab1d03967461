"""What a technique is: which layers it handles, which of them go together, and what it puts in their place."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from netopt.errors import InvalidType
from netopt.transform.cost import Cost
from netopt.transform.group import Group
from netopt.transform.select import Layer, Selection, check_selection


@dataclass(frozen=True)
class Keep:
    """A technique's answer for a layer, or a group of them, that it leaves alone.

    Attributes:
        reason: why, for the report.
    """

    reason: str


@dataclass(frozen=True)
class Proposal:
    """A replacement that is built only if it is wanted: its size is known before.

    Of a group of several layers, the numbers are those of all of them together.

    Attributes:
        parameters: how many it will have.
        build: makes it; of a group of several layers a tuple, with a module for each of them in its order.
        note: how it was chosen, for the report; may be empty.
        error: of what `build` made; see `LayerReport.error`.
        bytes: of its parameters, as `Cost.bytes`; None: 4 for each.
        multiply_adds: as `Cost.multiply_adds`; None where they are not known before it is built.
        loss: share of what the layers compute that it loses, from 0 to 1, about; None where it is not known before.
    """

    parameters: int
    build: Callable[[], nn.Module | Sequence[nn.Module]]
    note: str = ""
    error: Callable[[Any], float] | None = None
    bytes: int | None = None
    multiply_adds: int | None = None
    loss: float | None = None

    @property
    def size(self) -> int:
        """Bytes of its parameters."""
        return 4 * self.parameters if self.bytes is None else self.bytes


@dataclass(frozen=True, kw_only=True)
class Technique(ABC):
    """A way to make layers cheaper.

    A subclass is a frozen, keyword-only dataclass of options, checked in `__post_init__`. It names the layer types that
    it handles and builds the replacement of one layer, in `replace`; selection, measurement, reports, retraining and
    lowering come with it. One that replaces several layers together overrides `groups` and `propose` in its place.

    Attributes:
        select: which layers; None for all of the types handled. See `netopt.transform.select`.
    """

    select: Selection | None = None

    # The exact types: a subclass of a layer may do more than the layer does.
    handles: ClassVar[tuple[type[nn.Module], ...]]

    def __post_init__(self) -> None:
        kind = type(self)
        if kind.replace is Technique.replace and kind.propose is Technique.propose:
            expected = "a `replace` for one layer, or a `propose` for groups of them"
            raise InvalidType(self.name, expected=expected, found="an abstract class, without either")
        if not hasattr(self, "handles"):
            raise InvalidType(self.name, expected="a class attribute `handles`: the layer types", found="none")
        check_selection(self.select)

    def replace(self, layer: Layer) -> nn.Module | Proposal | Keep:
        """The module to put in the layer's place, a `Proposal` of one, or `Keep(reason)`.

        The layer is a copy that belongs to the new model: its parameters may be used. Device, dtype, training mode and
        requires_grad are the technique's to carry over; `inherit` does it.

        Raises:
            NetoptError: the layer cannot be replaced for a reason that the user must know.
        """
        raise InvalidType(
            f"{self.name}.replace", expected="a technique for one layer", found="one for groups", layer=layer.name
        )

    def groups(self, layers: Sequence[Layer]) -> Sequence[Group]:
        """The layers that are replaced together: by default, each on its own.

        Args:
            layers: the candidates that are selected and can be replaced. What is in no group is left as it is.
        """
        return [Group((layer,)) for layer in layers]

    def propose(self, group: Group) -> Sequence[nn.Module | Proposal] | Keep:
        """What may stand in the place of a group, the strongest saving first, or `Keep(reason)`.

        By default what `replace` answers for its layer. A module that is made already may stand for its proposal, in a
        group of one. It may be asked more than once for a group.

        Raises:
            NetoptError: as `replace`.
        """
        answer: object = self.replace(group.layer)
        if isinstance(answer, Keep):
            return answer
        if not isinstance(answer, nn.Module | Proposal):
            raise InvalidType(
                f"{self.name}.replace",
                expected="a module, a Proposal or Keep(reason)",
                found=type(answer).__name__,
                layer=group.layer.name,
            )
        return [answer]

    def prepare(self, layers: Sequence[Layer], network: Cost) -> Technique:  # for techniques that ask
        """The technique that will be asked to replace each of these layers: itself, unless it must see them together.

        Args:
            layers: the candidates that are selected and can be replaced.
            network: cost of all dense and convolution layers of the network.
        """
        return self

    def cost(self, module: nn.Module, inputs: Sequence[torch.Size] = ()) -> Cost:
        """The cost of a layer or of its replacement. To be overridden for layers that `Cost.of` does not know.

        Args:
            module: the layer or its replacement.
            inputs: the shape of its input in each call of a run; empty if not known.
        """
        return Cost.of(module, inputs)

    def deployed(self, module: nn.Module) -> nn.Module:  # for techniques that ask
        """A replacement as it will be lowered: itself, unless training changes what it computes. It is measured so."""
        return module

    @property
    def name(self) -> str:
        """How the technique is called in reports."""
        return type(self).__name__


def inherit(replacement: nn.Module, original: nn.Module) -> nn.Module:
    """Give the replacement the original's training mode, device, dtype and (from its weight) requires_grad."""
    weight = original.weight
    assert isinstance(weight, torch.Tensor)
    replacement.train(original.training).to(device=weight.device, dtype=weight.dtype)
    return replacement.requires_grad_(weight.requires_grad)
