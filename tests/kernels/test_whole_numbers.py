"""Kernels of whole numbers and truth, exact: casts, comparisons, choices, indices, sums, and what moves elements."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.numerics import WHOLES, NumberFormat
from netopt.ops import (
    CHANNELS_LAST,
    ROW_MAJOR,
    ArgReduce,
    Arithmetic,
    Cast,
    Compare,
    Concat,
    Expand,
    Gather,
    Layout,
    Op,
    Permute,
    Reduce,
    Slice,
    Where,
)
from netopt.ops.arithmetic import OF_TRUTH, OF_WHOLES
from netopt.ops.compare import FUNCTIONS
from tests.kernels.harness import run_kernel

DTYPES = [torch.float32, *(format_.tensor_dtype for format_ in WHOLES)]
HALO = Layout(True, (1, 0, 2, 1))
quick = settings(derandomize=True, deadline=None, max_examples=8)


def numbers(dtype: torch.dtype, *shape: int, seed: int = 0) -> torch.Tensor:
    """Small whole numbers, so that some are equal, some 0, and where there are some, below 0; of floats a NaN, too."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0 if dtype in (torch.uint8, torch.bool) else -4, 5, shape, generator=generator).to(dtype)
    if dtype == torch.float32 and values.numel() > 4:
        values.view(-1)[3], values.view(-1)[-2] = torch.nan, torch.inf
    return values


def assert_exact(op: Op, *inputs: torch.Tensor, threads: int = 1, in_place: int | None = None) -> None:
    result, expected = run_kernel(op, inputs, threads=threads, in_place=in_place), op.reference(*inputs)
    assert result.dtype == expected.dtype
    assert torch.equal(result.nan_to_num(-77.0) if result.is_floating_point() else result, _without_nan(expected))


def _without_nan(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.nan_to_num(-77.0) if tensor.is_floating_point() else tensor


@pytest.mark.parametrize("to", ["float32", *(format_.name for format_ in WHOLES)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_casts(dtype: torch.dtype, to: str) -> None:
    x = numbers(dtype, 3, 37)
    if dtype == torch.float32 and to != "bool":
        x = torch.tensor([0.0, 0.99, 1.5, 250.7, 3.0, -0.99]) if to == "uint8" else torch.linspace(-99.9, 99.9, 70)
    elif to == "uint8":
        x = x.abs() if x.dtype != torch.bool else x
    assert_exact(Cast(to), x)


def test_large_numbers_are_cast_as_pytorch_does() -> None:
    x = torch.tensor([2**24 + 1, 2**53 + 1, -(2**63), 2**63 - 1, 2**31])
    assert_exact(Cast("float32"), x)
    assert_exact(Cast("int32"), x)
    assert_exact(Cast("bool"), torch.tensor([torch.nan, 0.0, -0.0, torch.inf, 2.0**-126]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    cut=st.integers(0, 15),
    function=st.sampled_from(list(FUNCTIONS)),
)
@quick
def test_comparisons_and_choices_broadcast(dtype: torch.dtype, shape: list[int], cut: int, function: str) -> None:
    x, y = numbers(dtype, *shape), numbers(dtype, *(1 if cut >> i & 1 else n for i, n in enumerate(shape)), seed=1)
    assert_exact(Compare(function), x, y)
    assert_exact(Where(), FUNCTIONS[function](y, x[:1]), x, y)


@pytest.mark.parametrize("format_", WHOLES, ids=str)
def test_arithmetic(format_: NumberFormat) -> None:
    x, y = numbers(format_.tensor_dtype, 5, 33), numbers(format_.tensor_dtype, 5, 1, seed=1)
    for function in OF_TRUTH if format_.name == "bool" else OF_WHOLES:
        by_0 = "divide" in function
        assert_exact(Arithmetic(function), x, y.where(y != 0, 3) if by_0 else y)
        assert_exact(Arithmetic(function), x, (x * 2 + 1).flip(1) if by_0 else x.flip(1), in_place=0)


def test_bytes_wrap_around() -> None:
    x = torch.tensor([250, 3, 16], dtype=torch.uint8)
    assert run_kernel(Arithmetic("add"), [x, x]).tolist() == [244, 6, 32]
    assert run_kernel(Arithmetic("mul"), [x, x]).tolist() == [36, 9, 0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    axis=st.integers(0, 3),
    at=st.lists(st.integers(1, 4), max_size=2),
    narrow=st.booleans(),
)
@quick
def test_gather(dtype: torch.dtype, shape: list[int], axis: int, at: list[int], narrow: bool) -> None:
    x, axis = numbers(dtype, *shape), axis % len(shape)
    indices = torch.randint(-shape[axis], shape[axis], at, generator=torch.Generator().manual_seed(2))
    assert_exact(Gather(axis), x, indices.int() if narrow else indices, threads=2)
    plain = torch.where(indices < 0, indices + shape[axis], indices)
    picked = x.movedim(axis, 0)[plain]
    expected = picked.movedim(tuple(range(len(at))), tuple(range(axis, axis + len(at))))
    assert torch.equal(_without_nan(Gather(axis).reference(x, indices)), _without_nan(expected))


@pytest.mark.parametrize("index", [3, -4, 2**31, 2**32, -(2**40), 2**63 - 1])
def test_nothing_outside_of_a_table_is_read(index: int) -> None:
    x = torch.arange(6.0).reshape(3, 2)
    assert run_kernel(Gather(), [x, torch.tensor([index])]).tolist() == [[4.0, 5.0] if index > 0 else [0.0, 1.0]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1,), (15,), (16,), (33,), (3, 70), (2, 5, 3), (2, 1, 17)], ids=str)
@pytest.mark.parametrize("function", ["argmax", "argmin"])
def test_the_first_of_the_best(dtype: torch.dtype, shape: tuple[int, ...], function: str) -> None:
    x = numbers(dtype, *shape)
    for axis in range(len(shape)):
        assert_exact(ArgReduce(function, axis), x)


def test_nan_comes_first() -> None:
    x = torch.zeros(2, 40)
    x[0, 21] = x[0, 30] = torch.nan
    x[1, 39] = torch.inf
    assert ArgReduce("argmax", 1).reference(x).tolist() == [[21], [39]]
    assert ArgReduce("argmin", 1).reference(x).tolist() == [[21], [0]]
    assert_exact(ArgReduce("argmax", 1), x)
    assert_exact(ArgReduce("argmin", 1), x)


@pytest.mark.parametrize("format_", WHOLES, ids=str)
@pytest.mark.parametrize("function", ["sum", "max", "min"])
def test_reductions(format_: NumberFormat, function: str) -> None:
    if format_.name == "bool" and function == "sum":
        pytest.skip("sums of truth are of 64 bits: the importer casts")
    x = numbers(format_.tensor_dtype, 3, 5, 18)
    for axis, count in ((0, 1), (1, 1), (2, 1), (1, 2), (0, 3)):
        assert_exact(Reduce(function, axis, count), x)


@pytest.mark.parametrize("format_", WHOLES, ids=str)
def test_what_moves_elements(format_: NumberFormat) -> None:
    x = numbers(format_.tensor_dtype, 3, 5, 7)
    for op in (Permute((2, 0, 1)), Expand((2, 3, 5, 7)), Slice(1, 1, 5, 2), Slice(2, 2, 7)):
        assert_exact(op, x)
    assert_exact(Concat(1), x, x[:, :2], x.flip(2))


@pytest.mark.parametrize("layout", [ROW_MAJOR, CHANNELS_LAST, HALO], ids=str)
def test_images_are_read_in_any_layout(layout: Layout) -> None:
    """Numbers of images lie channels last; whole numbers never do, and are read where they lie."""
    pixels = numbers(torch.uint8, 2, 3, 5, 6)
    image, bias = numbers(torch.float32, 2, 3, 5, 6), torch.tensor([[[0.0]], [[1.0]], [[-1.0]]])
    result = run_kernel(Cast("float32"), [pixels], output=layout)
    assert torch.equal(result, pixels.float())
    for output in {layout, ROW_MAJOR} if layout == ROW_MAJOR else {layout}:
        chosen = run_kernel(Where(), [pixels > 2, image, bias], layouts=[ROW_MAJOR, layout], output=output)
        assert torch.equal(_without_nan(chosen), _without_nan(torch.where(pixels > 2, image, bias)))
