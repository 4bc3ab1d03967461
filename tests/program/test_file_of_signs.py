"""The .nopt file of a binary network: its bits and whole numbers, and claims about signs that are refused."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import struct
from collections.abc import Callable
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
from netopt.graph import Graph
from netopt.graph.graph import GraphBuilder
from netopt.memory import plan_memory
from netopt.numerics import BFLOAT16, FLOAT32, INT32, SIGN_BITS, SIGNS, NumberFormat
from netopt.ops import ROW_MAJOR, BinaryConv2d, Layout, Sign, TensorType
from netopt.program.file import Network, read_network, write_network
from netopt.program.lower import prepare
from netopt.program.options import Lowering
from netopt.program.program import Program
from netopt.quantization import sign
from tests.binary_layers import Model, conv, dense, images, trained
from tests.program.test_file import PROPERTY, _assert_equal, _file, _mutate, _parts, _read

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
    return prepare(_model(), X, Lowering())


@pytest.fixture(scope="module")
def file(network: Network, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("format") / "signs.nopt"
    write_network(path, network)
    return path.read_bytes()


def test_round_trip(tmp_path: Path, network: Network, file: bytes) -> None:
    read = _read(tmp_path, file)
    _assert_equal(network, read)
    assert {value.dtype for value in read.graph.constants.values()} == {torch.float32, torch.int32, torch.int8}
    assert torch.equal(Program(read, Lowering())(X), Program(network, Lowering())(X))
    write_network(tmp_path / "again.nopt", read)
    assert (tmp_path / "again.nopt").read_bytes() == file


def _sections(data: bytes) -> bytes:
    (metadata_bytes,) = struct.unpack_from("<Q", data, 24)
    return data[64 + math.ceil(metadata_bytes / 64) * 64 :]


def test_a_weight_takes_one_bit(network: Network, file: bytes) -> None:
    bits = {torch.int8: 1, torch.int32: 32, torch.float32: 32}
    sizes = [value.numel() * bits[value.dtype] / 8 for value in network.graph.constants.values()]
    assert len(_sections(file)) == sum(math.ceil(size / 64) * 64 for size in sizes)
    weights = {tuple(v.shape) for v in network.graph.constants.values() if v.dtype == torch.int8 and v.dim() > 1}
    assert weights == {(64, 3, 3, 3), (64, 32, 3, 3), (7, 64, 1, 1), (4, 7, 2, 2), (5, 8)}


def test_where_the_bits_of_a_weight_lie(tmp_path: Path) -> None:
    """One after the other over rows, from the lowest of each byte; a set bit is -1, and the last word ends in zeros."""
    layer = nn.Sequential(dense(5, 9)).eval()
    weight = torch.ones(9, 5)
    for index in (0, 1, 9, 31, 44):
        weight.view(-1)[index] = -1
    layer[0].weight = nn.Parameter(weight)
    write_network(tmp_path / "net.nopt", prepare(layer, images(1, 5), Lowering()))
    constants = _sections((tmp_path / "net.nopt").read_bytes())
    assert len(constants) == 64
    assert struct.unpack_from("<II", constants) == (1 + 2 + (1 << 9) + (1 << 31), 1 << 12)
    assert constants[8:] == bytes(56)


@pytest.mark.parametrize("count", [1, 31, 32, 33, 511, 512, 513])
def test_constants_of_any_number_of_bits(count: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(dense(2, count), dense(count, 3)).eval()
    network = prepare(model, images(1, 2), Lowering())
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
        program = Program(network, Lowering())
    except NetoptError:
        return True
    inputs = [torch.randn(port.shape) for port in program.inputs]
    program(*network.signature.positional.unflatten(iter(inputs)))
    return False


@given(seed=st.integers(0, 2**32))
@settings(PROPERTY, max_examples=80)
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


FORMATS: tuple[NumberFormat, ...] = (FLOAT32, SIGNS, SIGN_BITS, INT32, BFLOAT16)


def _claims(type_: TensorType) -> list[TensorType]:
    """Other layouts of a value, and other formats."""
    halos = ((0, 0, 0, 0), (1, 1, 1, 1), (2, 1, 1, 3), (1, 1, 1, 0))
    layouts = [ROW_MAJOR, *(Layout(True, halo) for halo in halos), Layout(True, pitch=96)]
    claims = [dataclasses.replace(type_, layout=layout) for layout in layouts if len(type_.shape) == 4]
    claims += [dataclasses.replace(type_, format=format_) for format_ in FORMATS]
    return [claim for claim in claims if claim != type_]


def _write(path: Path, graph: Graph, network: Network) -> None:
    """A file that nothing has verified, with a plan for what it claims."""
    write_network(path, Network(graph, plan_memory(graph), network.signature))


CLAIMED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "maximum": (lambda: nn.Sequential(conv(7, 40, 1), nn.MaxPool2d(2), conv(40, 5, 1)).eval(), (1, 7, 6, 5)),
    "threshold": (lambda: nn.Sequential(conv(7, 40, 3, padding=1), conv(40, 5, 3)).eval(), (1, 7, 6, 5)),
    "rows": (lambda: nn.Sequential(dense(7, 40), dense(40, 5)).eval(), (3, 7)),
    "floats": (lambda: conv(7, 5, 3, signs=False).eval(), (1, 7, 6, 5)),
    "a sign at the end": (lambda: Model(lambda m, x: sign(m.c(x)), c=nn.Conv2d(3, 5, 3)).eval(), (1, 3, 6, 5)),
}


@pytest.mark.parametrize("which", CLAIMED)
def test_what_is_claimed_of_values_is_refused_or_right(which: str, tmp_path: Path) -> None:
    """Words that were read as floats, or in another order, would be numbers of no meaning, or beyond the memory."""
    torch.manual_seed(0)
    make, shape = CLAIMED[which]
    x, network, path = images(*shape), prepare(make(), images(*shape), Lowering()), tmp_path / "net.nopt"
    graph, expected = network.graph, Program(network, Lowering())(x)
    counts = {"refused": 0, "right": 0}
    for name in set(graph.types) - set(graph.constants):
        for claim in _claims(graph.types[name]):
            try:
                _write(path, dataclasses.replace(graph, types={**graph.types, name: claim}), network)
                program = netopt.load(path)
            except NetoptError:
                counts["refused"] += 1
                continue
            # Of numbers, bfloat16 keeps 8 bits.
            most = 0.02 * float(expected.abs().max()) if claim.format == BFLOAT16 else 0.0
            torch.testing.assert_close(program(x).float(), expected, rtol=0, atol=most)
            counts["right"] += 1
    assert counts["refused"] >= 5
    assert counts["right"] >= 1


@pytest.mark.parametrize("groups", [4, 64])
def test_groups_that_share_words_are_refused(groups: int, tmp_path: Path, network: Network) -> None:
    graph, nodes = network.graph, list(network.graph.nodes)
    index = next(i for i, node in enumerate(nodes) if isinstance(node.op, BinaryConv2d) and node.op.groups == 2)
    name = nodes[index].inputs[1]
    nodes[index] = dataclasses.replace(nodes[index], op=dataclasses.replace(nodes[index].op, groups=groups))  # type: ignore[call-arg]
    weight = graph.constants[name][:, : 64 // groups].contiguous()
    types = {**graph.types, name: dataclasses.replace(graph.types[name], shape=tuple(weight.shape))}
    _write(
        tmp_path / "net.nopt",
        Graph(graph.inputs, graph.outputs, tuple(nodes), types, {**graph.constants, name: weight}),
        network,
    )
    with pytest.raises(FileFormatError, match=f"in {groups} groups: expected whole words of signs"):
        read_network(tmp_path / "net.nopt")


def test_thresholds_of_neither_rows_nor_images_are_refused(tmp_path: Path) -> None:
    """A kernel would take the last axis for that of the channels."""
    builder = GraphBuilder()
    builder.inputs, builder.types = ("x",), {"x": TensorType((2, 3, 5))}
    names = tuple(builder.add_constant("c", torch.ones(3)) for _ in range(2))
    builder.outputs = (builder.add_node(Sign(True), ("x", *names), "y", "last"),)
    network = prepare(nn.ReLU(), images(2, 3, 5), Lowering())
    _write(tmp_path / "net.nopt", builder.finish(), network)
    with pytest.raises(netopt.InvalidArgument, match="layer 'last': graph: 'y': expected thresholds of rows or of im"):
        netopt.load(tmp_path / "net.nopt")


@pytest.mark.parametrize("kind", [{"name": "float32"}, {"name": "int32"}, {"name": "sign", "word": 32}])
def test_weights_in_another_format_are_refused(kind: dict[str, Any], tmp_path: Path, file: bytes) -> None:
    metadata, constants = _parts(file)
    name = next(n for n in metadata["constants"] if metadata["values"][n]["format"] == {"name": "sign", "word": 1})
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
