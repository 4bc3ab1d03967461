"""Steps of both kinds, and the formats that have them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netopt.errors import InvalidArgument
from netopt.numerics import Affine, FixedPoint, round_scale
from netopt.quantization.fixed_point.steps import make_format, power_of_two, round_steps


def test_powers_of_two_are_exact() -> None:
    exponents = torch.arange(-1022, 1024)
    assert power_of_two(exponents).tolist() == [math.ldexp(1.0, e) for e in range(-1022, 1024)]
    assert power_of_two(torch.tensor(-3.0)).item() == 0.125


@given(st.floats(1e-30, 1e30))
def test_real_steps_are_rounded_as_formats_want_them(step: float) -> None:
    rounded = round_steps(torch.tensor([step]), "real").item()
    assert rounded == round_scale(float(torch.tensor(step, dtype=torch.float32)))
    upper = round_steps(torch.tensor(step, dtype=torch.float64), "real", up=True).item()
    assert upper == round_scale(upper) and upper >= step
    # The next smaller number of 8 digits is too small.
    assert math.ldexp(math.ceil(math.frexp(upper)[0] * 256) - 1, math.frexp(upper)[1] - 8) < step


@given(st.floats(1e-30, 1e30))
def test_powers_are_nearest_or_above(step: float) -> None:
    given_ = torch.tensor(step, dtype=torch.float64)
    assert abs(math.log2(round_steps(given_, "power").item()) - math.log2(step)) <= 0.5 + 1e-12
    upper = round_steps(given_, "power", up=True).item()
    assert upper >= step > upper / 2


def test_powers_of_two_stay() -> None:
    powers = power_of_two(torch.arange(-112, 113))
    for kind in ("power", "real"):
        for up in (False, True):
            assert torch.equal(round_steps(powers, kind, up=up), powers)


def test_what_no_format_has_becomes_what_one_has() -> None:
    extremes = torch.tensor([0.0, 1e-300, 1e300, math.inf], dtype=torch.float64)
    assert round_steps(extremes, "power").tolist() == [2.0**-125, 2.0**-125, 2.0**112, 2.0**112]
    assert round_steps(extremes, "real", up=True).tolist() == [2.0**-112, 2.0**-112, 2.0**112, 2.0**112]
    assert make_format(round_steps(extremes, "power"), 8, True, "power") == FixedPoint(8, (125, 125, -112, -112))


def test_formats() -> None:
    assert make_format(torch.tensor(0.25), 7, False, "power") == FixedPoint(7, 2, False)
    assert make_format(torch.tensor([0.25, 8.0]), 4, True, "power") == FixedPoint(4, (2, -3))
    assert make_format(torch.tensor(0.75), 8, False, "real", 3) == Affine(8, 0.75, 3, False)
    assert make_format(torch.tensor([0.75]), 8, True, "real") == Affine(8, (0.75,))
    with pytest.raises(InvalidArgument, match="kind of steps"):
        make_format(torch.tensor(1.0), 8, True, "some")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="bits of signed fixed-point codes"):
        make_format(torch.tensor(1.0), 9, True, "power")
