"""What torch.export cannot trace is told in one line: where, why, and what to do."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
import torch
from torch import nn

import netopt
from netopt.graph.export_error import place_in_trace


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x
        return -x


class While(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while x.max() < 10:
            x = x * 2
        return x


class Loop(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(int(x.abs().sum())):
            x = x * 2
        return x


class Assertion(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert (x > 0).all()
        return x


class Item(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x[0, 0].item()


class Shape(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = int(x[0, 0])
        return x.reshape(n, -1)


class Mismatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(7, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(x)
        return y


class Numpy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.numpy() + 1)


class Raises(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise LookupError("no such table\nwith details")


FLOW = "control flow depends on the value of a tensor; compute both ways and choose by arithmetic, or take the choice"
NUMBER = "a shape or a Python number depends on the value of a tensor; make it a number that is known when lowering"
FAILS = "the example must fit forward, and forward must consist of functions of PyTorch"


@pytest.mark.parametrize(
    ("model", "layer", "code", "reason"),
    [
        (Branch(), "", "if x.sum() > 0:", FLOW),
        (While(), "", "while x.max() < 10:", FLOW),
        (Loop(), "", "for _ in range(int(x.abs().sum())):", FLOW),
        (Assertion(), "", "assert (x > 0).all()", FLOW),
        (nn.Sequential(nn.ReLU(), nn.Sequential(Branch())), "1.0", "if x.sum() > 0:", FLOW),
        (Shape(), "", "n = int(x[0, 0])", NUMBER),
        (Mismatch(), "fc", "y: torch.Tensor = self.fc(x)", f"forward fails: RuntimeError: a and b .*; {FAILS}"),
        (Numpy(), "", "return torch.from_numpy(x.numpy() + 1)", f"forward fails: RuntimeError: .*numpy.*; {FAILS}"),
        (
            Raises(),
            "",
            r'raise LookupError("no such table\nwith details")',
            f"forward fails: LookupError: no such table; {FAILS}",
        ),
        (Item(), "", "return x * x[0, 0].item()", "op 'aten.item.default' is not lowered: it reads a Python number"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_one_line_with_the_place_the_reason_and_the_remedy(
    model: nn.Module, layer: str, code: str, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(netopt.UnsupportedModel) as caught:
        netopt.lower(model, torch.ones(2, 3))
    message = str(caught.value)
    where = f"layer '{layer}'" if layer else "the model itself"
    assert re.match(rf"{where}: test_export_error\.py:\d+ `{re.escape(code)}`: {reason}", message), message
    assert "\n" not in message
    assert len(message) < 400
    assert caught.value.layer == layer
    # Nor does torch.export print its pages by itself.
    assert capfd.readouterr() == ("", "")


def test_layers_of_torch_alone_are_told_by_name() -> None:
    with pytest.raises(netopt.UnsupportedModel, match=r"^layer '1': forward fails: RuntimeError: a and b must have"):
        netopt.lower(nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 4)), torch.ones(2, 3))


class Scaled(nn.Module):
    def forward(self, x: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        return x if scale is None else x * scale


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        ({"x": torch.ones(2), "size": torch.ones(2)}, "got an unexpected keyword argument 'size'"),
        ((torch.ones(2),) * 3, "too many positional arguments"),
        ((), "missing a required argument: 'x'"),
    ],
)
def test_an_example_that_does_not_fit_shows_the_arguments(example: Any, reason: str) -> None:
    with pytest.raises(netopt.UnsupportedModel) as caught:
        netopt.lower(Scaled(), example)
    message = str(caught.value)
    assert message.startswith(
        "the example does not fit forward(x: 'torch.Tensor', scale: 'torch.Tensor | None' = None)"
    )
    assert f": {reason}; give the example as a tensor, a tuple" in message


class Talks(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print("heard", file=sys.stderr)
        return x.relu() if x.dim() == 2 else x[0, 0]


def test_what_forward_writes_to_stderr_is_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    netopt.lower(Talks(), torch.ones(2, 3))
    assert capsys.readouterr().err == "heard\n"
    with pytest.raises(netopt.UnsupportedModel, match="forward fails: IndexError"):
        netopt.lower(Talks(), torch.ones(3))
    assert capsys.readouterr().err == "heard\n"


def test_place_in_trace_is_the_last_line_of_the_user() -> None:
    torch_file = torch.__file__.replace("__init__", "nn/modules/conv")
    trace = f'File "/home/me/a.py", line 3, in forward\n    y = self.f(x)\n  File "{torch_file}", line 9, in f\n    z'
    assert place_in_trace(trace) == "a.py:3 `y = self.f(x)`"
    assert place_in_trace(None) == place_in_trace("nothing") == ""
