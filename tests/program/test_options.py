from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import halide as hl
import pytest
import torch
from torch import nn

import netopt
from netopt import report
from netopt.kernels.machine import compile as compiling
from netopt.kernels.machine.cpu import Cpu, host_cpu
from netopt.program import options as module
from netopt.program.file import read_network
from netopt.program.options import Lowering, check_threads

AVX2 = "x86-64-linux-avx-avx2-f16c-fma-sse41"
ARM = "arm-64-linux"
SERVER = "x86-64-linux-avx-avx2-avx512-avx512_cannonlake-avx512_sapphirerapids-avx512_skylake-f16c-fma-sse41"
X = torch.randn(1, 3, 12, 10, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU()),
        *(nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.Conv2d(24, 40, 1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1200, 50), nn.ReLU(), nn.Linear(50, 7), nn.Softmax(1)),
    ).eval()


def host(monkeypatch: pytest.MonkeyPatch, target: str = AVX2) -> None:
    """Take this machine's CPU for another one."""
    cpu = Cpu.of(hl.Target(target))
    monkeypatch.setattr(module, "host_cpu", lambda: cpu)


# --- checks, when the object is built


@pytest.mark.parametrize("threads", [0, -1, True, 1.5])
def test_impossible_numbers_of_threads(threads: Any) -> None:
    message = "threads: expected an integer of at least 1"
    for build in (check_threads, lambda threads: Lowering(threads=threads)):
        with pytest.raises(netopt.InvalidArgument, match=message):
            build(threads)
    with pytest.raises(netopt.InvalidArgument, match=message):
        netopt.lower(nn.Linear(2, 2), torch.randn(1, 2), threads=threads)


@pytest.mark.parametrize("precision", ["fp16", "bfloat16", None])
def test_an_unknown_precision(precision: object) -> None:
    with pytest.raises(netopt.InvalidArgument, match=r'precision: expected "float32" or "bf16", found'):
        netopt.lower(nn.Linear(4, 4), torch.randn(1, 4), precision=precision)  # type: ignore[arg-type]


def test_a_cpu_without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "host_cpu", lambda: dataclasses.replace(host_cpu(), has_bfloat16=False))
    with pytest.raises(netopt.InvalidArgument, match=r"on this CPU, which has no bfloat16 inst.*lower for float32"):
        netopt.lower(nn.Linear(4, 4), torch.randn(1, 4), precision="bf16")


def test_precision_is_judged_by_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(netopt.InvalidArgument, match=rf"for {AVX2}, which has no bfloat16 instructions"):
        Lowering(precision="bf16", target=AVX2)
    host(monkeypatch)
    assert Lowering(precision="bf16", target=SERVER).cpu.has_bfloat16


@pytest.mark.parametrize("name", ["tune", "exact", "fallback"])
def test_switches_are_true_or_false(name: str) -> None:
    with pytest.raises(netopt.InvalidType, match=f"{name}: expected True or False, found 'no'"):
        Lowering(**{name: "no"})  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["x86-64-linux-avx2x", "pentium", "", "x86-64-avx2"])
def test_targets_that_halide_does_not_know(target: str) -> None:
    with pytest.raises(netopt.InvalidArgument, match=rf"target: expected None .* found '{target}'; name architecture"):
        netopt.lower(nn.Linear(2, 2), torch.randn(1, 2), target=target)
    with pytest.raises(netopt.InvalidArgument, match="target: expected None"):
        netopt.load("no_such_file.nopt", target=target)


def test_a_target_that_is_no_text() -> None:
    with pytest.raises(netopt.InvalidType, match="target: expected None .* found Cpu"):
        Lowering(target=host_cpu())  # type: ignore[arg-type]


def test_options_are_checked_before_any_work() -> None:
    class Untouchable(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError("traced")

    with pytest.raises(netopt.InvalidArgument, match="precision"):
        netopt.lower(Untouchable(), X, precision="fp8")  # type: ignore[arg-type]


def test_options_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Lowering().threads = 2  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional"):
        Lowering(2)  # type: ignore[misc]


# --- what is this CPU


def test_this_machine_is_the_target_unless_another_is_named() -> None:
    assert Lowering().cpu == Lowering(target=host_cpu().target).cpu == host_cpu()
    assert Lowering().runs_here
    assert Lowering(target=host_cpu().target).runs_here


@pytest.mark.parametrize(
    ("target", "runs"),
    [
        ("x86-64-linux", True),
        ("x86-64-linux-sse41", True),
        (AVX2, True),
        (f"{AVX2}-avx512-avx512_skylake", False),
        (SERVER, False),
        (ARM, False),
        ("x86-32-linux-sse41", False),
        ("x86-64-windows-sse41", False),
        ("x86-64-linux-tune_znver4-sse41", True),
    ],
)
def test_code_runs_where_the_cpu_has_what_the_target_names(
    target: str, runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    host(monkeypatch)
    options = Lowering(target=target)
    assert options.runs_here is runs
    if runs:
        Lowering(target=target, tune=True).check_runs_here()
    else:
        message = rf"tune: expected False for {target}, whose code cannot be measured on this CPU \({AVX2}\)"
        with pytest.raises(netopt.InvalidArgument, match=message):
            Lowering(target=target, tune=True)
        with pytest.raises(
            netopt.InvalidArgument, match=f"expected to be called on such a CPU, found this one, {AVX2}"
        ):
            options.check_runs_here()


# --- lowering for another CPU


@pytest.fixture
def compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr(compiling, "_jit", refuse)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("target", [ARM, SERVER, "wasm-32-wasmrt", AVX2])
def test_a_program_for_another_cpu_is_planned_packed_and_written(
    target: str, exact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a CPU that runs none of them; the file runs on this machine, which need not be any of them."""
    path = tmp_path / "net.nopt"
    with monkeypatch.context() as patched:
        host(patched, "x86-64-linux-sse41")
        patched.setattr(compiling, "_jit", None)  # nothing is compiled
        program = netopt.lower(network(), X, target=target, exact=exact)
        assert f"for {Lowering(target=target).cpu.target}" in program.summary()
        kernels = [step for step in program.steps if step.runs]
        assert len(kernels) >= 6
        assert all(step.schedule is not None for step in kernels)
        assert program.arena_bytes > 0
        assert program.weight_bytes >= 4 * (3 * 24 * 9 + 24 * 9 + 24 * 40 + 1200 * 50 + 50 * 7)
        program.save(path)
        with pytest.raises(netopt.InvalidArgument, match=rf"program for {target}: expected to be called on such a CPU"):
            program(X)
        with pytest.raises(netopt.InvalidArgument, match=r"write it with save\(path\) here, and read it there"):
            report.profile(program, X, rounds=1)
        loaded = netopt.load(path, target=target)
        assert loaded.steps == program.steps
        assert (loaded.arena_bytes, loaded.weight_bytes) == (program.arena_bytes, program.weight_bytes)
    here = netopt.load(path)
    assert here.arena_bytes == program.arena_bytes
    assert [step.op for step in here.steps] == [step.op for step in program.steps]
    expected = netopt.lower(network(), X, exact=exact)
    if [step.op for step in here.steps] == [step.op for step in expected.steps]:
        assert torch.equal(here(X), expected(X))
    # Softmax of sums of up to 1,200 products; Winograd's algorithm rounds a little more.
    torch.testing.assert_close(here(X), network()(X).detach(), rtol=1e-4, atol=1e-6)


def test_the_constants_in_the_file_are_those_of_the_model_whatever_the_target(tmp_path: Path) -> None:
    for name, target in (("here", None), ("there", ARM)):
        netopt.lower(network(), X, target=target).save(tmp_path / name)
    assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()
    assert read_network(tmp_path / "there").graph.constants


def test_schedules_and_packing_are_those_of_the_target() -> None:
    phone, here = netopt.lower(network(), X, target=ARM), netopt.lower(network(), X, target=SERVER)
    assert [step.schedule for step in phone.steps] != [step.schedule for step in here.steps]
    assert phone.weight_bytes != here.weight_bytes  # padded to other vectors


def test_what_bfloat16_would_take_on_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch)
    wide, narrow = (netopt.lower(network(), X, target=SERVER, precision=p) for p in ("float32", "bf16"))
    assert narrow.weight_bytes < 0.6 * wide.weight_bytes
    assert narrow.arena_bytes < wide.arena_bytes


def test_code_for_a_lesser_cpu_runs_here() -> None:
    target = "x86-64-linux-sse41"
    if not Lowering(target=target).runs_here:
        pytest.skip(f"this CPU is {host_cpu().target}")
    program = netopt.lower(network(), X, target=target)
    assert f"for {target}" in program.summary()
    torch.testing.assert_close(program(X), network()(X).detach(), rtol=1e-4, atol=1e-6)


def test_parts_in_pytorch_of_a_program_for_another_cpu(compiles_nothing: None) -> None:
    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.dense(x).logcumsumexp(1)

    program = netopt.lower(Summed(), torch.randn(2, 6), target=ARM, fallback=True)
    assert "in PyTorch" in program.summary()
    with pytest.raises(netopt.InvalidArgument, match="to be called on such a CPU"):
        program(torch.randn(2, 6))


def test_large_inputs_and_binary_layers_of_another_cpu(compiles_nothing: None) -> None:
    """An input that a kernel of ours would copy, and weights whose packing depends on the CPU most."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3, bias=False), nn.BatchNorm2d(32), nn.Conv2d(32, 32, 3)]
    binary = netopt.quantization.Binary(normalize=False, select=["1", "3"])
    model = netopt.optimize(nn.Sequential(*layers), binary, keep_if="always").model.eval()
    x = torch.randn(1, 3, 64, 64)
    programs = [netopt.lower(model, x, target=target) for target in (ARM, SERVER)]
    assert all("binary_conv2d" in program.summary() for program in programs)
    assert len({tuple(str(step.schedule) for step in program.steps) for program in programs}) == 2


def test_a_replacement_cannot_be_measured_for_another_cpu() -> None:
    model, technique = nn.Sequential(nn.Linear(64, 64)), netopt.factorization.SVD(rank=2)
    x = torch.zeros(1, 64)
    with pytest.raises(netopt.InvalidArgument, match=r'keep_if: expected "smaller" or .* found the default with an'):
        netopt.optimize(model, technique, example=x, target=ARM)
    with pytest.raises(netopt.InvalidArgument, match=f'the target {ARM}, .* found "faster"'):
        netopt.optimize(model, technique, example=x, target=ARM, keep_if="faster")
    result = netopt.optimize(model, technique, example=x, target=ARM, keep_if="smaller", lower=True)
    assert result.program.multiply_adds == 2 * 2 * 64
    assert f"for {ARM}" in result.program.summary()
