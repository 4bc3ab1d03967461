"""Recurrent layers against their reference, in all schedules, and whole networks against PyTorch."""

from __future__ import annotations

from typing import Any

import halide as hl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import netopt
from netopt.kernels.machine.cpu import Cpu, host_cpu
from netopt.kernels.recurrent import RecurrentKernel
from netopt.ops import Recurrent
from netopt.ops.recurrent import GATES
from tests.kernels.harness import assert_packing_is_undone, problem_of, run_kernel

KERNEL = RecurrentKernel()


def _inputs(cell: str, time: int, batch: int, hidden: int, first: int = 0, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    columns = first + GATES[cell] * hidden + 3
    shapes = [(time, batch, columns), (GATES[cell] * hidden, hidden), (batch, hidden)]
    shapes += [(batch, hidden)] * (cell == "lstm") + [(hidden,)] * (cell == "gru")
    values = [torch.randn(shape, generator=generator) for shape in shapes]
    values[1] /= hidden**0.5
    return values


def _assert_close(result: torch.Tensor, inputs: list[torch.Tensor], op: Recurrent) -> None:
    expected = op.reference(*(value.double() for value in inputs))
    # States are below 1 and cell states below the number of steps; each step adds sums of `hidden` products of size 1 /
    # sqrt(hidden), whose errors the next steps carry on by a factor that is below 1 on the whole.
    time, hidden = len(inputs[0]), inputs[1].shape[1]
    bound = (8 + hidden**0.5) * time * 2.0**-24 * max(1.0, expected.abs().max().item())
    torch.testing.assert_close(result.double(), expected, rtol=0.0, atol=bound)


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("reverse", [False, True])
@given(time=st.integers(1, 5), batch=st.integers(1, 6), hidden=st.integers(1, 40), first=st.integers(0, 9))
@settings(derandomize=True, deadline=None, max_examples=6)
def test_equals_the_reference(cell: str, reverse: bool, time: int, batch: int, hidden: int, first: int) -> None:
    op, inputs = Recurrent(cell, reverse, first), _inputs(cell, time, batch, hidden, first)
    _assert_close(run_kernel(op, inputs, constants=(1,)), inputs, op)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("batch", [1, 5])
def test_all_schedules_give_the_same(cell: str, batch: int) -> None:
    op, inputs = Recurrent(cell), _inputs(cell, 3, batch, 50)
    schedules = KERNEL.schedules(problem_of(op, inputs), host_cpu())
    assert len(schedules) == len(set(schedules)) > 1
    for schedule in schedules:
        _assert_close(run_kernel(op, inputs, constants=(1,), schedule=schedule), inputs, op)


@pytest.mark.parametrize("cell", GATES)
def test_the_weight_is_unpacked_again(cell: str) -> None:
    inputs = _inputs(cell, 2, 3, 21)
    problem = problem_of(Recurrent(cell), inputs)
    for schedule in KERNEL.schedules(problem, host_cpu()):
        assert_packing_is_undone(problem, schedule, inputs, constants=(1,))


def test_schedules_of_other_cpus_keep_their_sums_in_registers() -> None:
    problem = problem_of(Recurrent("lstm"), _inputs("lstm", 2, 8, 256))
    for target in ("x86-64-linux-avx2-f16c-fma-sse41", "arm-64-linux"):
        cpu = Cpu.of(hl.Target(target))
        for schedule in KERNEL.schedules(problem, cpu):
            assert 4 * schedule.vectors * schedule.rows <= max(4, cpu.registers)


LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.LSTM(4, 6), (5, 1, 4)),
    (nn.LSTM(4, 5, 2, bidirectional=True), (3, 2, 4)),
    (nn.LSTM(4, 6, batch_first=True, bias=False, dropout=0.5, num_layers=2), (2, 3, 4)),
    (nn.GRU(4, 6, 2, bidirectional=True), (3, 2, 4)),
    (nn.GRU(4, 6, batch_first=True), (2, 3, 4)),
    (nn.GRU(4, 6, bias=False), (3, 4)),
    (nn.RNN(4, 6, 2), (3, 2, 4)),
    (nn.RNN(4, 6, nonlinearity="relu", bidirectional=True), (3, 1, 4)),
    (nn.LSTMCell(4, 6), (2, 4)),
    (nn.GRUCell(4, 6), (2, 4)),
    (nn.RNNCell(4, 6, nonlinearity="relu"), (2, 4)),
    (nn.RNNCell(4, 6, bias=False), (4,)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=[str(layer) for layer, _ in LAYERS])
def test_layers_of_pytorch(layer: nn.Module, shape: tuple[int, ...]) -> None:
    layer.eval()
    program = netopt.lower(layer, torch.randn(shape))
    assert any(step.op.name == "recurrent" for step in program.steps)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = layer(x)
    for result, right in zip(_flat(program(x)), _flat(expected), strict=True):
        # States below 1 after at most 5 steps of at most 10 products.
        torch.testing.assert_close(result, right, rtol=0.0, atol=5 * 16 * 2.0**-24)


def _flat(value: Any) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else [part for each in value for part in _flat(each)]


@pytest.mark.parametrize("layer", [nn.LSTM(4, 6, 2), nn.GRU(4, 6, 2), nn.RNN(4, 6, 2)], ids=str)
def test_first_states_are_given(layer: nn.Module) -> None:
    x, state = torch.randn(3, 2, 4), torch.randn(2, 2, 6)
    states = (state, state * 2) if isinstance(layer, nn.LSTM) else state
    program = netopt.lower(layer, (x, states))
    with torch.no_grad():
        expected = _flat(layer(x, states))
    for result, right in zip(_flat(program(x, states)), expected, strict=True):
        # As above, with cell states below 4.
        torch.testing.assert_close(result, right, rtol=0.0, atol=4 * 5 * 16 * 2.0**-24)


def test_all_input_products_of_a_layer_are_one() -> None:
    program = netopt.lower(nn.LSTM(4, 6, bidirectional=True), torch.randn(7, 1, 4))
    assert [step.op.name for step in program.steps].count("dense") == 1
    assert program.multiply_adds == 7 * 2 * 24 * (4 + 6)


def test_a_projection_is_refused_and_runs_in_pytorch() -> None:
    layer, x = nn.LSTM(4, 6, proj_size=3), torch.randn(5, 1, 4)
    with pytest.raises(netopt.UnsupportedModel, match="an LSTM with proj_size; put a linear layer behind one without"):
        netopt.lower(layer, x)
    program = netopt.lower(layer, x, fallback=True)
    with torch.no_grad():
        assert torch.equal(program(x)[0], layer(x)[0])


class Spotter(nn.Module):
    """Convolutions over time, a GRU and the last state: a small network for keywords."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Conv1d(5, 8, 3, padding=1), nn.ReLU())
        self.gru, self.fc = nn.GRU(8, 10, batch_first=True), nn.Linear(10, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(self.gru(self.front(x).transpose(1, 2))[0][:, -1])
        return y


class Reader(nn.Module):
    """Convolutions, then columns as time steps of a bidirectional LSTM: a small network for lines of text."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d((4, 2)))
        self.lstm, self.fc = nn.LSTM(12, 9, bidirectional=True), nn.Linear(18, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.front(x).flatten(1, 2).permute(2, 0, 1)
        return self.fc(self.lstm(y)[0]).log_softmax(-1)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "shape"), [(Spotter(), (1, 5, 12)), (Reader(), (2, 1, 8, 16))], ids=["keyword", "text"]
)
def test_whole_networks(model: nn.Module, shape: tuple[int, ...], tmp_path: Any) -> None:
    model.eval()
    program = netopt.lower(model, torch.randn(shape))
    program.save(tmp_path / "net.nopt")
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        # At most 12 steps, and sums of at most 24 terms of sizes below 4.
        torch.testing.assert_close(program(x), model(x), rtol=0.0, atol=12 * 24 * 4 * 2.0**-24)
    assert torch.equal(netopt.load(tmp_path / "net.nopt")(x), program(x))
