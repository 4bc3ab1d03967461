"""The settings file: what is read of it, that nothing but types changes, and that errors name the line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from netopt.errors import FileFormatError, InvalidArgument, NetoptError
from netopt.quantized.types import Variable, parse_type
from netopt.settings import Settings, read_settings, settings_text, write_settings, write_text

VARIABLES = (
    Variable("input", "input", (1, 3, 32, 32), "FLOAT32"),
    Variable("conv1.weight", "parameter", (16, 3, 3, 3), "FIXED8"),
    Variable("odd: name #1", "buffer", (1, 16), "FIXED8_-2"),
    Variable("y", "output", (), "FLOAT32"),
)
FUNCTIONS = (("relu", "conv2d + relu"), ("y", "mean(dims=(2, 3))"))


def _read(tmp_path: Path, text: str) -> Settings:
    (tmp_path / "s.yaml").write_bytes(text.encode())
    settings = read_settings(tmp_path / "s.yaml")
    assert settings.path == str(tmp_path / "s.yaml")
    return settings


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_settings(tmp_path / "s.yaml", VARIABLES, FUNCTIONS)
    settings = read_settings(tmp_path / "s.yaml")
    assert settings.wishes == {variable.name: parse_type(variable.type) for variable in VARIABLES}
    assert {name: entry.text for name, entry in settings.functions.items()} == dict(FUNCTIONS)
    settings.check(VARIABLES, FUNCTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


def test_the_text_that_is_written() -> None:
    text = settings_text(VARIABLES, FUNCTIONS)
    assert '\nfunctions: # for reading\n  relu: conv2d + relu\n  y: "mean(dims=(2, 3))"\n' in text
    assert text.endswith(
        "\nvariables:\n"
        "  input: FLOAT32             # input 1x3x32x32\n"
        "  conv1.weight: FIXED8       # parameter 16x3x3x3\n"
        '  "odd: name #1": FIXED8_-2  # buffer 1x16\n'
        "  y: FLOAT32                 # output scalar\n"
    )


EDITED = """\
# mine

variables :
    b.weight :   FIXED8_5      # why
    "a # b"  : 'FIXED16'   # the other
    "":    SIGN
    x:
    n: ~ # nothing
    0: FIXED8

"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_change_leaves_all_else_as_it_was(tmp_path: Path, newline: str) -> None:
    text = EDITED.replace("\n", newline)
    settings = _read(tmp_path, text)
    assert settings.changed({}) == text
    changed = settings.changed({"b.weight": "FLOAT32", "a # b": "SIGN", "": "FIXED8_1", "x": "FIXED8_2", "n": "SIGN"})
    expected = text.replace("FIXED8_5", "FLOAT32").replace("'FIXED16'", "SIGN").replace(":    SIGN", ":    FIXED8_1")
    assert changed == expected.replace("    x:", "    x: FIXED8_2").replace("~", "SIGN")
    again = _read(tmp_path, changed)
    assert {name: str(wish) for name, wish in again.wishes.items()} == {
        "b.weight": "FLOAT32",
        "a # b": "SIGN",
        "": "FIXED8_1",
        "x": "FIXED8_2",
        "n": "SIGN",
        "0": "FIXED8",
    }


def test_a_variable_without_a_type_is_float32(tmp_path: Path) -> None:
    settings = _read(tmp_path, EDITED)
    assert settings.wishes["x"] == settings.wishes["n"] == parse_type("FLOAT32")
    assert settings.line_of("a # b") == 5
    assert settings.where("x") == f"{tmp_path / 's.yaml'}:7"


@pytest.mark.parametrize("text", ["", "# nothing\n", "variables:\n", "variables:\nfunctions:\n", "variables: {}\n"])
def test_a_file_may_list_nothing(tmp_path: Path, text: str) -> None:
    settings = _read(tmp_path, text)
    assert not settings.wishes and not settings.functions
    settings.check(VARIABLES, FUNCTIONS)


def test_flow_style(tmp_path: Path) -> None:
    settings = _read(tmp_path, "variables: {a: FIXED8, b: SIGN, c: , d: }\n")
    assert {name: str(wish) for name, wish in settings.wishes.items()} == {
        "a": "FIXED8",
        "b": "SIGN",
        "c": "FLOAT32",
        "d": "FLOAT32",
    }
    assert settings.changed({"b": "FIXED16_3"}) == "variables: {a: FIXED8, b: FIXED16_3, c: , d: }\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("variables:\n  a: FIXED8\n  b: FIXD8\n", 3, "'b': type: expected FLOAT32"),
        ("variables:\n  a: 8\n", 2, "'a': type: expected FLOAT32"),
        ("variables:\n  a: FIXED8_200\n", 2, "'a': type FIXED8_200: fraction bits of a fixed-point format"),
        ("variables:\n  a: FIXED8\n\n  a: SIGN\n", 4, "'a' stands on line 2, too; remove one of the two"),
        ("variables: [a, b]\n", 1, "expected a name and a type on each line, found a list"),
        ("variables: FIXED8\n", 1, "expected a name and a type on each line, found a single value"),
        ("# x\n- a\n", 2, "expected the sections functions and variables, found a list"),
        ("variables:\n  a: {b: SIGN}\n", 2, "expected one value behind the name, found several values under 'a'"),
        ("variables:\n  a:\n    - SIGN\n", 2, "expected one value behind the name, found several values under 'a'"),
        ("variables:\n  ? [a, b]\n  : SIGN\n", 2, "found a list as a name"),
        ("variables:\n  a: &x SIGN\n  b: *x\n", 2, "expected one value behind the name, found an anchor"),
        ("variables:\n  ? a # no: colon\n", 2, "expected a colon behind 'a', found none"),
        ("variables: {a, b}\n", 1, "expected a colon behind 'a', found none"),
        ("variable:\n  a: SIGN\n", 1, "unknown section 'variable'; did you mean variables?"),
        ("variables:\n  a: SIGN\n b: SIGN\n", 3, "expected YAML, found"),
        ("variables:\n\ta: SIGN\n", 2, "expected YAML, found"),
        ("a: 1\n---\nb: 1\n", 2, "expected YAML, found but found another document"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    with pytest.raises((FileFormatError, InvalidArgument)) as caught:
        _read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 's.yaml'}:{line}:")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"\xff", "expected text in UTF-8"), (b"a: \x00", "expected YAML"), (b"[" * 5000, "nesting too deep")],
)
def test_files_that_are_no_text(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "s.yaml").write_bytes(data)
    with pytest.raises(FileFormatError, match=message) as caught:
        read_settings(tmp_path / "s.yaml")
    assert "\n" not in str(caught.value)


def test_a_list_that_holds_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="expected one value behind the name"):
        _read(tmp_path, "variables: &a\n  b: *a\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("variables:\n  conv1.wieght: SIGN\n", "2: unknown variable 'conv1.wieght'; did you mean conv1.weight"),
        ("variables:\n  qqqqqqqq: SIGN\n", "2: unknown variable 'qqqqqqqq'"),
        ("functions:\n  relu_1: conv2d + relu\n", "2: unknown function 'relu_1'; did you mean relu?"),
        (
            "functions:\n  relu: FLOAT32\n",
            "2: function 'relu': expected conv2d + relu, which the model computes there, found 'FLOAT32'; change",
        ),
    ],
)
def test_what_the_network_does_not_have(tmp_path: Path, text: str, message: str) -> None:
    settings = _read(tmp_path, text)
    with pytest.raises(InvalidArgument) as caught:
        settings.check(VARIABLES, FUNCTIONS)
    assert str(caught.value).startswith(f"{settings.path}:{message}")


def test_without_ruamel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ruamel.yaml", None)
    with pytest.raises(NetoptError, match=r"ruamel.yaml is not installed; pip install 'netopt\[cli\]'"):
        _read(tmp_path, "variables:\n")


def test_writing_replaces_a_file_as_a_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "s.yaml", "long text")
    write_text(tmp_path / "s.yaml", "é\n")
    assert (tmp_path / "s.yaml").read_bytes() == "é\n".encode()
