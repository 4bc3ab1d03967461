"""What a forward keeps in the model is ignored unless a call may depend on it; the model is left as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune  # a module that torch.nn.utils does not load

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
        (lambda self, x: self.seen.append(x), "seen"),
        (lambda self, x: self.seen[1].append(3), "seen"),
    ],
)
def test_changes_are_refused_and_undone(change: Callable[[Any, torch.Tensor], object], name: str) -> None:
    model = Model(change).eval()
    before, seen = _state(model), model.seen
    inner = seen[1]
    message = rf"^the model itself: forward changes 'self\.{name}' with each call, .*; take it out of forward"
    with pytest.raises(netopt.UnsupportedModel, match=message):
        netopt.lower(model, torch.randn(2, 3))
    _assert_left_alone(model, before)
    assert model.seen is seen
    assert model.seen[1] is inner


def _assert_left_alone(model: Model, before: dict[str, object]) -> None:
    assert _state(model) == before
    assert (model.seen, model.cache, model.names) == ([1, [2]], {"a": (1, 2)}, {"x"})
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_a_change_in_an_inner_layer_is_told_with_its_name() -> None:
    model = nn.Sequential(nn.ReLU(), Model(lambda self, x: setattr(self, "calls", self.calls + 5)))
    with pytest.raises(netopt.UnsupportedModel, match=r"^layer '1': forward changes 'self\.calls'"):
        netopt.lower(model, torch.randn(2, 3))


@pytest.mark.parametrize(
    "change",
    [
        lambda self, x: None,
        lambda self, x: setattr(self, "calls", 0),
        lambda self, x: setattr(self, "seen", [1, [2]]),
        lambda self, x: self.cache.setdefault("a", x),
        lambda self, x: setattr(self, "new", 3),
        lambda self, x: setattr(self, "new", x * 2),
        lambda self, x: setattr(self, "last", x * 2),
        lambda self, x: setattr(self, "last", None),
        lambda self, x: setattr(self, "seen", [x, x + 1]),
        lambda self, x: self.cache.update(a=(1, 3)),
        lambda self, x: self.cache.update(b=x),
        lambda self, x: self.names.add("y"),
    ],
)
def test_what_no_call_depends_on_is_ignored(change: Callable[[Any, torch.Tensor], object]) -> None:
    model, x = Model(change).eval(), torch.randn(2, 3)
    before = _state(model)
    program = netopt.lower(model, x)
    _assert_left_alone(model, before)
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


class Remembers(nn.Module):
    """Of the kind that its function makes of it: x and what an earlier call has left."""

    def __init__(self, function: Callable[[Any, torch.Tensor], torch.Tensor], **left: object) -> None:
        super().__init__()
        self.function = function
        vars(self).update(left)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


def _recurrent(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.state = self.state * 0.5 + x
    return self.state  # type: ignore[no-any-return]


def _first_input(self: Any, x: torch.Tensor) -> torch.Tensor:
    if self.state is None:
        self.state = x * 2
    return x + self.state  # type: ignore[no-any-return]


def _replayed(self: Any, x: torch.Tensor) -> torch.Tensor:
    y = x + sum(self.state)
    self.state = [x, x * 2]
    return y


@pytest.mark.parametrize(
    ("function", "state"),
    [(_recurrent, torch.zeros(3)), (_recurrent, torch.ones(2, 3)), (_first_input, None), (_replayed, [torch.zeros(3)])],
)
@pytest.mark.parametrize("value", [0.0, 1.0, None])
def test_a_state_from_call_to_call_is_refused(
    function: Callable[[Any, torch.Tensor], torch.Tensor], state: object, value: float | None
) -> None:
    x = torch.randn(2, 3) if value is None else torch.full((2, 3), value)
    message = r"^the model itself: forward changes 'self\.state', and the next call depends on it; .*; give it as"
    with pytest.raises(netopt.UnsupportedModel, match=message):
        netopt.lower(Remembers(function, state=state), x)


def _table(self: Any, x: torch.Tensor) -> torch.Tensor:
    if self.table is None:
        self.table = torch.arange(x.shape[-1]).float().cos()
    return x + self.table  # type: ignore[no-any-return]


def _by_size(self: Any, x: torch.Tensor) -> torch.Tensor:
    size = x.shape[-1]
    if size not in self.table:
        self.table[size] = torch.ones(size, size).tril() * 2
    return x @ self.table[size]  # type: ignore[no-any-return]


@pytest.mark.parametrize(("function", "table"), [(_table, None), (_by_size, {})])
def test_a_table_that_the_first_call_makes_is_a_constant(
    function: Callable[[Any, torch.Tensor], torch.Tensor], table: object
) -> None:
    model, x = Remembers(function, table=table), torch.randn(2, 3)
    program = netopt.lower(model, x)
    assert model.table == table
    # Sums of 3 terms of sizes below 8.
    torch.testing.assert_close(program(x), model(x), rtol=0.0, atol=3 * 8 * 2.0**-24)


@pytest.mark.parametrize(
    "model",
    [
        nn.utils.weight_norm(nn.Linear(3, 3)),
        nn.utils.weight_norm(nn.Linear(3, 3), dim=None),
        nn.utils.spectral_norm(nn.Linear(3, 3)),
        nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
        nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)),
        nn.utils.parametrizations.orthogonal(nn.Linear(3, 3)),
        prune.l1_unstructured(nn.Linear(3, 3), "weight", 0.5),
    ],
    ids=["weight_norm", "of the whole", "spectral_norm", "new weight_norm", "new spectral_norm", "orthogonal", "prune"],
)
def test_weights_that_hooks_and_parametrizations_compute_are_constants(model: nn.Module) -> None:
    model, x = nn.Sequential(model, nn.ReLU()).eval(), torch.randn(2, 3)
    program = netopt.lower(model, x)
    assert [step.op.name for step in program.steps] == ["dense"]
    with torch.no_grad():
        # The weight is computed in float64 where we compute it: two roundings, and sums of 4 terms below 4.
        torch.testing.assert_close(program(x), model(x), rtol=1e-5, atol=4 * 4 * 2.0**-22)
