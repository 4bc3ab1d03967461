"""A peer in a process of its own, because it wants other packages or another environment than netopt; timed there."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from netopt.timing import SelfTimed

HERE = Path(__file__).parent


class Worker(SelfTimed):
    """A process that ends in `worker_loop.answer`; killed with this object.

    Attributes:
        about: what it said of itself.
    """

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Start it, wait until it is ready, and run once.

        Args:
            command: program and arguments.
            environment: variables besides this process's own.

        Raises:
            RuntimeError: it ended before.
        """
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with this object
        self._process = subprocess.Popen(
            command,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **(environment or {})},
        )
        self.about = self._read()
        self.times(1)

    def times(self, count: int) -> list[float]:
        """See `SelfTimed`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        times: list[float] = self._read()
        return times

    def __del__(self) -> None:
        """End the process."""
        if hasattr(self, "_process"):
            self._process.kill()
            self._process.wait()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(("[", "{", '"')):  # DeepSparse also prints its licence
                return json.loads(line)
        self._errors.seek(0)
        last = self._errors.read().strip().splitlines()[-1:]
        raise RuntimeError(f"{Path(self._process.args[1]).name} ended: {''.join(last)}")  # type: ignore[index, arg-type]


def python_of(folder: str) -> Path:
    """The interpreter of a virtual environment that `make bench-peers` makes.

    Raises:
        FileNotFoundError: it is not there.
    """
    python = HERE.parent / folder / "bin" / "python"
    if not python.exists():
        raise FileNotFoundError(f"no {folder}; make bench-peers installs it")
    return python
