"""Whole numbers of units: the narrowest type that provably holds them, and rounding against rational numbers."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from fractions import Fraction

import halide as hl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.kernels.machine.cpu import host_cpu
from netopt.kernels.machine.formats import Element, Source
from netopt.kernels.parts.units import Units
from netopt.numerics import FixedPoint

S8, U8, S16 = FixedPoint(8, 0), FixedPoint(8, 0, False), FixedPoint(16, 0)


def units(format_: FixedPoint) -> Units:
    return Units.of(Element(hl.Expr(0), format_))


def at(format_: FixedPoint, position: int) -> FixedPoint:
    return FixedPoint(format_.bits, position, format_.signed)


def test_the_type_is_the_narrowest_that_holds_all() -> None:
    assert (units(S8) + units(U8)).bits(S8) == 16
    assert (units(at(S8, 6)) + units(S8)).bits(S8) == 16  # 128 x 64 + 128
    assert (units(at(S8, 8)) + units(S8)).bits(S8) == 32  # 128 x 256 is one too many
    assert (units(S8) * units(S8)).bits(S8) == 16  # 16,384
    assert (units(U8) * units(S8)).bits(S8) == 16  # 255 x 128 = 32,640
    assert (units(U8) * units(U8)).bits(S8) == 32
    assert (units(S16) * units(S16)).bits(S8) == 32
    assert (units(at(S16, 20)) + units(S16)).bits(S8) is None
    assert units(S8).bits(S16) == 16
    assert units(S8).bits(at(S16, 1)) == 32  # shifted to the left, it is beyond 16 bits before it is clamped
    # A sum that is too large on the way is so, however small the rest.
    assert (units(at(S16, 20)) * (units(S16) + units(at(S16, 30)))).bits(S8) is None


FUNCTIONS: dict[str, tuple[Callable[..., Units], Callable[..., Fraction]]] = {
    "add": (operator.add, operator.add),
    "sub": (operator.sub, operator.sub),
    "mul": (operator.mul, operator.mul),
    "larger": (Units.larger, max),
    "smaller": (Units.smaller, min),
    "positive": (lambda x, y: x.where_positive(y * x), lambda x, y: x if x > 0 else y * x),
    "neg": (lambda x, y: -x, lambda x, y: -x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(max_examples=12, deadline=None)
@given(
    one=st.sampled_from([S8, U8, S16]),
    other=st.sampled_from([S8, U8, S16]),
    written=st.sampled_from([S8, U8, S16]),
    positions=st.tuples(st.integers(-8, 40), st.integers(-6, 6), st.integers(-40, 40)),
    seed=st.integers(0, 999),
)
def test_the_code_of_the_exact_number(
    name: str, one: FixedPoint, other: FixedPoint, written: FixedPoint, positions: tuple[int, int, int], seed: int
) -> None:
    of_units, of_numbers = FUNCTIONS[name]
    formats = (at(one, positions[0]), at(other, positions[0] + positions[1]))
    target = at(written, positions[0] + positions[2])
    if of_units(*map(units, formats)).bits(target) is None:
        return
    generator = np.random.default_rng(seed)
    ends = [[f.codes.start, f.codes.stop - 1, *generator.integers(f.codes.start, f.codes.stop, 6)] for f in formats]
    codes = [np.array(each).astype(f.dtype) for each, f in zip(np.meshgrid(*ends), formats, strict=True)]
    codes = [np.ascontiguousarray(each.reshape(-1)) for each in codes]
    found = run(of_units, formats, target, codes)
    numbers = [[Fraction(int(c)) * Fraction(f.steps[0]) for c in each] for each, f in zip(codes, formats, strict=True)]
    for code, x, y in zip(found.tolist(), *numbers, strict=True):
        exact = math.floor(of_numbers(x, y) / Fraction(target.steps[0]) + Fraction(1, 2))
        assert code == min(max(exact, target.codes.start), target.codes.stop - 1)


def run(
    function: Callable[..., Units], formats: tuple[FixedPoint, ...], written: FixedPoint, codes: list[np.ndarray]
) -> np.ndarray:
    """What machine code gives."""
    sources = [Source(f"x{number}", 1, format_) for number, format_ in enumerate(formats)]
    i, out = hl.Var("i"), hl.Func("out")
    out[i] = function(*(Units.of(source.element([i])) for source in sources)).stored(written)
    out.vectorize(i, host_cpu().lanes, hl.TailStrategy.GuardWithIf)
    result = np.zeros(codes[0].shape, written.dtype)
    call = out.compile_to_callable([source.param for source in sources], hl.Target(host_cpu().target))
    call(*(hl.Buffer(each) for each in (*codes, result)))
    return result
