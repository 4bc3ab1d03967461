"""The .nopt file of a binary network: its bits and whole numbers, and claims about signs that are refused."""

from __future__ import annotations

import json
import math
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import netopt
from netopt.errors import FileFormatError, NetoptError
from netopt.format import Network, read_network, write_network
from netopt.lower import prepare
from netopt.ops import BinaryConv2d
from netopt.program import Program
from tests.binary_layers import conv, dense, images, trained
from tests.test_format import PROPERTY, _assert_equal, _file, _mutate, _parts, _read

X = images(1, 3, 6, 5)


def _model() -> nn.Module:
    """A threshold of floats, two of sums, a maximum of signs, groups, padding by +1, and a layer on floats."""
    torch.manual_seed(0)
    return trained(
        nn.Sequential(
            *(nn.BatchNorm2d(3), conv(3, 64, 3, padding=1), nn.BatchNorm2d(64)),
            *(conv(64, 64, 3, padding=1, groups=2, pad_one=True), nn.MaxPool2d(2), nn.BatchNorm2d(64)),
            *(conv(64, 7, 1), nn.BatchNorm2d(7), nn.ReLU(), conv(7, 4, 2, signs=False)),
            *(nn.Flatten(), dense(8, 5)),
        )
    )


@pytest.fixture(scope="module")
def network() -> Network:
    return prepare(_model(), X)


@pytest.fixture(scope="module")
def file(network: Network, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("format") / "signs.nopt"
    write_network(path, network)
    return path.read_bytes()


def test_round_trip(tmp_path: Path, network: Network, file: bytes) -> None:
    read = _read(tmp_path, file)
    _assert_equal(network, read)
    assert {value.dtype for value in read.graph.constants.values()} == {torch.float32, torch.int32, torch.int8}
    assert torch.equal(Program(read)(X), Program(network)(X))
    write_network(tmp_path / "again.nopt", read)
    assert (tmp_path / "again.nopt").read_bytes() == file


def _sections(data: bytes) -> bytes:
    (metadata_bytes,) = struct.unpack_from("<Q", data, 24)
    return data[64 + math.ceil(metadata_bytes / 64) * 64 :]


def test_a_weight_takes_one_bit(network: Network, file: bytes) -> None:
    bits = {torch.int8: 1, torch.int32: 32, torch.float32: 32}
    sizes = [value.numel() * bits[value.dtype] / 8 for value in network.graph.constants.values()]
    assert len(_sections(file)) == sum(math.ceil(size / 64) * 64 for size in sizes)
    weights = [v for v in network.graph.constants.values() if v.dtype == torch.int8 and v.dim() > 1]
    assert [tuple(weight.shape) for weight in weights][:2] == [(64, 3, 3, 3), (64, 32, 3, 3)]
    assert sum(weight.numel() for weight in weights) == 1728 + 18432 + 448 + 112 + 40


def test_where_the_bits_of_a_weight_lie(tmp_path: Path) -> None:
    """One after the other over rows, from the lowest of each byte; a set bit is -1, and the last word ends in zeros."""
    layer = nn.Sequential(dense(5, 9)).eval()
    weight = torch.ones(9, 5)
    for index in (0, 1, 9, 31, 44):
        weight.view(-1)[index] = -1
    layer[0].weight = nn.Parameter(weight)  # type: ignore[union-attr]
    write_network(tmp_path / "net.nopt", prepare(layer, images(1, 5)))
    constants = _sections((tmp_path / "net.nopt").read_bytes())
    assert len(constants) == 64
    assert struct.unpack_from("<II", constants) == (1 + 2 + (1 << 9) + (1 << 31), 1 << 12)
    assert constants[8:] == bytes(56)


@pytest.mark.parametrize("count", [1, 31, 32, 33, 511, 512, 513])
def test_constants_of_any_number_of_bits(count: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(dense(2, count), dense(count, 3)).eval()
    network = prepare(model, images(1, 2))
    write_network(tmp_path / "net.nopt", network)
    _assert_equal(network, read_network(tmp_path / "net.nopt"))


@pytest.mark.parametrize("cut", [1, 64, 1000])
def test_a_file_that_is_cut_off(cut: int, tmp_path: Path, file: bytes) -> None:
    with pytest.raises(FileFormatError, match="is truncated"):
        _read(tmp_path, file[:-cut])


# --- claims behind right checksums


def _is_refused(network: Network) -> bool:
    """Whether the network is refused as a program; what is not must run."""
    try:
        program = Program(network)
    except NetoptError:
        return True
    inputs = [torch.randn(tuple(place.shape)) for place in program._inputs]
    program(*network.signature.positional.unflatten(iter(inputs)))
    return False


@given(seed=st.integers(0, 2**32))
@settings(PROPERTY, max_examples=150)
def test_metadata_changed_at_random(seed: int, tmp_path: Path, file: bytes) -> None:
    choose = random.Random(seed)
    metadata, constants = _parts(file)
    for _ in range(choose.choice([1, 1, 1, 2, 3])):
        _mutate(metadata, choose)
    try:
        network = _read(tmp_path, _file(json.dumps(metadata).encode(), constants))
    except FileFormatError:
        return
    _is_refused(network)


FLOAT, WORDS, BITS = {"name": "float32"}, {"name": "sign", "word": 32}, {"name": "sign", "word": 1}
PLAIN = {"channels_last": False, "halo": [0] * 4, "pitch": 0}


def _claims(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Other layouts and formats of a value; the formats of one that is in no words already may be right."""
    halos = ([0] * 4, [1] * 4, [2, 1, 1, 3], [1, 1, 1, 0])
    layouts = [PLAIN, *({"channels_last": True, "halo": halo, "pitch": 0} for halo in halos)]
    layouts += [{"channels_last": True, "halo": [0] * 4, "pitch": 96}, {**value["layout"], "pitch": 65}]
    formats = [FLOAT, WORDS, BITS, {"name": "int32"}, {"name": "bfloat16"}]
    return [{**value, "layout": layout} for layout in layouts] + [{**value, "format": f} for f in formats]


def test_what_is_claimed_of_values_is_refused_or_right(tmp_path: Path, network: Network, file: bytes) -> None:
    """Words that were read as floats, or in another order, would be numbers of no meaning, or beyond the memory."""
    expected, counts = Program(network)(X), {"file": 0, "program": 0, "right": 0}
    metadata, constants = _parts(file)
    for name in [name for name in metadata["values"] if name not in metadata["constants"]]:
        value = metadata["values"][name]
        for claim in _claims(value):
            changed = json.loads(json.dumps(metadata))
            changed["values"][name] = claim
            try:
                read = _read(tmp_path, _file(json.dumps(changed).encode(), constants))
            except FileFormatError:
                counts["file"] += 1
                continue
            if _is_refused(read):
                counts["program"] += 1
                continue
            # A value of +1 and -1 loses nothing in bfloat16; one that does is below 1 % off.
            result = Program(read)(X)
            exact = claim["format"] == value["format"]
            assert torch.equal(result, expected) if exact else result.shape == expected.shape, (name, claim)
            counts["right"] += 1
    assert min(counts.values()) >= 5, counts


@pytest.mark.parametrize("groups", [4, 64])
def test_groups_that_share_words_are_refused(groups: int, tmp_path: Path, network: Network, file: bytes) -> None:
    metadata, constants = _parts(file)
    index = next(i for i, n in enumerate(network.graph.nodes) if isinstance(n.op, BinaryConv2d) and n.op.groups == 2)
    metadata["nodes"][index]["op"]["groups"] = groups
    name = network.graph.nodes[index].inputs[1]
    shape = metadata["values"][name]["shape"]
    metadata["values"][name]["shape"] = [shape[0], 64 // groups, shape[2], shape[3]]
    constants = constants[: len(constants)]
    with pytest.raises(FileFormatError, match=r"whole words of signs|expected to end with the file"):
        _read(tmp_path, _file(json.dumps(metadata).encode(), constants))


@pytest.mark.parametrize("kind", [FLOAT, {"name": "int32"}, WORDS])
def test_weights_in_another_format_are_refused(kind: dict[str, Any], tmp_path: Path, file: bytes) -> None:
    metadata, constants = _parts(file)
    name = next(n for n in metadata["constants"] if metadata["values"][n]["format"] == BITS)
    metadata["values"][name]["format"] = kind
    more = constants + bytes(8 * 4096)
    for data in (constants, more[: -(-len(more) // 64) * 64]):
        with pytest.raises(FileFormatError, match="net.nopt: expected consistent metadata"):
            _read(tmp_path, _file(json.dumps(metadata).encode(), data))


def test_any_bits_are_weights(tmp_path: Path, file: bytes) -> None:
    """Also where those that fill the last word are set."""
    metadata, constants = _parts(file)
    flipped = (~np.frombuffer(constants, np.uint8)).tobytes()
    network = _read(tmp_path, _file(json.dumps(metadata).encode(), flipped))
    for value in network.graph.constants.values():
        if value.dtype == torch.int8:
            assert bool((value.abs() == 1).all())
    path = tmp_path / "net.nopt"
    assert netopt.load(path)(X).shape == (1, 5)
