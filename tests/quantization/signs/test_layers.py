"""Low-bit layers against sums in integers, written as loops in NumPy. Sums of signs are exact in float32."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from netopt import FileFormatError
from netopt.quantization import (
    FloatWeights,
    LowBitConv1d,
    LowBitConv2d,
    LowBitLinear,
    ResidualInputs,
    ResidualWeights,
    SignInputs,
    SignWeights,
    TernaryWeights,
)
from netopt.quantization.signs.layers import is_binary
from tests.quantization.signs.test_forms import CLOSE, mean, residual, signs_of

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
SIGN = SignWeights(scaled=False)
Array = NDArray[Any]


def convolution(x: Array, w: Array, layer: nn.Conv2d, border: int = 0) -> Array:
    """(batch, in, h, w) * (out, in / groups, kh, kw), one output at a time."""
    (kh, kw), (sh, sw), (dh, dw) = layer.kernel_size, layer.stride, layer.dilation
    left, right, top, bottom = layer._reversed_padding_repeated_twice
    if layer.padding == "same":  # what the layer should pad with, not what it says
        spans = [(kh - 1) * dh, (kw - 1) * dw]
        top, left = (span // 2 for span in spans)
        bottom, right = spans[0] - top, spans[1] - left
    x = np.pad(x, [(0, 0), (0, 0), (top, bottom), (left, right)], constant_values=border)
    rows, columns = (x.shape[2] - (kh - 1) * dh - 1) // sh + 1, (x.shape[3] - (kw - 1) * dw - 1) // sw + 1
    y = np.zeros((len(x), len(w), rows, columns), np.result_type(x, w))
    ins, outs = w.shape[1], len(w) // layer.groups
    for o, i, j in np.ndindex(len(w), rows, columns):
        first = o // outs * ins
        patch = x[:, first : first + ins, i * sh :: dh, j * sw :: dw][:, :, :kh, :kw]
        y[:, o, i, j] = (patch * w[o]).sum((1, 2, 3))
    return y


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Conv2d, torch.Tensor]:
    """Any convolution with an input, both of signs and zeros only where the layer pads."""
    pair = lambda values: st.tuples(values, values)
    groups, ins, outs = (draw(st.sampled_from(sizes)) for sizes in ([1, 1, 2, 3], [1, 2, 3, 5], [1, 2, 3]))
    kernel, dilation = draw(pair(st.integers(1, 3))), draw(pair(st.integers(1, 2)))
    same = draw(st.booleans())
    stride = (1, 1) if same else draw(pair(st.integers(1, 2)))
    border = draw(pair(st.integers(0, 2)))
    padding = "same" if same else border
    # Enough for one output.
    least = [max(1, d * (k - 1) + 1 - 2 * p) for d, k, p in zip(dilation, kernel, border, strict=True)]
    size = [draw(st.integers(0, 3)) + extent for extent in least]
    torch.manual_seed(draw(st.integers(0, 99)))
    layer = nn.Conv2d(groups * ins, groups * outs, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()))
    if layer.bias is not None:
        nn.init._no_grad_fill_(layer.bias, draw(st.integers(-3, 3)))
    return layer, torch.randn(draw(st.integers(1, 2)), groups * ins, *size)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(convolutions(), st.booleans(), st.booleans())
def test_binary_convolutions_are_sums_of_integers(
    case: tuple[nn.Conv2d, torch.Tensor], scaled: bool, pad_one: bool
) -> None:
    """Zero padding adds nothing, after the sign; padding with one adds +1."""
    layer, x = case
    binary = LowBitConv2d.of(copy.deepcopy(layer), SignWeights(scaled=scaled), SignInputs(), pad_one=pad_one)
    signs = signs_of(x.numpy()).astype(np.int64)
    weights = signs_of(layer.weight.detach().numpy()).astype(np.int64)
    expected = convolution(signs, weights, layer, int(pad_one)).astype(np.float32)
    bias = 0 if layer.bias is None else layer.bias.detach().numpy()[:, None, None]
    if scaled:
        alpha = layer.weight.detach().abs().mean((1, 2, 3)).numpy()[:, None, None]
        expected = expected * alpha
    assert np.array_equal(binary(x).detach(), expected + bias)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(convolutions(), st.booleans())
def test_along_one_axis(case: tuple[nn.Conv2d, torch.Tensor], pad_one: bool) -> None:
    """As a convolution of images of one row."""
    wide, x = case
    same = isinstance(wide.padding, str)
    options = {"stride": wide.stride[1], "padding": "same" if same else wide.padding[1], "dilation": wide.dilation[1]}
    layer = nn.Conv1d(wide.in_channels, wide.out_channels, wide.kernel_size[1], groups=wide.groups, **options)
    binary = LowBitConv1d.of(layer, SIGN, SignInputs(), pad_one=pad_one)
    image = nn.Conv2d(
        wide.in_channels,
        wide.out_channels,
        (1, wide.kernel_size[1]),
        (1, wide.stride[1]),
        "same" if same else (0, wide.padding[1]),
        (1, wide.dilation[1]),
        wide.groups,
    )
    row, weight = x[:, :, :1], layer.weight.detach().numpy()[:, :, None]
    expected = convolution(signs_of(row.numpy()), signs_of(weight), image, int(pad_one))
    assert layer.bias is not None
    found = binary(row[:, :, 0]).detach() - layer.bias.detach()[:, None]
    # One rounding of a sum, and one of a difference, with numbers below 2^7.
    assert np.allclose(found, expected[:, :, 0], rtol=0, atol=2**-16)


def test_the_border_by_hand() -> None:
    """All signs +1, a kernel of 3 x 3 on 2 x 2 pixels: four of nine are in the image."""
    layer = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(layer.weight)
    x = torch.zeros(1, 1, 2, 2)
    assert LowBitConv2d.of(layer, SIGN, SignInputs())(x).unique().tolist() == [4]
    assert LowBitConv2d.of(layer, SIGN, SignInputs(), pad_one=True)(x).unique().tolist() == [9]


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_only_zeros_are_replaced_by_padding_with_one(mode: str) -> None:
    layer = nn.Conv2d(2, 3, 3, padding=1, padding_mode=mode)
    x = torch.randn(2, 2, 5, 5)
    expected = LowBitConv2d.of(layer, SIGN, SignInputs())(x)
    assert torch.equal(LowBitConv2d.of(layer, SIGN, SignInputs(), pad_one=True)(x), expected)


@pytest.mark.parametrize("leading", [(), (1,), (3,), (2, 3), (2, 1, 4)])
@pytest.mark.parametrize("scaled", [True, False])
def test_binary_dense_layers_are_sums_of_integers(leading: tuple[int, ...], scaled: bool) -> None:
    dense, x = nn.Linear(7, 5), torch.randn(*leading, 7)
    w, b = dense.weight.detach(), dense.bias.detach().numpy()
    alpha = w.abs().mean(1).numpy() if scaled else np.float32(1)
    signs = signs_of(x.numpy()).astype(np.int64)
    expected = np.zeros((*leading, 5), np.int64)
    for place in np.ndindex(*leading, 5):
        expected[place] = (signs[place[:-1]] * signs_of(w[place[-1]].numpy()).astype(np.int64)).sum()
    found = LowBitLinear.of(dense, SignWeights(scaled=scaled), SignInputs())(x)
    assert np.array_equal(found.detach(), expected.astype(np.float32) * alpha + b)


def test_weights_alone_leave_inputs_as_they_are() -> None:
    dense, x = nn.Linear(6, 4).double(), torch.randn(3, 6).double()
    w, b = dense.weight.detach().numpy(), dense.bias.detach().numpy()
    found = LowBitLinear.of(dense, SignWeights())(x).detach()
    assert np.allclose(found, x.numpy() @ signs_of(w).T * np.abs(w).mean(1) + b, **CLOSE)
    assert np.allclose(LowBitLinear.of(dense, FloatWeights())(x).detach(), x.numpy() @ w.T + b, **CLOSE)


def test_gradients_of_a_dense_layer() -> None:
    """y = alpha s(x) s(W)^T + b, with the straight-through estimator of both signs."""
    dense, x = nn.Linear(6, 4).double(), (2 * torch.randn(5, 6)).double().requires_grad_()
    nn.init.normal_(dense.weight)
    g = torch.randn(5, 4).double()
    (LowBitLinear.of(dense, SignWeights(), SignInputs())(x) * g).sum().backward()
    w, n, up = dense.weight.detach().numpy(), x.detach().numpy(), g.numpy()
    alpha, inner = mean(np.abs(w)), up.T @ signs_of(n)
    assert x.grad is not None and dense.weight.grad is not None and dense.bias.grad is not None
    assert np.allclose(x.grad, (up * alpha.T) @ signs_of(w) * (np.abs(n) <= 1), **CLOSE)
    expected = alpha * inner * (np.abs(w) <= 1) + mean(inner * signs_of(w)) * signs_of(w)
    assert np.allclose(dense.weight.grad, expected, **CLOSE)
    assert np.allclose(dense.bias.grad, up.sum(0), **CLOSE)


@pytest.mark.parametrize(("of_weights", "of_inputs"), [(1, 1), (2, 3), (3, 1)])
def test_sums_of_terms(of_weights: int, of_inputs: int) -> None:
    """Scales of inputs are those of each example."""
    layer, x = nn.Conv2d(4, 6, (2, 3), 2, 1, groups=2).double(), torch.randn(3, 4, 5, 6).double()
    new = LowBitConv2d.of(layer, ResidualWeights(number=of_weights), ResidualInputs(number=of_inputs))
    parts = [residual(t.detach().numpy(), k)[:2] for t, k in ((x, of_inputs), (layer.weight, of_weights))]
    inputs, weights = (sum(a * s for a, s in zip(*part, strict=True)) for part in parts)
    assert layer.bias is not None
    expected = convolution(inputs, weights, layer) + layer.bias.detach().numpy()[:, None, None]  # type: ignore[arg-type]
    assert np.allclose(new(x).detach(), expected, **CLOSE)


@pytest.mark.parametrize("inputs", [None, SignInputs(), ResidualInputs()])
def test_a_batch_is_more_than_its_first_example(inputs: Any) -> None:
    """Each example of a batch, and an example without a batch, have the output that they have alone."""
    conv = LowBitConv2d.of(nn.Conv2d(4, 4, 3, padding=1), TernaryWeights(), inputs)
    line = LowBitConv1d.of(nn.Conv1d(4, 4, 3, padding=1), SignWeights(), inputs)
    dense = LowBitLinear.of(nn.Linear(4, 6), ResidualWeights(), inputs)
    for layer, x in ((conv, torch.randn(4, 4, 6, 5)), (line, torch.randn(4, 4, 9)), (dense, torch.randn(5, 4))):
        y = layer(x)
        assert len(y) == len(x)
        for example, expected in zip(x, y, strict=True):
            # Sums in another order: some 40 roundings of numbers below 16.
            assert torch.allclose(layer(example[None])[0], expected, rtol=0, atol=40 * 2**-20)
            assert torch.allclose(layer(example), expected, rtol=0, atol=40 * 2**-20)


def test_latent_weights_and_where_they_are_kept() -> None:
    for form, clips in ((SIGN, True), (SignWeights(), True), (TernaryWeights(), False), (ResidualWeights(), False)):
        layer = LowBitLinear.of(nn.Linear(3, 2), form)
        nn.init.constant_(layer.weight, -1.5)
        assert [id(weight) for weight in layer.latent_weights()] == [id(layer.weight)] * clips
        layer.constrain()
        assert layer.weight.unique().tolist() == [-1.0 if clips else -1.5]
    first = LowBitLinear.of(nn.Linear(3, 2), FloatWeights(), SignInputs(), SIGN)
    nn.init.constant_(first.weight, 1.5)
    first.constrain()
    assert (first.latent_weights(), first.weight.unique().tolist(), first.weight_bits) == ((), [1.5], 1)
    assert LowBitLinear.of(nn.Linear(3, 2), ResidualWeights(number=3)).weight_bits == 3


def test_what_they_tell() -> None:
    text = repr(LowBitConv2d.of(nn.Conv2d(4, 6, 3), FloatWeights(), SignInputs(), SIGN, pad_one=True))
    assert text.startswith("LowBitConv2d(4, 6, kernel_size=(3, 3), stride=(1, 1), weights=FloatWeights(), later Sign")
    assert text.endswith("inputs=SignInputs(estimator=STE(clip=1.0)), pad_one=True)")
    assert is_binary(LowBitLinear.of(nn.Linear(3, 2), SIGN, SignInputs()))
    assert not is_binary(LowBitLinear.of(nn.Linear(3, 2), SIGN, ResidualInputs()))
    assert not is_binary(nn.Linear(3, 2))


def described(layer: Any) -> dict[str, Any]:
    return json.loads(json.dumps(layer.describe()))  # type: ignore[no-any-return]


def change(key: str, value: Any) -> Any:
    return lambda d: {**d, "sizes": {**d["sizes"], key: value}}


CONV, DENSE = LowBitConv2d.of(nn.Conv2d(4, 6, 3), SIGN), LowBitLinear.of(nn.Linear(4, 6), SIGN)
FOR_CONVOLUTIONS = [("kernel", [3, 3, 3]), ("kernel", [0, 3]), ("kernel", [True, 3]), ("kernel", 3), ("stride", [0, 1])]
FOR_CONVOLUTIONS += [("stride", ["a", 1]), ("dilation", [1]), ("padding", [-1, 1]), ("padding", None), ("mode", "eval")]
FOR_CONVOLUTIONS += [("padding", "around"), ("groups", 0), ("groups", 3), ("mode", None)]
FOR_ALL = [("outputs", 2**70), ("inputs", 2**62), ("inputs", "4"), ("bias", 1)]


@pytest.mark.parametrize(
    ("layer", "damage"),
    [(CONV, change(*pair)) for pair in FOR_CONVOLUTIONS + FOR_ALL]
    + [(DENSE, change(*pair)) for pair in FOR_ALL]
    + [
        (layer, lambda d, new=new: {**d, **new})
        for layer in (CONV, DENSE)
        for new in (
            {"sizes": None},
            {"pad_one": 1},
            {"weights": None},
            {"weights": SignInputs().describe()},
            {"inputs": SIGN.describe()},
            {"inputs": "sign"},
            {"final": SignInputs().describe()},
        )
    ],
)
def test_damaged_descriptions(layer: Any, damage: Any) -> None:
    description = described(layer)
    assert described(type(layer).from_description(description)) == description
    with pytest.raises(FileFormatError, match="^(structure|form): expected "):
        type(layer).from_description(damage(description))


@pytest.mark.parametrize("layer", [CONV, DENSE])
@pytest.mark.parametrize(("key", "value"), [("inputs", 0), ("outputs", 0), ("inputs", -4)])
def test_sizes_below_one(layer: Any, key: str, value: int) -> None:
    """torch itself makes layers of no inputs."""
    with pytest.raises(FileFormatError, match="^structure: expected sizes of at least 1, found"):
        type(layer).from_description(change(key, value)(described(layer)))
