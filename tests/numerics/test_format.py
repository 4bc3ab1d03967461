"""What holds of every format; and a format of several parts, from the graph to the file and back."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.errors import InvalidArgument, UnsupportedModel
from netopt.graph import Nesting, Signature, interpret, verify
from netopt.graph.graph import GraphBuilder
from netopt.memory import plan_memory
from netopt.numerics import (
    BFLOAT16,
    FLOAT32,
    SIGN_BITS,
    SIGNS,
    Affine,
    BFloat16,
    Boolean,
    FixedPoint,
    Float32,
    Int32,
    Int64,
    NumberFormat,
    Part,
    SignFormat,
    UInt8,
    align_up,
    number_format_from_json,
)
from netopt.numerics.registry import FORMATS as REGISTERED
from netopt.ops import Dense, TensorType
from netopt.program.checks import check_kernels
from netopt.program.file import Network, read_network, write_network
from tests.numerics.parted import Codebook

FORMATS: tuple[NumberFormat, ...] = (
    Float32(),
    BFloat16(),
    Int32(),
    Int64(),
    UInt8(),
    Boolean(),
    FixedPoint(8, 7),
    FixedPoint(16, -3),
    FixedPoint(8, 40),
    FixedPoint(7, 3, signed=False),
    FixedPoint(8, 3, signed=False),
    FixedPoint(2, 0),
    FixedPoint(3, -2),
    FixedPoint(4, 1),
    FixedPoint(24, 8),
    FixedPoint(32, 8),
    Affine(8, 0.5625, -7),
    Affine(8, 0.5625, 200, signed=False),
    Affine(5, 3.0),
    Affine(16, 2.0**-9 * 171),
    Affine(32, 2.0**-20 * 43691),
    SignFormat(),
    SignFormat(1),
)
SHAPES = st.lists(st.integers(0, 70), max_size=4).map(tuple)
TENSOR = Nesting("tensor")


@pytest.mark.parametrize(
    ("number_format", "bits"),
    [
        (Float32(), 32),
        (BFloat16(), 16),
        (Int32(), 32),
        (Int64(), 64),
        (UInt8(), 8),
        (Boolean(), 8),
        (FixedPoint(8, 3), 8),
        (FixedPoint(16, 3), 16),
        (FixedPoint(7, 3, signed=False), 8),
        (FixedPoint(24, 3), 32),
        (FixedPoint(32, 3), 32),
        (Affine(8, 0.75, signed=False), 8),
    ],
)
@given(shape=SHAPES)
@settings(derandomize=True, deadline=None, max_examples=30)
def test_bytes_of_a_dense_tensor(number_format: NumberFormat, bits: int, shape: tuple[int, ...]) -> None:
    assert 8 * number_format.storage_bytes(shape) == bits * math.prod(shape)


def test_formats_are_compared_by_what_they_store() -> None:
    assert len(set(FORMATS)) == len(FORMATS)
    assert FixedPoint(8, 7) == FixedPoint(8, 7)
    assert FixedPoint(8, 7) != FixedPoint(16, 7)
    assert Float32() == FLOAT32


@pytest.mark.parametrize("format_", FORMATS, ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (5, 33), (2, 3, 4, 5)])
def test_a_tensor_is_what_its_bytes_say(format_: NumberFormat, shape: tuple[int, ...]) -> None:
    tensor = format_.encode(torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 100)
    assert (tensor.dtype, tuple(tensor.shape)) == (format_.tensor_dtype, shape)
    data = format_.to_bytes(tensor)
    assert (data.dtype, data.shape) == (np.dtype(np.uint8), (format_.storage_bytes(shape),))
    again = format_.from_bytes(data, shape)
    assert torch.equal(again, tensor)
    assert again.is_contiguous()


@pytest.mark.parametrize("format_", FORMATS, ids=str)
def test_what_is_decoded_is_encoded_as_it_was(format_: NumberFormat) -> None:
    tensor = format_.encode(torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 100)
    for dtype in (torch.float32, torch.float64):
        numbers = format_.decode(tensor, dtype)
        assert numbers.dtype == dtype
        assert torch.equal(format_.encode(numbers), tensor)


@pytest.mark.parametrize("format_", [*FORMATS, Codebook(3, FLOAT32)], ids=str)
def test_samples_fill_memory(format_: NumberFormat) -> None:
    sample = format_.sample((3, 5))
    assert (sample.dtype, sample.shape) == (format_.dtype, (3, 5))


@pytest.mark.parametrize("format_", [FLOAT32, BFLOAT16], ids=str)
def test_samples_of_numbers_are_no_denormals(format_: NumberFormat) -> None:
    sample = format_.to_tensor(format_.sample((7,)), (7,))
    assert torch.equal(format_.decode(sample), torch.full((7,), 0.5))


# --- several parts


WEIGHT = torch.tensor([[0.5, -1.0, 0.5], [2.0, 2.0, -1.0]])


@pytest.fixture
def codebook(monkeypatch: pytest.MonkeyPatch) -> Codebook:
    """The format, as one that files know."""
    monkeypatch.setitem(REGISTERED, Codebook.name, Codebook)
    return Codebook(4, BFLOAT16)


def _network(codebook: Codebook) -> Network:
    """x (2, 3) times a weight of codes."""
    builder = GraphBuilder()
    builder.inputs, builder.types = ("x",), {"x": TensorType((2, 3))}
    weight = builder.add_constant("w", codebook.encode(WEIGHT), codebook)
    builder.outputs = (builder.add_node(Dense(), ("x", weight), "y", "fc"),)
    graph = builder.finish()
    verify(graph)
    signature = Signature(Nesting("tuple", (), (TENSOR,)), Nesting("dict"), TENSOR)
    return Network(graph, plan_memory(graph), signature)


def test_parts_lie_one_after_the_other(codebook: Codebook) -> None:
    assert codebook.parts((2, 3)) == (Part("codes", (2, 3), Int32()), Part("table", (4,), BFLOAT16))
    assert codebook.storage_bytes((2, 3)) == 64 + 4 * 2
    assert codebook.storage_bytes((4, 16)) == 4 * 64 + 4 * 2
    data = codebook.to_bytes(codebook.encode(WEIGHT))
    assert data[:24].view(np.int32).tolist() == [1, 0, 1, 2, 2, 0]
    assert not data[24:64].any()
    assert data[64:].view(np.uint16).tolist() == [0xBF80, 0x3F00, 0x4000, 0]


def test_parts_go_into_a_file_and_come_back(codebook: Codebook, tmp_path: Path) -> None:
    network, path = _network(codebook), tmp_path / "net.nopt"
    write_network(path, network)
    read = read_network(path)
    assert read.graph.types == network.graph.types
    assert torch.equal(read.graph.constants["w"], WEIGHT)
    x = torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 4.0]])
    assert torch.equal(interpret(read.graph, [x])[0], x @ WEIGHT.T)
    write_network(tmp_path / "again.nopt", read)
    assert (tmp_path / "again.nopt").read_bytes() == path.read_bytes()


def test_kernels_take_parts_as_bytes(codebook: Codebook) -> None:
    packed = codebook.to_array(WEIGHT)
    assert packed.dtype == codebook.dtype == np.uint8
    assert torch.equal(codebook.to_tensor(packed, (2, 3)), WEIGHT)
    with pytest.raises(UnsupportedModel, match="layer 'fc': value 'w': expected float32, found codebook"):
        check_kernels(_network(codebook).graph)


def test_formats_of_parts_are_within_the_format(codebook: Codebook) -> None:
    data = {"name": "codebook", "entries": 4, "table": {"name": "bfloat16"}}
    assert codebook.to_json() == data
    assert number_format_from_json(data) == codebook
    for table in ("bfloat16", None, {"name": "float33"}, {}):
        with pytest.raises(InvalidArgument, match="number format: expected one of float32, .*codebook with its fields"):
            number_format_from_json({**data, "table": table})


def test_what_does_not_fit_its_parts_is_refused(codebook: Codebook) -> None:
    with pytest.raises(InvalidArgument, match="codebook: expected at most 4 numbers, found 6"):
        codebook.encode(torch.arange(6.0))
    graph = _network(codebook).graph
    with pytest.raises(InvalidArgument, match="graph: format of 'w': codebook: expected one axis or more"):
        verify(type(graph)((), (), (), {"w": TensorType((), codebook)}, {"w": torch.tensor(1.0)}))


def test_signs_of_values_are_no_constants() -> None:
    assert not SIGNS.is_of_constants
    assert SIGN_BITS.is_of_constants


@pytest.mark.parametrize(("size", "expected"), [(0, 0), (1, 64), (64, 64), (65, 128)])
def test_sizes_are_rounded_up_to_the_alignment(size: int, expected: int) -> None:
    assert align_up(size) == expected
