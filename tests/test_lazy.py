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


def _loaded_by(code: str, before: str = "import torch") -> set[str]:
    """The modules that `code` adds to those of `before`, in a process of its own."""
    text = f"import sys\n{before}\nbefore = set(sys.modules)\n{code}\nimport json\n"
    text += "print(json.dumps(sorted(set(sys.modules) - before)))"
    result = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


def _under(modules: set[str], packages: tuple[str, ...]) -> list[str]:
    return sorted(m for m in modules if any(m == package or m.startswith(f"{package}.") for package in packages))


def test_importing_netopt_loads_nothing() -> None:
    loaded = _loaded_by("import netopt")
    assert {module for module in loaded if not _is_of_python(module)} == {"netopt", "netopt.lazy"}


def _is_of_python(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lazy") / "small.nopt"
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    netopt.lower(model, torch.zeros(1, 4)).save(path)
    return path


def test_loading_a_program_loads_no_tracer_no_tables_and_no_techniques(small_file: Path) -> None:
    code = (
        f"import netopt\nprogram = netopt.load({str(small_file)!r})\nassert program(torch.zeros(1, 4)).shape == (1, 2)"
    )
    loaded = _loaded_by(code, before="import torch, halide")
    assert "netopt.program.program" in loaded
    assert not _under(loaded, (*TRACING, "rich", *CAPTURE, *TECHNIQUES, *VERBS))


@pytest.mark.parametrize(
    ("names", "needless"),
    [
        ("netopt.lower", (*TRACING, "rich", *TECHNIQUES, *VERBS)),
        ("netopt.optimize", (*TRACING, "rich", "netopt.training", "netopt.report")),
        ("netopt.retrain, netopt.Distillation", (*LOWERED, "rich", *VERBS)),
        ("netopt.Technique, netopt.Report, netopt.structure_of", (*LOWERED, "rich", "netopt.training", *VERBS)),
        ("netopt.factorization.SVD, netopt.quantization.XNOR", (*LOWERED, "rich", "scipy", "tensorly", *VERBS)),
        ("netopt.datasets, netopt.InvalidType", (*LOWERED, *TECHNIQUES, "rich", "sklearn", *VERBS)),
        ("netopt.zoo", (*LOWERED, "netopt.training", "rich", *VERBS)),
    ],
)
def test_a_name_loads_only_what_it_needs(names: str, needless: tuple[str, ...]) -> None:
    before = "import torch" if "halide" in needless else "import torch, halide"
    assert not _under(_loaded_by(f"import netopt\n{names}", before), needless)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'netopt' has no attribute 'lowr'"):
        netopt.lowr  # type: ignore[attr-defined]  # noqa: B018


def test_a_name_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    get, _ = lazy_names("netopt", {"netopt.errors": ("NetoptError",), "netopt.lazy": ()})
    monkeypatch.delattr(netopt, "NetoptError", raising=False)
    error = get("NetoptError")
    assert netopt.__dict__["NetoptError"] is error
    assert get("lazy") is sys.modules["netopt.lazy"]
