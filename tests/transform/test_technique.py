"""What a technique is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from netopt import Cost, InvalidType, Keep, Layer, Proposal, Technique
from netopt.transform.technique import inherit


@dataclass(frozen=True, kw_only=True)
class Nothing(Technique):
    """Replaces no layer."""

    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)

    def replace(self, layer: Layer) -> nn.Module | Proposal | Keep:
        return Keep("as it is")


def test_what_a_technique_has_of_its_own() -> None:
    technique, linear = Nothing(), nn.Linear(3, 2)
    assert technique.name == "Nothing"
    assert technique.select is None
    assert technique.prepare([], Cost(0, 0)) is technique
    assert technique.cost(linear) == Cost(8, 6)
    assert technique.cost(linear, [torch.Size((5, 3)), torch.Size((2, 3))]) == Cost(8, 7 * 6)


def test_wrong_options() -> None:
    with pytest.raises(InvalidType, match="selection of layers"):
        Nothing(select=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Nothing("0")  # type: ignore[misc]


def test_a_technique_must_say_what_it_handles() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Vague(Technique):
        def replace(self, layer: Layer) -> nn.Module | Proposal | Keep:
            return Keep("")

    with pytest.raises(InvalidType, match="Vague: expected a class attribute `handles`"):
        Vague()


def test_a_technique_must_replace() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Technique()  # type: ignore[abstract]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_inherit(dtype: torch.dtype) -> None:
    original = nn.Linear(2, 2).to(dtype).eval()
    original.weight.requires_grad_(False)
    new = inherit(nn.Sequential(nn.Linear(2, 2)), original)
    assert not new.training
    assert new[0].weight.dtype is dtype
    assert not new[0].weight.requires_grad


def test_inherit_leaves_gradients_on() -> None:
    original = nn.Linear(2, 2)
    original.bias.requires_grad_(False)
    new = inherit(nn.Sequential(nn.Linear(2, 2)).eval(), original)
    assert new.training
    assert all(parameter.requires_grad for parameter in new.parameters())
