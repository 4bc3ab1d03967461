from __future__ import annotations

import halide as hl
import pytest

from netopt.kernels.machine.cpu import Cpu, host_cpu

AVX2 = "x86-64-linux-avx-avx2-f16c-fma-sse41"


def cpu(target: str) -> Cpu:
    return Cpu.of(hl.Target(target))


def test_the_host_runs_its_own_code() -> None:
    assert host_cpu().runs_code_for(host_cpu())


@pytest.mark.parametrize(
    ("target", "runs"),
    [
        ("x86-64-linux", True),
        ("x86-64-linux-tune_znver4-avx", True),
        (f"{AVX2}-avx512", False),
        ("arm-64-linux", False),
    ],
)
def test_code_needs_what_its_target_names(target: str, runs: bool) -> None:
    assert cpu(AVX2).runs_code_for(cpu(target)) is runs
    assert cpu(f"{AVX2}-avx512").runs_code_for(cpu(AVX2))
