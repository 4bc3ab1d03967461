"""The sign: its values at the edges, its gradients by name, and the op of graphs with thresholds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from netopt import InvalidArgument
from netopt.ops import Sign, TensorType
from netopt.ops.sign import GRADIENTS, sign, sign_of

EDGES = [0.0, -0.0, 1e-45, -1e-45, 1.0, -1.0, 3.5, -3.5, math.inf, -math.inf, math.nan, -math.nan]
# A denormal number is zero, whatever its sign.
SIGNS = [1, 1, 1, 1, 1, -1, 1, -1, 1, -1, -1, -1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sign_of_zero_is_one_and_that_of_nan_is_minus_one(dtype: torch.dtype) -> None:
    x = torch.tensor(EDGES, dtype=dtype)
    for signs in (sign_of(x), sign(x, "ste", 1.0), Sign().reference(x)):
        assert signs.dtype is dtype
        assert signs.tolist() == SIGNS


def test_the_input_stays_as_it_is() -> None:
    x = torch.tensor([-2.0, 3.0])
    sign(x, "identity", 0.0)
    sign_of(x)
    assert x.tolist() == [-2.0, 3.0]


@pytest.mark.parametrize(
    ("name", "parameter", "slopes"),
    [
        ("identity", 0.0, [1, 1, 1, 1, 1, 1, 1]),
        ("ste", 1.0, [0, 1, 1, 1, 1, 1, 0]),
        ("ste", 0.5, [0, 0, 1, 1, 1, 0, 0]),
        ("approx_sign", 0.0, [0, 0, 1, 2, 1, 0, 0]),
        # 2 (2 - 2 x tanh(x)) / (1 + cosh(2 x)).
        ("swish_sign", 2.0, [-0.1311357, 0.2002487, 1.2094645, 2, 1.2094645, 0.2002487, -0.1311357]),
    ],
)
def test_gradients_by_name(name: str, parameter: float, slopes: list[float]) -> None:
    x = torch.tensor([-2, -1, -0.5, 0, 0.5, 1, 2], dtype=torch.float64, requires_grad=True)
    upstream = torch.tensor([3.0, -1, 2, 5, -4, 7, 0.5], dtype=torch.float64)
    (sign(x, name, parameter) * upstream).sum().backward()
    # The literals have seven digits after the point, and upstream gradients are up to 7.
    assert np.allclose(x.grad, upstream.numpy() * np.array(slopes), rtol=0, atol=7 * 0.5e-7)


def test_a_table_row_is_tested_for_each_gradient() -> None:
    assert set(GRADIENTS) == {"identity", "ste", "approx_sign", "swish_sign"}


@pytest.mark.parametrize("name", GRADIENTS)
def test_what_pytorch_asks_of_an_op(name: str) -> None:
    """Schema, shapes without values, and gradients under tracing, also where strides are unusual."""
    for x in (
        torch.randn(3, 5),
        torch.randn(()),
        torch.randn(5, 3).t(),
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.randn(4, 6)[:, ::2],
    ):
        torch.library.opcheck(sign, (x.requires_grad_(), name, 1.0))


def test_it_survives_export_by_name() -> None:
    class Network(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return sign(x, "ste", 1.5)  # type: ignore[no-any-return]

    exported = torch.export.export(Network(), (torch.randn(2, 3),))
    (node,) = [node for node in exported.graph.nodes if node.op == "call_function"]
    assert str(node.target) == "netopt.sign.default"
    assert node.args[1:] == ("ste", 1.5)
    assert exported.module()(torch.tensor([[0.0, -1, 2], [-0.0, 1, -2]])).tolist() == [[1, -1, 1], [1, 1, -1]]


# The op of graphs


@pytest.mark.parametrize("shape", [(), (5,), (2, 5), (2, 3, 4, 5)])
def test_its_shape_is_that_of_its_input(shape: tuple[int, ...]) -> None:
    assert Sign().infer([TensorType(shape)]).shape == shape


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 7), (2, 3, 4, 5)])
def test_thresholds_and_directions_for_each_channel(shape: tuple[int, ...]) -> None:
    op, channels = Sign(True), TensorType((3,))
    assert op.infer([TensorType(shape), channels, channels]).shape == shape
    x = torch.randint(-3, 4, shape).float()
    thresholds, directions = torch.tensor([0.0, 1, -2]), torch.tensor([1.0, -1, -1])
    axis = min(1, len(shape) - 1)
    t, d = (np.expand_dims(v.numpy(), [a for a in range(len(shape)) if a != axis]) for v in (thresholds, directions))
    # As a comparison that rises, or falls.
    expected = np.where(np.where(d > 0, x.numpy() >= t, x.numpy() <= t), 1, -1)
    assert torch.equal(op.reference(x, thresholds, directions), torch.from_numpy(expected).float())


def test_thresholds_at_the_edges() -> None:
    """The threshold itself gives +1 in both directions; NaN gives -1; an infinite threshold gives one sign alone."""
    x = torch.tensor([[math.nan] * 4, [0.0, -0.0, 1e30, -1e30], [-0.0, 0.0, -math.inf, math.inf]])
    thresholds = torch.tensor([0.0, 0.0, -math.inf, math.inf])
    directions = torch.tensor([1.0, -1.0, 1.0, 1.0])
    expected = [[-1, -1, -1, -1], [1, 1, 1, -1], [1, 1, 1, 1]]
    assert Sign(True).reference(x, thresholds, directions).tolist() == expected


@pytest.mark.parametrize(
    ("op", "shapes", "message"),
    [
        (Sign(), [(2, 3), (3,)], "sign"),
        (Sign(True), [(2, 3)], "sign"),
        (Sign(True), [(2, 3), (2,), (3,)], r"sign: expected thresholds and directions \(channels,\), found"),
        (Sign(True), [(2, 3), (3,), (3, 1)], r"sign: expected thresholds and directions \(channels,\), found"),
        (Sign(True), [(), (), ()], r"sign: expected thresholds and directions \(channels,\), found"),
    ],
)
def test_wrong_inputs(op: Sign, shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        op.infer([TensorType(shape) for shape in shapes])
