"""The command line: what each command prints and writes, and that each error is one line and an exit code."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

import netopt
from netopt.cli import app
from netopt.program.file import write_network
from netopt.settings import read_settings
from tests.networks import TwoInputs
from tests.report.code_network import code_network

_USER = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))

def broken():
    raise ValueError("first line\\nsecond line")
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current folder with a module of a user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "user_networks", raising=False)
    Path("user_networks.py").write_text(_USER)


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def _output(*arguments: str) -> str:
    result = _run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def _error(*arguments: str) -> str:
    """What is said of a wrong call: one line, on standard error alone, with exit code 1."""
    result = _run(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("netopt: ") and result.stderr.count("\n") == 1
    return result.stderr.removeprefix("netopt: ").rstrip("\n")


# --- all commands


def test_help_and_version() -> None:
    text = _output("--help")
    for command in ("template", "convert", "inspect", "run", "bench"):
        assert f"  {command} " in text
        assert "Usage: " in _output(command, "--help")
    assert _output("--version") == f"netopt {netopt.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [(), ("nothing",), ("inspect",), ("inspect", "a.nopt", "--nothing"), ("bench", "a.nopt", "--threads", "x")],
)
def test_wrong_usage_has_exit_code_2(arguments: tuple[str, ...]) -> None:
    result = _run(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.output


def test_errors_of_netopt_and_of_files_are_one_line() -> None:
    Path("a.nopt").write_bytes(b"nothing of the kind")
    assert _error("inspect", "a.nopt") == "a.nopt: expected a .nopt file, found one that begins with b'nothing '"
    assert _error("inspect", "b.nopt") == "b.nopt: No such file or directory"


def test_errors_of_the_users_code_are_one_line_and_with_debug_all_of_it() -> None:
    arguments = ("template", "user_networks:broken", "--input", "1,1,4,4")
    assert _error(*arguments) == "ValueError: first line second line (netopt --debug ... shows where)"
    result = _run("--debug", *arguments)
    assert isinstance(result.exception, ValueError)
    assert result.exit_code == 1


def test_as_a_module_and_without_the_extra() -> None:
    command = [sys.executable, "-m", "netopt", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"netopt {netopt.__version__}\n", "")
    code = "import sys; sys.modules['typer'] = None; from netopt.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "netopt: typer is not installed; pip install 'netopt[cli]'\n"


# --- template


def test_template_lists_functions_and_variables() -> None:
    text = _output("template", "user_networks:small", "--input", "1,1,4,4")
    assert text.startswith("# The types of a network's variables")
    assert _output("template", "user_networks:small", "--input", "1,1,4,4", "-o", "s.yaml") == ""
    assert Path("s.yaml").read_text() == text
    settings = read_settings("s.yaml")
    assert [(name, str(wish)) for name, wish in settings.wishes.items()] == [
        ("input", "FLOAT32"),
        ("0.weight", "FLOAT32"),
        ("0.bias", "FLOAT32"),
        ("relu", "FLOAT32"),
        *((name, "FLOAT32") for name in settings.wishes if name.startswith("view")),
        *((name, "FLOAT32") for name in settings.wishes if name.startswith("3.")),
        ("linear", "FLOAT32"),
    ]
    assert settings.functions["relu"].text == "conv2d + relu"
    assert "  relu: FLOAT32" in text and "# buffer 1x4x4x4\n" in text


def test_template_replaces_no_file_unless_it_is_told_to() -> None:
    Path("s.yaml").write_text("mine")
    arguments = ("template", "user_networks:small", "--input", "1,1,4,4", "-o", "s.yaml")
    assert _error(*arguments) == "s.yaml: expected no such file, found one; give another, or --force"
    assert Path("s.yaml").read_text() == "mine"
    assert _output(*arguments, "--force") == ""
    assert "variables:" in Path("s.yaml").read_text()


def test_template_of_a_file_lists_the_types_that_it_has() -> None:
    write_network("codes.nopt", code_network())
    text = _output("template", "codes.nopt")
    assert "  x: FIXED8_4 " in text and "  hidden: UFIXED8_2 " in text and "  fc1.weight: FIXED8 " in text


def test_template_with_a_type_for_all_that_layers_multiply() -> None:
    text = _output("template", "user_networks:small", "--input", "1,1,4,4", "--type", "FIXED8")
    assert "  input: FIXED8 " in text and "  0.weight: FIXED8 " in text
    assert "  0.bias: FLOAT32 " in text and "  linear: FLOAT32 " in text
    assert "did you mean FIXED8?" in _error("template", "user_networks:small", "--input", "1,1,4,4", "--type", "INT8")
    write_network("codes.nopt", code_network())
    message = "--type: expected a model, found codes.nopt, whose variables have their types"
    assert _error("template", "codes.nopt", "--type", "FIXED8") == message


def test_template_needs_an_input() -> None:
    message = "--input: expected one input of the model, found none; give its shape, such as --input 1,3,32,32"
    assert _error("template", "user_networks:small") == message


# --- convert

_SETTINGS = """\
variables:
  input: FIXED8 # mine
  0.weight: FIXED8
  relu: UFIXED8
  view_pixels: UFIXED8
  view: UFIXED8
"""
_CONVERT = ("convert", "user_networks:small", "s.yaml", "--calibration", "x.npy", "-o", "net.nopt")


@pytest.fixture
def _settings(_folder: None) -> None:
    """s.yaml and x.npy, images of numbers from 0 to 4."""
    Path("s.yaml").write_text(_SETTINGS)
    np.save("x.npy", np.linspace(0.0, 4.0, 70 * 16, dtype=np.float32).reshape(70, 1, 4, 4))


@pytest.mark.usefixtures("_settings")
def test_convert_writes_the_network_and_the_positions() -> None:
    text = _output(*_CONVERT, "--placed", "s.yaml")
    (row,) = [line.split() for line in text.splitlines() if line.startswith(" input ")]
    assert row[:7] == ["input", "input", "1x1x4x4", "FIXED8", "FIXED8_5", "5", "16"]
    size, arena = Path("net.nopt").stat().st_size, netopt.load("net.nopt").arena_bytes
    assert text.endswith(f"net.nopt: {size:,} bytes, arena {arena:,} bytes\n")
    placed = read_settings("s.yaml")
    assert Path("s.yaml").read_text().startswith("variables:\n  input: FIXED8_5 # mine\n  0.weight: FIXED8")
    assert placed.wishes["relu"].n is not None and placed.wishes["relu"] == placed.wishes["view"]
    inspected = {step["value"]: step["type"] for step in json.loads(_output("inspect", "net.nopt", "--json"))["steps"]}
    assert {name: inspected[name] for name in ("input", "relu")} == {
        "input": "FIXED8_5",
        "relu": str(placed.wishes["relu"]),
    }


@pytest.mark.usefixtures("_settings")
def test_the_positions_that_were_found_give_the_same_network() -> None:
    _output(*_CONVERT, "--placed", "s.yaml")
    _output("run", "net.nopt", "x.npy", "-o", "first.npy")
    assert "FIXED8_5" in _output("convert", "user_networks:small", "s.yaml", "--input", "1,1,4,4", "-o", "net.nopt")
    _output("run", "net.nopt", "x.npy", "-o", "second.npy")
    first = np.load("first.npy")
    assert first.shape == (70, 3) and np.unique(first, axis=0).shape[0] > 50
    assert np.array_equal(first, np.load("second.npy"))


@pytest.mark.usefixtures("_settings")
def test_a_position_that_does_not_fit_is_a_warning_with_its_line() -> None:
    Path("s.yaml").write_text("variables:\n\n  input: FIXED8_6\n")
    result = _run(*_CONVERT)
    assert result.exit_code == 0
    # Above 127.5 / 64 are 562 of 1,120 numbers.
    assert result.stderr == (
        "s.yaml:3: warning: 'input': FIXED8_6 holds -2 to 1.984: 50.18 % of the numbers are saturated; "
        "they lie between 0 and 4, which n = 4 holds\n"
    )


@pytest.mark.usefixtures("_settings")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("  inptu: FIXED8", "unknown variable 'inptu'; did you mean input?"),
        ("  input: FIXED9", "'input': type FIXED9: bits: expected one of 2, 3, 4, 5, 6, 7, 8, 16"),
        ("  0.weight: SIGN", "type of '0.weight': expected codes or FLOAT32, for it is not +1 and -1 alone, found"),
        ("  0.bias: FIXED8", "type of '0.bias': expected FLOAT32 for what is no weight of a layer, found FIXED8"),
    ],
)
def test_what_settings_cannot_ask_for_is_an_error_with_its_line(line: str, message: str) -> None:
    Path("s.yaml").write_text(f"# mine\nvariables:\n{line}\n")
    assert _error(*_CONVERT).startswith(f"s.yaml:3: {message}")
    assert not Path("net.nopt").exists()


@pytest.mark.usefixtures("_settings")
def test_other_mistakes_of_convert() -> None:
    assert _error("convert", "net.nopt", *_CONVERT[2:]).startswith("MODEL: expected a model that is not lowered yet")
    np.save("y.npy", np.zeros((3, 1, 4, 4)))
    message = "--calibration: expected files of as many rows, found (70, 1, 4, 4), (3, 1, 4, 4)"
    assert _error(*_CONVERT, "--calibration", "y.npy") == message
    missing = _error("convert", "user_networks:small", "s.yaml", "--input", "1,1,4,4", "-o", "net.nopt")
    assert missing.startswith(
        "s.yaml:2: type of 'input': expected calibration inputs, from which n is found, found none"
    )


def test_the_commands_of_the_page_run_in_their_order() -> None:
    page = (Path(__file__).parent.parent / "docs" / "command_line.md").read_text()
    (python,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    exec(compile(python, "command_line.md", "exec"), {})
    np.save("images.npy", np.load("images.npy")[:8])
    commands = re.findall(r"^netopt .+$", "\n".join(re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)), re.MULTILINE)
    assert [shlex.split(command)[1] for command in commands] == ["template", "convert", "inspect", "run", "bench"]
    for command in commands:
        _output(*shlex.split(command)[1:])
    assert Path("lenet5.html").stat().st_size > 10_000
    assert np.load("outputs.npy").shape == (8, 10)


# --- inspect


def test_inspect() -> None:
    write_network("codes.nopt", code_network())
    np.save("x.npy", np.ones((5, 3)))
    assert "saturated" not in _output("inspect", "codes.nopt")
    text = _output("inspect", "codes.nopt", "--calibration", "x.npy", "--html", "page.html")
    assert "0.000 %" in text and text.endswith("the last 1 inputs\n")
    assert "codes.nopt" in Path("page.html").read_text()
    data = json.loads(_output("inspect", "codes.nopt", "--calibration", "x.npy", "--json"))
    assert data["runs"] == 2
    assert [step["type"] for step in data["steps"]] == ["FIXED8_4", "UFIXED8_2", "FLOAT32"]


def test_inspect_of_data_that_do_not_fit() -> None:
    write_network("codes.nopt", code_network())
    np.save("x.npy", np.ones((5, 4)))
    message = "input 'x': expected shape (2 or more, 3), found (5, 4)"
    assert _error("inspect", "codes.nopt", "--calibration", "x.npy") == message


# --- run and bench


@pytest.fixture
def _float_program(_folder: None) -> None:
    """net.nopt takes two images at a time."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    netopt.lower(model, torch.zeros(2, 1, 4, 4)).save("net.nopt")


@pytest.mark.usefixtures("_float_program")
def test_run() -> None:
    x = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    np.save("x.npy", x.numpy())
    assert _output("run", "net.nopt", "x.npy", "-o", "y.npy") == ""
    program = netopt.load("net.nopt")
    expected = torch.cat([program(x[start : start + 2]) for start in (0, 2, 4)])
    assert np.array_equal(np.load("y.npy"), expected.numpy())
    np.save("x.npy", x[:5].numpy())
    message = "rows of the inputs: expected a multiple of the 2 that the network takes at a time, found 1 more"
    assert _error("run", "net.nopt", "x.npy", "-o", "z.npy") == message
    assert not Path("z.npy").exists()


def test_run_of_several_inputs() -> None:
    a, b = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [5.0]])
    netopt.lower(TwoInputs(), (a[:1], b[:1])).save("two.nopt")
    np.save("a.npy", a.numpy())
    np.save("b.npy", b.numpy())
    assert _output("run", "two.nopt", "a.npy", "b.npy", "-o", "y.npy") == ""
    # (a + 2b) (1 - a) / (b b + 1.5) - 3
    assert np.load("y.npy").ravel().tolist() == pytest.approx([-3.0, -12 / 26.5 - 3], rel=1e-6)
    assert (
        _error("run", "two.nopt", "a.npy", "-o", "y.npy")
        == "inputs: expected a tensor for each of a, b, found 1 tensors"
    )


class _Keywords(nn.Module):
    def forward(self, *, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a + b, a - b


def test_keywords_are_given_in_order_and_one_output_is_written() -> None:
    one = torch.ones(1, 2)
    netopt.lower(_Keywords(), {"a": one, "b": 2 * one}).save("two.nopt")
    np.save("a.npy", np.ones((1, 2)))
    message = "two.nopt: expected a network with one output, found one that gives more"
    assert _error("run", "two.nopt", "a.npy", "a.npy", "-o", "y.npy") == message
    assert _output("bench", "two.nopt", "--seconds", "0").startswith("median ")


@pytest.mark.usefixtures("_float_program")
def test_bench() -> None:
    text = _output("bench", "net.nopt", "--seconds", "0", "--steps")
    assert text.startswith("median ") and " ms, of 3 calls\n" in text
    assert "conv2d" in text and "GMAC/s" in text
