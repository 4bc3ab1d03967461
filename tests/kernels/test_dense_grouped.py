"""Dense layers whose weights have a scale for each group of inputs, against the reference on the numbers they have."""

from __future__ import annotations

from collections.abc import Sequence

import halide as hl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.kernels.machine.cpu import Cpu, host_cpu
from netopt.kernels.parts.tile import TileSchedule
from netopt.kernels.registry import KERNELS
from netopt.numerics import BFLOAT16, FLOAT32, Affine, CodeFormat, FixedPoint, Grouped, NumberFormat
from netopt.ops import Dense, Pointwise, TensorType
from tests.kernels.codes import fixed, random_codes
from tests.kernels.harness import assert_packing_is_undone, problem_of, run_kernel
from tests.tolerance import assert_within, judge_op

KERNEL = KERNELS[Dense]
quick = settings(max_examples=40, derandomize=True, deadline=None)
AVX2 = Cpu.of(hl.Target("x86-64-linux-avx-avx2-f16c-fma-sse41"))
# What x may be: floats, and codes with and without a zero point.
SOURCES: dict[str, NumberFormat] = {
    "float32": FLOAT32,
    "bfloat16": BFLOAT16,
    "u7": fixed("u7", 5),
    "u8": fixed("u8", 9),
    "s8": fixed("s8", -3),
    "s16": fixed("s16", 12),
    "affine s8": Affine(8, 0.28125, -120),
    "affine u8": Affine(8, 0.01171875, 255, signed=False),
}
HOSTS = pytest.mark.parametrize("cpu", [host_cpu(), AVX2], ids=["host", "avx2"])


def inputs_of(
    op: Dense, rows: int, inputs: int, outputs: int, formats: Sequence[NumberFormat], *, extreme: bool = False
) -> list[torch.Tensor]:
    """What the formats of x, the weight, the bias and the residual encode, where there are such."""
    generator = torch.Generator().manual_seed(rows * inputs + outputs)
    shapes = [(rows, inputs), (outputs, inputs), *[(outputs,)] * op.has_bias, *[(rows, outputs)] * op.has_residual]
    tensors = []
    for number, (shape, format_) in enumerate(zip(shapes, formats, strict=True)):
        if isinstance(format_, CodeFormat):
            tensors.append(random_codes(shape, format_, number, extreme=extreme))
        elif extreme and isinstance(format_, Grouped):
            tensors.append(extreme_weights(shape, format_))
        else:
            tensors.append(format_.encode(torch.randn(shape, generator=generator)))
    return tensors


def extreme_weights(shape: tuple[int, int], format_: Grouped) -> torch.Tensor:
    """Codes at both ends, with scales of both signs."""
    codes, scales = (torch.zeros(part.shape) for part in format_.parts(shape))
    generator = torch.Generator().manual_seed(1)
    ends = torch.tensor([-(2 ** (format_.bits - 1)), 2 ** (format_.bits - 1) - 1])
    codes = ends[torch.randint(0, 2, codes.shape, generator=generator)]
    scales = torch.tensor([-1.5, 0.25, 1.0])[torch.randint(0, 3, scales.shape, generator=generator)]
    return format_.join((codes.to(torch.int8), BFLOAT16.encode(scales)), shape)


def assert_matches(
    op: Dense,
    tensors: list[torch.Tensor],
    formats: Sequence[NumberFormat],
    written: NumberFormat = FLOAT32,
    schedule: TileSchedule | None = None,
    threads: int = 1,
    cpu: Cpu | None = None,
) -> None:
    """Within what floats allow; codes are those of a number within it."""
    constants = (1, 2) if op.has_bias else (1,)
    residual = op.residual_index if op.has_residual and formats[op.residual_index] == written else None
    found = run_kernel(
        op,
        tensors,
        formats=formats,
        constants=constants,
        schedule=schedule,
        threads=threads,
        in_place=residual,
        output_format=written,
        cpu=cpu,
    )
    numbers = [format_.decode(value) for value, format_ in zip(tensors, formats, strict=True)]
    exact, bound = judge_op(op, numbers)
    if isinstance(written, CodeFormat):
        low, high = written.bounds
        exact, bound = exact.clamp(low, high), bound + written.steps[0] / 2
    assert_within(written.decode(found, torch.float64), (exact, bound))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("source", SOURCES)
@HOSTS
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 100, 70), (1, 64, 10), (5, 130, 33), (17, 24, 40)])
def test_every_source(cpu: Cpu, source: str, bits: int, rows: int, inputs: int, outputs: int) -> None:
    op = Dense(True, False, Pointwise("relu"))
    formats = [SOURCES[source], Grouped(bits, 32), FLOAT32]
    assert_matches(op, inputs_of(op, rows, inputs, outputs, formats), formats, cpu=cpu)


@quick
@given(
    rows=st.integers(1, 21),
    inputs=st.integers(1, 150),
    outputs=st.integers(1, 70),
    bits=st.sampled_from([4, 8]),
    group=st.sampled_from([8, 16, 24, 64, 256]),
    source=st.sampled_from(sorted(SOURCES)),
    bias=st.booleans(),
    residual=st.sampled_from([None, FLOAT32, fixed("s8", 4)]),
    activation=st.sampled_from([None, Pointwise("relu"), Pointwise("gelu")]),
)
def test_any_size(
    rows: int,
    inputs: int,
    outputs: int,
    bits: int,
    group: int,
    source: str,
    bias: bool,
    residual: NumberFormat | None,
    activation: Pointwise | None,
) -> None:
    op = Dense(bias, residual is not None, activation)
    formats = [SOURCES[source], Grouped(bits, group), *[FLOAT32] * bias, *[residual] * (residual is not None)]
    assert_matches(op, inputs_of(op, rows, inputs, outputs, formats), formats)


@pytest.mark.parametrize("written", [fixed("u8", 3), fixed("s16", 6), Affine(8, 0.15625, 3)], ids=str)
@pytest.mark.parametrize("source", ["float32", "u8", "s16"])
def test_codes_are_written(source: str, written: CodeFormat) -> None:
    op = Dense(True, True, Pointwise("relu"))
    formats = [SOURCES[source], Grouped(4, 16), FLOAT32, written]
    assert_matches(op, inputs_of(op, 7, 50, 20, formats), formats, written)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("source", [fixed("s8", 0), fixed("u8", 0), fixed("s16", 0)], ids=str)
@HOSTS
def test_sums_of_the_largest_codes_do_not_overflow(cpu: Cpu, source: FixedPoint, bits: int) -> None:
    """Sums of a group are whole numbers that floats may round, once."""
    op, formats = Dense(), [source, Grouped(bits, 256)]
    assert_matches(op, inputs_of(op, 1, 600, 30, formats, extreme=True), formats, cpu=cpu)


def test_sums_of_a_group_are_exact() -> None:
    """Products that cancel leave what a float sum would lose: 2^24 + 1 - 2^24."""
    x, format_ = torch.tensor([[2**14, 1, -(2**14)]], dtype=torch.int16), Grouped(8, 8)
    weight = format_.join((torch.tensor([[127, 1, 127]], dtype=torch.int8), torch.ones(1, 1)), (1, 3))
    found = run_kernel(Dense(), [x, weight], formats=[FixedPoint(16, 3), format_], constants=(1,))
    assert found.tolist() == [[0.125]]


@pytest.mark.parametrize("source", ["float32", "s8"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 256, 300), (6, 130, 40)])
def test_every_schedule_that_the_table_offers(source: str, bits: int, rows: int, inputs: int, outputs: int) -> None:
    op, formats = Dense(), [SOURCES[source], Grouped(bits, 64)]
    tensors = inputs_of(op, rows, inputs, outputs, formats)
    problem = problem_of(op, tensors, formats=formats)
    table = KERNEL.schedules(problem, host_cpu())
    assert len(set(table)) == len(table) > 1
    for schedule in table:
        assert schedule.vectors % schedule.panel == 0
        assert schedule.blocks == 1
    for schedule in table[:: max(1, len(table) // 6)]:
        assert_matches(op, tensors, formats, schedule=schedule)


@pytest.mark.parametrize("schedule", [TileSchedule(1, 4, 1), TileSchedule(2, 3, 3), TileSchedule(1, 4, 2)], ids=str)
@pytest.mark.parametrize("source", ["float32", "s16"])
@pytest.mark.parametrize("bits", [4, 8])
def test_packing_is_undone_to_the_bit(bits: int, source: str, schedule: TileSchedule) -> None:
    formats = [SOURCES[source], Grouped(bits, 24)]
    tensors = inputs_of(Dense(), 3, 61, 45, formats)
    problem = problem_of(Dense(), tensors, formats=formats)
    packed_as = torch.from_numpy(formats[1].to_array(tensors[1]))
    assert_packing_is_undone(problem, schedule, [tensors[0], packed_as], (1,))


def test_layers_share_packed_weights_only_where_they_lie_alike() -> None:
    formats = {name: [SOURCES[name], Grouped(4, 64)] for name in ("float32", "s8")}
    problems = {
        name: problem_of(Dense(), inputs_of(Dense(), 1, 64, 32, pair), formats=pair) for name, pair in formats.items()
    }
    schedule = TileSchedule(1, 2, 1)
    assert KERNEL.packing(problems["float32"], schedule) != KERNEL.packing(problems["s8"], schedule)
    assert KERNEL.packing(problems["s8"], schedule) != KERNEL.packing(problems["s8"], TileSchedule(1, 2, 2))


def test_threads_give_the_same_bits() -> None:
    formats = [fixed("s8", 3), Grouped(4, 64), FLOAT32]
    op = Dense(True)
    tensors = inputs_of(op, 1, 4096, 600, formats)
    results = [run_kernel(op, tensors, formats=formats, constants=(1, 2), threads=threads) for threads in (1, 2)]
    assert torch.equal(results[0], results[1])


def test_what_is_read_and_written() -> None:
    op, grouped = Dense(True, True), Grouped(4, 64)
    types = [TensorType((1, 64)), TensorType((8, 64), grouped), TensorType((8,)), TensorType((1, 8))]
    for index, format_, expected in [
        (0, FLOAT32, True),
        (0, BFLOAT16, True),
        (0, FixedPoint(8, 3), True),
        (0, FixedPoint(16, 3), True),
        (0, Affine(8, 0.5, 7), True),
        (0, Affine(16, 0.5, 7), False),
        (0, FixedPoint(8, (3, 4)), False),
        (1, grouped, True),
        (1, FLOAT32, True),
        (2, FLOAT32, True),
        (2, FixedPoint(32, 3), False),
        (3, FixedPoint(8, 3), True),
        (3, FLOAT32, True),
    ]:
        assert op.reads(index, format_, types) == expected, (index, format_)
    assert op.writes(FixedPoint(8, 3), types)
    assert not Dense().reads(1, SOURCES["u8"], [TensorType((1, 64)), TensorType((8, 64))])
