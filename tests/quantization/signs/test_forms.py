"""Sums of signs: each form and its gradient against the formulas of its docstring, in NumPy."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from netopt import FileFormatError, InvalidArgument, InvalidType
from netopt.quantization import (
    STE,
    ApproxSign,
    Estimator,
    FloatWeights,
    Identity,
    ResidualInputs,
    ResidualWeights,
    SignInputs,
    SignWeights,
    SwishSign,
    TernaryWeights,
)
from netopt.quantization.signs.forms import Form, InputForm, Term, WeightForm, form_from
from tests.quantization.signs.test_estimators import SLOPES

Array = NDArray[np.float64]
SHAPES = [(4, 6), (3, 2, 5), (5, 3, 3, 1), (1, 1, 1, 1)]
# float64: sums of some 30 numbers near 1.
CLOSE = {"rtol": 1e-13, "atol": 1e-13}


def latent(shape: tuple[int, ...]) -> torch.Tensor:
    """Numbers on both sides of 1 and of -1."""
    return (torch.randn(shape, dtype=torch.float64) * 1.2).requires_grad_()


def signs_of(x: Array) -> Array:
    return np.where(x >= 0, 1.0, -1.0)


def mean(x: Array) -> Array:
    """Over all axes but the first, which are kept."""
    return x.mean(tuple(range(1, x.ndim)), keepdims=True)


def composed(terms: list[Term]) -> torch.Tensor:
    """The sum of scales times signs."""
    return sum(
        signs if scale is None else scale.reshape(-1, *[1] * (signs.dim() - 1)) * signs for scale, signs in terms
    )  # type: ignore[return-value]


def gradient(form: WeightForm | InputForm, x: torch.Tensor, g: torch.Tensor) -> Array:
    """dL/dx, where dL/d(sum of scales times signs) = g."""
    terms = form.terms(x, True) if isinstance(form, WeightForm) else form.terms(x)
    (composed(terms) * g).sum().backward()
    assert x.grad is not None
    return x.grad.numpy()


def residual(x: Array, number: int) -> tuple[list[Array], list[Array], list[Array]]:
    """Scales, signs, and what each term binarizes."""
    scales, signs, rests, rest = [], [], [], x
    for _ in range(number):
        rests.append(rest)
        scales.append(mean(np.abs(rest)))
        signs.append(signs_of(rest))
        rest = rest - scales[-1] * signs[-1]
    return scales, signs, rests


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("estimator", SLOPES, ids=str)
def test_sign_weights(shape: tuple[int, ...], scaled: bool, estimator: Estimator) -> None:
    form, w, g = SignWeights(scaled=scaled, estimator=estimator), latent(shape), torch.randn(shape).double()
    ((scale, signs),) = form.terms(w, True)
    x, upstream = w.detach().numpy(), g.numpy()
    alpha = mean(np.abs(x)) if scaled else np.ones((shape[0], *[1] * (len(shape) - 1)))
    assert np.array_equal(signs.detach(), signs_of(x))
    assert (scale is not None) == scaled
    if scale is not None:
        assert scale.shape == shape[:1]
        assert np.allclose(scale.detach(), alpha.reshape(-1), **CLOSE)
    expected = alpha * SLOPES[estimator](x) * upstream
    if scaled:
        expected = expected + mean(upstream * signs_of(x)) * signs_of(x)
    assert np.allclose(gradient(form, w, g), expected, **CLOSE)


def test_the_scale_has_no_gradient_at_zero() -> None:
    w = torch.tensor([[0.0, -0.0, 2.0, -4.0]], requires_grad=True)
    ((scale, signs),) = SignWeights().terms(w, True)
    assert scale is not None
    assert signs.tolist() == [[1, 1, 1, -1]]
    scale.sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [[0, 0, 0.25, -0.25]]


def test_stochastic_signs_have_their_probabilities() -> None:
    count, values = 20_000, [-2.0, -1.0, -0.9, -0.5, 0.0, 0.3, 0.99, 1.0, 1.5]
    w = torch.tensor(values)[:, None].expand(-1, count)
    ((_, signs),) = SignWeights(scaled=False, stochastic=True).terms(w, True)
    assert set(signs.unique().tolist()) == {-1, 1}
    for value, found in zip(values, (signs > 0).double().mean(1).tolist(), strict=True):
        p = min(1.0, max(0.0, (value + 1) / 2))
        # Five standard deviations of a binomial: one seed in two million would fail.
        assert abs(found - p) <= 5 * math.sqrt(p * (1 - p) / count)


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-24])
def test_no_draw_turns_weights_of_one_and_minus_one(draw: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where clipping leaves weights: with the least and the largest number that torch draws."""
    monkeypatch.setattr(torch, "rand_like", lambda w: torch.full_like(w, draw))
    ((_, signs),) = SignWeights(scaled=False, stochastic=True).terms(torch.tensor([[-1.0, 1.0]]), True)
    assert signs.tolist() == [[-1, 1]]


def test_stochastic_signs_are_drawn_in_training_alone() -> None:
    form, w = SignWeights(scaled=False, stochastic=True), torch.linspace(-1, 1, 100)[None]
    ((_, first),), ((_, second),) = form.terms(w, True), form.terms(w, True)
    assert not torch.equal(first, second)
    state = torch.get_rng_state()
    ((_, signs),) = form.terms(w, False)
    assert np.array_equal(signs, signs_of(w.numpy()))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("scaled", [True, False])
def test_the_gradient_of_drawn_signs(scaled: bool) -> None:
    form, w, g = SignWeights(scaled=scaled, stochastic=True), latent((3, 8)), torch.randn(3, 8).double()
    state = torch.get_rng_state()
    ((_, signs),) = form.terms(w.detach(), True)
    torch.set_rng_state(state)
    x, drawn, upstream = w.detach().numpy(), signs.numpy(), g.numpy()
    expected = mean(np.abs(x)) * upstream + mean(upstream * drawn) * signs_of(x) if scaled else upstream
    assert not np.array_equal(drawn, signs_of(x))
    assert np.allclose(gradient(form, w, g), expected, **CLOSE)


@pytest.mark.parametrize("shape", SHAPES)
def test_ternary_weights(shape: tuple[int, ...]) -> None:
    w, g = latent(shape), torch.randn(shape).double()
    x = w.detach().numpy()
    delta = 0.7 * mean(np.abs(x))
    ternary = np.where(x >= delta, 1.0, np.where(x < -delta, -1.0, 0.0))
    kept = np.abs(ternary)
    alpha = mean(np.abs(x) * kept) / mean(kept)
    ((scale, values),) = TernaryWeights().terms(w, True)
    assert np.array_equal(values.detach(), ternary)
    assert scale is not None
    assert np.allclose(scale, alpha.reshape(-1), **CLOSE)
    assert np.allclose(gradient(TernaryWeights(), w, g), alpha * g.numpy(), **CLOSE)


def test_ternary_weights_are_two_signs_where_they_are_used() -> None:
    """alpha T = alpha / 2 (sign + sign), exactly, since halves of numbers are exact."""
    w = latent((4, 2, 3))
    ((alpha, ternary),) = TernaryWeights().terms(w, True)
    terms = TernaryWeights().terms(w, False)
    assert alpha is not None
    assert len(terms) == TernaryWeights().bits == 2
    for scale, signs in terms:
        assert scale is not None
        assert torch.equal(2 * scale, alpha)
        assert set(signs.unique().tolist()) == {-1, 1}
    assert torch.equal(composed(terms), composed([(alpha, ternary)]))


def test_ternary_weights_at_the_thresholds() -> None:
    """The threshold of a row (7, 13) is 0.7 x 10 = 7, in float64 exactly; rows of zeros stay zeros."""
    w = torch.tensor([[7.0, -13.0], [-7.0, 13.0], [0.0, -0.0]], dtype=torch.float64)
    ((scale, values),) = TernaryWeights().terms(w, True)
    assert values[:2].tolist() == [[1, -1], [0, 1]]
    assert scale is not None
    assert scale.tolist() == [10, 13, 0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("kind", [ResidualWeights, ResidualInputs])
def test_residuals(shape: tuple[int, ...], number: int, kind: Any) -> None:
    """Of weights for each output, of inputs for each example."""
    form, x, g = kind(number=number), (latent(shape).detach() * 2.5).requires_grad_(), torch.randn(shape).double()
    upstream = g.numpy()
    scales, signs, rests = residual(x.detach().numpy(), number)
    terms = form.terms(x, True) if kind is ResidualWeights else form.terms(x)
    for (scale, found), expected_scale, expected in zip(terms, scales, signs, strict=True):
        assert scale.shape == shape[:1]
        assert np.allclose(scale.detach(), expected_scale.reshape(-1), **CLOSE)
        assert np.array_equal(found.detach(), expected)
    expected = sum(
        a * (np.abs(r) <= number) * upstream + mean(upstream * s) * np.sign(r)  # of |r|, which has none at 0
        for a, s, r in zip(scales, signs, rests, strict=True)
    )
    assert np.allclose(gradient(form, x, g), expected, **CLOSE)


def test_each_residual_term_brings_the_sum_nearer() -> None:
    w = torch.randn(4, 50)
    errors = [float((composed(ResidualWeights(number=k).terms(w, False)) - w).norm()) for k in range(1, 9)]
    assert all(after < before for before, after in itertools.pairwise(errors))


@pytest.mark.parametrize("estimator", SLOPES, ids=str)
def test_sign_inputs(estimator: Estimator) -> None:
    form, x, g = SignInputs(estimator=estimator), latent((2, 3, 4)), torch.randn(2, 3, 4).double()
    ((scale, signs),) = form.terms(x)
    assert scale is None
    assert np.array_equal(signs.detach(), signs_of(x.detach().numpy()))
    assert np.allclose(gradient(form, x, g), SLOPES[estimator](x.detach().numpy()) * g.numpy(), **CLOSE)


def test_float_weights_are_the_weights() -> None:
    w = torch.randn(2, 3)
    ((scale, values),) = FloatWeights().terms(w, True)
    assert scale is None
    assert values is w


FORMS: dict[Form, int] = {
    FloatWeights(): 32,
    SignWeights(): 1,
    SignWeights(scaled=False, stochastic=True, estimator=SwishSign(2.0)): 1,
    TernaryWeights(): 2,
    ResidualWeights(number=3): 3,
    SignInputs(estimator=ApproxSign()): 1,
    SignInputs(estimator=Identity()): 1,
    ResidualInputs(): 2,
}


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_bits_and_descriptions(form: Form) -> None:
    assert form.bits == FORMS[form]
    assert form_from(json.loads(json.dumps(form.describe()))) == form
    assert {type(form) for form in FORMS} == set(Form.kinds.values())


GOOD = SignWeights(estimator=STE()).describe()


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (None, "^form: expected one of .*sign.*, found None"),
        ([], "^form: expected one of"),
        ({}, "^form: expected one of"),
        ({**GOOD, "name": "eval"}, "^form: expected one of"),
        ({**GOOD, "name": ["sign"]}, "^form: expected one of"),
        ({**GOOD, "more": 1}, "^form: expected one of"),
        ({**GOOD, "scaled": 1}, "^form: expected one of"),
        ({**GOOD, "estimator": "ste"}, "^form: expected one of"),
        ({**GOOD, "estimator": {"name": "eval"}}, "^estimator: expected one of"),
        ({key: value for key, value in GOOD.items() if key != "stochastic"}, "^form: expected one of"),
        ({"name": "residual", "number": True}, "^form: expected one of"),
        ({"name": "residual", "number": 9}, "^form: found number of terms: expected an integer from 1 to 8, found 9"),
    ],
)
def test_damaged_descriptions(description: Any, message: str) -> None:
    assert form_from(GOOD) == SignWeights()
    with pytest.raises(FileFormatError, match=message):
        form_from(description)


@pytest.mark.parametrize("kind", [ResidualWeights, ResidualInputs])
@pytest.mark.parametrize("number", [0, 9, 2.0, True, None])
def test_wrong_numbers_of_terms(kind: Any, number: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"^number of terms: expected an integer from 1 to 8, found {number}$"):
        kind(number=number)


@pytest.mark.parametrize("kind", [SignWeights, SignInputs])
def test_wrong_types(kind: Any) -> None:
    with pytest.raises(InvalidType, match=r"^estimator: expected STE\(\), ApproxSign\(\), .*, found 'ste'$"):
        kind(estimator="ste")
    for name in ("scaled", "stochastic"):
        with pytest.raises(InvalidType, match=f"^{name}: expected True or False, found 1$"):
            SignWeights(**{name: 1})
