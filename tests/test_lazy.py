"""What is loaded, and when: `import netopt` costs nothing, and each name only what it needs. Modules are counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import netopt
from netopt.lazy import lazy_names

# What torch.export loads when it traces, a table or a progress bar when it is drawn, and what trains and transforms.
TRACING = ("sympy", "torch.fx.experimental.symbolic_shapes", "torch.export._trace", "torch._dynamo")
CAPTURE = ("netopt.graph.capture", "netopt.graph.aten", "netopt.graph.export_error")
LOWERED = ("halide", "netopt.graph", "netopt.kernels", "netopt.memory", "netopt.program")
TECHNIQUES = ("netopt.transform", "netopt.training", "netopt.factorization", "netopt.quantization")
VERBS = ("netopt.verbs", "netopt.search", "netopt.report")


def _loaded_by(steps: list[str]) -> list[set[str]]:
    """The modules that each step adds to those before it, in one process that has torch already."""
    lines = ["import json, sys, torch", "seen, added = set(sys.modules), []"]
    for step in steps:
        lines += [step, "added.append(sorted(set(sys.modules) - seen))", "seen = set(sys.modules)"]
    lines.append("print(json.dumps(added))")
    result = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    return [set(modules) for modules in json.loads(result.stdout.splitlines()[-1])]


def _under(modules: set[str], packages: tuple[str, ...]) -> list[str]:
    return sorted(m for m in modules if any(m == package or m.startswith(f"{package}.") for package in packages))


def _is_of_python(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lazy") / "small.nopt"
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    netopt.lower(model, torch.zeros(1, 4)).save(path)
    return path


def test_importing_netopt_loads_nothing_and_loading_a_program_no_tracer(small_file: Path) -> None:
    run = f"program = netopt.load({str(small_file)!r})\nassert program(torch.zeros(1, 4)).shape == (1, 2)"
    netopt_alone, data, _, program, lower = _loaded_by(
        ["import netopt", "netopt.datasets, netopt.InvalidType", "import halide", run, "netopt.lower"]
    )
    assert {module for module in netopt_alone if not _is_of_python(module)} == {"netopt", "netopt.lazy"}
    assert not _under(data, (*LOWERED, *TECHNIQUES, *VERBS, "rich", "sklearn"))
    assert "netopt.program.program" in program
    assert not _under(program, (*TRACING, *CAPTURE, *TECHNIQUES, *VERBS, "rich"))
    assert "netopt.graph.capture" in lower
    assert not _under(lower, (*TRACING, *TECHNIQUES, *VERBS, "rich"))


def test_techniques_and_training_load_no_kernels() -> None:
    steps = ["import netopt", "netopt.Technique, netopt.Report, netopt.structure_of", "netopt.factorization.SVD"]
    steps += ["netopt.quantization.XNOR", "netopt.zoo", "netopt.retrain, netopt.Distillation"]
    *techniques, training = _loaded_by(steps)
    for loaded in techniques:
        assert not _under(loaded, (*LOWERED, *VERBS, "netopt.training", "rich", "scipy", "tensorly"))
    assert "netopt.training.retrain" in training
    assert not _under(training, (*LOWERED, *VERBS, "rich"))


def test_optimize_loads_no_training_and_no_tables() -> None:
    _, optimize = _loaded_by(["import netopt, halide", "netopt.optimize"])
    assert "netopt.verbs.optimize" in optimize
    assert not _under(optimize, (*TRACING, "rich", "netopt.training", "netopt.report"))


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'netopt' has no attribute 'lowr'"):
        netopt.lowr  # type: ignore[attr-defined]  # noqa: B018


def test_a_name_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    get, _ = lazy_names("netopt", {"netopt.errors": ("NetoptError",), "netopt.lazy": ()})
    monkeypatch.delattr(netopt, "NetoptError", raising=False)
    error = get("NetoptError")
    assert netopt.__dict__["NetoptError"] is error
    assert get("lazy") is sys.modules["netopt.lazy"]
