"""Layers of one bit: which ops come out, that bits stay bits, and that nothing changes, to the bit where it can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from netopt.numerics import FLOAT32, INT32, SIGN_BITS, SIGNS
from netopt.ops import BinaryConv2d, BinaryDense, Sign, SignPool2d
from netopt.quantization import RPReLU, Shift, SignWeights, TernaryWeights, sign
from tests.binary_layers import Model, assert_computes, conv, conv1d, dense, images, labels, trained

SCALED = SignWeights(scaled=True)
X = images(2, 7, 6, 5)


def between(*modules: nn.Module, padding: int = 1) -> nn.Module:
    """Two layers, whose sums are whole numbers, with `modules` between them: 11 channels of images."""
    torch.manual_seed(0)
    return trained(nn.Sequential(conv(7, 11, 3, padding=padding), *modules, conv(11, 6, 3)))


THRESHOLD = ["bits sign", "bits binary_conv2d + threshold", "binary_conv2d"]


def norm(channels: int = 11) -> nn.Module:
    return nn.BatchNorm2d(channels)


@pytest.mark.parametrize(
    "modules",
    [
        [],
        [norm()],
        [norm(), nn.ReLU(), norm()],
        [nn.LeakyReLU(0.2), norm()],
        [norm(), nn.Hardtanh(), Shift(11)],
        [nn.PReLU(11), norm()],
        [RPReLU(11), norm(), nn.Dropout(0.5), nn.Identity()],
    ],
    ids=lambda modules: " ".join(type(module).__name__ for module in modules),
)
def test_what_stands_before_a_sign_becomes_a_threshold(modules: list[nn.Module]) -> None:
    for module in modules:
        if isinstance(module, Shift | RPReLU):
            for parameter in module.parameters():
                parameter.data.uniform_(0.05, 0.9)
    graph = assert_computes(between(*modules), X, exact=True, compiled=len(modules) == 3)
    assert labels(graph) == THRESHOLD


def test_a_bias_and_a_scale_become_the_threshold() -> None:
    torch.manual_seed(0)
    first = conv(7, 11, 3, form=SCALED, bias=True)
    graph = assert_computes(trained(nn.Sequential(first, norm(), conv(11, 6, 3))), X, exact=True)
    assert labels(graph) == THRESHOLD


@pytest.mark.parametrize("gamma", [2.0, -2.0, 0.0])
@pytest.mark.parametrize("beta", [0.0, 1.0, -1.0])
@pytest.mark.parametrize("mean", [0.0, 1.0, -3.0])
def test_sums_that_are_the_threshold_have_the_sign_plus_one(gamma: float, beta: float, mean: float) -> None:
    """Sums of 7 signs are odd; where they are 0.5 (beta of 1) or 0.0 away, gamma (sum - mean) + beta is exact."""
    batch_norm = nn.BatchNorm2d(11, eps=0.25)  # sqrt(0.75 + 0.25) = 1
    model = nn.Sequential(conv(7, 11, 1), batch_norm, conv(11, 6, 1)).eval()
    assert batch_norm.running_mean is not None
    assert batch_norm.running_var is not None
    for value, tensor in ((gamma, batch_norm.weight.data), (beta, batch_norm.bias.data)):
        tensor.fill_(value)
    batch_norm.running_mean.fill_(mean)
    batch_norm.running_var.fill_(0.75)
    graph = assert_computes(model, images(1, 7, 9, 9), exact=True, compiled=beta == mean == 1)
    (first, *_) = (node for node in graph.nodes if isinstance(node.op, BinaryConv2d))
    threshold = graph.constants[first.inputs[2]]
    assert threshold.dtype == torch.int32
    at = {2.0: mean - beta / 2, -2.0: -mean - beta / 2, 0.0: -8 if beta >= 0 else 8}[gamma]
    # The first integer that is not below it.
    assert threshold.tolist() == [int(-(-at // 1))] * 11


def test_a_threshold_that_falls_turns_the_weights() -> None:
    batch_norm = nn.BatchNorm2d(11)
    batch_norm.weight.data[::2] = -1.0
    model = nn.Sequential(conv(7, 11, 3), batch_norm, conv(11, 6, 3)).eval()
    graph = assert_computes(model, X, exact=True)
    first, *_ = (node for node in graph.nodes if isinstance(node.op, BinaryConv2d))
    weight = graph.constants[first.inputs[1]]
    expected = next(model.parameters()).sign().to(torch.int8)
    expected[::2] *= -1
    assert torch.equal(weight, expected)
    assert (graph.types[first.inputs[1]].format, graph.types[first.inputs[2]].format) == (SIGN_BITS, INT32)


@pytest.mark.parametrize("module", [nn.SiLU(), nn.PReLU(11), nn.GELU(), nn.AvgPool2d(3, 1, 1), nn.Softmax(1)])
def test_what_is_not_monotone_stays(module: nn.Module) -> None:
    if isinstance(module, nn.PReLU):
        module.weight.data[3] = -0.5
    graph = assert_computes(between(module, norm()), X, exact=True, compiled=False)
    first, _ = (node.op for node in graph.nodes if isinstance(node.op, BinaryConv2d))
    assert not first.has_threshold
    sign_, *_ = (n.op for n in graph.nodes[1:] if isinstance(n.op, Sign))
    assert sign_ == Sign(has_threshold=True), "of floats, of what follows"


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.MaxPool2d((1, 2))])
@pytest.mark.parametrize("order", ["before", "after", "both", "none"])
def test_a_maximum_becomes_one_of_signs(pool: nn.Module, order: str) -> None:
    """Scales of both signs before and after it: the least sum may decide, or the largest."""
    before, after = ([norm()] if order in (place, "both") else [] for place in ("before", "after"))
    model = trained(nn.Sequential(conv(7, 11, 3), *before, pool, *after, conv(11, 6, 1)))
    graph = assert_computes(model, images(2, 7, 9, 8), exact=True, compiled=order == "both")
    assert labels(graph) == [*THRESHOLD[:2], "bits sign_pool2d", "binary_conv2d"]


def test_a_maximum_with_dilation_is_one_of_numbers() -> None:
    graph = assert_computes(between(nn.MaxPool2d(2, 1, dilation=2), norm()), X, exact=True)
    assert not any(isinstance(node.op, SignPool2d) for node in graph.nodes)


@pytest.mark.parametrize(
    "modules",
    [[norm(7)], [norm(7), Shift(7)], [nn.ReLU(), norm(7)], [nn.Hardtanh(-2.0, 1.0), nn.LeakyReLU(0.1), norm(7)]],
)
def test_a_chain_on_floats_becomes_a_sign_with_a_threshold(modules: list[nn.Module]) -> None:
    torch.manual_seed(0)
    model = trained(nn.Sequential(*modules, conv(7, 6, 3)))
    graph = assert_computes(model, X, exact=True)
    assert labels(graph) == ["bits sign", "binary_conv2d"]
    assert graph.nodes[0].op == Sign(has_threshold=True)
    assert {type_.format for type_ in graph.node_types(graph.nodes[0])} == {FLOAT32}


def test_layers_after_each_other_pass_bits_and_nothing_else() -> None:
    torch.manual_seed(0)
    trunk = [conv(7, 40, 3, padding=1), norm(40), conv(40, 33, 3, padding=1), norm(33), conv(33, 4, 1), norm(4)]
    head = [nn.Flatten(), dense(4 * 30, 9), nn.BatchNorm1d(9), dense(9, 5)]
    graph = assert_computes(trained(nn.Sequential(*trunk, *head)), X, exact=True)
    values = [graph.types[node.output].format for node in graph.nodes]
    assert values[:3] == [SIGNS] * 3
    # Behind the flattening, numbers of another order; then bits again.
    assert labels(graph)[3:] == ["binary_conv2d", "bits sign", "bits binary_dense + threshold", "binary_dense"]


def scaled_by_mean(signs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.conv2d(signs, weight) * signs.mean()


def both(signs: torch.Tensor, one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    return F.conv2d(signs, one) + F.conv2d(signs, two)


def shifted_by_mean(sums: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    return layer(sums) + sums.mean()  # type: ignore[no-any-return]


def with_its_sums(sums: torch.Tensor, layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    return sums, layer(sums)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        # A sign that is an output, or that something else reads, is computed as numbers, too.
        (lambda m, x: (sign(x), m.one(x)), ["sign", "bits sign", "binary_conv2d"]),
        (lambda m, x: scaled_by_mean(sign(x), sign(m.one.weight)), None),
        # Two layers read one sign.
        (
            lambda m, x: both(sign(x), sign(m.one.weight), sign(m.two.weight)),
            ["bits sign", "binary_conv2d", "binary_conv2d + add"],
        ),
        # Sums that are read twice are no threshold.
        (lambda m, x: shifted_by_mean(m.one(x), m.last), None),
        # Nor are those that are an output.
        (lambda m, x: with_its_sums(m.one(x), m.last), None),
        # A network that ends in a sign gives numbers.
        (lambda m, x: sign(m.one(x)), ["bits sign", "binary_conv2d", "sign"]),
    ],
)
def test_signs_that_are_read_otherwise(function: Callable[..., Any], expected: list[str] | None) -> None:
    torch.manual_seed(0)
    model = Model(function, one=conv(7, 11, 3), two=conv(7, 11, 3), last=conv(11, 11, 3)).eval()
    graph = assert_computes(model, X, exact=False)
    assert expected is None or labels(graph) == expected
    assert "bits sign" in labels(graph)
    if expected is None:
        assert not any("threshold" in label for label in labels(graph))


def test_padding_by_one() -> None:
    torch.manual_seed(0)
    layers = (conv(7, 11, 3, padding=1, pad_one=True), norm(), conv(11, 6, (3, 2), padding=(2, 1), pad_one=True))  # type: ignore[arg-type]
    graph = assert_computes(trained(nn.Sequential(*layers)), X, exact=True)
    assert labels(graph) == THRESHOLD
    ops = [node.op for node in graph.nodes if isinstance(node.op, BinaryConv2d)]
    assert [(op.pad_one, op.padding) for op in ops] == [(True, (1, 1, 1, 1)), (True, (2, 2, 1, 1))]


@pytest.mark.parametrize(
    ("function", "pads"),
    [
        (lambda m, y: both(y, sign(m.one.weight), sign(m.two.weight)), 0),
        (lambda m, y: scaled_by_mean(y, sign(m.one.weight)), 1),
        (lambda m, y: F.conv2d(y, sign(m.one.weight), padding=1), 1),
        (lambda m, y: F.conv2d(y, m.one.weight), 1),
    ],
)
def test_padding_by_one_that_is_read_by_others(function: Callable[..., Any], pads: int) -> None:
    torch.manual_seed(0)
    padded = Model(
        lambda m, x: function(m, F.pad(sign(x), (1, 2, 0, 1), value=1.0)), one=conv(7, 5, 3), two=conv(7, 5, 3)
    )
    graph = assert_computes(padded.eval(), X, exact=False, compiled=pads == 0)
    assert labels(graph).count("pad") == pads


@pytest.mark.parametrize(
    ("sizes", "groups", "bits"),
    [((64, 64), 2, True), ((96, 96), 3, True), ((64, 32), 2, False), ((6, 8), 2, False), ((6, 6), 6, False)],
)
def test_groups(sizes: tuple[int, int], groups: int, bits: bool) -> None:
    """Of whole words they read bits, and write them; the others are right all the same."""
    torch.manual_seed(0)
    first = conv(*sizes, 3, padding=1, groups=groups)
    model = trained(nn.Sequential(first, norm(sizes[1]), conv(sizes[1], 5, 1)))
    graph = assert_computes(model, images(2, sizes[0], 5, 6), exact=True)
    depthwise = groups == sizes[0]
    middle = ["bits sign", "bits binary_conv2d + threshold"]
    numbers = ["sign", "conv2d" if depthwise else "binary_conv2d", "bits sign"]
    assert labels(graph) == [*(middle if bits else numbers), "binary_conv2d"]


def test_sequences() -> None:
    torch.manual_seed(0)
    layers = (conv1d(5, 40, 3, padding=1), nn.BatchNorm1d(40), nn.ReLU(), conv1d(40, 7, 3, stride=2))
    graph = assert_computes(trained(nn.Sequential(*layers)), images(2, 5, 12), exact=True)
    assert labels(graph).count("binary_conv2d") == labels(graph).count("bits sign") == 2


@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (2, 3, 2), (2, 1, 3, 2)])
def test_dense_layers_with_leading_axes(leading: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    graph = assert_computes(nn.Sequential(dense(40, 33), dense(33, 8)).eval(), images(*leading, 40), exact=True)
    ops = [node.op for node in graph.nodes if isinstance(node.op, BinaryDense)]
    assert [op.has_threshold for op in ops] == ([True, False] if len(leading) == 1 else [False, False])


@pytest.mark.parametrize("outputs", [8, 16])
def test_a_dense_layer_on_images_and_what_scales_their_channels(outputs: int) -> None:
    """Its outputs are the last axis, and the batch norm's channels the second."""
    torch.manual_seed(0)
    model = trained(nn.Sequential(dense(6, outputs), norm(8)))
    assert_computes(model, images(2, 8, 5, 6), exact=False)
    model = Model(lambda m, x: m.fc(m.conv(x)) * m.scale, conv=nn.Conv2d(8, 8, 1), fc=dense(6, 8)).eval()
    model.scale = nn.Parameter(images(8, 1, 1))
    assert_computes(model, images(2, 8, 5, 6), exact=False)


SCALES: list[tuple[str, Callable[[], nn.Module], str, tuple[bool, bool]]] = [
    ("nothing", lambda: conv(7, 7, 3, padding=1), "binary_conv2d", (False, False)),
    ("bias", lambda: conv(7, 7, 3, bias=True), "binary_conv2d", (True, True)),
    ("scale", lambda: conv(7, 7, 3, form=SCALED), "binary_conv2d", (True, False)),
    ("scale, bias", lambda: conv(7, 7, 3, form=SCALED, bias=True), "binary_conv2d", (True, True)),
    ("norm", lambda: nn.Sequential(conv(7, 7, 3, form=SCALED, bias=True), norm(7)), "binary_conv2d", (True, True)),
    ("floats", lambda: nn.Sequential(conv(7, 7, 3, form=SCALED, signs=False), norm(7)), "binary_conv2d", (True, True)),
    ("relu", lambda: nn.Sequential(conv(7, 7, 3), norm(7), nn.ReLU()), "binary_conv2d + relu", (True, True)),
    (
        "residual",
        lambda: Model(lambda m, x: (m.n(m.c(x)) + x).relu(), c=conv(7, 7, 3, padding=1, form=SCALED), n=norm(7)),
        "binary_conv2d + add + relu",
        (True, True),
    ),
]


@pytest.mark.parametrize(("make", "label", "ends"), [case[1:] for case in SCALES], ids=[case[0] for case in SCALES])
def test_scales_and_shifts_become_one_of_each(
    make: Callable[[], nn.Module], label: str, ends: tuple[bool, bool]
) -> None:
    torch.manual_seed(0)
    graph = assert_computes(trained(make()), X, exact=False, compiled="+" in label)
    assert labels(graph)[-1] == label
    op = graph.nodes[-1].op
    assert isinstance(op, BinaryConv2d)
    assert (op.has_scale, op.has_bias) == ends


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: nn.Sequential(dense(5, 6, form=SCALED, bias=True), nn.BatchNorm1d(6)), ["bits sign", "binary_dense"]),
        (lambda: dense(5, 6, form=SCALED, signs=False), ["binary_dense"]),
        (lambda: nn.Linear(5, 6), ["dense"]),
        (lambda: dense(1, 1), None),  # a scale, and no sum
        (lambda: Model(lambda m, x: F.linear(x, sign(m.fc.weight)), fc=nn.Linear(5, 6)), ["binary_dense"]),
        (lambda: Model(lambda m, x: F.linear(sign(x), m.fc.weight), fc=nn.Linear(5, 6)), ["sign", "dense"]),
    ],
)
def test_which_layers_have_one_bit(make: Callable[[], nn.Module], expected: list[str] | None) -> None:
    torch.manual_seed(0)
    model = trained(make())
    x = images(3, 1 if expected is None else 5)
    assert labels(assert_computes(model, x, exact=False, compiled=False)) == (expected or ["sign", "dense"])


def test_ternary_weights_are_two_of_one_bit() -> None:
    """Sums of both are added as numbers."""
    torch.manual_seed(0)
    graph = assert_computes(conv(7, 6, 3, form=TernaryWeights()).eval(), X, exact=False)
    assert labels(graph)[:2] == ["bits sign", "binary_conv2d"]
