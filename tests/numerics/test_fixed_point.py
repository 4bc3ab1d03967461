"""Fixed point against exact fractions: every code, all ties and what lies beside them; from the graph to the file."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.errors import InvalidArgument, InvalidType, UnsupportedModel
from netopt.graph import Graph, Nesting, Signature, interpret, verify
from netopt.graph.graph import GraphBuilder
from netopt.kernels.machine.buffers import aligned_array
from netopt.memory import check_plan, plan_memory
from netopt.numerics import FixedPoint, number_format_from_json
from netopt.ops import Conv2d, Dense, Layout, Pointwise, TensorType
from netopt.program.checks import check_kernels
from netopt.program.file import Network, read_network, write_network
from netopt.program.options import Lowering
from netopt.program.program import Program

FRACTIONS = [-112, -3, 0, 7, 15, 40, 125]


def code_of(number: Fraction, bits: int, fraction_bits: int) -> int:
    """The definition, in exact arithmetic."""
    code = math.floor(number * Fraction(2) ** fraction_bits + Fraction(1, 2))
    return max(-(2 ** (bits - 1)), min(2 ** (bits - 1) - 1, code))


# --- numbers


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("fraction_bits", FRACTIONS)
def test_every_code_is_a_number_and_every_number_its_code(bits: int, fraction_bits: int) -> None:
    format_ = FixedPoint(bits, fraction_bits)
    codes = torch.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)).to(format_.tensor_dtype)
    for dtype in (torch.float32, torch.float64):
        numbers = format_.decode(codes, dtype)
        assert numbers.tolist() == [math.ldexp(code, -fraction_bits) for code in codes.tolist()]
        assert torch.equal(format_.encode(numbers), codes)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("fraction_bits", FRACTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_ties_and_the_numbers_beside_them(bits: int, fraction_bits: int, dtype: type[np.floating[Any]]) -> None:
    """Between any two codes, and beyond the last ones: the tie itself, and the nearest numbers on both sides of it."""
    most = 2 ** (bits - 1)
    step = 1 if bits == 8 else 37
    middles = [*range(-most - 3, most + 3, step), -2, -1, 0, 1, most - 2, most - 1, most, -most - 1]
    ties = np.array([math.ldexp(middle + 0.5, -fraction_bits) for middle in middles], dtype)
    zero, infinity = dtype(0), dtype(np.inf)
    numbers = np.concatenate([ties, np.nextafter(ties, -infinity), np.nextafter(ties, infinity)])
    numbers = np.append(numbers, [zero, -zero, np.nextafter(zero, infinity), np.nextafter(zero, -infinity)])
    expected = [code_of(Fraction(float(number)), bits, fraction_bits) for number in numbers]
    assert FixedPoint(bits, fraction_bits).encode(torch.from_numpy(numbers)).tolist() == expected


@pytest.mark.parametrize("bits", [8, 16])
def test_what_is_beyond_saturates_and_nan_is_0(bits: int) -> None:
    most = 2 ** (bits - 1)
    for dtype in (torch.float32, torch.float64):
        largest = torch.finfo(dtype).max
        numbers = torch.tensor([torch.inf, -torch.inf, largest, -largest, torch.nan, -torch.nan, -0.0], dtype=dtype)
        for fraction_bits in FRACTIONS:
            codes = FixedPoint(bits, fraction_bits).encode(numbers)
            assert codes.tolist() == [most - 1, -most, most - 1, -most, 0, 0, 0]


@given(
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple),
    bits=st.sampled_from([8, 16]),
    data=st.data(),
)
@settings(derandomize=True, deadline=None, max_examples=100)
def test_a_fraction_for_each_channel(shape: tuple[int, ...], bits: int, data: st.DataObject) -> None:
    fractions = tuple(data.draw(st.lists(st.integers(-20, 40), min_size=shape[0], max_size=shape[0])))
    count = math.prod(shape)
    drawn = data.draw(
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=count, max_size=count)
    )
    near = st.integers(-(2 ** (bits + 1)), 2 ** (bits + 1))
    numbers = np.array(drawn, np.float32).reshape(shape)
    for channel, fraction in enumerate(fractions):
        numbers[channel].flat[::2] = math.ldexp(data.draw(near) / 4, -fraction)
    format_ = FixedPoint(bits, fractions)
    codes = format_.encode(torch.from_numpy(numbers))
    for index in np.ndindex(shape):
        fraction = fractions[index[0]]
        code = code_of(Fraction(float(numbers[index])), bits, fraction)
        assert int(codes[index]) == code
        assert Fraction(float(format_.decode(codes)[index])) == Fraction(code) / Fraction(2) ** fraction
    assert torch.equal(format_.from_bytes(format_.to_bytes(codes), shape), codes)


@pytest.mark.parametrize("shape", [(), (2,), (4, 3), (1, 3)])
def test_as_many_fractions_as_channels(shape: tuple[int, ...]) -> None:
    format_, message = FixedPoint(8, (1, 2, 3)), "shape of fixed-point numbers: expected 3 along the first axis, found"
    with pytest.raises(InvalidArgument, match=message):
        format_.encode(torch.zeros(shape))
    with pytest.raises(InvalidArgument, match=rf"graph: format of 'x': {message}"):
        verify(Graph((), (), (), {"x": TensorType(shape, format_)}, {}))


# --- what a predecessor's runtime got wrong, or could not do


def test_what_is_beyond_q3_4_is_its_largest_code() -> None:
    assert FixedPoint(8, 4).encode(torch.tensor([100.0, -100.0])).tolist() == [127, -128]


def test_positions_above_15_and_below_0() -> None:
    small, large = FixedPoint(16, 20), FixedPoint(8, -3)
    assert small.encode(torch.tensor([3 * 2.0**-20, 1.0, -1.0])).tolist() == [3, 32767, -32768]
    assert small.decode(torch.tensor([3, -1], dtype=torch.int16)).tolist() == [3 * 2.0**-20, -(2.0**-20)]
    assert large.encode(torch.tensor([8.0, 12.0, 11.9, -12.0, -12.1, 1e4])).tolist() == [1, 2, 1, -1, -2, 127]
    assert large.decode(torch.tensor([127, -128], dtype=torch.int8)).tolist() == [1016.0, -1024.0]


def test_halves_of_negative_numbers_go_up() -> None:
    numbers = torch.tensor([-0.5, -1.5, -2.5, -0.500001, -1.499999, -2.4, -2.6])
    assert FixedPoint(8, 0).encode(numbers).tolist() == [0, -1, -2, -1, -1, -2, -3]


# --- what it is


@pytest.mark.parametrize("bits", [0, 1, 9, 17, 64, -8, True, 8.0])
def test_bits_of_signed_codes(bits: Any) -> None:
    message = f"bits of signed fixed-point codes: expected one of 2, 3, 4, 5, 6, 7, 8, 16, 24, 32, found {bits}"
    with pytest.raises(InvalidArgument, match=message):
        FixedPoint(bits, 0)


@pytest.mark.parametrize("bits", [0, 1, 9, 16, 32])
def test_bits_of_unsigned_codes(bits: int) -> None:
    message = f"bits of unsigned fixed-point codes: expected one of 2, 3, 4, 5, 6, 7, 8, found {bits}"
    with pytest.raises(InvalidArgument, match=message):
        FixedPoint(bits, 0, signed=False)


@pytest.mark.parametrize("signed", [1, 0, None, "yes"])
def test_signed_is_true_or_false(signed: Any) -> None:
    with pytest.raises(InvalidType, match="signed of a fixed-point format: expected True or False, found"):
        FixedPoint(8, 0, signed)


@pytest.mark.parametrize("fraction_bits", [-113, 126, 10**400, (1, 126), (True,), (1.0,), ((1,),)])
def test_fractions_within_float32(fraction_bits: Any) -> None:
    with pytest.raises(
        InvalidArgument, match="fraction bits of a fixed-point format: expected integers from -112 to 125"
    ):
        FixedPoint(8, fraction_bits)


def test_bytes_are_those_of_the_codes() -> None:
    codes = torch.tensor([[-2, 300]], dtype=torch.int16)
    assert FixedPoint(16, 3).to_bytes(codes).tolist() == [0xFE, 0xFF, 0x2C, 0x01]
    assert FixedPoint(8, (3,)).to_bytes(codes.to(torch.int8)).tolist() == [0xFE, 0x2C]


def test_json_of_fixed_point() -> None:
    assert FixedPoint(16, -3).to_json() == {"name": "fixed", "bits": 16, "fraction_bits": -3, "signed": True}
    data = json.loads(json.dumps(FixedPoint(8, (1, -2), False).to_json()))
    assert data == {"name": "fixed", "bits": 8, "fraction_bits": [1, -2], "signed": False}
    assert number_format_from_json(data) == FixedPoint(8, (1, -2), False)


@pytest.mark.parametrize("fraction_bits", [[True], [1.0], ["1"], [[1]], {}, None])
def test_json_of_no_fractions_is_refused(fraction_bits: object) -> None:
    with pytest.raises(
        InvalidArgument, match="number format: expected one of float32, bfloat16, int64, int32, .*, fixed, affine, sign"
    ):
        number_format_from_json({"name": "fixed", "bits": 8, "fraction_bits": fraction_bits, "signed": True})


def test_samples_are_small_codes() -> None:
    assert FixedPoint(8, 7).sample((2,)).tolist() == [32, 32]
    assert FixedPoint(16, (1, 2)).sample((2,)).tolist() == [8192, 8192]
    assert FixedPoint(8, 7, signed=False).sample((2,)).tolist() == [64, 64]
    assert FixedPoint(4, 7).sample((2,)).tolist() == [2, 2]


# --- in a network

VALUES, WEIGHTS = FixedPoint(8, 4), FixedPoint(16, (12, -1))
TENSOR = Nesting("tensor")


def _network() -> Network:
    """relu(x) (2, 3) in 8 bits, times a weight (2, 3) in 16 bits with a fraction for each output."""
    builder = GraphBuilder()
    builder.inputs, builder.types = ("x",), {"x": TensorType((2, 3))}
    weight = torch.tensor([[0.3, -1.2, 2.0], [7.0, -9.0, 1e9]])
    name = builder.add_constant("w", WEIGHTS.encode(weight), WEIGHTS)
    relu = builder.add_node(Pointwise("relu"), ("x",), "r", "act")
    builder.types[relu] = TensorType((2, 3), VALUES)
    builder.outputs = (builder.add_node(Dense(), (relu, name), "y", "fc"),)
    graph = builder.finish()
    verify(graph)
    signature = Signature(Nesting("tuple", (), (TENSOR,)), Nesting("dict"), TENSOR)
    return Network(graph, plan_memory(graph), signature)


X = torch.tensor([[0.03125, 1.0, -3.0], [100.0, 0.99, 0.031]])


def test_values_are_rounded_as_they_are_stored() -> None:
    graph = _network().graph
    r = torch.tensor([[0.0625, 1.0, 0.0], [127 / 16, 1.0, 0.0]], dtype=torch.float64)
    w = torch.tensor([[1229 / 4096, -4915 / 4096, 2.0], [8.0, -8.0, 65534.0]], dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(interpret(graph, [X], dtype=dtype)[0].double(), r @ w.T)


def test_the_plan_counts_bytes_of_codes() -> None:
    network = _network()
    check_plan(network.graph, network.plan)
    assert network.graph.types["r"].bytes == 6
    assert network.graph.types["w"].bytes == 12
    assert TensorType((1, 3, 4, 5), VALUES, Layout(True, (1, 1, 1, 1))).bytes == 3 * 6 * 7


def test_a_network_goes_into_a_file_and_comes_back(tmp_path: Path) -> None:
    network, path = _network(), tmp_path / "net.nopt"
    write_network(path, network)
    read = read_network(path)
    assert read.graph.types == network.graph.types
    assert read.graph.constants["w"].dtype == torch.int16
    assert torch.equal(read.graph.constants["w"], network.graph.constants["w"])
    assert torch.equal(interpret(read.graph, [X])[0], interpret(network.graph, [X])[0])
    write_network(tmp_path / "again.nopt", read)
    assert (tmp_path / "again.nopt").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("bits", [8, 16])
def test_a_buffer_holds_codes(bits: int) -> None:
    format_ = FixedPoint(bits, 3)
    codes = format_.encode(torch.arange(-6.0, 6.0).reshape(3, 4))
    array = aligned_array((3, 4), format_)
    array[...] = format_.to_array(codes)
    assert (array.nbytes, array.ctypes.data % 64) == (12 * bits // 8, 0)
    assert torch.equal(format_.to_tensor(array, (3, 4)), codes)
    wider = aligned_array((3, 2), format_, strides=(4, 1))
    wider[...] = format_.to_array(codes)[:, :2]
    assert torch.equal(format_.to_tensor(wider, (3, 2)), codes[:, :2])


def test_the_program_computes_what_the_interpreter_does() -> None:
    network = _network()
    (expected,) = interpret(network.graph, [X], dtype=torch.float64)
    assert torch.equal(Program(network, Lowering())(X), expected.float())


def test_an_op_without_a_kernel_for_it_is_refused() -> None:
    builder = GraphBuilder()
    builder.inputs, builder.types = ("x",), {"x": TensorType((1, 3, 4, 4))}
    weight = builder.add_constant("w", VALUES.encode(torch.ones(2, 3, 1, 1)), VALUES)
    builder.outputs = (builder.add_node(Conv2d(), ("x", weight), "y", "conv"),)
    graph = builder.finish()
    verify(graph)
    with pytest.raises(UnsupportedModel, match="layer 'conv': value 'w': expected float32, found fixed"):
        check_kernels(graph)


@pytest.mark.parametrize("format_", [FixedPoint(24, 3), FixedPoint(8, (3, 4))], ids=str)
def test_networks_take_and_give_codes_of_values_alone(format_: FixedPoint) -> None:
    builder = GraphBuilder()
    builder.inputs, builder.types = ("x",), {"x": TensorType((2, 3), VALUES)}
    builder.outputs = ("x",)
    verify(builder.finish())
    builder.types["x"] = TensorType((2, 3), format_)
    message = "graph: format of 'x', an input or output: expected float32, .*, codes of 8 or 16 bits, found fixed"
    with pytest.raises(InvalidArgument, match=message):
        verify(builder.finish())
