"""The settings file: the type of each variable of a network, as YAML that people edit.

    functions:              # what is computed: for reading
      relu: conv2d+relu
    variables:              # edit the types
      x: UFIXED8            # input 1x3x32x32
      conv1.weight: FIXED8  # parameter 16x3x3x3
      relu: FIXED8_4        # buffer 1x16x32x32

A change of a type replaces its text and leaves every other character of the file as it was.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netopt.errors import FileFormatError, InvalidArgument, NetoptError
from netopt.files import write_atomically
from netopt.quantized.types import TypeWish, Variable, parse_type, shortened

Functions = Sequence[tuple[str, str]]

_SECTIONS = ("functions", "variables")
_ABOUT = """\
# The types of a network's variables, for `netopt convert`. Edit those under `variables`:
#   FLOAT32      as it is; so is a variable that is not listed
#   FIXED8_5     codes of 8 bits; value = code x 2^-5. Also FIXED16_n, FIXED4_n (weights). n may be negative
#   UFIXED8_5    codes of 0 to 255, UFIXED7_5 of 0 to 127: for values that are never below 0
#   FIXED8       n is found: from calibration inputs, or for a parameter from its values. Also FIXED16, UFIXED8 ...
#   AFFINE8      codes of 8 bits with a real scale, which is found; also UAFFINE8
#   SIGN         +1 and -1, one bit
"""


@dataclass(frozen=True)
class Entry:
    """A line of a section.

    Attributes:
        text: the value, as it is meant.
        line: of the file, from 1.
        start, end: where the value stands, in characters of the file.
    """

    text: str
    line: int
    start: int
    end: int


@dataclass(frozen=True)
class Settings:
    """What a settings file says.

    Attributes:
        path: of the file, as messages name it.
        text: all of it.
        types: for each variable that is listed, where its type stands.
        functions: for each function that is listed, where its op stands.
        wishes: the types, by the names of the variables.
    """

    path: str
    text: str
    types: Mapping[str, Entry]
    functions: Mapping[str, Entry]
    wishes: Mapping[str, TypeWish]

    def line_of(self, name: str) -> int:
        """The line, from 1, on which the type of a variable stands."""
        return self.types[name].line

    def where(self, name: str) -> str:
        """The file and the line of a variable, as messages begin."""
        return f"{self.path}:{self.line_of(name)}"

    def check(self, variables: Iterable[Variable], functions: Functions) -> None:
        """Raise unless the network has all that is listed.

        Raises:
            InvalidArgument: a variable or a function is unknown, or the function is another op; names the line.
        """
        names = [variable.name for variable in variables]
        for name, entry in self.types.items():
            if name not in names:
                raise InvalidArgument(f"{self.path}:{entry.line}: unknown variable '{name}'", fix=_close(name, names))
        ops = dict(functions)
        for name, entry in self.functions.items():
            where = f"{self.path}:{entry.line}"
            if name not in ops:
                raise InvalidArgument(f"{where}: unknown function '{name}'", fix=_close(name, ops))
            if entry.text != ops[name]:
                raise InvalidArgument(
                    f"{where}: function '{name}'",
                    expected=f"{ops[name]}, which the model computes there",
                    found=shortened(entry.text),
                    fix="change the types of its variables; functions are listed for reading",
                )

    def changed(self, types: Mapping[str, str]) -> str:
        """The text of the file with other types for some variables that it lists, and nothing else changed."""
        text = self.text
        for entry, type_ in sorted(
            ((self.types[name], type_) for name, type_ in types.items()), key=lambda pair: -pair[0].start
        ):
            # After a colon alone there is no space yet.
            gap = "" if text[entry.start - 1 : entry.start].isspace() or entry.text else " "
            text = text[: entry.start] + gap + type_ + text[entry.end :]
        return text


def read_settings(path: str | Path) -> Settings:
    """Read a settings file.

    Raises:
        FileFormatError: it is no YAML of two sections of names and texts, or lists a name twice; names the line.
        InvalidArgument: there is no such type; names the line.
        NetoptError: ruamel.yaml is not installed.
        OSError: the file cannot be read.
    """
    try:
        text = Path(path).read_bytes().decode()
    except UnicodeDecodeError as error:
        raise FileFormatError(
            str(path), expected="text in UTF-8", found=f"byte {error.start} of another kind"
        ) from None
    sections = _sections(str(path), text)
    types = dict(_entries(str(path), text, sections.get("variables")))
    functions = dict(_entries(str(path), text, sections.get("functions")))
    wishes = {}
    for name, entry in types.items():
        try:
            wishes[name] = parse_type(entry.text or "FLOAT32")
        except InvalidArgument as error:
            raise InvalidArgument(f"{path}:{entry.line}: '{name}': {error}") from None
    return Settings(str(path), text, types, functions, wishes)


def settings_text(variables: Iterable[Variable], functions: Functions) -> str:
    """The text of a settings file, with the shapes as comments."""
    lines = [_ABOUT, "functions: # for reading", *(f"  {_key(name)}: {_value(op)}" for name, op in functions)]
    lines += ["", "variables:"]
    rows = [(f"  {_key(v.name)}: {v.type}", f"# {v.kind} {'x'.join(map(str, v.shape)) or 'scalar'}") for v in variables]
    width = max((len(row) for row, _ in rows), default=0)
    lines += [f"{row:<{width}}  {comment}" for row, comment in rows]
    return "\n".join(lines) + "\n"


def write_settings(path: str | Path, variables: Iterable[Variable], functions: Functions) -> None:
    """Write a settings file, atomically; what was there is replaced.

    Raises:
        OSError: it cannot be written; what was there before is intact.
    """
    write_text(path, settings_text(variables, functions))


def write_text(path: str | Path, text: str) -> None:
    """Write a file of this text, atomically."""
    write_atomically(Path(path), [text.encode()])


def _sections(path: str, text: str) -> dict[str, Any]:
    """The nodes of the sections of a file."""
    root = _composed(path, text)
    if root is None:
        return {}
    sections = {}
    for key, value in _pairs(path, root, "the sections functions and variables"):
        line = key.start_mark.line + 1
        if key.value not in _SECTIONS:
            fix = _close(key.value, _SECTIONS)
            raise FileFormatError(f"{path}:{line}: unknown section {shortened(key.value)}", fix=fix)
        sections[key.value] = value
    return sections


def _entries(path: str, text: str, section: Any) -> Iterator[tuple[str, Entry]]:
    if section is None or _is_empty(section):
        return
    for key, value in _pairs(path, section, "a name and a type on each line"):
        line = key.start_mark.line + 1
        if not isinstance(value.value, str) or value.anchor is not None:
            found = "an anchor" if isinstance(value.value, str) else f"several values under '{key.value}'"
            raise FileFormatError(f"{path}:{line}", expected="one value behind the name", found=found)
        if value.start_mark.index == value.end_mark.index:
            colon = re.compile(r"\s*:").match(text, key.end_mark.index)
            if colon is None:
                raise FileFormatError(f"{path}:{line}", expected=f"a colon behind '{key.value}'", found="none")
            # Nothing stands there: it would stand behind the colon.
            yield key.value, Entry("", line, colon.end(), colon.end())
        else:
            given = "" if _is_empty(value) else value.value
            yield key.value, Entry(given, line, value.start_mark.index, value.end_mark.index)


def _pairs(path: str, node: Any, expected: str) -> list[tuple[Any, Any]]:
    """The keys and values of a mapping, each key a text that stands once."""
    line = node.start_mark.line + 1
    if not node.tag.endswith(":map"):
        raise FileFormatError(f"{path}:{line}", expected=expected, found=_kind(node))
    seen: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key.value, str):
            raise FileFormatError(f"{path}:{line}", expected=expected, found=f"{_kind(key)} as a name")
        if key.value in seen:
            where = f"on line {seen[key.value]}, too"
            raise FileFormatError(f"{path}:{line}: {shortened(key.value)} stands {where}", fix="remove one of the two")
        seen[key.value] = line
    pairs: list[tuple[Any, Any]] = node.value
    return pairs


def _composed(path: str, text: str) -> Any:
    """The tree of a YAML text, with places; None of an empty one."""
    try:
        from ruamel.yaml import YAML  # noqa: PLC0415  # an extra
        from ruamel.yaml.error import MarkedYAMLError, YAMLError  # noqa: PLC0415
    except ImportError:
        raise NetoptError("ruamel.yaml is not installed", fix="pip install 'netopt[cli]'") from None
    try:
        return YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = path if mark is None else f"{path}:{mark.line + 1}"
        found = " ".join(str(error.problem or error.context).split())
        raise FileFormatError(where, expected="YAML", found=found) from None
    except (YAMLError, RecursionError) as error:
        found = "nesting too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise FileFormatError(path, expected="YAML", found=found) from None


def _is_empty(node: Any) -> bool:
    return bool(node.tag.endswith(":null"))


def _kind(node: Any) -> str:
    return {"map": "a mapping", "seq": "a list", "null": "nothing"}.get(node.tag.rpartition(":")[2], "a single value")


def _close(name: str, names: Iterable[str]) -> str | None:
    """What may have been meant."""
    close = difflib.get_close_matches(name, list(names), 3, 0.5)
    return f"did you mean {' or '.join(close)}?" if close else None


def _key(name: str) -> str:
    """A name as YAML has it: in quotes where it might be read as something else."""
    return name if re.fullmatch(r"\w[\w./-]*", name, re.ASCII) else json.dumps(name)


def _value(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z_][\w./+ -]*", text, re.ASCII) and not text.endswith(" ") else json.dumps(text)
