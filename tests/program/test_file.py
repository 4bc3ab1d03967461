"""The .nopt file: that what is written is read, how it is written, and that nothing else is read.

One file of more than 500 lines, most of them tables: all parts stand on the helpers that make files with right
checksums, and the tables are the list of what a reader refuses.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import random
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from netopt.errors import FileFormatError, UnsupportedModel
from netopt.graph import Nesting, Signature
from netopt.graph.capture import capture
from netopt.graph.graph import GraphBuilder
from netopt.memory import plan_memory
from netopt.numerics import BOOL, INT32, INT64, SIGN_BITS, SIGNS, UINT8, FixedPoint
from netopt.ops import (
    OPS,
    AdaptivePool2d,
    ArgReduce,
    Arithmetic,
    BatchNorm,
    BinaryConv2d,
    BinaryDense,
    Cast,
    ChannelShuffle,
    Compare,
    Concat,
    Conv2d,
    Convert,
    ConvTranspose2d,
    Dense,
    Expand,
    Gather,
    LayerNorm,
    Layout,
    Matmul,
    Pad,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Pointwise,
    Pool2d,
    Recurrent,
    Reduce,
    Relayout,
    Reshape,
    Resize,
    Sign,
    SignPool2d,
    Slice,
    Softmax,
    SpatialMean,
    TensorType,
    View,
    Where,
    Winograd2d,
)
from netopt.program import file as format_
from netopt.program.file import Network, read_network, write_network
from tests.pipelines import run_passes

Change = Callable[[Any], object]

TENSOR = Nesting("tensor")
ONE_TO_ONE = Signature(Nesting("tuple", (), (TENSOR,)), Nesting("dict"), TENSOR)
# A property of bytes needs a file to read, and the folder of the test is as good for one example as for all.
PROPERTY = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _network(builder: GraphBuilder, signature: Signature = ONE_TO_ONE) -> Network:
    graph = builder.finish()
    return Network(graph, plan_memory(graph), signature)


def _small() -> Network:
    """y = relu(x W^T + b) + reshape(x W^T + b ...): a constant of no axes, a view, two dense layers."""
    builder = GraphBuilder()
    builder.inputs, builder.types = ("x",), {"x": TensorType((1, 3))}
    weight = builder.add_constant("fc.weight", torch.arange(6.0).reshape(2, 3))
    number = builder.add_constant("half", torch.tensor(0.5))
    dense = builder.add_node(Dense(activation=Pointwise("relu")), ("x", weight), "d", "fc")
    flat = builder.add_node(Reshape((2,)), (dense,), "flat", "")
    builder.outputs = (builder.add_node(Arithmetic("mul"), (flat, number), "y", "scale"),)
    return _network(builder)


def _of_all_ops() -> Network:
    """Every op, with attributes that are not the defaults."""
    b = GraphBuilder()
    b.inputs, b.types = ("x", "r"), {"x": TensorType((2, 6)), "r": TensorType((2, 6))}
    generator = torch.Generator().manual_seed(0)
    matrix, *vectors = (b.add_constant("c", torch.randn(s, generator=generator)) for s in [(6, 6), *[(6,)] * 6])
    elu = Pointwise("elu", (0.1, 1.0507009873554805, 1e-300))
    d = b.add_node(Dense(True, True, elu), ("x", matrix, vectors[0], "r"), "d", "blocks.0.fc")
    n = b.add_node(LayerNorm(1, 1e-5), (d, vectors[1], vectors[2]), "n", "")
    m = b.add_node(BatchNorm(0.1), (n, *vectors[2:]), "m", 'a "quoted" \\ name \u00e9\u4e2d\n')
    s = b.add_node(Softmax(1, log=True), (m,), "s", "")
    s = b.add_node(Pointwise("softplus", (2.0, 20.0)), (s,), "p", "")
    t = b.add_node(Permute((1, 0)), (s,), "t", "")
    part = b.add_node(Slice(0, 1, 6, 2), (t,), "part", "")
    both = b.add_node(Concat(1), (part, part), "both", "")
    matmul = Matmul(0.5, View((3, 2), (1, 6), 3), View((2, 4), (6, 1), 2), (1, 0))
    product = b.add_node(matmul, ("x", "r"), "product", "attention")
    most = b.add_node(Reduce("max", 1), (product,), "most", "")
    b.add_node(Expand((2, 4, 1)), (most,), "wide", "")
    flat = b.add_node(Reshape((1, 12)), (both,), "flat", "")
    image = b.add_node(Reshape((1, 1, 3, 4)), (flat,), "image", "")
    _add_image_ops(b, image, elu)
    kernel = b.add_constant("kernel", torch.randn(3, 1, 2, 2, generator=generator))
    image = b.add_node(Conv2d((1, 2), (1, 0, 1, 1), (1, 1), 1, False, False, elu), (image, kernel), "conv", "stem")
    fast = b.add_constant("fast", torch.randn(2, 3, 4, 4, generator=generator))
    image = b.add_node(Winograd2d(2, (1, 2, 0, 1), False, False, elu), (image, fast), "winograd", "stem")
    image = b.add_node(Pool2d("average", (2, 2), (1, 1), (1, 0, 0, 1), (1, 1), (1, 0)), (image,), "pool", "")
    image = b.add_node(Relayout(), (image,), "copy", "")
    b.types[image] = dataclasses.replace(b.types[image], layout=Layout(True, (1, 0, 2, 0)))
    codes = b.add_node(Convert(), (image,), "codes", "")
    b.types[codes] = dataclasses.replace(b.types[codes], format=FixedPoint(7, 3, signed=False))
    _add_sign_ops(b, image, elu)
    _add_ops_of_whole_numbers(b, image)
    flat = b.add_node(SpatialMean(), (image,), "mean", "")
    b.outputs = (b.add_node(Arithmetic("div"), (flat, flat), "y", ""), "n", "x", matrix, "n")
    signature = Signature(
        Nesting("tuple", (), (TENSOR,)),
        Nesting("dict", ("r",), (TENSOR,)),
        Nesting("dict", ("", "b"), (Nesting("list", (), (TENSOR,) * 4), Nesting("tuple", (), (TENSOR,)))),
    )
    return _network(b, signature)


def _add_image_ops(b: GraphBuilder, image: str, elu: Pointwise) -> None:
    """What changes the shape of images (1, 1, 3, 4)."""
    image = b.add_node(Pad("constant", (0, 0, 1, 2), (0, 0, 1, 1), -0.5), (image,), "pad", "")
    image = b.add_node(Resize("nearest_exact", (4, 6), (1.25, 1.5)), (image,), "resize", "")
    image = b.add_node(PixelUnshuffle(2), (image,), "unshuffle", "")
    image = b.add_node(ChannelShuffle(2), (image,), "channels", "")
    image = b.add_node(PixelShuffle(2), (image,), "shuffle", "")
    kernel = b.add_constant("up", torch.ones(1, 2, 2, 2))
    up = ConvTranspose2d((2, 1), (1, 0, 0, 1), (1, 0), (1, 2), 1, False, False, elu)
    b.add_node(AdaptivePool2d("max", (2, 3)), (b.add_node(up, (image, kernel), "wide", ""),), "parts", "")


def _add_sign_ops(b: GraphBuilder, image: str, elu: Pointwise) -> None:
    """What reads and writes signs, of images of 2 channels."""
    vectors = [b.add_constant("v", torch.tensor(values)) for values in ([0.5, -1.0], [1.0, -1.0])]
    x = b.add_node(Sign(has_threshold=True), (image, *vectors), "signs", "")
    b.types[x] = dataclasses.replace(b.types[x], format=SIGNS)
    weight = b.add_constant("w", torch.tensor([1, -1], dtype=torch.int8).repeat(6).reshape(2, 2, 1, 3), SIGN_BITS)
    at = b.add_constant("at", torch.tensor([-(2**31), 2**31 - 1], dtype=torch.int32), INT32)
    conv = BinaryConv2d((1, 2), (1, 0, 1, 1), (1, 1), 1, True, True)
    x = b.add_node(conv, (x, weight, at), "threshold", "stem")
    b.types[x] = dataclasses.replace(b.types[x], format=SIGNS)
    direction = b.add_constant("d", torch.tensor([-1, 1], dtype=torch.int8), SIGN_BITS)
    b.add_node(SignPool2d((2, 1), (1, 2), (0, 1, 0, 0)), (x, direction), "signs_pooled", "")
    scaled = BinaryConv2d(padding=(0, 0, 1, 1), has_scale=True, activation=elu)
    b.add_node(scaled, (x, weight, vectors[0]), "scaled", "")
    matrix = b.add_constant("m", torch.ones(3, b.types[image].shape[3], dtype=torch.int8), SIGN_BITS)
    b.add_node(BinaryDense(False, False, False, False, elu), (image, matrix), "bits", "")


def _add_ops_of_whole_numbers(b: GraphBuilder, image: str) -> None:
    """What reads and writes indices and truth; and a constant of each format of whole numbers."""
    most = b.add_node(ArgReduce("argmin", 1), (image,), "least", "")
    bytes_ = b.add_constant("bytes", torch.tensor([0, 255], dtype=torch.uint8), UINT8)
    ids = b.add_constant("ids", torch.tensor([-(2**63), 2**63 - 1, 0, 1]), INT64)
    few = b.add_node(Gather(0), (bytes_, most), "few", "table")
    truth = b.add_node(Compare("ne"), (few, bytes_), "differs", "")
    yes = b.add_constant("yes", torch.tensor([True, False]), BOOL)
    b.add_node(Where(), (truth, yes, yes), "chosen", "")
    b.add_node(Cast("int32"), (ids,), "narrow", "")
    states = [b.add_constant("state", torch.zeros(shape)) for shape in ((2, 1, 12), (9, 3), (1, 3), (3,))]
    b.add_node(Recurrent("gru", True, 3), tuple(states), "backwards", "rnn")


def _captured() -> Network:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.GELU(), nn.LayerNorm(30), nn.Linear(30, 7))
    graph, signature = capture(model, torch.randn(4, 20))
    graph = run_passes(graph)
    return Network(graph, plan_memory(graph), signature)


def _bits(value: torch.Tensor) -> list[int]:
    return value.reshape(-1).view({1: torch.int8, 4: torch.int32, 8: torch.int64}[value.element_size()]).tolist()


def _assert_equal(network: Network, other: Network) -> None:
    graph, copied = network.graph, other.graph
    assert copied.inputs == graph.inputs
    assert copied.outputs == graph.outputs
    assert copied.nodes == graph.nodes
    assert dict(copied.types) == dict(graph.types)
    assert list(copied.constants) == list(graph.constants)
    for name, value in graph.constants.items():
        assert (copied.constants[name].shape, copied.constants[name].dtype) == (value.shape, value.dtype)
        assert _bits(copied.constants[name]) == _bits(value)
    assert other.plan == network.plan
    assert other.signature == network.signature


# --- files with right checksums, whatever they hold


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 64)


def _file(
    text: bytes,
    constants: bytes,
    *,
    version: int = 2,
    header_bytes: int = 64,
    metadata_bytes: int | None = None,
    compressed: bool = False,
) -> bytes:
    """A file as docs/format.md specifies it, with right sizes and checksums unless told otherwise.

    `text` is the metadata, as they are before they are compressed unless they are said to be.
    """
    metadata = text if compressed else zlib.compress(text, 9)
    content = _pad(metadata) + constants
    length = len(metadata) if metadata_bytes is None else metadata_bytes
    fields = (b"\x89NOPT\r\n\x1a", version, header_bytes, 64 + len(content), length, zlib.crc32(content))
    return _with_checksum(struct.pack("<8sIIQQI24x", *fields) + bytes(4) + content)


def _with_checksum(data: bytes) -> bytes:
    """The file with the right checksum of its header."""
    return data[:60] + struct.pack("<I", zlib.crc32(data[:60])) + data[64:]


def _parts(data: bytes) -> tuple[Any, bytes]:
    """The metadata, decoded, and the bytes of the constants."""
    (length,) = struct.unpack_from("<Q", data, 24)
    return json.loads(zlib.decompress(data[64 : 64 + length])), data[64 + len(_pad(bytes(length))) :]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a small file."""
    path = tmp_path_factory.mktemp("format") / "small.nopt"
    write_network(path, _small())
    return path.read_bytes()


def _read(folder: Path, data: bytes) -> Network:
    path = folder / "net.nopt"
    path.write_bytes(data)
    return read_network(path)


def _changed(data: bytes, change: Change) -> bytes:
    """The file with changed metadata and right checksums."""
    metadata, constants = _parts(data)
    change(metadata)
    return _file(json.dumps(metadata).encode(), constants)


# --- what is written is read


@pytest.mark.parametrize("make", [_small, _of_all_ops, _captured])
@pytest.mark.parametrize("kind", [str, Path])
def test_round_trip(make: Callable[[], Network], kind: type[str | Path], tmp_path: Path) -> None:
    network = make()
    path = kind(tmp_path / "net.nopt")
    write_network(path, network)
    _assert_equal(network, read_network(path))


def test_the_round_trip_has_every_op() -> None:
    assert {node.op.name for node in _of_all_ops().graph.nodes} == set(OPS)


def test_every_bit_of_a_constant_survives(tmp_path: Path) -> None:
    """NaNs of both kinds with payloads, infinities, zeros of both signs, denormals, the largest and smallest."""
    bits = [0x7FC00000, 0x7F800001, -1, 0x7FC12345, 0x7F800000, -0x800000, 0, -0x80000000, 1, -0x7FFFFFFF, 0x7FFFFF]
    bits += [0x7F7FFFFF, 0x00800000, 0x3F800000]
    builder = GraphBuilder()
    builder.inputs, builder.types = ("x",), {"x": TensorType((1,))}
    builder.outputs = (builder.add_constant("c", torch.tensor(bits, dtype=torch.int32).view(torch.float32)),)
    write_network(tmp_path / "net.nopt", _network(builder))
    assert _bits(read_network(tmp_path / "net.nopt").graph.constants["c"]) == bits


@pytest.mark.parametrize("value", [1e305, -sys.float_info.max, 5e-324, -0.0, 0.1, 2**53 + 1])
def test_every_finite_parameter_survives(value: float, tmp_path: Path) -> None:
    builder = GraphBuilder()
    builder.inputs, builder.types = ("x",), {"x": TensorType((1,))}
    builder.outputs = (builder.add_node(Pointwise("leaky_relu", (float(value),)), ("x",), "y", ""),)
    network = _network(builder)
    write_network(tmp_path / "net.nopt", network)
    _assert_equal(network, read_network(tmp_path / "net.nopt"))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1), (16,), (17,), (3, 1)])
def test_constants_of_any_shape(shape: tuple[int, ...], tmp_path: Path) -> None:
    builder = GraphBuilder()
    builder.inputs, builder.types = ("x",), {"x": TensorType((1,))}
    values = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    first = builder.add_constant("c", values)
    builder.outputs = ("x", first, builder.add_constant("d", torch.tensor([7.0])))
    signature = dataclasses.replace(ONE_TO_ONE, output=Nesting("tuple", (), (TENSOR,) * 3))
    network = _network(builder, signature)
    write_network(tmp_path / "net.nopt", network)
    _assert_equal(network, read_network(tmp_path / "net.nopt"))


def test_constants_are_aligned_where_they_lie_in_the_file(tmp_path: Path) -> None:
    write_network(tmp_path / "net.nopt", _captured())
    constants = read_network(tmp_path / "net.nopt").graph.constants
    assert len(constants) > 3
    assert all(value.data_ptr() % 64 == 0 for value in constants.values())
    assert all(value.is_contiguous() for value in constants.values())


def test_writing_to_a_constant_does_not_change_the_file(tmp_path: Path, small: bytes) -> None:
    network = _read(tmp_path, small)
    network.graph.constants["fc.weight"].fill_(7.0)
    assert (tmp_path / "net.nopt").read_bytes() == small


def test_a_network_that_was_read_can_be_written_over_its_own_file(tmp_path: Path, small: bytes) -> None:
    network = _read(tmp_path, small)
    write_network(tmp_path / "net.nopt", network)
    assert (tmp_path / "net.nopt").read_bytes() == small


def test_the_same_network_is_the_same_file(tmp_path: Path, small: bytes) -> None:
    write_network(tmp_path / "net.nopt", _small())
    assert (tmp_path / "net.nopt").read_bytes() == small


# --- how it is written


def test_header(small: bytes) -> None:
    magic, version, header_bytes, file_bytes, metadata_bytes, checksum = struct.unpack_from("<8sIIQQI", small, 0)
    assert magic == bytes([0x89, 0x4E, 0x4F, 0x50, 0x54, 0x0D, 0x0A, 0x1A])
    assert (version, header_bytes, file_bytes) == (2, 64, len(small))
    assert checksum == zlib.crc32(small[64:])
    assert small[36:60] == bytes(24)
    assert struct.unpack_from("<I", small, 60) == (zlib.crc32(small[:60]),)
    json.loads(zlib.decompress(small[64 : 64 + metadata_bytes]))
    assert len(small) % 64 == 0


def test_sections(small: bytes) -> None:
    (metadata_bytes,) = struct.unpack_from("<Q", small, 24)
    start = 64 + metadata_bytes + -metadata_bytes % 64
    assert small[64 + metadata_bytes : start] == bytes(start - 64 - metadata_bytes)
    assert small[start : start + 24] == struct.pack("<6f", 0, 1, 2, 3, 4, 5)
    assert small[start + 24 : start + 64] == bytes(40)
    assert small[start + 64 :] == struct.pack("<f", 0.5) + bytes(60)


def test_metadata(small: bytes) -> None:
    metadata, _ = _parts(small)
    tensor = {"kind": "tensor", "keys": [], "parts": []}
    float32, row_major = {"name": "float32"}, {"channels_last": False, "halo": [0, 0, 0, 0], "pitch": 0}
    relu = {"op": "pointwise", "function": "relu", "parameters": []}
    dense = {"op": "dense", "has_bias": False, "has_residual": False, "activation": relu}
    assert metadata == {
        "signature": {
            "positional": {"kind": "tuple", "keys": [], "parts": [tensor]},
            "keyword": {"kind": "dict", "keys": [], "parts": []},
            "output": tensor,
        },
        "inputs": ["x"],
        "outputs": ["y"],
        "values": {
            "x": {"shape": [1, 3], "format": float32, "layout": row_major},
            "fc.weight": {"shape": [2, 3], "format": float32, "layout": row_major},
            "half": {"shape": [], "format": float32, "layout": row_major},
            "d": {"shape": [1, 2], "format": float32, "layout": row_major},
            "flat": {"shape": [2], "format": float32, "layout": row_major},
            "y": {"shape": [2], "format": float32, "layout": row_major},
        },
        "constants": ["fc.weight", "half"],
        "nodes": [
            {"op": dense, "inputs": ["x", "fc.weight"], "output": "d", "layer": "fc"},
            {"op": {"op": "reshape", "shape": [2]}, "inputs": ["d"], "output": "flat", "layer": ""},
            {
                "op": {"op": "arithmetic", "function": "mul"},
                "inputs": ["flat", "half"],
                "output": "y",
                "layer": "scale",
            },
        ],
        "plan": {"offsets": {"x": 0, "d": 64, "flat": 64, "y": 64}, "arena_bytes": 128, "lower_bound": 128},
    }


def test_the_helper_writes_the_same_file(small: bytes) -> None:
    """What the tests below rest on: that their own files would be read but for what they change."""
    metadata, constants = _parts(small)
    assert _file(json.dumps(metadata, separators=(",", ":")).encode(), constants) == small


def test_a_failure_while_writing_leaves_the_old_file(tmp_path: Path, small: bytes) -> None:
    """The disk is full: no file of this process may have more than 1000 bytes."""
    resource = pytest.importorskip("resource", reason="limits of file sizes are POSIX's")
    path = tmp_path / "net.nopt"
    path.write_bytes(small)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_network(path, _captured())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == small
    assert list(tmp_path.iterdir()) == [path]


def test_a_network_that_cannot_be_written_leaves_the_old_file(tmp_path: Path, small: bytes) -> None:
    path = tmp_path / "net.nopt"
    path.write_bytes(small)
    network = _small()
    graph = dataclasses.replace(network.graph, constants={"half": torch.tensor(0.5, device="meta")})
    with pytest.raises(Exception, match="meta"):
        write_network(path, dataclasses.replace(network, graph=graph))
    assert path.read_bytes() == small
    assert list(tmp_path.iterdir()) == [path]


# --- what is not read


@pytest.mark.parametrize("name", ["missing.nopt", "."])
def test_what_cannot_be_opened_is_an_error_of_the_operating_system(name: str, tmp_path: Path) -> None:
    with pytest.raises(OSError):  # noqa: PT011 the message is the operating system's
        read_network(tmp_path / name)


@pytest.mark.parametrize(
    "data",
    [b"PK\x03\x04" + bytes(100), b"\x89PNG\r\n\x1a\n" + bytes(100), b"x", b"NOPT", b"\x00" * 64, b"\n" * 1000],
    ids=["zip", "png", "one byte", "text", "zeros", "lines"],
)
def test_a_foreign_file(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"net.nopt: expected a .nopt file, found one that begins with b"):
        _read(tmp_path, data)


def test_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"net.nopt: expected a .nopt file, found an empty file"):
        _read(tmp_path, b"")


def test_a_file_cut_off_at_any_length(tmp_path: Path, small: bytes) -> None:
    for length in range(1, len(small)):
        with pytest.raises(FileFormatError, match=r"net.nopt is truncated: expected (at least )?\d+ bytes, found \d+$"):
            _read(tmp_path, small[:length])


@pytest.mark.parametrize("more", [b"\x00", bytes(64), b"more"])
def test_a_file_with_more_at_its_end(more: bytes, tmp_path: Path, small: bytes) -> None:
    with pytest.raises(FileFormatError, match=r"net.nopt is damaged: expected \d+ bytes, found \d+$"):
        _read(tmp_path, small + more)


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_any_byte_changed(mask: int, tmp_path: Path, small: bytes) -> None:
    for index in range(len(small)):
        data = bytearray(small)
        data[index] ^= mask
        if index < 8:
            message = r"net.nopt: expected a .nopt file, found one that begins with"
        elif index < 64:
            message = r"net.nopt is damaged: expected the header's checksum, found another$"
        else:
            message = r"net.nopt is damaged: expected the content's checksum, found another$"
        with pytest.raises(FileFormatError, match=message):
            _read(tmp_path, bytes(data))


@pytest.mark.parametrize("version", [0, 1, 3, 2**32 - 1])
def test_another_version(version: int, tmp_path: Path, small: bytes) -> None:
    metadata, constants = _parts(small)
    data = _file(json.dumps(metadata).encode(), constants, version=version)
    message = f"net.nopt: expected format version 2, found {version}; read it with the netopt that wrote it"
    with pytest.raises(FileFormatError, match=message):
        _read(tmp_path, data)


def test_the_version_is_told_even_where_all_else_differs(tmp_path: Path) -> None:
    data = _with_checksum(struct.pack("<8sI", b"\x89NOPT\r\n\x1a", 3) + b"\xa5" * 200)
    with pytest.raises(FileFormatError, match="expected format version 2, found 3"):
        _read(tmp_path, data)


@pytest.mark.parametrize(
    ("offset", "layout", "value"),
    [
        (12, "<I", 0),
        (12, "<I", 128),
        (16, "<Q", 0),
        (16, "<Q", 64),
        (16, "<Q", 2**64 - 1),
        (24, "<Q", 2**64 - 1),
        (24, "<Q", 2**63),
        (24, "<Q", 10**4),
        (32, "<I", 0),
        (36, "<Q", 1),
        (59, "<B", 1),
    ],
)
def test_a_header_that_contradicts_the_file(offset: int, layout: str, value: int, tmp_path: Path, small: bytes) -> None:
    data = bytearray(small)
    struct.pack_into(layout, data, offset, value)
    with pytest.raises(FileFormatError, match=r"net.nopt is (damaged|truncated): expected"):
        _read(tmp_path, _with_checksum(bytes(data)))


@pytest.mark.parametrize("metadata_bytes", [0, 1, 100])
def test_metadata_of_another_length(metadata_bytes: int, tmp_path: Path, small: bytes) -> None:
    metadata, constants = _parts(small)
    data = _file(json.dumps(metadata).encode(), constants, metadata_bytes=metadata_bytes)
    with pytest.raises(FileFormatError, match="expected consistent metadata, found InvalidArgument: metadata"):
        _read(tmp_path, data)


@given(data=st.binary(max_size=200), prefix=st.integers(0, 12))
@PROPERTY
def test_random_bytes(data: bytes, prefix: int, tmp_path: Path) -> None:
    for content in (data, (b"\x89NOPT\r\n\x1a" + struct.pack("<I", 2))[:prefix] + data):
        with pytest.raises(FileFormatError, match=r"net\.nopt"):
            _read(tmp_path, content)


@given(header=st.binary(min_size=52, max_size=52), content=st.binary(max_size=200))
@PROPERTY
def test_random_headers_with_a_right_checksum(header: bytes, content: bytes, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"net\.nopt"):
        _read(tmp_path, _with_checksum(b"\x89NOPT\r\n\x1a" + header + bytes(4) + content))


# --- metadata that are written to mislead: all checksums are right

NO_JSON = {
    "empty": b"",
    "text": b"network",
    "half": b'{"inputs": [',
    "two objects": b"{}{}",
    "not UTF-8": b'{"inputs": ["\xff"]}',
    "zeros": bytes(64),
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "closed deep lists": b"[" * 100_000 + b"]" * 100_000,
    "long number": b"1" * 10_000,
    "list": b"[]",
    "number": b"1",
    "null": b"null",
    "string": b'"values"',
}


@pytest.mark.parametrize("what", NO_JSON)
def test_metadata_that_are_no_object(what: str, tmp_path: Path, small: bytes) -> None:
    with pytest.raises(FileFormatError, match="net.nopt: expected consistent metadata, found"):
        _read(tmp_path, _file(NO_JSON[what], _parts(small)[1]))


def _with_compressed(small: bytes, compressed: bytes) -> bytes:
    """The file with these bytes in the place of its compressed metadata."""
    return _file(compressed, _parts(small)[1], compressed=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data[:2],
        lambda data: b"",
        lambda data: data + b"x",
        lambda data: data + data,
        zlib.decompress,
        lambda data: data[:-4] + bytes(4),  # another checksum
        zlib.compress,
        lambda data: b"PK" + data,
    ],
)
def test_metadata_that_are_no_compressed_text(change: Callable[[bytes], bytes], tmp_path: Path, small: bytes) -> None:
    (length,) = struct.unpack_from("<Q", small, 24)
    data = _with_compressed(small, change(small[64 : 64 + length]))
    with pytest.raises(FileFormatError, match="net.nopt: expected consistent metadata, found"):
        _read(tmp_path, data)


def test_metadata_that_grow_without_end(tmp_path: Path, small: bytes) -> None:
    """A few KB that would be 256 MiB: no more of it is unpacked than a network may have."""
    packer = zlib.compressobj(9)
    blanks = b"".join([*(packer.compress(bytes(2**20)) for _ in range(256)), packer.flush()])
    assert len(blanks) < 2**19
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match=r"expected one compressed text of at most 33,554,432 bytes"):
            _read(tmp_path, _with_compressed(small, blanks))
        # The text, and what zlib keeps while it doubles its buffer.
        assert tracemalloc.get_traced_memory()[1] < 2.5 * 2**25
    finally:
        tracemalloc.stop()


def test_metadata_as_large_as_they_may_be(tmp_path: Path, small: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    (length,) = struct.unpack_from("<Q", small, 24)
    text = zlib.decompress(small[64 : 64 + length])
    monkeypatch.setattr(format_, "_MOST_METADATA", len(text))
    _assert_equal(_read(tmp_path, small), _small())
    with pytest.raises(FileFormatError, match="one compressed text of at most"):
        _read(tmp_path, _with_compressed(small, zlib.compress(text + b" ")))


@pytest.mark.parametrize("bound", ["_MOST_METADATA", "_MOST_PARTS"])
def test_what_could_not_be_read_is_not_written(bound: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_, bound, 60)
    with pytest.raises(
        UnsupportedModel, match="a network of 3 nodes is too large for a .nopt file, whose text may have"
    ):
        write_network(tmp_path / "net.nopt", _small())
    assert list(tmp_path.iterdir()) == []


def _put(value: object, *path: str | int) -> Change:
    """A change that puts `value` at `path`."""

    def change(metadata: Any) -> None:
        for key in path[:-1]:
            metadata = metadata[key]
        metadata[path[-1]] = value

    return change


def _drop(*path: str | int) -> Change:
    """A change that leaves out what is at `path`."""

    def change(metadata: Any) -> None:
        for key in path[:-1]:
            metadata = metadata[key]
        del metadata[path[-1]]

    return change


def _all(*changes: Change) -> Change:
    return lambda metadata: [change(metadata) for change in changes]


TENSOR_JSON = TENSOR.to_json()
DENSE, VIEW, MUL = (("nodes", i, "op") for i in range(3))
HUGE = 10**400  # a JSON number that no float can hold
MISLEADING: dict[str, Change] = {
    # keys
    **{f"no {key}": _drop(key) for key in ("signature", "inputs", "outputs", "values", "constants", "nodes", "plan")},
    "a key too many": _put(1, "comment"),
    "a value's key too many": _put(1, "values", "x", "comment"),
    "a node's key too many": _put(1, "nodes", 0, "comment"),
    "a plan's key too many": _put(1, "plan", "comment"),
    "a signature's key too many": _put(TENSOR_JSON, "signature", "comment"),
    "a format's key too many": _put(1, "values", "x", "format", "bits"),
    "an op's attribute too many": _put(1, *MUL, "alpha"),
    "no shape": _drop("values", "x", "shape"),
    "no format": _drop("values", "x", "format"),
    "no op": _drop("nodes", 0, "op"),
    "no layer": _drop("nodes", 0, "layer"),
    "no arena": _drop("plan", "arena_bytes"),
    "no keyword arguments": _drop("signature", "keyword"),
    "no function": _drop(*MUL, "function"),
    "no name of an op": _drop(*MUL, "op"),
    "no parts of a structure": _drop("signature", "output", "parts"),
    # types
    **{
        f"{key} is {value!r}": _put(value, key)
        for key in ("signature", "inputs", "outputs", "values", "constants", "nodes", "plan")
        for value in (None, True, 1, 1.5, "x", [], {}, [1], ["x", []], {"x": 1})
        if (key, value) not in [("inputs", [1])]
    },
    "a value is a list": _put([], "values", "x"),
    "a node is a list": _put([], "nodes", 0),
    "a node is a number": _put(1, "nodes", 0),
    "offsets are a list": _put([], "plan", "offsets"),
    "offsets are text": _put("x", "plan", "offsets"),
    "the arena is text": _put("128", "plan", "arena_bytes"),
    "the arena is a float": _put(128.0, "plan", "arena_bytes"),
    "the bound is true": _put(True, "plan", "lower_bound"),
    "the bound is null": _put(None, "plan", "lower_bound"),
    "an offset is a float": _put(64.0, "plan", "offsets", "d"),
    "an offset is a list": _put([64], "plan", "offsets", "d"),
    "a node's inputs are text": _all(_put("x", "nodes", 1, "inputs"), _put([1, 3], *VIEW, "shape")),
    "a node's inputs are an object": _put({"d": 1}, "nodes", 1, "inputs"),
    "a node's input is a number": _put(0, "nodes", 1, "inputs", 0),
    "a node's input is a list": _put(["d"], "nodes", 1, "inputs", 0),
    "a node's output is a number": _put(0, "nodes", 1, "output"),
    "a node's output is a list": _put(["flat"], "nodes", 1, "output"),
    "a node's layer is null": _put(None, "nodes", 1, "layer"),
    "an op is text": _put("reshape", *VIEW),
    "an op is a list": _put(["reshape"], *VIEW),
    "an op's name is a number": _put(1, *VIEW, "op"),
    "an op's name is a list": _put(["reshape"], *VIEW, "op"),
    "a flag is a number": _put(0, *DENSE, "has_bias"),
    "a flag is null": _put(None, *DENSE, "has_bias"),
    "a size is true": _put([2, True], *VIEW, "shape"),
    "a size is a float": _put([2.0], *VIEW, "shape"),
    "a size is text": _put(["2"], *VIEW, "shape"),
    "a shape is a number": _put(2, *VIEW, "shape"),
    "a shape is text": _put("2", *VIEW, "shape"),
    "a shape is an object": _put({"2": 2}, *VIEW, "shape"),
    "a function is a list": _put(["mul"], *MUL, "function"),
    "an activation is text": _put("relu", *DENSE, "activation"),
    "an activation is another op": _put({"op": "reshape", "shape": [1, 2]}, *DENSE, "activation"),
    "an activation is a dense layer": _put(
        {"op": "dense", "has_bias": False, "has_residual": False, "activation": None}, *DENSE, "activation"
    ),
    "parameters are null": _put(None, *DENSE, "activation", "parameters"),
    "a value's shape is text": _put("13", "values", "x", "shape"),
    "a value's shape is null": _put(None, "values", "x", "shape"),
    "a value's shape is an object": _put({}, "values", "half", "shape"),
    "a value's format is text": _put("float32", "values", "x", "format"),
    "a value's format is a list": _put([["name", "float32"]], "values", "x", "format"),
    "a structure is a list": _put([], "signature", "output"),
    "a structure is text": _put("tensor", "signature", "output"),
    "a structure's kind is a list": _put(["tensor"], "signature", "output", "kind"),
    # ranges
    "an unknown op": _put("convolution", *VIEW, "op"),
    "an unknown function": _put("pow", *MUL, "function"),
    "an unknown activation": _put("swish", *DENSE, "activation", "function"),
    "a parameter too many": _put([1.0], *DENSE, "activation", "parameters"),
    "a parameter that is not finite": _put(
        {"op": "pointwise", "function": "leaky_relu", "parameters": [float("nan")]}, *DENSE, "activation"
    ),
    "a parameter that is infinite": _put(
        {"op": "pointwise", "function": "leaky_relu", "parameters": [float("inf")]}, *DENSE, "activation"
    ),
    "a parameter larger than any float": _put(
        {"op": "pointwise", "function": "leaky_relu", "parameters": [HUGE]}, *DENSE, "activation"
    ),
    "an epsilon that is not finite": _put({"op": "layer_norm", "axes": 1, "epsilon": float("nan")}, *VIEW),
    "an epsilon larger than any float": _put({"op": "layer_norm", "axes": 1, "epsilon": HUGE}, *VIEW),
    "a negative epsilon": _put({"op": "batch_norm", "epsilon": -1.0}, *VIEW),
    "an axis larger than any": _put({"op": "softmax", "axis": HUGE, "log": False}, *VIEW),
    "an unknown format": _put("float16", "values", "x", "format", "name"),
    "a constant of another format": _put({"name": "int32"}, "values", "half", "format"),
    "a value of another format": _put({"name": "int32"}, "values", "d", "format"),
    "a fixed-point format of no bits": _put(
        {"name": "fixed", "bits": 0, "fraction_bits": 0, "signed": True}, "values", "half", "format"
    ),
    "an affine format of a scale larger than any float": _put(
        {"name": "affine", "bits": 8, "scale": HUGE, "zero_point": 0, "signed": True}, "values", "half", "format"
    ),
    "a value of packed codes": _put(
        {"name": "fixed", "bits": 4, "fraction_bits": 0, "signed": True}, "values", "d", "format"
    ),
    "a negative size": _put([-1, -3], "values", "x", "shape"),
    "a size of 2^48": _put([2**48], "values", "x", "shape"),
    "a size larger than any": _put([HUGE], "values", "x", "shape"),
    "a shape larger than memory": _put([2**47] * 8, "values", "x", "shape"),
    "a constant larger than memory": _put([2**47] * 8, "values", "half", "shape"),
    "a constant larger than the file": _put([1000], "values", "half", "shape"),
    "a constant smaller than the file": _put([], "values", "fc.weight", "shape"),
    "an empty constant of huge sizes": _put([0, 2**47, 2**47], "values", "half", "shape"),
    "a constant of too many axes": _put([1] * 100, "values", "half", "shape"),
    "an offset of 2^48": _put(2**48, "plan", "offsets", "d"),
    "a negative offset": _put(-64, "plan", "offsets", "d"),
    "an arena of 2^47 bytes": _put(2**47, "plan", "arena_bytes"),
    "an arena larger than any": _put(HUGE, "plan", "arena_bytes"),
    "a bound above the arena": _put(192, "plan", "lower_bound"),
    "an unknown kind of structure": _put("set", "signature", "output", "kind"),
    # the graph
    "an input that does not exist": _put("z", "inputs", 0),
    "an input twice": _put(["x", "x"], "inputs"),
    "an input that is a constant": _put("half", "inputs", 0),
    "an output that does not exist": _put("z", "outputs", 0),
    "a node that reads what does not exist": _put("z", "nodes", 1, "inputs", 0),
    "a node that reads itself": _put("flat", "nodes", 1, "inputs", 0),
    "a node that reads a later one": _put("y", "nodes", 0, "inputs", 0),
    "a node without inputs": _put([], "nodes", 1, "inputs"),
    "a node with too many inputs": _put(["d", "d"], "nodes", 1, "inputs"),
    "a node that writes an input": _put("x", "nodes", 0, "output"),
    "two nodes that write one value": _put("d", "nodes", 1, "output"),
    "nodes in another order": lambda metadata: metadata["nodes"].reverse(),
    "no nodes": _put([], "nodes"),
    "a missing value": _drop("values", "d"),
    "a missing constant": _drop("values", "half"),
    "a value too many": _put({"shape": [], "format": {"name": "float32"}}, "values", "z"),
    "a constant that is not listed": _put(["fc.weight"], "constants"),
    "a constant twice": _put(["fc.weight", "half", "half"], "constants"),
    "a constant that does not exist": _put(["fc.weight", "z"], "constants"),
    "a constant that is an input": _put(["fc.weight", "half", "x"], "constants"),
    "another shape than the op gives": _put([2, 1], "values", "y", "shape"),
    "a view of another size": _put([3], *VIEW, "shape"),
    "a view of sizes below zero": _put([-1, -2], *VIEW, "shape"),
    "a matrix that does not fit": _put([3, 2], "values", "fc.weight", "shape"),
    # the plan
    "offsets that overlap": _put(0, "plan", "offsets", "d"),
    "all offsets that overlap": _put({"x": 0, "d": 0, "flat": 0, "y": 0}, "plan", "offsets"),
    "an offset that is misaligned": _put(4, "plan", "offsets", "x"),
    "an offset beyond the arena": _put(128, "plan", "offsets", "y"),
    "a view elsewhere": _put(0, "plan", "offsets", "flat"),
    "an offset too few": _drop("plan", "offsets", "y"),
    "an offset too many": _put(0, "plan", "offsets", "z"),
    "an offset of a constant": _put(0, "plan", "offsets", "half"),
    "an arena too small": _put(64, "plan", "arena_bytes"),
    "an arena too large": _put(256, "plan", "arena_bytes"),
    "no arena at all": _put(0, "plan", "arena_bytes"),
    # the signature
    "positional arguments that are a tensor": _put(TENSOR_JSON, "signature", "positional"),
    "positional arguments that are a list": _put("list", "signature", "positional", "kind"),
    "keyword arguments that are a tuple": _put("tuple", "signature", "keyword", "kind"),
    "an argument too few": _put([], "signature", "positional", "parts"),
    "an argument too many": _put([TENSOR_JSON] * 2, "signature", "positional", "parts"),
    "an output too many": _put({"kind": "tuple", "keys": [], "parts": [TENSOR_JSON] * 2}, "signature", "output"),
    "no output": _put({"kind": "tuple", "keys": [], "parts": []}, "signature", "output"),
    "a tensor with parts": _put([TENSOR_JSON], "signature", "output", "parts"),
    "a tuple with keys": _put(["a"], "signature", "positional", "keys"),
    "a dict with too few keys": _put([TENSOR_JSON], "signature", "keyword", "parts"),
    "a dict with a key twice": _all(
        _put({"kind": "dict", "keys": ["a", "a"], "parts": [TENSOR_JSON] * 2}, "signature", "output"),
        _put(["y", "y"], "outputs"),
    ),
}


@pytest.mark.parametrize("what", MISLEADING)
def test_misleading_metadata(what: str, tmp_path: Path, small: bytes) -> None:
    data = _changed(small, MISLEADING[what])
    with pytest.raises(FileFormatError, match=r"net\.nopt: expected consistent metadata, found \w+: ") as caught:
        _read(tmp_path, data)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        (lambda constants: constants + bytes(64), r"constants: expected to end with the file, at \d+, found \d+"),
        (lambda constants: constants + bytes(8), r"constants: expected to end with the file, at \d+, found \d+"),
        (lambda constants: constants[:-64], r"constants: expected within the file, found one that ends at \d+"),
        (lambda constants: constants[:-4], r"constants: expected to end with the file, at \d+, found \d+"),
        (lambda constants: b"", r"constants: expected within the file, found one that ends at \d+"),
    ],
)
def test_constants_that_are_more_or_less_than_the_metadata_say(
    constants: Callable[[bytes], bytes], message: str, tmp_path: Path, small: bytes
) -> None:
    metadata, right = _parts(small)
    with pytest.raises(FileFormatError, match=message):
        _read(tmp_path, _file(json.dumps(metadata).encode(), constants(right)))


@pytest.mark.parametrize("depth", [2, 50, 400, 2000, 100_000])
def test_nested_structures_end_in_no_other_error(depth: int, tmp_path: Path, small: bytes) -> None:
    metadata, constants = _parts(small)
    inner, left, right = json.dumps(TENSOR_JSON), '{"kind":"tuple","keys":[],"parts":[', "]}"
    metadata["signature"]["output"] = "HERE"
    text = json.dumps(metadata).replace('"HERE"', left * depth + inner + right * depth)
    try:
        network = _read(tmp_path, _file(text.encode(), constants))
    except FileFormatError:
        assert depth > 50, "a nesting that people use"
    else:
        assert network.signature.output.count() == 1


def test_a_file_may_say_the_same_with_other_spaces_and_order(tmp_path: Path, small: bytes) -> None:
    metadata, constants = _parts(small)
    text = json.dumps(dict(reversed(metadata.items())), indent=3)
    _assert_equal(_small(), _read(tmp_path, _file(text.encode(), constants)))


def _paths(node: Any, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The paths to everything in the metadata."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path for key, value in items for path in [(*at, key), *_paths(value, (*at, key))]]


def _part(metadata: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        metadata = metadata[key]
    return metadata


def _mutate(metadata: Any, choose: random.Random) -> None:
    """Replace, drop, repeat or swap something."""
    paths = _paths(metadata)
    path = choose.choice(paths)
    parent, key = _part(metadata, path[:-1]), path[-1]
    kind = choose.randrange(6)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, list):
        parent.insert(choose.randint(0, len(parent)), copy.deepcopy(parent[key]))  # type: ignore[index]
    elif kind == 2 and isinstance(parent, dict):
        parent[choose.choice(["x", "y", "z", "op", "name", "shape", ""])] = copy.deepcopy(parent.pop(key))
    elif kind == 3:
        parent[key] = copy.deepcopy(_part(metadata, choose.choice(paths)))
    elif kind == 4 and type(parent[key]) is int:
        parent[key] += choose.choice([-64, -1, 1, 64, 2**31, 2**63])
    else:
        values = [None, True, 0, 1, -1, 64, 2**31, 2**48, 2**64, HUGE, 0.5, float("inf"), float("nan"), "", "x", "d"]
        parent[key] = choose.choice(
            [*values, "relu", "fc.weight", [], [0], [1, 2], ["x"], {}, {"x": 0}, [[]], "\ud800"]
        )


@given(seed=st.integers(0, 2**32))
@settings(PROPERTY, max_examples=1500)
def test_metadata_changed_at_random(seed: int, tmp_path: Path, small: bytes) -> None:
    """Refused with the one error, or read as a network that is written and read again as the same."""
    choose = random.Random(seed)
    metadata, constants = _parts(small)
    for _ in range(choose.choice([1, 1, 1, 2, 3])):
        _mutate(metadata, choose)
    try:
        network = _read(tmp_path, _file(json.dumps(metadata).encode(), constants))
    except FileFormatError:
        return
    write_network(tmp_path / "again.nopt", network)
    _assert_equal(network, read_network(tmp_path / "again.nopt"))


def test_random_changes_are_mostly_refused_but_not_all(tmp_path: Path, small: bytes) -> None:
    """That the property above asks something: names of layers may change, little else."""
    accepted = 0
    for seed in range(300):
        metadata, constants = _parts(small)
        _mutate(metadata, random.Random(seed))
        try:
            _read(tmp_path, _file(json.dumps(metadata).encode(), constants))
            accepted += 1
        except FileFormatError:
            continue
    assert 1 <= accepted <= 60


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are listed on Linux")
def test_reading_leaves_no_file_open(tmp_path: Path, small: bytes) -> None:
    open_files = Path("/proc/self/fd")
    before = len(list(open_files.iterdir()))
    for _ in range(20):
        _read(tmp_path, small)
        with pytest.raises(FileFormatError):
            _read(tmp_path, small[:100])
    assert len(list(open_files.iterdir())) < before + 20
