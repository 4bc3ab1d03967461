"""What a measurement must be told with: the machine and the versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from netopt.kernels.machine.cpu import host_cpu

PACKAGES = ("netopt", "halide", "torch", "onnxruntime", "openvino", "nncf")


def describe() -> dict[str, object]:
    """CPU, features, the cores that this process may use, and the versions of all that is measured."""
    return {
        "cpu": _cpu_name(),
        "target": host_cpu().target,
        "cores": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
