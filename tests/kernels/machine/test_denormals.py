"""Denormals are zero inside a run of kernels and nowhere else, in whatever state the thread was."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import nn

import netopt
from netopt.graph.capture import capture
from netopt.kernels.machine.denormals import denormals_flushed, flush_denormals, keep_denormals, run_of_kernels
from tests.pipelines import run_passes
from tests.tolerance import assert_within, judge

TINY = 1e-40  # denormal in float32
SMALLEST = 2.0**-1022  # the smallest normal number of Python's floats, which obey the same switch


def _flushed() -> bool:
    return SMALLEST * 0.5 == 0.0


SUPPORTED = torch.set_flush_denormal(True)
torch.set_flush_denormal(False)
needs_switch = pytest.mark.skipif(not SUPPORTED, reason="this CPU has no switch for denormals")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    assert not _flushed()
    yield
    torch.set_flush_denormal(False)


class Half(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 0.5


class Running(nn.Module):
    """Is not lowered."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.logcumsumexp(1)


@needs_switch
def test_kernels_flush_and_the_thread_is_as_before() -> None:
    x = torch.full((4, 33), 2.0**-126)
    program = netopt.lower(Half(), x)
    assert torch.equal(program(x), torch.zeros(4, 33))
    assert not _flushed()
    assert (x * 0.5 != 0).all()


@needs_switch
def test_operands_are_flushed_too() -> None:
    class Large(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 1e30

    x = torch.full((4, 33), TINY)
    assert torch.equal(netopt.lower(Large(), x)(x), torch.zeros(4, 33))


@needs_switch
def test_a_thread_that_flushes_already_goes_on_to() -> None:
    program, x = netopt.lower(Half(), torch.ones(3)), torch.ones(3)
    torch.set_flush_denormal(True)
    assert not flush_denormals()
    program(x)
    assert _flushed()


@needs_switch
def test_state_is_restored_after_an_exception() -> None:
    def fails() -> None:
        assert _flushed()
        raise LookupError

    with pytest.raises(LookupError):
        run_of_kernels([(fails, ())])()  # type: ignore[list-item]
    assert not _flushed()
    with pytest.raises(LookupError), denormals_flushed():
        fails()
    assert not _flushed()


@needs_switch
def test_other_threads_are_not_touched() -> None:
    states: list[bool] = []
    assert flush_denormals()
    try:
        own = _flushed()
    finally:
        keep_denormals()
    worker = threading.Thread(target=lambda: states.append(_flushed()))
    worker.start()
    worker.join()
    assert (own, states) == (True, [False])


@needs_switch
def test_a_part_in_pytorch_runs_as_the_caller_does() -> None:
    """It gives what the model gives; and threads that PyTorch starts there must not flush for ever."""
    model = nn.Sequential(nn.ReLU(), Running(), nn.ReLU())
    x = torch.full((3, 5), -TINY)
    seen: list[bool] = []
    program = netopt.lower(model, x, fallback=True)
    (region,) = [node.op for node in program._graph.nodes if node.op.name == "torch_region"]
    region.function.register_forward_hook(lambda *_: seen.append(_flushed()))  # type: ignore[attr-defined]
    program(x)
    torch.set_flush_denormal(True)
    program(x)
    assert seen == [False, True]


PARALLEL = """
import torch, netopt
from torch import nn
class Half(nn.Module):
    def forward(self, x): return x * 0.5
x = torch.full((4, 1 << 20), 2.0**-126)
program = netopt.lower(Half(), x, threads=2)
for _ in range(50):
    assert not program(x).any()
assert (x * 0.5).all()
"""


@needs_switch
def test_threads_of_the_pool_flush() -> None:
    """In a process of its own: the pool must be new."""
    environment = os.environ | {"HL_NUM_THREADS": "3"}  # a pool even where there is one core
    subprocess.run([sys.executable, "-c", PARALLEL], check=True, timeout=120, env=environment)


@needs_switch
@pytest.mark.parametrize("scale", [1e-38, 1e-39, 1e-42])
def test_results_from_denormals_are_within_their_bound(scale: float) -> None:
    """Weights magnify what is lost with a denormal input, and the bound knows."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(180, 7, bias=False))
    with torch.no_grad():
        model[0].bias.zero_()
        model[3].weight.mul_(1e6)
    x = torch.randn(2, 3, 6, 6) * scale
    graph = run_passes(capture(model, x)[0])
    (bounded,) = judge(graph, [x])
    assert_within(netopt.lower(model, x)(x), bounded)
    # Not a bound that allows everything: it is what the size of the lost numbers makes of it.
    assert bounded[1].max() < 1e-28
