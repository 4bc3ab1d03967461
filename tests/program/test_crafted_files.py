"""Files that somebody has made to do harm: all are refused as files, before they cost time or memory."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netopt.errors import FileFormatError, NetoptError
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
        (lambda text: "[" + "{}," * 5_000_000 + "{}]", "metadata: expected at most 4,194,304 values, found 10,000,002"),
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


def test_a_file_that_is_cut_later_does_not_harm(tmp_path: Path) -> None:
    """A mapped file that is cut ends the process at the next access."""
    path = tmp_path / "net.nopt"
    write_network(path, _small())
    network = read_network(path)
    path.write_bytes(b"")
    assert network.graph.constants["fc.weight"].sum() == 15.0
