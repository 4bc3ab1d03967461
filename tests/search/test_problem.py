"""Which layers count as alike."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import netopt
from netopt.factorization import SVD, ChannelSVD, Tucker
from netopt.quantization import XNOR, Binary, Residual, Ternary
from netopt.search.problem import problem_of
from netopt.transform.select import Layer


class Scaled(nn.Module):
    """One of a user's own, with attributes of several kinds."""

    def __init__(self, scale: object = 2.0, act: Callable[[torch.Tensor], torch.Tensor] = F.relu) -> None:
        super().__init__()
        self.fc, self.scale, self.act = nn.Linear(3, 3), scale, act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.fc(x)) * self.scale


def hooked() -> nn.Module:
    layer = nn.Linear(3, 4)
    layer.register_forward_hook(lambda *_: None)
    return nn.Sequential(layer)


def with_own_forward() -> nn.Module:
    layer = nn.Linear(3, 4)
    layer.forward = lambda x: x  # type: ignore[method-assign]
    return layer


ALIKE: dict[str, Callable[[], nn.Module]] = {
    "dense": lambda: nn.Linear(3, 4),
    "convolution": lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1),
    "reflecting": lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
    "in a row": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
    "of one's own": Scaled,
    "of one's own, several": lambda: Scaled((1, [2.0, {"a": torch.float32}])),
    "signs": lambda: with_signs(nn.Linear(3, 4)),
}
OTHERS: dict[str, Callable[[], nn.Module]] = {
    "more outputs": lambda: nn.Linear(3, 5),
    "no bias": lambda: nn.Linear(3, 4, bias=False),
    "float64": lambda: nn.Linear(3, 4).double(),
    "identity in a row": lambda: nn.Sequential(nn.Linear(3, 4)),
    "stride": lambda: nn.Conv2d(3, 4, 3, padding=1),
    "epsilon": lambda: nn.BatchNorm2d(4, eps=1e-3),
    "activation": lambda: Scaled(act=F.gelu),
    "scale": lambda: Scaled(3.0),
    "of another type": lambda: Scaled(2),
}
UNLIKE_ALL: dict[str, Callable[[], nn.Module]] = {
    "hooks": hooked,
    "forward": with_own_forward,
    "object": lambda: Scaled(object()),
    "tensor": lambda: Scaled(torch.ones(3)),
}


def with_signs(layer: nn.Linear) -> nn.Linear:
    layer.weight.data = layer.weight.data.sign()
    return layer


@pytest.mark.parametrize("name", ALIKE)
def test_other_numbers_make_no_other_problem(name: str) -> None:
    one, other = ALIKE[name](), ALIKE[name]()
    assert problem_of(one) is not None
    assert problem_of(one) == problem_of(other) == problem_of(copy.deepcopy(one).eval())
    assert hash(problem_of(one)) == hash(problem_of(other))


def test_all_these_are_different_problems() -> None:
    problems = [problem_of(make()) for make in (*ALIKE.values(), *OTHERS.values())]
    assert None not in problems
    assert len(set(problems)) == len(problems)


@pytest.mark.parametrize("name", UNLIKE_ALL)
def test_what_cannot_be_told_is_like_no_other(name: str) -> None:
    assert problem_of(UNLIKE_ALL[name]()) is None


def test_a_function_with_variables_around_it_is_like_no_other() -> None:
    around = nn.Linear(1, 1)
    assert problem_of(Scaled(act=lambda x: around(x))) is None  # noqa: PLW0108  # it closes over a variable


@pytest.mark.parametrize(
    "technique",
    [
        SVD(rank=2),
        Tucker(rank=2),
        ChannelSVD(rank=2),
        XNOR(select=["0", "1"]),
        Binary(select=["0", "1"], thresholds=True, rprelu=True),
        Ternary(select=["0", "1"]),
        Residual(select=["0", "1"]),
    ],
    ids=lambda technique: technique.name,
)
def test_replacements_of_all_techniques_are_told_apart_by_what_they_are(technique: netopt.Technique) -> None:
    def replaced(*, wide: bool) -> nn.Module:
        layer = nn.Linear(8, 9 + wide) if isinstance(technique, SVD) else nn.Conv2d(8, 9 + wide, 3)
        (made,) = netopt.optimize(nn.Sequential(layer), replace(technique, select="0"), keep_if="always").model
        return made

    assert problem_of(replaced(wide=False)) == problem_of(replaced(wide=False)) is not None
    assert problem_of(replaced(wide=False)) != problem_of(replaced(wide=True))


def test_layers_of_a_network() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 5))
    layers = [Layer(name, module, False, False) for name, module in model.named_children()]
    assert len({problem_of(layer.module) for layer in layers}) == 2
