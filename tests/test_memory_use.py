"""What the process really uses: its resident size against the sizes that a program prints.

Sizes are measured in processes of their own, where nothing else allocates. Blocks of 64 KiB and more go back to the
system when they are freed (MALLOC_MMAP_THRESHOLD_), so that the resident size falls again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import netopt
from netopt import zoo

STATUS = Path("/proc/self/statm")
pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="the resident size is read from Linux's /proc")

# The steps' Python objects and descriptors of buffers, the results that the caller holds, and pages half used.
OBJECTS = 2**20
# What Halide's compiler keeps besides: code, its own tables. 16 MB were measured for the 19 kernels of ResNet23.
COMPILER = 32 * 2**20

PRELUDE = """
import gc, sys, torch, netopt
from torch import nn

def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4096

torch.set_num_threads(1)
warm = netopt.lower(nn.Linear(3, 3), torch.zeros(1, 3))
warm(torch.zeros(1, 3))
"""


def _measured(code: str, *arguments: object) -> list[int]:
    """The numbers that the code prints in a fresh process."""
    result = subprocess.run(
        [sys.executable, "-c", PRELUDE + code, *map(str, arguments)],
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return [int(word) for word in result.stdout.split()]


LOAD = """
x = torch.zeros(8, 3, 32, 32)
start = resident()
first = netopt.load(sys.argv[1])
first(x)
compiled = resident()
second = netopt.load(sys.argv[1])
y = second(x)
print(compiled - start, resident() - compiled, second.arena_bytes, second.weight_bytes)
"""


def test_a_loaded_program_takes_its_arena_and_its_weights(tmp_path: Path) -> None:
    """ResNet23: the first program adds the compiler, and the second, which shares all code, next to nothing."""
    netopt.lower(zoo.resnet23().eval(), torch.zeros(8, 3, 32, 32)).save(tmp_path / "net.nopt")
    first, second, arena, weights = _measured(LOAD, tmp_path / "net.nopt")
    assert first <= arena + weights + COMPILER
    assert second <= arena + weights + OBJECTS
    # The measurement sees the arena at all.
    assert second >= 0.8 * arena


LOWER = """
def model():
    return nn.Sequential(nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 4096))

x = torch.zeros(1, 4096)
start = resident()
network = model()
with_model = resident()
program = netopt.lower(network, x)
del network
program(x)
print(with_model - start, resident() - start, program.weight_bytes + program.arena_bytes)
"""


def test_nothing_large_but_the_packed_weights_is_left_after_lowering() -> None:
    """No graph constants, no exported program: 134 MB of weights, once, when the model is gone."""
    model, left, program = _measured(LOWER)
    assert left <= program + COMPILER
    assert min(model, left) >= 0.95 * program  # the measurement sees the weights at all


class Running(nn.Module):
    """Is not lowered."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.logcumsumexp(1)


def _resident() -> int:
    return int(STATUS.read_text().split()[1]) * 4096


def _grows(call: Callable[[], object]) -> bool:
    """Whether the process grows with calls: a leak grows each time, what the allocator holds back now and then.

    A leak of one object of Python's smallest kind in each call would be 10,000 x 16 bytes = 40 pages of 4 KiB.
    """
    for _ in range(2000):
        call()
    for _ in range(3):
        before = _resident()
        for _ in range(10_000):
            call()
        if _resident() - before <= 32 * 4096:
            return False
    return True


@pytest.mark.parametrize(
    ("model", "shape", "fallback"),
    [
        (nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)), (2, 16), False),
        (nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Softmax(1)), (1, 3, 5, 5), False),
        (nn.Sequential(nn.Linear(16, 16), Running()), (2, 16), True),
    ],
    ids=["dense", "images", "fallback"],
)
def test_ten_thousand_calls_leak_nothing(model: nn.Module, shape: tuple[int, ...], fallback: bool) -> None:
    x = torch.zeros(shape)
    program = netopt.lower(model, x, fallback=fallback)
    assert not _grows(lambda: program(x))


def test_ten_thousand_refused_calls_leak_nothing() -> None:
    program = netopt.lower(nn.Linear(16, 4), torch.zeros(2, 16))
    wrong = torch.zeros(3, 16)

    def refused(times: int) -> int:
        found = 0
        for _ in range(times):
            try:
                program(wrong)
            except netopt.InvalidArgument:
                found += 1
        return found

    assert refused(1) == 1
    assert not _grows(lambda: refused(1))
