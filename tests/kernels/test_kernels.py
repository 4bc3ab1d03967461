"""Every op's kernel against its reference, on odd sizes: exactly, or within a bound computed from the values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.kernels import arithmetic
from netopt.kernels.machine.cpu import host_cpu
from netopt.kernels.parts import pointwise
from netopt.kernels.registry import KERNELS
from netopt.ops import OPS, Arithmetic, Concat, LayerNorm, Op, Permute, Pointwise, Slice, Softmax
from netopt.ops import arithmetic as arithmetic_op
from netopt.ops import pointwise as pointwise_op
from tests.kernels.harness import problem_of, run_kernel
from tests.tolerance import assert_within, judge_op

PARAMETERS: dict[str, tuple[float, ...]] = {
    "hardtanh": (-1.0, 2.0),
    "leaky_relu": (0.1,),
    "elu": (1.5, 1.1, 0.7),
    "softplus": (2.0, 20.0),
    "power": (1.7,),
}
# Functions that need numbers above zero.
POSITIVE = {"log", "sqrt", "rsqrt", "reciprocal", "log1p", "power"}
# Functions of numbers from -1 to 1.
UNIT = {"asin", "acos"}
shapes = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)
quick = settings(max_examples=12, derandomize=True, deadline=None)


def randn(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_matches(op: Op, inputs: Sequence[torch.Tensor], threads: int = 1) -> None:
    """The kernel's result is within the bound that the inputs imply."""
    assert_within(run_kernel(op, inputs, threads=threads), judge_op(op, inputs))


def test_every_op_but_the_folded_and_the_views_has_a_kernel() -> None:
    without = {name for name, op in OPS.items() if op not in KERNELS}
    assert without == {"batch_norm", "reshape"}


def test_tables_of_functions_agree_with_the_ops() -> None:
    assert set(pointwise.EXPRESSIONS) == set(pointwise_op.FUNCTIONS)
    assert set(arithmetic.EXPRESSIONS) | set(arithmetic.OF_WHOLES) == set(arithmetic_op.FUNCTIONS)


@pytest.mark.parametrize("function", sorted(pointwise_op.FUNCTIONS))
@pytest.mark.parametrize("size", [1, 7, 8, 1003])
def test_pointwise(function: str, size: int) -> None:
    op = Pointwise(function, PARAMETERS.get(function, ()))
    for x in (randn(size, scale=4.0), torch.linspace(-30.0, 30.0, size)):
        assert_matches(op, [x.abs() + 1e-3 if function in POSITIVE else x / 32.0 if function in UNIT else x])


@pytest.mark.parametrize("function", sorted(set(pointwise_op.FUNCTIONS) - {"sign"}))
def test_pointwise_in_place_and_nan(function: str) -> None:
    op = Pointwise(function, PARAMETERS.get(function, ()))
    x = randn(21).abs() if function in POSITIVE else randn(21) / 32.0 if function in UNIT else randn(21)
    x[[0, 8, 20]] = math.nan
    apart, in_place = run_kernel(op, [x]), run_kernel(op, [x], in_place=0)
    assert torch.equal(apart.isnan(), x.isnan())
    assert torch.equal(apart.nan_to_num(7.0), in_place.nan_to_num(7.0))


def test_powers() -> None:
    x = torch.tensor([-torch.inf, -30.0, -1.5, -0.0, 0.0, 0.5, 2.0, 30.0, torch.inf, torch.nan])
    for exponent in (0.0, 1.5, 2.5, -2.5, 3.0, -3.0, 9.0, 33.0, 70.0, 71.0, 0.3, -0.3, 1.7, 20.5):
        op = Pointwise("power", (exponent,))
        # The exponential of a logarithm of up to 89 has as many roundings.
        torch.testing.assert_close(run_kernel(op, [x]), op.reference(x), rtol=2e-5, atol=0.0, equal_nan=True)


def test_the_sign_of_nan_is_pytorchs() -> None:
    x = torch.tensor([torch.nan, -torch.inf, -1e-30, -0.0, 0.0, 2.0])
    assert run_kernel(Pointwise("sign"), [x]).tolist() == x.sign().tolist()


@pytest.mark.parametrize("function", ["log", "sqrt", "rsqrt", "reciprocal", "exp", "abs", "neg", "floor", "square"])
def test_ends_of_the_range_are_pytorchs(function: str) -> None:
    x = torch.tensor([-math.inf, -2.0, -0.0, 0.0, 1.0, math.inf])
    y, expected = run_kernel(Pointwise(function), [x]), Pointwise(function).reference(x)
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=0.0, equal_nan=True)
    assert torch.equal(y.signbit()[~y.isnan()], expected.signbit()[~y.isnan()])


@pytest.mark.parametrize("function", ["maximum", "minimum"])
def test_nan_wins_over_every_number(function: str) -> None:
    a = torch.tensor([1.0, math.nan, math.nan, -math.inf, 2.0] * 7)
    b = torch.tensor([math.nan, 1.0, math.nan, 3.0, -math.inf] * 7)
    y, expected = run_kernel(Arithmetic(function), [a, b]), Arithmetic(function).reference(a, b)
    torch.testing.assert_close(y, expected, rtol=0.0, atol=0.0, equal_nan=True)


@pytest.mark.parametrize("function", ["relu", "hardtanh"])
def test_selections_are_exact(function: str) -> None:
    op = Pointwise(function, PARAMETERS.get(function, ()))
    x = torch.tensor([-math.inf, -1.0, -0.0, 0.0, 1e-42, 2.0, 2.5, math.inf])
    assert torch.equal(run_kernel(op, [x]), op.evaluate(x))


def test_pointwise_over_several_threads() -> None:
    x = randn(100_003)
    assert torch.equal(run_kernel(Pointwise("relu"), [x], threads=2), x.relu())


@pytest.mark.parametrize("function", sorted(arithmetic_op.OF_NUMBERS))
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((5,), (5,)),
        ((), (17,)),
        ((), ()),
        ((4, 5), (5,)),
        ((4, 1, 8), (3, 1)),
        ((2, 3, 1, 5), (1, 4, 1)),
        ((3, 1), (1, 40)),
        ((1, 1, 1), (2, 3, 4)),
    ],
)
def test_arithmetic_is_correctly_rounded(function: str, first: tuple[int, ...], second: tuple[int, ...]) -> None:
    """IEEE 754 leaves one result: the kernel's bits are PyTorch's."""
    a, b = randn(*first), randn(*second, seed=1)
    assert torch.equal(run_kernel(Arithmetic(function), [a, b]), Arithmetic(function).reference(a, b))


@quick
@given(shape=shapes, data=st.data())
def test_arithmetic_on_any_broadcast(shape: tuple[int, ...], data: st.DataObject) -> None:
    first = tuple(data.draw(st.sampled_from([1, size])) for size in shape)
    second = tuple(1 if data.draw(st.booleans()) else size for size in shape)[data.draw(st.integers(0, len(shape))) :]
    a, b = randn(*first), randn(*second, seed=1)
    assert torch.equal(run_kernel(Arithmetic("sub"), [a, b]), a - b)


@pytest.mark.parametrize("operand", [0, 1])
def test_arithmetic_in_place_of_either_operand(operand: int) -> None:
    a, b = randn(3, 13), randn(3, 13, seed=1)
    assert torch.equal(run_kernel(Arithmetic("sub"), [a, b], in_place=operand), a - b)


def test_arithmetic_over_several_threads() -> None:
    a, b = randn(37, 1000), randn(37, 1, seed=1)
    assert torch.equal(run_kernel(Arithmetic("mul"), [a, b], threads=2), a * b)


@quick
@given(shape=shapes, data=st.data())
def test_permute(shape: tuple[int, ...], data: st.DataObject) -> None:
    axes = tuple(data.draw(st.permutations(range(len(shape)))))
    x = randn(*shape)
    assert torch.equal(run_kernel(Permute(axes), [x]), x.permute(axes))


@quick
@given(shape=shapes, data=st.data())
def test_slice(shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    start = data.draw(st.integers(0, shape[axis] - 1))
    stop = data.draw(st.integers(start + 1, shape[axis]))
    op = Slice(axis, start, stop, data.draw(st.integers(1, 3)))
    x = randn(*shape)
    assert torch.equal(run_kernel(op, [x]), op.reference(x))


@quick
@given(shape=shapes, data=st.data())
def test_concat(shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    parts = [randn(*shape[:axis], size, *shape[axis + 1 :], seed=i) for i, size in enumerate(sizes)]
    assert torch.equal(run_kernel(Concat(axis), parts), torch.cat(parts, axis))


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("shape", [(1,), (5, 10), (3, 7), (2, 8), (3, 1000), (2, 3, 9), (4, 1, 17)])
def test_softmax_along_every_axis(shape: tuple[int, ...], log: bool) -> None:
    for axis in range(len(shape)):
        assert_matches(Softmax(axis, log), [randn(*shape, scale=5.0)])


@pytest.mark.parametrize("log", [False, True])
def test_softmax_of_large_numbers_does_not_overflow(log: bool) -> None:
    assert_matches(Softmax(1, log), [randn(3, 11, scale=1e4)])


def test_softmax_with_nan_is_nan_in_that_row_alone() -> None:
    x = randn(3, 19)
    x[1, 17] = math.nan
    assert run_kernel(Softmax(1), [x]).isnan().all(1).tolist() == [False, True, False]
    assert run_kernel(Softmax(0), [x]).isnan().all(0).tolist() == [i == 17 for i in range(19)]


@pytest.mark.parametrize(
    ("shape", "axes"), [((5, 10), 1), ((3, 7), 1), ((4, 768), 1), ((2, 5, 6), 2), ((2, 3), 2), ((6, 1), 1), ((1, 8), 1)]
)
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_layer_norm(shape: tuple[int, ...], axes: int, offset: float) -> None:
    """The offset makes the mean a hundred times the deviation, where the one-pass formula for the variance fails."""
    weight, bias = randn(*shape[-axes:], seed=1), randn(*shape[-axes:], seed=2)
    assert_matches(LayerNorm(axes, 1e-5), [randn(*shape) + offset, weight, bias])


@pytest.mark.parametrize("op", [Softmax(1), Softmax(0), LayerNorm(1, 1e-5)], ids=str)
def test_reductions_over_several_threads(op: Op) -> None:
    inputs = [randn(150, 300), *([randn(300), randn(300)] if isinstance(op, LayerNorm) else [])]
    assert_matches(op, inputs, threads=2)
    assert torch.equal(run_kernel(op, inputs, threads=2), run_kernel(op, inputs))


def test_a_problem_and_its_schedule_have_one_shape_for_each_argument() -> None:
    problem = problem_of(Concat(0), [randn(2, 3), randn(1, 3)])
    kernel = KERNELS[Concat]
    (schedule, *_) = kernel.schedules(problem, host_cpu())
    assert kernel.argument_shapes(problem, schedule, host_cpu()) == ((1, 6), (1, 3), (1, 9))
