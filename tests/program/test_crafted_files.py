"""Files that somebody has made to do harm: all are refused as files, before they cost time or memory."""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netopt.errors import FileFormatError, NetoptError
from netopt.program import file
from netopt.program.file import read_network, write_network
from netopt.program.options import Lowering
from netopt.program.program import Program
from tests.program.test_file import _captured, _file, _of_all_ops, _parts, _small

Way = tuple[Any, ...]

VALUES: tuple[str, ...] = (
    *("0", "-1", "1", "2", "7", "2147483648", "140737488355328", "-1099511627776", "1e300", "0.5", "null", "true"),
    *('""', '"x"', "[]", "{}", "[0]", "[[]]", '"float32"', "[0, 3]", "[2147483648]", json.dumps([1] * 33)),
    *('{"name": "int64"}', '{"name": "bool"}', '{"name": "sign", "word": 32}', json.dumps([1] * 20_000)),
)


def _ways(data: Any, way: Way = ()) -> Iterator[Way]:
    """The way to each value within the metadata."""
    if way:
        yield way
    if isinstance(data, dict | list):
        for key in list(data) if isinstance(data, dict) else range(len(data)):
            yield from _ways(data[key], (*way, key))


def _mutated(data: Any, chance: random.Random) -> None:
    """Change, drop or repeat one value."""
    *way, last = chance.choice(list(_ways(data)))
    for key in way:
        data = data[key]
    how = chance.random()
    if how < 0.1 and isinstance(data, list):
        data.insert(last, json.loads(json.dumps(data[last])))
    elif how < 0.2:
        del data[last]
    else:
        data[last] = json.loads(chance.choice(VALUES))


@pytest.mark.parametrize("make", [_small, _captured, _of_all_ops])
def test_nothing_but_a_refusal_comes_of_changed_metadata(make: Callable[[], Any], tmp_path: Path) -> None:
    """With right checksums. What is consistent after all may be made a program, or be refused as one."""
    path, chance, refused = tmp_path / "net.nopt", random.Random(0), 0
    write_network(path, make())
    original = path.read_bytes()
    for _ in range(120):
        metadata, constants = _parts(original)
        for _ in range(chance.choice((1, 1, 2, 3))):
            _mutated(metadata, chance)
        path.write_bytes(_file(json.dumps(metadata).encode(), constants))
        try:
            network = read_network(path)
        except FileFormatError:
            refused += 1
        else:
            if make is _small:
                with contextlib.suppress(NetoptError):
                    Program(network, Lowering())
    assert refused > 60


def _with_shape(shape: str) -> Callable[[str], str]:
    return lambda text: text.replace('"x": {"shape": [1, 3]', f'"x": {{"shape": {shape}')


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_with_shape("[0, 3]"), "shape of 'x': expected from 1 to 2\\^31 - 1 elements"),
        (_with_shape("[2147483648]"), "shape of 'x': expected from 1 to"),
        (_with_shape("[65536, 65536]"), "shape of 'x': expected from 1 to"),
        (_with_shape(json.dumps([1] * 33)), "axes of 'x': expected at most 32, found 33"),
        (_with_shape(json.dumps([1] * 20_000)), "axes of 'x': expected at most 32, found 20000"),
        (lambda text: "[" + "{}," * 5_000_000 + "{}]", "metadata: expected at most 2,097,152 values, found 10,000,002"),
        (lambda text: "[" * 100_000 + "]" * 100_000, "RecursionError"),
        (
            lambda text: text.replace('"shape": [2]}', f'"shape": {[1] * 65}}}'),
            "attributes of an op: expected at most",
        ),
        (
            lambda text: text.replace('"shape": [2]}', '"shape": [4294967296]}'),
            "attribute of an op: expected a number",
        ),
    ],
    ids=[
        "empty",
        "2^31",
        "2^32",
        "33 axes",
        "20,000 axes",
        "many objects",
        "deep",
        "long attribute",
        "large attribute",
    ],
)
def test_counts_are_bounded_before_anything_is_built(
    change: Callable[[str], str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "net.nopt"
    write_network(path, _small())
    metadata, constants = _parts(path.read_bytes())
    text = json.dumps(metadata)
    assert change(text) != text
    path.write_bytes(_file(change(text).encode(), constants))
    with pytest.raises(FileFormatError, match=message):
        read_network(path)


def _value(elements: int) -> dict[str, Any]:
    layout = {"channels_last": False, "halo": [0, 0, 0, 0], "pitch": 0}
    return {"shape": [elements], "format": {"name": "float32"}, "layout": layout}


def _row(names: list[str], chained: bool) -> dict[str, Any]:
    """Metadata of a network of as many nodes: one after the other in one place, or all alive until a concatenation."""
    relu = {"op": "pointwise", "function": "relu", "parameters": []}
    inputs = ["x", *names[:-1]] if chained else ["x"] * len(names)
    nodes = [
        {"op": relu, "inputs": [source], "output": name, "layer": ""}
        for source, name in zip(inputs, names, strict=True)
    ]
    values = {name: _value(1) for name in ("x", *names)}
    offsets = {name: 0 if chained else 64 * number for number, name in enumerate(("x", *names))}
    end, arena = names[-1], 64 if chained else 64 * len(offsets)
    if not chained:
        end = "y"
        nodes.append(
            {"op": {"op": "concat", "axis": 0, "in_place": False}, "inputs": names, "output": end, "layer": ""}
        )
        values[end], offsets[end], arena = _value(len(names)), arena, arena + -(-4 * len(names) // 64) * 64
    tensor = {"kind": "tensor", "keys": [], "parts": []}
    return {
        "signature": {
            "positional": {"kind": "tuple", "keys": [], "parts": [tensor]},
            "keyword": {"kind": "dict", "keys": [], "parts": []},
            "output": tensor,
        },
        "inputs": ["x"],
        "outputs": [end],
        "values": values,
        "constants": [],
        "nodes": nodes,
        "plan": {"offsets": offsets, "arena_bytes": arena, "lower_bound": 0},
    }


def _calls_to_read(path: Path, metadata: dict[str, Any]) -> int:
    """How many functions are called while the file is read, which no other load of the machine changes."""
    path.write_bytes(_file(json.dumps(metadata).encode(), b""))
    read_network(path)
    count = 0

    def watch(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(watch)
    try:
        read_network(path)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("chained", [True, False], ids=["in one place", "all alive"])
def test_reading_takes_steps_in_proportion_to_the_nodes(chained: bool, tmp_path: Path) -> None:
    """A quadratic check would take minutes for a file of 400 KB that is consistent."""
    short, long = (
        _calls_to_read(tmp_path / "net.nopt", _row([f"v{i}" for i in range(number)], chained)) for number in (100, 400)
    )
    # Four times the nodes; a tenth for what there is of each power of two.
    assert long < 1.1 * 4 * short


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["nodes"].append(data["nodes"][0]),
        lambda data: data["values"].update(more=data["values"]["x"]),
        lambda data: data["values"].pop("y"),
        lambda data: data["constants"].append("half"),
    ],
    ids=["a node twice", "a value more", "a value less", "a constant twice"],
)
def test_names_are_checked_before_anything_is_made(
    change: Callable[[Any], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise AssertionError("made something")

    path = tmp_path / "net.nopt"
    write_network(path, _small())
    metadata, constants = _parts(path.read_bytes())
    change(metadata)
    path.write_bytes(_file(json.dumps(metadata).encode(), constants))
    monkeypatch.setattr(file, "op_from_json", fail)
    monkeypatch.setattr(file, "_type", fail)
    with pytest.raises(FileFormatError, match="graph: value '.*': expected (one|a) definition"):
        read_network(path)


def test_a_message_is_short_whatever_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "net.nopt"
    write_network(path, _small())
    metadata, constants = _parts(path.read_bytes())
    metadata["values"]["x"]["layout"]["halo"] = [0] * 10_000
    path.write_bytes(_file(json.dumps(metadata).encode(), constants))
    with pytest.raises(FileFormatError, match="found InvalidArgument: .*0, 0, ") as caught:
        read_network(path)
    assert len(str(caught.value)) < 1000


def test_memory_is_taken_for_no_more_than_the_header_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terabyte without blocks on the disk."""
    path = tmp_path / "net.nopt"
    write_network(path, _small())
    whole, size = path.stat().st_size, 2**40
    os.truncate(path, size)
    with pytest.raises(FileFormatError, match=f"is damaged: expected {whole} bytes, found {size}"):
        read_network(path)
    os.truncate(path, whole)

    def full(size: int) -> None:
        raise MemoryError

    monkeypatch.setattr(file, "aligned_bytes", full)
    with pytest.raises(FileFormatError, match=f"expected a file that fits the memory, found {whole} bytes"):
        read_network(path)


def test_a_file_that_is_cut_later_does_not_harm(tmp_path: Path) -> None:
    """A mapped file that is cut ends the process at the next access."""
    path = tmp_path / "net.nopt"
    write_network(path, _small())
    network = read_network(path)
    path.write_bytes(b"")
    assert network.graph.constants["fc.weight"].sum() == 15.0
