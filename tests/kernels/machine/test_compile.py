"""Compilation: once for each problem, shared by identical layers, programs and files."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import netopt
from netopt.kernels.machine import compile as compiling


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is compiled from here on, by a process that has compiled nothing yet."""
    calls: list[object] = []
    jit = compiling._jit

    def counted(*arguments: Any) -> Any:
        calls.append(arguments[0])
        return jit(*arguments)

    monkeypatch.setattr(compiling, "_compiled", {})
    monkeypatch.setattr(compiling, "_jit", counted)
    return calls


def _blocks(count: int) -> nn.Module:
    """Residual blocks of one shape, with different weights."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(count):
        layers[f"conv{number}"] = nn.Conv2d(8, 8, 3, padding=1)
        layers[f"relu{number}"] = nn.ReLU()
    return nn.Sequential(layers)


def test_identical_layers_are_compiled_once(compiled: list[object], tmp_path: Path) -> None:
    x = torch.randn(1, 8, 6, 6)
    program = netopt.lower(_blocks(6), x)
    # The last convolution writes an image without a halo: another problem.
    assert (len(program.summary().splitlines()), len(compiled)) == (9, 2)
    program.save(tmp_path / "net.nopt")
    netopt.lower(_blocks(6), x)
    netopt.lower(_blocks(3), x)
    loaded = netopt.load(tmp_path / "net.nopt")
    assert len(compiled) == 2
    assert torch.equal(loaded(x), program(x))


def test_loading_compiles_what_the_network_needs_and_no_more(compiled: list[object], tmp_path: Path) -> None:
    x = torch.randn(1, 8, 6, 6)
    program = netopt.lower(_blocks(4), x)
    program.save(tmp_path / "net.nopt")
    needed = len(compiled)
    compiling._compiled.clear()
    netopt.load(tmp_path / "net.nopt")
    assert len(compiled) == 2 * needed == 4


def test_other_shapes_threads_and_attributes_are_compiled_anew(compiled: list[object]) -> None:
    model = nn.Linear(8, 8)
    netopt.lower(model, torch.randn(1, 8))
    netopt.lower(model, torch.randn(2, 8))
    netopt.lower(model, torch.randn(2, 8), threads=2)
    netopt.lower(nn.Sequential(model, nn.ReLU()), torch.randn(2, 8))
    assert len(compiled) == 4
