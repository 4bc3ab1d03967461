"""Codes of every kind: which there are, their bytes in files, and where a graph may have them."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.errors import FileFormatError, InvalidArgument
from netopt.graph import Graph, Nesting, Signature, interpret, verify
from netopt.graph.graph import GraphBuilder
from netopt.memory import plan_memory
from netopt.numerics import FLOAT32, INT32, UINT8, Affine, CodeFormat, FixedPoint
from netopt.ops import Convert, Dense, TensorType
from netopt.ops.op import is_code_of_values
from netopt.program.file import Network, read_network, write_network
from netopt.program.options import Lowering
from netopt.program.program import Program
from tests.program.test_file import _changed

SIGNED = [2, 3, 4, 5, 6, 7, 8, 16, 24, 32]
PACKED = [2, 3, 4, 5, 6, 7]
TENSOR = Nesting("tensor")


def code_of(number: Fraction, format_: CodeFormat, step: Fraction) -> int:
    """The definition, in exact arithmetic."""
    code = math.floor(number / step + Fraction(1, 2)) + format_.zero
    return max(format_.codes.start, min(format_.codes.stop - 1, code))


# --- which codes there are


@pytest.mark.parametrize("bits", SIGNED)
def test_signed_codes_are_those_of_twos_complement(bits: int) -> None:
    format_ = FixedPoint(bits, 1)
    assert format_.codes == range(-(2 ** (bits - 1)), 2 ** (bits - 1))
    assert format_.bounds == (-(2.0 ** (bits - 2)), (2 ** (bits - 1) - 1) / 2)
    assert (format_.zero, format_.is_signed, format_.steps) == (0, True, (0.5,))


@pytest.mark.parametrize("bits", [2, 5, 7, 8])
def test_unsigned_codes_begin_at_0(bits: int) -> None:
    format_ = FixedPoint(bits, -1, signed=False)
    assert format_.codes == range(2**bits)
    assert format_.bounds == (0.0, 2.0 * (2**bits - 1))
    assert (format_.tensor_dtype, format_.dtype) == (torch.uint8, np.dtype(np.uint8))


def test_bounds_are_the_numbers_of_the_last_codes() -> None:
    for format_ in (FixedPoint(8, 4), FixedPoint(7, 4, signed=False), Affine(8, 0.75, 100), Affine(8, 3.0, 9, False)):
        ends = torch.tensor([format_.codes.start, format_.codes.stop - 1]).to(format_.tensor_dtype)
        assert tuple(format_.decode(ends).tolist()) == format_.bounds
        assert torch.equal(format_.encode(torch.tensor([-1e30, 1e30])), ends)


def test_zero_is_the_code_of_0_and_of_nan() -> None:
    for format_ in (
        FixedPoint(8, 4),
        FixedPoint(8, 4, signed=False),
        Affine(8, 0.75, -100),
        Affine(8, 3.0, 255, False),
    ):
        assert format_.encode(torch.tensor([0.0, -0.0, torch.nan])).tolist() == [format_.zero] * 3
        assert format_.decode(torch.tensor([format_.zero]).to(format_.tensor_dtype)).tolist() == [0.0]
    assert Affine(8, 0.75, -100).zero == -100


@pytest.mark.parametrize(("bits", "most"), [(7, 127), (8, 255)])
def test_unsigned_codes_round_and_saturate(bits: int, most: int) -> None:
    format_ = FixedPoint(bits, 2, signed=False)
    numbers = [-1e9, -0.126, -0.125, -0.0, 0.124, 0.125, 31.75, 31.875, 63.74, 63.9, 1e9, torch.inf, -torch.inf]
    expected = [0, 0, 0, 0, 0, 1, 127, min(128, most), min(255, most), min(256, most), most, most, 0]
    for dtype in (torch.float32, torch.float64):
        assert format_.encode(torch.tensor(numbers, dtype=dtype)).tolist() == expected
    every = torch.arange(most + 1).to(torch.uint8)
    assert torch.equal(format_.encode(format_.decode(every)), every)
    assert format_.decode(every).tolist() == [code / 4 for code in range(most + 1)]


@pytest.mark.parametrize("bits", [24, 32])
def test_codes_of_sums(bits: int) -> None:
    """In float64, in which all of them are exact."""
    format_, most = FixedPoint(bits, 10), 2 ** (bits - 1)
    codes = torch.tensor([-most, -most + 1, -1, 0, 1, most - 2, most - 1], dtype=torch.int32)
    numbers = format_.decode(codes, torch.float64)
    assert numbers.tolist() == [math.ldexp(code, -10) for code in codes.tolist()]
    assert torch.equal(format_.encode(numbers), codes)
    halves = numbers + math.ldexp(0.5, -10)
    assert format_.encode(halves).tolist() == [min(code + 1, most - 1) for code in codes.tolist()]
    assert format_.encode(torch.tensor([3e38, -3e38])).tolist() == [most - 1, -most]
    assert format_.to_bytes(codes[2:5]).tolist() == [255] * 4 + [0] * 4 + [1, 0, 0, 0]


def test_codes_lie_as_others_do_that_take_the_same_bytes() -> None:
    eight = FixedPoint(8, 3)
    assert all(eight.lies_as(other) for other in (eight, FixedPoint(8, -5), Affine(8, 0.75), FixedPoint(7, 0, False)))
    assert not any(eight.lies_as(other) for other in (FixedPoint(16, 3), FixedPoint(4, 3), UINT8, FLOAT32))
    assert FixedPoint(4, 3).lies_as(FixedPoint(4, 3))
    assert not FixedPoint(4, 3).lies_as(FixedPoint(4, 2))


# --- bytes


@pytest.mark.parametrize(
    ("bits", "codes", "data"),
    [
        (4, [1, -1, 7, -8, 3], [0xF1, 0x87, 0x03]),
        (2, [1, -1, -2, 0, 1], [0b00101101, 0b01]),
        (3, [3, -4, -1], [0b11100011, 0b1]),
        (7, [1, -1], [0b10000001, 0b00111111]),
    ],
)
def test_packed_codes_lie_side_by_side_the_lowest_bits_first(bits: int, codes: list[int], data: list[int]) -> None:
    format_, tensor = FixedPoint(bits, 0), torch.tensor(codes, dtype=torch.int8)
    assert format_.to_bytes(tensor).tolist() == data
    assert torch.equal(format_.from_bytes(np.array(data, np.uint8), tuple(tensor.shape)), tensor)


@pytest.mark.parametrize("bits", PACKED)
@given(shape=st.lists(st.integers(0, 7), max_size=4).map(tuple), data=st.data())
@settings(derandomize=True, deadline=None, max_examples=40)
def test_packed_codes_come_back(bits: int, shape: tuple[int, ...], data: st.DataObject) -> None:
    format_, count = FixedPoint(bits, 3), math.prod(shape)
    drawn = data.draw(st.lists(st.sampled_from(format_.codes), min_size=count, max_size=count))
    codes = torch.tensor(drawn, dtype=torch.int8).reshape(shape)
    packed = format_.to_bytes(codes)
    assert packed.size == format_.storage_bytes(shape) == math.ceil(count * bits / 8)
    # Each code by the bits of one long number, which shares nothing with the way they are packed.
    long = int.from_bytes(packed.tobytes(), "little")
    assert [long >> bits * index & (2**bits - 1) for index in range(count)] == [code % 2**bits for code in drawn]
    assert long >> bits * count == 0
    assert torch.equal(format_.from_bytes(packed, shape), codes)


@pytest.mark.parametrize("bits", PACKED)
def test_kernels_and_tensors_have_a_byte_for_each_packed_code(bits: int) -> None:
    format_ = FixedPoint(bits, 0)
    codes = format_.encode(torch.arange(-9.0, 9.0).reshape(3, 6))
    assert format_.is_packed
    assert codes.dtype == torch.int8
    assert format_.to_array(codes).dtype == np.int8
    assert format_.to_array(codes).nbytes == 18


def test_which_codes_are_packed() -> None:
    assert not any(FixedPoint(bits, 0).is_packed for bits in (8, 16, 24, 32))
    assert not any(FixedPoint(bits, 0, signed=False).is_packed for bits in (2, 7, 8))


@pytest.mark.parametrize(
    ("format_", "good", "bad"),
    [
        (FixedPoint(7, 0, signed=False), [0, 127], 128),
        (FixedPoint(4, 0), [-8, 7], -9),
        (FixedPoint(24, 0), [-(2**23), 2**23 - 1], 2**23),
    ],
    ids=str,
)
def test_what_is_none_of_the_codes_is_found(format_: CodeFormat, good: list[int], bad: int) -> None:
    format_.check(torch.tensor(good).to(format_.tensor_dtype))
    format_.check(torch.zeros(0, dtype=format_.tensor_dtype))
    message = f"weight: expected codes from {format_.codes.start} to {format_.codes.stop - 1}, found {bad}"
    with pytest.raises(InvalidArgument, match=message):
        format_.check(torch.tensor([*good, bad]).to(format_.tensor_dtype), "weight")


# --- in a network


@pytest.mark.parametrize("bits", PACKED)
def test_packed_codes_are_of_constants_alone(bits: int) -> None:
    format_ = FixedPoint(bits, 3)
    assert format_.is_of_constants
    assert not format_.is_of_values
    assert not is_code_of_values(format_)
    for name in ("x", "y"):
        graph = _converted(FixedPoint(8, 3))
        types = {**graph.types, name: TensorType((2, 3), format_)}
        with pytest.raises(
            InvalidArgument, match=f"graph: format of '{name}': expected one of values, found FixedPoint"
        ):
            verify(Graph(graph.inputs, graph.outputs, graph.nodes, types, {}))


@pytest.mark.parametrize(
    "format_", [FixedPoint(7, 3, False), FixedPoint(8, 3, False), FixedPoint(16, 3), Affine(8, 0.75, 9)], ids=str
)
def test_codes_of_one_step_are_of_values(format_: CodeFormat) -> None:
    assert is_code_of_values(format_)
    verify(_converted(format_))


def test_what_kernels_do_not_compute_with() -> None:
    for format_ in (
        FixedPoint(8, (1, 2)),
        Affine(8, (0.5, 0.75)),
        FixedPoint(24, 0),
        FixedPoint(32, 0),
        FLOAT32,
        INT32,
    ):
        assert not is_code_of_values(format_)


def _converted(format_: CodeFormat) -> Graph:
    """x (2, 3), in a format of values."""
    builder = GraphBuilder()
    builder.inputs, builder.types = ("x",), {"x": TensorType((2, 3))}
    y = builder.add_node(Convert(), ("x",), "y", "")
    builder.types[y] = TensorType((2, 3), format_)
    builder.outputs = (y,)
    return builder.finish()


def _network() -> Network:
    """y = w x: weights of 4 bits, a step for each of three outputs, and a bias of 32 bits in the step of sums."""
    builder = GraphBuilder()
    builder.inputs, builder.types = ("x",), {"x": TensorType((2, 5))}
    codes = builder.add_node(Convert(), ("x",), "codes", "")
    builder.types[codes] = TensorType((2, 5), FixedPoint(7, 4, signed=False))
    of_weight, of_bias = FixedPoint(4, (2, 3, -1)), FixedPoint(32, (6, 7, 3))
    weight = builder.add_constant("w", of_weight.encode(torch.arange(-7.0, 8.0).reshape(3, 5) / 4), of_weight)
    bias = builder.add_constant("b", of_bias.encode(torch.tensor([1e4, -1.0, 0.125])), of_bias)
    builder.outputs = (builder.add_node(Dense(has_bias=True), (codes, weight, bias), "y", "fc"),)
    graph = builder.finish()
    verify(graph)
    signature = Signature(Nesting("tuple", (), (TENSOR,)), Nesting("dict"), TENSOR)
    return Network(graph, plan_memory(graph), signature)


def test_codes_of_all_kinds_go_into_a_file_and_come_back(tmp_path: Path) -> None:
    network, path = _network(), tmp_path / "net.nopt"
    write_network(path, network)
    read = read_network(path)
    assert read.graph.types == network.graph.types
    for name in ("w", "b"):
        assert torch.equal(read.graph.constants[name], network.graph.constants[name])
    assert network.graph.types["w"].bytes == 8, "15 codes of 4 bits"
    x = torch.rand(2, 5, generator=torch.Generator().manual_seed(0)) * 8
    assert torch.equal(interpret(read.graph, [x])[0], interpret(network.graph, [x])[0])
    write_network(tmp_path / "again.nopt", read)
    assert (tmp_path / "again.nopt").read_bytes() == path.read_bytes()


def test_files_with_values_of_packed_codes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.nopt"
    write_network(path, _network())
    packed = FixedPoint(4, 4).to_json()
    path.write_bytes(_changed(path.read_bytes(), lambda data: data["values"]["codes"].update(format=packed)))
    with pytest.raises(FileFormatError, match="format of 'codes': expected one of values, found FixedPoint"):
        read_network(path)


def test_files_with_constants_that_are_no_codes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.nopt"
    write_network(path, _network())
    narrow = FixedPoint(24, (6, 7, 3)).to_json()
    path.write_bytes(_changed(path.read_bytes(), lambda data: data["values"]["b"].update(format=narrow)))
    read_network(path)
    builder = GraphBuilder()
    builder.inputs, builder.types = ("x",), {"x": TensorType((1,))}
    builder.outputs = (builder.add_constant("c", torch.tensor([200], dtype=torch.uint8), UINT8),)
    graph, signature = builder.finish(), Signature(Nesting("tuple", (), (TENSOR,)), Nesting("dict"), TENSOR)
    write_network(path, Network(graph, plan_memory(graph), signature))
    seven = FixedPoint(7, 0, signed=False).to_json()
    path.write_bytes(_changed(path.read_bytes(), lambda data: data["values"]["c"].update(format=seven)))
    with pytest.raises(FileFormatError, match="constant: expected codes from 0 to 127, found 200"):
        read_network(path)


def test_a_program_takes_codes_and_refuses_what_is_none() -> None:
    """Of 7 bits, which are what kernels are proven for."""
    format_ = FixedPoint(7, 4, signed=False)
    builder = GraphBuilder()
    builder.inputs, builder.types = ("x",), {"x": TensorType((2, 3), format_)}
    builder.outputs = (builder.add_node(Convert(), ("x",), "y", ""),)
    graph = builder.finish()
    verify(graph)
    signature = Signature(Nesting("tuple", (), (TENSOR,)), Nesting("dict"), TENSOR)
    program = Program(Network(graph, plan_memory(graph), signature), Lowering())
    codes = torch.tensor([[0, 1, 127], [5, 6, 7]], dtype=torch.uint8)
    assert torch.equal(program(codes), format_.decode(codes))
    assert torch.equal(program(format_.decode(codes)), format_.decode(codes))
    codes[0, 0] = 128
    with pytest.raises(InvalidArgument, match=r"input\[0\]: expected codes from 0 to 127, found 128"):
        program(codes)
