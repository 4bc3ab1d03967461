"""Pointwise functions of codes: every function of every code of 8 bits, and those that are exact of all of 16."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.kernels.machine.cpu import host_cpu
from netopt.kernels.machine.kernel import Schedule
from netopt.kernels.parts.pointwise_codes import WIDE, uses_table
from netopt.kernels.pointwise import PointwiseKernel
from netopt.numerics import FLOAT32, Affine, CodeFormat
from netopt.ops import CHANNELS_LAST, Layout, Pointwise
from netopt.ops.pointwise import FUNCTIONS, ROUNDED_ALIKE
from tests.kernels.codes import KINDS, assert_exact, exact, fixed, random_codes
from tests.kernels.harness import problem_of, run_kernel

HALO = Layout(True, (1, 2, 0, 1))
PARAMETERS: dict[str, tuple[float, ...]] = {
    "hardtanh": (-0.7, 2.3),
    "leaky_relu": (0.013,),
    "elu": (1.1, 1.05, 1.0),
    "softplus": (1.0, 20.0),
    "power": (1.7,),
}
ALL = [Pointwise(name, PARAMETERS.get(name, ())) for name in FUNCTIONS]
EXACT = [op for op in ALL if op.function in ROUNDED_ALIKE]
AFFINE = Affine(8, 0.0390625, 20, signed=False)


def every_code(format_: CodeFormat) -> torch.Tensor:
    return torch.arange(format_.codes.start, format_.codes.stop).to(format_.tensor_dtype)


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.function)
def test_every_code_of_8_bits(op: Pointwise) -> None:
    for read in (fixed("s8", 4), fixed("u8", 5), fixed("u7", 6), AFFINE):
        for written in (fixed("s8", 5), fixed("s16", 11), Affine(8, 0.3125, -3)):
            assert_exact(op, [every_code(read)], [read], written)


@pytest.mark.parametrize("op", EXACT, ids=lambda op: op.function)
def test_every_code_of_16_bits_where_the_reference_rounds_alike_everywhere(op: Pointwise) -> None:
    for read in (fixed("s16", 12), Affine(16, 0.000457763671875, 100)):
        for written in (fixed("s8", 4), fixed("s16", 12), Affine(8, 0.3125, -3)):
            assert_exact(op, [every_code(read)], [read], written)


@pytest.mark.parametrize("op", [op for op in ALL if op not in EXACT], ids=lambda op: op.function)
def test_other_functions_of_16_bits_are_off_by_one_at_most(op: Pointwise) -> None:
    read, written = fixed("s16", 13), fixed("s16", 10)
    codes = every_code(read)
    expected = exact(op, [codes], [read], written)
    found = run_kernel(op, [codes], formats=[read], output_format=written)
    assert (found.int() - expected.int()).abs().max() <= 1


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    op=st.sampled_from([op for op in EXACT if op.function in ("relu", "hardtanh", "abs", "neg")]),
    kind=st.sampled_from([*KINDS]),
    position=st.integers(-8, 40),
    written=st.sampled_from([*KINDS]),
    further=st.integers(-10, 10),
    output=st.sampled_from([CHANNELS_LAST, HALO]),
)
def test_clamps_and_magnitudes_of_any_positions(
    op: Pointwise, kind: str, position: int, written: str, further: int, output: Layout
) -> None:
    read = fixed(kind, position)
    codes = random_codes((2, 19, 4, 5), read, position + 8)
    codes.view(-1)[:2] = torch.tensor([read.codes.start, read.codes.stop - 1]).to(codes.dtype)
    assert_exact(op, [codes], [read], fixed(written, position + further), layouts=[HALO], output=output)


@pytest.mark.parametrize("op", EXACT, ids=lambda op: op.function)
def test_floats_become_codes(op: Pointwise) -> None:
    x = torch.cat([torch.linspace(-5, 5, 1001), torch.tensor([float("inf"), -float("inf"), float("nan"), 0.0, -0.0])])
    for written in (fixed("s8", 4), AFFINE):
        assert_exact(op, [x], [FLOAT32], written)


def test_every_exact_function_has_a_form_in_float64() -> None:
    assert set(WIDE) == ROUNDED_ALIKE
    assert Pointwise("silu").is_exact_on(fixed("u8", 4)) and not Pointwise("silu").is_exact_on(fixed("s16", 4))


def test_the_smallest_code_has_a_magnitude_beyond_the_codes() -> None:
    s8 = fixed("s8", 0)
    low = torch.tensor([-128, -127, 0], dtype=torch.int8)
    assert assert_exact(Pointwise("abs"), [low], [s8], s8).tolist() == [127, 127, 0]
    assert assert_exact(Pointwise("neg"), [low], [s8], s8).tolist() == [127, 127, 0]
    assert assert_exact(Pointwise("abs"), [low], [s8], fixed("u8", 0)).tolist() == [128, 127, 0]


def test_tables_share_machine_code() -> None:
    """What a table holds is data."""
    kernel, codes = PointwiseKernel(), [torch.zeros(8, dtype=torch.int8)]
    problems = [
        problem_of(op, codes, formats=[read], output_format=written)
        for op, read, written in (
            (Pointwise("gelu"), fixed("s8", 4), fixed("s8", 5)),
            (Pointwise("tanh"), fixed("s8", 2), fixed("s8", 7)),
        )
    ]
    assert all(uses_table(p.op, p.inputs[0].format, p.output.format) for p in problems)
    assert len({kernel.code_problem(problem).key() for problem in problems}) == 1
    tables = [kernel.calls(p, Schedule(), host_cpu(), [codes[0].numpy()] * 2, None)[0].arrays[1] for p in problems]
    assert tables[0].shape == (256,) and (tables[0] != tables[1]).any()


@pytest.mark.parametrize("op", ALL[:4], ids=lambda op: op.function)
def test_tables_on_images_and_over_their_input(op: Pointwise) -> None:
    codes = random_codes((2, 19, 4, 5), AFFINE, 1)
    assert_exact(op, [codes], [AFFINE], fixed("s8", 4), layouts=[HALO], output=HALO)
    assert_exact(op, [codes.reshape(-1)], [AFFINE], fixed("s8", 4), in_place=0)
