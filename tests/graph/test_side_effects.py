"""A forward that changes the model is refused by the attribute's name, and the model is left as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import netopt


class Model(nn.Module):
    """Has attributes of many kinds, and a function that may change them."""

    def __init__(self, change: Callable[[Any, torch.Tensor], object]) -> None:
        super().__init__()
        self.change = change
        self.calls = 0
        self.seen: list[object] = [1, [2]]
        self.cache: dict[str, object] = {"a": (1, 2)}
        self.names = {"x"}
        self.last: torch.Tensor | None = torch.ones(3)
        self.fc = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.change(self, x)
        y: torch.Tensor = self.fc(x)
        return y


def _state(model: Model) -> dict[str, object]:
    kept = {key: value for key, value in vars(model).items() if not key.startswith("_")}
    return {**kept, "last": None if model.last is None else model.last.tolist(), "own": sorted(vars(model.fc))}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda self, x: setattr(self, "calls", self.calls + 1), "calls"),
        (lambda self, x: setattr(self, "new", 3), "new"),
        (lambda self, x: setattr(self, "new", x * 2), "new"),
        (lambda self, x: setattr(self, "last", x * 2), "last"),
        (lambda self, x: setattr(self, "last", None), "last"),
        (lambda self, x: self.seen.append(x), "seen"),
        (lambda self, x: self.seen[1].append(3), "seen"),
        (lambda self, x: self.cache.update(a=(1, 3)), "cache"),
        (lambda self, x: self.cache.update(b=x), "cache"),
        (lambda self, x: self.names.add("y"), "names"),
    ],
)
def test_changes_are_refused_and_undone(change: Callable[[Any, torch.Tensor], object], name: str) -> None:
    model = Model(change).eval()
    before, seen = _state(model), model.seen
    inner = seen[1]
    message = rf"^the model itself: forward changes 'self\.{name}', .*; return it as an output, or set it before"
    with pytest.raises(netopt.UnsupportedModel, match=message):
        netopt.lower(model, torch.randn(2, 3))
    assert _state(model) == before
    assert (model.seen, model.cache, model.names) == ([1, [2]], {"a": (1, 2)}, {"x"})
    assert model.seen is seen
    assert model.seen[1] is inner
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_a_change_in_an_inner_layer_is_told_with_its_name() -> None:
    model = nn.Sequential(nn.ReLU(), Model(lambda self, x: setattr(self, "calls", 5)))
    with pytest.raises(netopt.UnsupportedModel, match=r"^layer '1': forward changes 'self\.calls'"):
        netopt.lower(model, torch.randn(2, 3))


@pytest.mark.parametrize(
    "change",
    [
        lambda self, x: None,
        lambda self, x: setattr(self, "calls", 0),
        lambda self, x: setattr(self, "seen", [1, [2]]),
        lambda self, x: self.cache.setdefault("a", x),
    ],
)
def test_what_leaves_the_values_is_no_change(change: Callable[[Any, torch.Tensor], object]) -> None:
    model, x = Model(change).eval(), torch.randn(2, 3)
    program = netopt.lower(model, x)
    with torch.no_grad():
        # Sums of 4 terms of sizes below 4, in another order.
        torch.testing.assert_close(program(x), model(x), rtol=0.0, atol=4 * 2.0**-22)


def test_a_forward_that_raises_leaves_the_model_as_it_was() -> None:
    def change(self: Any, x: torch.Tensor) -> None:
        self.calls, self.new = 7, x
        self.seen.append(x)
        raise LookupError("no such table")

    model = Model(change).eval()
    with pytest.raises(netopt.UnsupportedModel, match="forward fails: LookupError: no such table"):
        netopt.lower(model, torch.randn(2, 3))
    assert (model.calls, model.seen, hasattr(model, "new")) == (0, [1, [2]], False)
