"""What all tests share: nothing of the user's own cache is read or written, and torch is repeatable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    """Let each process of pytest-xdist compute with one thread, as what it starts: there is one a core.

    Of tests, all that processes share is the user's folder for temporary files, and there each has a folder of its own.
    """
    if config.getoption("numprocesses", None):
        os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def _isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETOPT_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "netopt-cache"))
    monkeypatch.delenv("NETOPT_DUMP", raising=False)
    torch.manual_seed(0)


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of tuned schedules."""
    monkeypatch.setenv("NETOPT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"
