"""Small graphs of codes as programs: each value is the interpreter's in float64, through images, halos and files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import netopt
from netopt.graph import Graph, interpret
from netopt.numerics import FLOAT32, Affine, CodeFormat, FixedPoint, NumberFormat
from netopt.ops import (
    AdaptivePool2d,
    Arithmetic,
    ChannelShuffle,
    Concat,
    Conv2d,
    Convert,
    Expand,
    Op,
    Pad,
    Permute,
    PixelShuffle,
    Pointwise,
    Pool2d,
    Reshape,
    Resize,
    Slice,
    Softmax,
    SpatialMean,
    TensorType,
)
from tests.kernels.codes import KINDS, fixed
from tests.program.code_graphs import CodeGraph, codes_of, program_of

S8, U8 = FixedPoint(8, 4), FixedPoint(8, 5, False)
AFFINE = Affine(8, 0.046875, 20, signed=False)
IMAGE = TensorType((2, 12, 6, 8), S8)
# Ops of one image that keep its shape.
STEPS: list[Op] = [
    Pointwise("relu"),
    Pointwise("hardswish"),
    Pointwise("silu"),
    Pointwise("abs"),
    ChannelShuffle(3),
    Pool2d("max", (3, 3), (1, 1), (1, 1, 1, 1)),
    Pool2d("average", (3, 3), (1, 1), (1, 1, 1, 1)),
    Resize("bilinear", (6, 8), (1.0, 1.0)),
    Convert(),
]


def assert_program_is_exact(graph: Graph, *inputs: torch.Tensor, path: Path | None = None) -> None:
    """Codes of the program are those of the interpreter, called twice, and from a file."""
    expected = codes_of(graph, interpret(graph, [x.double() for x in inputs], dtype=torch.float64))
    program = program_of(graph)
    for _ in range(2):
        for found, wanted in zip(program.run_codes(*inputs), expected, strict=True):
            assert found.dtype == wanted.dtype
            assert int((found != wanted).sum()) == 0
    if path is not None:
        program.save(path)
        assert all(map(torch.equal, netopt.load(path).run_codes(*inputs), expected))


def numbers(shape: tuple[int, ...], format_: CodeFormat, seed: int) -> torch.Tensor:
    """Numbers as the format has them, and beyond."""
    low, high = format_.bounds
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 1.2 - 0.1) * (high - low) + low


@settings(max_examples=12, deadline=None)
@given(data=st.data(), seed=st.integers(0, 99))
def test_chains_of_ops_in_any_formats(data: st.DataObject, seed: int) -> None:
    formats = st.one_of(st.builds(fixed, st.sampled_from([*KINDS]), st.integers(2, 6)), st.just(AFFINE))
    first: CodeFormat = data.draw(formats)
    graph = CodeGraph(x=TensorType(IMAGE.shape, first))
    name = "x"
    for op in data.draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=4)):
        other = graph.add(op, name, format_=data.draw(formats))
        name = data.draw(
            st.sampled_from([other, graph.add(Arithmetic("add"), name, other, format_=data.draw(formats))])
        )
    # A padded convolution, in whose halo the number 0 must be.
    codes = torch.randint(-9, 9, (4, 12, 3, 3), generator=torch.Generator().manual_seed(seed)).to(torch.int8)
    weight = graph.builder.add_constant("w", codes, FixedPoint(8, 6))
    last = graph.add(Conv2d((1, 1), (1, 1, 1, 1)), name, weight, format_=S8)
    assert_program_is_exact(graph.graph(last, name), numbers(IMAGE.shape, first, seed))


@pytest.mark.parametrize("format_", [S8, U8, FixedPoint(16, 9), AFFINE], ids=str)
def test_moves(format_: CodeFormat, tmp_path: Path) -> None:
    graph = CodeGraph(x=TensorType((1, 64, 6, 8), format_))
    halves = [graph.add(Slice(1, start, start + 32), "x", format_=format_) for start in (0, 32)]
    most = graph.add(Pool2d("max", (2, 2), (2, 2)), halves[0], format_=format_)
    large = graph.add(Resize("nearest", (6, 8), (0.5, 0.5)), most, format_=format_)
    both = graph.add(Concat(1), large, halves[1], format_=format_)
    padded = graph.add(Pad("constant", (0, 0, 1, 0), (0, 0, 0, 1), 0.5), both, format_=format_)
    pixels = graph.add(PixelShuffle(2), padded, format_=format_)
    mean = graph.add(SpatialMean(), pixels, format_=format_)
    parts = graph.add(AdaptivePool2d("average", (3, 5)), pixels, format_=format_)
    flat = graph.add(Reshape((1, 240)), parts, format_=format_)
    wide = graph.add(Expand((3, 240)), flat, format_=format_)
    turned = graph.add(Permute((1, 0)), wide, format_=format_)
    whole = graph.graph(turned, mean, pixels)
    assert_program_is_exact(whole, numbers((1, 64, 6, 8), format_, 1), path=tmp_path / "net.nopt")


@pytest.mark.parametrize("written", [S8, AFFINE, FixedPoint(16, 10), FLOAT32], ids=str)
def test_a_concatenation_of_several_formats(written: NumberFormat) -> None:
    """Each part is rounded into the format of the whole, and written where it belongs."""
    graph = CodeGraph(x=TensorType((1, 16, 4, 4), S8), y=TensorType((1, 16, 4, 4), U8), z=TensorType((1, 16, 4, 4)))
    parts = [graph.add(Pointwise("relu"), name, format_=f) for name, f in (("x", S8), ("y", U8), ("z", FLOAT32))]
    inputs = [torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(seed)) * 4 for seed in range(3)]
    whole = graph.graph(graph.add(Concat(1), *parts, format_=written))
    assert_program_is_exact(whole, *inputs)


@pytest.mark.parametrize("op", [Slice(0, 0, 2), Reshape((4, 3)), Permute((1, 0)), Expand((2, 6))], ids=str)
def test_what_only_moves_is_in_one_format_and_converted_after_it(op: Op) -> None:
    """A view of codes is not a view in another format, nor of floats."""
    for read, written in ((S8, FixedPoint(8, 2)), (S8, FLOAT32), (FLOAT32, S8), (S8, FixedPoint(16, 7))):
        shape = (1, 6) if isinstance(op, Expand) else (2, 6)
        graph = CodeGraph(x=TensorType(shape, read))
        y = graph.add(Pointwise("neg"), "x", format_=read)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3
        assert_program_is_exact(graph.graph(graph.add(op, y, format_=written)), x)


def test_ops_of_floats_stand_between_conversions() -> None:
    graph = CodeGraph(x=TensorType((2, 8), S8))
    soft = graph.add(Softmax(1), "x", format_=FixedPoint(8, 7))
    whole = graph.graph(graph.add(Arithmetic("add"), soft, "x", format_=S8))
    program = program_of(whole)
    assert [step.op.label for step in program.steps] == ["convert", "softmax", "convert", "add"]
    x = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    (expected,) = codes_of(whole, interpret(whole, [x], dtype=torch.float64))
    assert (program.run_codes(x)[0].int() - expected.int()).abs().max() <= 1


def test_codes_take_a_quarter_of_the_arena() -> None:
    def arena(format_: NumberFormat) -> int:
        graph = CodeGraph(x=TensorType((1, 16, 32, 32), format_))
        y = graph.add(Pool2d("max", (3, 3), (1, 1), (1, 1, 1, 1)), "x", format_=format_)
        z = graph.add(Pool2d("average", (3, 3), (1, 1), (1, 1, 1, 1)), y, format_=format_)
        return program_of(graph.graph(z)).arena_bytes

    assert (arena(FLOAT32), arena(FixedPoint(16, 8)), arena(S8)) == (2 * 65536, 65536, 32768)


def test_what_is_written_over_an_operand_has_its_width() -> None:
    """A code of one byte takes over none of four bytes, nor of two, but of another kind of byte."""
    for read, written, blocks in ((S8, U8, 1), (S8, S8, 1), (S8, FixedPoint(16, 9), 2), (FLOAT32, S8, 2)):
        graph = CodeGraph(x=TensorType((1, 4096), read))
        y = graph.add(Pointwise("neg"), "x", format_=read)
        program = program_of(graph.graph(graph.add(Pointwise("abs"), y, format_=written)))
        offsets = program.memory_plan.offsets
        assert len({offsets[step] for step in offsets if step not in ("x",)}) == blocks
        x = torch.linspace(-9, 9, 4096)[None]
        (expected,) = codes_of(program._graph, interpret(graph.builder.finish(), [x], dtype=torch.float64))
        assert torch.equal(program.run_codes(x)[0], expected)
