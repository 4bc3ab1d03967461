"""What programs take and give: floats, or the codes that stand for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import netopt
from netopt.errors import InvalidArgument, InvalidType
from netopt.graph import interpret
from netopt.numerics import FLOAT32, INT64, Affine, CodeFormat, FixedPoint
from netopt.ops import Pointwise, Pool2d, TensorType
from netopt.program.port import Port
from netopt.program.program import Program
from tests.program.code_graphs import CodeGraph, program_of

S8, PIXELS = FixedPoint(8, 4), Affine(8, 0.0078125, 128, signed=False)
FORMATS = (S8, FixedPoint(8, 5, False), FixedPoint(7, 5, False), FixedPoint(16, 9), PIXELS)


def small(format_: CodeFormat, shape: tuple[int, ...] = (1, 3, 8, 8)) -> Program:
    """A pooling with padding, so that the input has a halo of its own in the arena or not, and a sum."""
    graph = CodeGraph(x=TensorType(shape, format_))
    y = graph.add(Pool2d("average", (3, 3), (1, 1), (1, 1, 1, 1)), "x", format_=format_)
    return program_of(graph.graph(graph.add(Pointwise("neg"), y, format_=S8)))


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 3, 64, 64)], ids=str)
@pytest.mark.parametrize("format_", FORMATS, ids=str)
def test_floats_are_what_their_codes_are(format_: CodeFormat, shape: tuple[int, ...]) -> None:
    """Small inputs are copied by PyTorch, large ones by a kernel."""
    program = small(format_, shape)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3
    x[0, 0, 0, :4] = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e30])
    codes = format_.encode(x)
    (floats,) = program(x)
    assert floats.dtype == torch.float32
    assert torch.equal(floats, program(codes)[0])
    assert torch.equal(S8.encode(floats), program.run_codes(codes)[0])
    assert torch.equal(floats, program(x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1))[0])


def test_a_program_says_what_it_takes_and_gives(tmp_path: Path) -> None:
    program = small(PIXELS)
    (x,), (y,) = program.inputs, program.outputs
    assert x == Port(name="input[0]", shape=(1, 3, 8, 8), format=PIXELS)
    assert (x.dtype, x.stored_dtype, x.has_codes) == (torch.float32, torch.uint8, True)
    assert (y.name, y.stored_dtype) == ("output[0]", torch.int8)
    lines = program.summary().splitlines()
    assert lines[-2] == f"takes input[0] (1, 3, 8, 8): float32, or codes in uint8: {PIXELS}"
    assert lines[-1] == f"gives output[0] (1, 3, 8, 8): float32, or codes in int8: {S8}"
    program.save(tmp_path / "net.nopt")
    loaded = netopt.load(tmp_path / "net.nopt")
    assert (loaded.inputs, loaded.outputs) == (program.inputs, program.outputs)
    codes = torch.arange(192).to(torch.uint8).reshape(1, 3, 8, 8)
    assert torch.equal(loaded.run_codes(codes)[0], program.run_codes(codes)[0])


def test_ports_of_floats_and_of_whole_numbers_have_no_codes() -> None:
    program = netopt.lower(torch.nn.Embedding(5, 3), torch.tensor([1, 2]))
    (x,), (y,) = program.inputs, program.outputs
    assert (x.format, x.dtype, x.has_codes, str(x)) == (INT64, torch.int64, False, "input[0] (2,): int64")
    assert (y.format, y.dtype, y.has_codes, str(y)) == (FLOAT32, torch.float32, False, "output (2, 3): float32")
    assert "takes" not in program.summary()
    assert torch.equal(program.run_codes(torch.tensor([1, 2])), program(torch.tensor([1, 2])))


def test_other_tensors_are_refused() -> None:
    program = small(S8)
    with pytest.raises(InvalidType, match=r"expected dtype torch.float32, or codes in torch.int8, found torch.uint8"):
        program(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(InvalidType, match=r"codes in torch.int8, found torch.float64"):
        program(torch.zeros(1, 3, 8, 8, dtype=torch.float64))
    with pytest.raises(InvalidArgument, match=r"expected shape \(1, 3, 8, 8\), found \(1, 3, 8, 9\)"):
        program(torch.zeros(1, 3, 8, 9, dtype=torch.int8))


def test_the_numbers_of_codes_are_those_of_the_interpreter() -> None:
    graph = CodeGraph(x=TensorType((1, 3, 8, 8), PIXELS))
    whole = graph.graph(graph.add(Pool2d("average", (2, 2), (2, 2)), "x", format_=FixedPoint(16, 9)))
    codes = torch.arange(192).to(torch.uint8).reshape(1, 3, 8, 8)
    x = PIXELS.decode(codes)
    (found,), (exact,) = program_of(whole)(codes), interpret(whole, [x.double()], dtype=torch.float64)
    assert torch.equal(found.double(), exact)
