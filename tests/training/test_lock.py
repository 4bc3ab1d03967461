"""The lock of a checkpoint, within a process, between processes, and after a kill."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from netopt import InvalidArgument
from netopt.training import lock
from netopt.training.lock import locked

HOLDS = """
import sys
from pathlib import Path
from netopt.training.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def held_elsewhere(path: Path) -> subprocess.Popen[str]:
    """A process that holds the lock until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def refused(path: Path) -> bool:
    """Whether the lock cannot be had."""
    with suppress(InvalidArgument), locked(path):
        return False
    return True


def test_within_a_process(tmp_path: Path) -> None:
    path, answers = tmp_path / "net", []
    with locked(path):
        assert refused(path)
        assert not refused(tmp_path / "other")
        thread = threading.Thread(target=lambda: answers.append(refused(path)))
        thread.start()
        thread.join()
    assert answers == [True]
    assert not refused(path)
    assert list(tmp_path.iterdir()) == []


def test_by_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "net")
    monkeypatch.chdir(tmp_path)
    with locked(tmp_path / "net"):
        assert refused(Path("link"))
        assert refused(Path("net"))


def test_between_processes_and_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "net"
    with held_elsewhere(path) as process:
        assert refused(path)
        process.send_signal(signal.SIGKILL)
    assert [file.name for file in tmp_path.iterdir()] == [".net.lock"]
    assert not refused(path)
    assert list(tmp_path.iterdir()) == []


def test_after_the_end_of_a_process(tmp_path: Path) -> None:
    path = tmp_path / "net"
    with held_elsewhere(path) as process:
        assert refused(path)
        process.communicate("")
    assert not refused(path)


def test_a_process_that_was_forked_does_not_hold_it(tmp_path: Path) -> None:
    """A worker of a DataLoader may live for seconds after its training was killed."""
    path, fork = tmp_path / "net", multiprocessing.get_context("fork")
    goes_on = fork.Event()
    with locked(path):
        child = fork.Process(target=goes_on.wait)
        child.start()
        assert refused(path)
    try:
        assert not refused(path)
    finally:
        goes_on.set()
        child.join()


def test_long_names(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 120)
    with locked(path):
        assert refused(path)
        assert not refused(tmp_path / ("ä" * 119))


def test_a_lock_that_was_removed_while_it_was_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another training ends, and removes the file, after it was opened and before it is locked."""
    real, removed = lock.fcntl.flock, []

    def flock(descriptor: int, how: int) -> None:
        if not removed:
            removed.append(True)
            (tmp_path / ".net.lock").unlink()
        real(descriptor, how)

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with locked(tmp_path / "net"):
        assert (tmp_path / ".net.lock").exists()
        assert refused(tmp_path / "net")


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with (
        pytest.warns(UserWarning, match=r"its file system has no locks \(No locks available\)"),
        locked(tmp_path / "n"),
    ):
        pass


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with locked(tmp_path / "net"):
        assert list(tmp_path.iterdir()) == []
