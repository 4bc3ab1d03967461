"""What users have set in PyTorch, and what other threads do, has no influence on what is lowered."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from torch import nn

import netopt
from netopt.torch_state import plain_torch, tracing


@contextmanager
def _default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def _default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default device": _default_device,
    "default type": _default_dtype,
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
}


class Model(nn.Module):
    """Layers, constants that forward makes, and with `hard` a part that PyTorch runs."""

    def __init__(self, hard: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hard = hard
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(self.conv(x).relu().mean((2, 3))) + torch.arange(5) * 0.5 + torch.ones(5)
        return y.logcumsumexp(1) if self.hard else y


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("hard", [False, True])
def test_lowering_and_calls(state: str, hard: bool) -> None:
    model = Model(hard).eval()
    expected = netopt.lower(model, X, fallback=hard)(X)
    with STATES[state]():
        program = netopt.lower(model, X, fallback=hard)
        inside = program(X)
    assert torch.equal(inside, expected)
    assert torch.equal(program(X), expected)
    assert program.weight_bytes == netopt.lower(model, X, fallback=hard).weight_bytes


@pytest.mark.parametrize("state", ["autocast", "default device", "inference mode"])
def test_factors_and_files(state: str, tmp_path: Any) -> None:
    model = nn.Sequential(nn.Linear(24, 24), nn.ReLU()).eval()
    technique = netopt.factorization.SVD(rank=4)
    expected = netopt.optimize(model, technique, keep_if="always").model
    with STATES[state]():
        result = netopt.optimize(model, technique, keep_if="always").model
        program = netopt.lower(result, torch.ones(1, 24, device="cpu"))
        program.save(tmp_path / "net.nopt")
        loaded = netopt.load(tmp_path / "net.nopt")
    for a, b in zip(result.parameters(), expected.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(loaded(torch.ones(1, 24)), program(torch.ones(1, 24)))


def test_all_is_as_it_was_afterwards() -> None:
    with torch.autocast("cpu", torch.bfloat16), _default_dtype():
        with tracing():
            assert not torch.is_autocast_enabled("cpu")
            assert torch.zeros(1).dtype == torch.float32
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_default_dtype() == torch.float64
    with torch.device("meta"), plain_torch():
        assert torch.zeros(1).device.type == "cpu"
    with torch.inference_mode(), plain_torch():
        assert not torch.is_inference_mode_enabled()


def test_several_threads_lower_at_once() -> None:
    results: list[torch.Tensor] = []
    errors: list[netopt.NetoptError] = []
    models = [nn.Sequential(nn.Linear(8, 8 + i), nn.ReLU()).eval() for i in range(4)]
    x = torch.randn(2, 8)

    def work(model: nn.Module) -> None:
        try:
            results.append(netopt.lower(model, x)(x).sum() - model(x).detach().sum())
        except netopt.NetoptError as error:  # told below, in the thread of the test
            errors.append(error)

    threads = [threading.Thread(target=work, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(results) == 4
    # Sums of at most 12 sums of 9 terms below 4.
    assert max(abs(float(difference)) for difference in results) < 12 * 9 * 4 * 2.0**-23


# --- programs that are copied, sent and forked


def _copies() -> dict[str, Callable[[Any], Any]]:
    def by_torch(program: Any) -> Any:
        file = io.BytesIO()
        torch.save({"program": program}, file)
        file.seek(0)
        return torch.load(file, weights_only=False)["program"]

    return {
        "pickle": lambda program: pickle.loads(pickle.dumps(program)),
        "deepcopy": copy.deepcopy,
        "copy": copy.copy,
        "torch": by_torch,
    }


@pytest.mark.parametrize("way", _copies())
def test_copies_of_a_program_are_programs(way: str) -> None:
    program = netopt.lower(Model().eval(), X, threads=2)
    copied = _copies()[way](program)
    assert copied is not program
    assert torch.equal(copied(X), program(X))
    assert (copied.arena_bytes, copied.summary()) == (program.arena_bytes, program.summary())


def test_a_program_with_a_part_in_pytorch_is_not_copied() -> None:
    program = netopt.lower(Model(hard=True).eval(), X, fallback=True)
    with pytest.raises(netopt.UnsupportedModel, match=r"aten.logcumsumexp.default runs in PyTorch, and a .nopt file"):
        copy.deepcopy(program)


_FORKED = """
import os, threading, torch, netopt
from torch import nn
x = torch.ones(1, 512)
model = nn.Sequential(*[nn.Linear(512, 512) for _ in range(8)]).eval()
program = netopt.lower(model, x, threads=2)
expected, stop = program(x), threading.Event()
def work():
    while not stop.is_set():
        program(x)
thread = threading.Thread(target=work)
thread.start()
failed = 0
for number in range(8):
    child = os.fork()
    if child == 0:
        other = netopt.lower(nn.Linear(4, number + 1).eval(), torch.ones(1, 4))
        os._exit(0 if torch.equal(program(x), expected) and other(torch.ones(1, 4)).shape == (1, number + 1) else 1)
    failed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
stop.set()
thread.join()
raise SystemExit(failed)
"""


def test_a_process_that_is_forked_while_a_program_runs() -> None:
    """The child neither waits for a thread that it has not, nor computes something else."""
    done = subprocess.run([sys.executable, "-c", _FORKED], check=False, timeout=120, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
