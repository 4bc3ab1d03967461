"""Quantizers against the number formats that they stand for, and their gradients against the formulas."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from netopt.errors import InvalidArgument, InvalidType
from netopt.numerics import FLOAT32, Affine, CodeFormat, FixedPoint, round_scale
from netopt.quantization.fixed_point.quantizer import Quantizer

Formats = st.SearchStrategy[CodeFormat]
SIGNED_BITS = [2, 3, 4, 5, 6, 7, 8, 16]
UNSIGNED_BITS = [2, 4, 7, 8]


@st.composite
def formats(draw: st.DrawFn, channels: int | None = None) -> CodeFormat:
    """Any format of codes of up to 16 bits, with a step for each of so many channels, or one."""
    signed = draw(st.booleans())
    bits = draw(st.sampled_from(SIGNED_BITS if signed else UNSIGNED_BITS))
    if draw(st.booleans()):
        fractions = st.integers(-112, 125)
        rows = fractions if channels is None else st.tuples(*[fractions] * channels)
        return FixedPoint(bits, draw(rows), signed)
    scale = st.builds(lambda m, e: round_scale(math.ldexp(m, e)), st.floats(1.0, 1.99), st.integers(-112, 111))
    scales = scale if channels is None else st.tuples(*[scale] * channels)
    zero = st.sampled_from([0, 0, -1, 1, 3]).filter(lambda code: signed or code >= 0)
    return Affine(bits, draw(scales), max(-2, min(1, draw(zero))), signed)


def near(format_: CodeFormat, dtype: torch.dtype) -> torch.Tensor:
    """Numbers at ties between codes, beside them, and beyond the codes."""
    middles = torch.tensor([-300.0, -128.5, -128, -2.5, -1.5, -0.5, 0.0, 0.5, 1.5, 126.5, 127.5, 255.5, 32767.5, 40000])
    ties = (middles.double() * format_.steps[0]).to(dtype)
    infinity = torch.full_like(ties, math.inf)
    return torch.cat([ties, torch.nextafter(ties, infinity), torch.nextafter(ties, -infinity)])


def check_equal(format_: CodeFormat, x: torch.Tensor) -> None:
    """To the bit, the sign of 0 included."""
    expected = format_.decode(format_.encode(x), x.dtype)
    found = Quantizer.of(format_)(x)
    assert found.dtype == x.dtype
    assert np.array_equal(found.numpy(), expected.numpy())
    assert np.array_equal(np.signbit(found.numpy()), np.signbit(expected.numpy()))


@given(format_=formats(), data=st.data(), is_double=st.booleans())
@settings(max_examples=400, deadline=None, derandomize=True)
def test_forward_is_encode_and_decode(format_: CodeFormat, data: st.DataObject, is_double: bool) -> None:
    dtype: Any = np.float64 if is_double else np.float32
    x = torch.from_numpy(data.draw(hnp.arrays(dtype, hnp.array_shapes(max_side=4, min_dims=0))))
    check_equal(format_, x)
    # Of the size of the steps, where there are many different codes.
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    most = format_.codes.stop * format_.steps[0]
    check_equal(format_, (torch.randn(50, generator=generator, dtype=torch.float64) * most).to(x.dtype))
    check_equal(format_, near(format_, x.dtype))


@given(data=st.data(), channels=st.integers(1, 4), is_double=st.booleans())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_forward_by_channel(data: st.DataObject, channels: int, is_double: bool) -> None:
    format_ = data.draw(formats(channels))
    dtype: Any = np.float64 if is_double else np.float32
    shape = (channels, *data.draw(hnp.array_shapes(min_dims=1, max_side=3)))
    x = torch.from_numpy(data.draw(hnp.arrays(dtype, shape)))
    check_equal(format_, x)
    check_equal(format_, (x.clamp(-3, 3) * format_.steps[0]).nan_to_num(0.25))


def test_all_that_is_not_a_number_or_beyond() -> None:
    x = torch.tensor([math.inf, -math.inf, math.nan, 3.4e38, -3.4e38, 1e-45, -1e-45, 0.0, -0.0])
    for format_ in (FixedPoint(8, 3), FixedPoint(8, -112, False), FixedPoint(16, 125), Affine(8, 0.5, 3)):
        check_equal(format_, x)
        check_equal(format_, x.double() * 1e200)


@given(format_=formats(), by_channel=formats(3))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_format_and_its_quantizer(format_: CodeFormat, by_channel: CodeFormat) -> None:
    for wanted in (format_, by_channel):
        for learned in (False, True):
            quantizer = Quantizer.of(wanted, learned=learned)
            assert quantizer.format == wanted
            assert quantizer.by_channel == wanted.is_by_channel
            assert quantizer.step.detach().reshape(-1).tolist() == list(wanted.steps)
            assert [p.requires_grad for p in quantizer.parameters()] == [True] * learned
            assert len(quantizer.state_dict()) == 1


@pytest.mark.parametrize("kind", ["power", "real"])
@pytest.mark.parametrize("signed", [True, False])
def test_without_a_format_its_numbers_end_at_one(kind: Any, signed: bool) -> None:
    quantizer = Quantizer(8, signed=signed, kind=kind, channels=2)
    step = 2.0**-7 if signed else 2.0**-8
    wanted = FixedPoint(8, (7, 7)) if signed else FixedPoint(8, (8, 8), False)
    assert quantizer.format == (wanted if kind == "power" else Affine(8, (step, step), 0, signed))


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("format_", [FixedPoint(4, (3, -2, 100)), Affine(8, round_scale(0.3), 5)])
def test_state_dict_round_trip(format_: CodeFormat, learned: bool) -> None:
    quantizer = Quantizer.of(format_, learned=learned)
    other = Quantizer(
        format_.bits,
        channels=quantizer.channels,
        kind=quantizer.kind,
        zero_point=format_.zero,
        learned=not learned,
    )
    other.load_state_dict(quantizer.state_dict())
    assert other.format == copy.deepcopy(quantizer).format == format_


def test_in_other_types_the_format_stays() -> None:
    quantizer = Quantizer.of(FixedPoint(8, (125, -112, 3)))
    assert quantizer.double().format == quantizer.bfloat16().format == FixedPoint(8, (125, -112, 3))


# --- gradients


def test_gradient_is_one_where_there_is_a_code() -> None:
    x = torch.tensor([-8.75, -8.5, -3.0, 0.1, 7.25, 7.5, 9.0, math.nan], requires_grad=True)
    grad = torch.arange(1.0, 9.0)
    Quantizer.of(FixedPoint(4, 0))(x).backward(grad)
    assert x.grad is not None and x.grad.tolist() == [0, 2, 3, 4, 5, 0, 0, 0]
    y = x.detach().clone().requires_grad_()
    Quantizer.of(FixedPoint(4, 0), clips=False)(y).backward(grad)
    assert y.grad is not None and torch.equal(y.grad, grad)


def test_gradient_with_a_zero_point_and_without_signs() -> None:
    x = torch.tensor([-1.1, -1.0, 0.0, 6.4, 6.5], requires_grad=True)
    # Codes 0 to 7 stand for -1 to 6.
    Quantizer.of(Affine(3, 1.0, 1, False))(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1, 1, 1, 1, 0]
    z = torch.tensor([-0.6, -0.5, 300.0], requires_grad=True)
    Quantizer.of(FixedPoint(8, 0, False))(z).sum().backward()
    assert z.grad is not None and z.grad.tolist() == [0, 1, 0]


def lsq_gradient(x: torch.Tensor, grad: torch.Tensor, step: float, codes: range, count: int) -> float:
    """Equation 3 of LSQ, and its scale of the gradient, number by number."""
    total = 0.0
    for number, weight in zip((x.double() / step).reshape(-1).tolist(), grad.reshape(-1).tolist(), strict=True):
        code = math.floor(number + 0.5)
        last = codes.start if code < codes.start else codes.stop - 1
        total += weight * (code - number if code in codes else last)
    return total / math.sqrt(count * (codes.stop - 1))


@pytest.mark.parametrize(
    "format_", [FixedPoint(4, 1), FixedPoint(7, 5, False), Affine(8, round_scale(0.013)), Affine(3, 0.75, 0, False)]
)
def test_gradient_of_one_step(format_: CodeFormat) -> None:
    torch.manual_seed(0)
    x, grad = torch.randn(6, 5, 4), torch.randn(6, 5, 4)
    for batched, count in ((False, 120), (True, 20)):
        quantizer = Quantizer.of(format_, learned=True, batched=batched)
        quantizer(x).backward(grad)
        (parameter,) = quantizer.parameters()
        expected = lsq_gradient(x, grad, format_.steps[0], format_.codes, count)
        if isinstance(format_, FixedPoint):
            expected *= format_.steps[0] * math.log(2)
        assert parameter.grad is not None and parameter.grad.item() == pytest.approx(expected, rel=1e-4)


def test_gradient_of_steps_by_channel_and_of_what_is_rounded() -> None:
    torch.manual_seed(1)
    x, grad = torch.randn(3, 7, dtype=torch.float64, requires_grad=True), torch.randn(3, 7, dtype=torch.float64)
    scales = (0.125, 0.5, round_scale(0.3))
    quantizer = Quantizer.of(Affine(3, scales), learned=True)
    quantizer(x).backward(grad)
    assert quantizer.raw_step.grad is not None and x.grad is not None
    for row, scale in enumerate(scales):
        expected = lsq_gradient(x[row].detach(), grad[row], scale, range(-4, 4), 7)
        assert quantizer.raw_step.grad[row].item() == pytest.approx(expected, rel=1e-5)
    plain = x.detach().clone().requires_grad_()
    Quantizer.of(Affine(3, scales))(plain).backward(grad)
    assert plain.grad is not None and torch.equal(x.grad, plain.grad)


@pytest.mark.parametrize("kind", ["power", "real"])
def test_training_finds_a_better_step(kind: Any) -> None:
    """From a step that saturates most of them: the error falls, and the format is one that there is."""
    torch.manual_seed(2)
    x = torch.randn(4000)
    quantizer = Quantizer(4, kind=kind, learned=True)
    before = (quantizer(x) - x).square().mean().item()
    optimizer = torch.optim.Adam(quantizer.parameters(), 0.05)
    for _ in range(150):
        optimizer.zero_grad()
        (quantizer(x) - x).square().mean().backward()
        optimizer.step()
    # The best step of 4 bits for normal numbers is 0.335, with an error of 0.0115: Max, 1960. Powers: 1/4 or 1/2.
    error = (quantizer(x) - x).square().mean().item()
    assert before > 0.1 and error < (0.013 if kind == "real" else 0.024)
    check_equal(quantizer.format, x)


# --- the rest


def test_switched_off_it_does_nothing() -> None:
    quantizer = Quantizer.of(FixedPoint(8, 4))
    quantizer.enabled = False
    x = torch.tensor([0.3, 1e9])
    assert quantizer(x) is x


def test_it_says_what_it_is() -> None:
    assert repr(Quantizer.of(FixedPoint(8, 4))) == "Quantizer(8 bits, signed, powers of two)"
    quantizer = Quantizer.of(Affine(4, (0.5, 0.25), 3), learned=True, clips=False)
    quantizer.enabled = False
    expected = "Quantizer(4 bits, signed, real scales, 2 channels, zero_point=3, learned, clips=False, off)"
    assert repr(quantizer) == expected


def test_what_cannot_be() -> None:
    with pytest.raises(InvalidArgument, match="bits of a quantizer"):
        Quantizer(32)
    with pytest.raises(InvalidArgument, match="bits of unsigned fixed-point codes"):
        Quantizer(16, signed=False)
    with pytest.raises(InvalidArgument, match="kind of steps"):
        Quantizer(8, kind="odd")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="zero point"):
        Quantizer(8, zero_point=1)
    with pytest.raises(InvalidArgument, match="channels"):
        Quantizer(8, channels=0)
    with pytest.raises(InvalidType, match="learned of a quantizer"):
        Quantizer(8, learned=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidType, match="format of a quantizer"):
        Quantizer.of(FLOAT32)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="3 along the first axis"):
        Quantizer(8, channels=3)(torch.zeros(2, 3))
