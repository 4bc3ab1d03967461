"""The CPUs that kernels are compiled for ahead of time, and what compiles and runs a program for each here."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

import halide as hl


@dataclass(frozen=True)
class CrossTarget:
    """A CPU that may be another than the one of this machine.

    Attributes:
        name: Halide's description of it.
        compiler: command that compiles C for it.
        packages: of Debian and Ubuntu, that have what is needed.
        runner: command that runs its programs; empty where this machine's CPU does.
    """

    name: str
    compiler: str
    packages: str
    runner: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """Why its programs cannot be made or run here, and what to do; None if they can."""
        absent = [command for command in (self.compiler, *self.runner[:1]) if shutil.which(command) is None]
        if absent:
            return f"needs {' and '.join(absent)}: `make cross` as root, or apt-get install {self.packages}"
        if not self.runner and not _includes(hl.get_host_target().to_string(), self.name):
            return f"this CPU is {hl.get_host_target()}, which does not run code for {self.name}"
        return None


def _includes(host: str, target: str) -> bool:
    """Whether a CPU of the first description has all that the second one names."""
    return set(target.split("-")) <= set(host.split("-"))


TARGETS: Sequence[CrossTarget] = (
    CrossTarget(
        "arm-64-linux",
        "aarch64-linux-gnu-gcc",
        "gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user",
        ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"),
    ),
    CrossTarget("x86-64-linux-avx-avx2-f16c-fma-sse41", "gcc", "gcc libc6-dev"),
    CrossTarget("x86-64-linux-sse41", "gcc", "gcc libc6-dev"),
)
