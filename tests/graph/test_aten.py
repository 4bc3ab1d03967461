"""Every row of `IMPORTERS`: through a captured model where torch.export writes the op, else called by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from netopt.errors import InvalidArgument, UnsupportedModel
from netopt.graph import interpret, verify
from netopt.graph.aten import IMPORTERS, Context, recurrent
from netopt.graph.capture import capture
from netopt.graph.graph import GraphBuilder
from netopt.ops import TensorType
from netopt.ops.sign import sign
from tests.graph import test_aten_of_composed_ops, test_aten_of_whole_numbers
from tests.graph.recording import record_importers

ATEN = torch.ops.aten
EPSILON = 2.0**-23
PROPERTY = settings(derandomize=True, deadline=None, max_examples=60)


@dataclass(frozen=True)
class Case:
    """A model that makes torch.export write the op `row`.

    Attributes:
        row: key of IMPORTERS.
        forward: the model; the reference is what it returns.
        shapes: of its inputs.
        ulps: how far float32 results may be apart, in units of 2^-23 of the largest magnitude that is summed; 0 for
            the many ops whose reference is the very function that the model calls.
    """

    row: str
    forward: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...] = ((4, 6),)
    ulps: float = 0.0


def _normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


SLOPES = _normal(6, seed=7)
SEQUENCE = ((2, 3, 11),)
IMAGE, IMAGE_AND_KERNEL = ((2, 3, 5, 7),), ((2, 3, 5, 7), (6, 3, 2, 3))
W, BIAS = _normal(5, 6, seed=1), _normal(5, seed=2)
MEAN, VARIANCE, SCALE, SHIFT = (_normal(6, seed=3), _normal(6, seed=4).exp(), _normal(6, seed=5), _normal(6, seed=6))


ATTENTION, ADDED = "scaled_dot_product_attention.default", ((3,), (4, 6), (6, 3))
# At least one key for each of 4 queries.
VISIBLE = (_normal(4, 5, seed=7) > 0) | torch.eye(4, 5, dtype=torch.bool)


def _batch_norm(x: torch.Tensor) -> torch.Tensor:
    return F.batch_norm(x, MEAN, VARIANCE, SCALE, SHIFT)


def _bare_batch_norm(x: torch.Tensor) -> torch.Tensor:
    return F.batch_norm(x, MEAN, VARIANCE, eps=0.1)


# The reference of elu has expm1 where PyTorch's vector code has a polynomial of its own: 4 units of 2^-23, as results
# above -alpha are sums with 1. Batch norm is x * scale + shift, with scale and shift rounded once by netopt, and at
# each step by PyTorch: 4 roundings. A dense layer sums 6 products and the bias in another order: 7 roundings.
CASES = (
    Case("linear.default", lambda x: (F.linear(x, W, BIAS), F.linear(x, W), F.linear(x[0], W, BIAS)), ulps=7),
    Case("linear.default", F.linear, ((2, 3, 6), (5, 6)), ulps=7),
    # Convolutions sum the products of their window in an order of their own: at most 28 terms here.
    Case("conv2d.default", lambda x, w: (F.conv2d(x, w), F.conv2d(x, w, w[:, 0, 0, 0])), IMAGE_AND_KERNEL, ulps=28),
    Case("conv2d.default", lambda x, w: F.conv2d(x, w, None, (2, 1), (1, 2), (1, 2)), IMAGE_AND_KERNEL, ulps=28),
    Case("conv2d.default", lambda x, w: F.conv2d(x, w[:, :1], groups=3), IMAGE_AND_KERNEL, ulps=28),
    Case("conv2d.padding", lambda x, w: F.conv2d(x, w, padding="same", dilation=(1, 2)), IMAGE_AND_KERNEL, ulps=28),
    Case("conv2d.padding", lambda x, w: F.conv2d(x, w, padding="valid"), IMAGE_AND_KERNEL, ulps=28),
    Case("conv1d.default", lambda x, w: F.conv1d(x, w, None, 2, 1, 2), ((2, 3, 9), (4, 3, 3)), ulps=28),
    Case("conv1d.padding", lambda x, w: F.conv1d(x, w, padding="same"), ((2, 3, 9), (4, 3, 2)), ulps=28),
    Case("conv_transpose2d.input", F.conv_transpose2d, ((2, 3, 4, 5), (3, 6, 2, 3)), ulps=28),
    Case(
        "conv_transpose2d.input",
        lambda x, w: F.conv_transpose2d(x, w, w[0, :, 0, 0], (2, 3), (1, 2), (1, 0), 1, (1, 2)),
        ((2, 3, 4, 5), (3, 6, 2, 3)),
        ulps=28,
    ),
    Case(
        "conv_transpose1d.default",
        lambda x, w: F.conv_transpose1d(x, w, None, 2, 1, 1, 1, 3),
        ((2, 3, 9), (3, 4, 3)),
        ulps=28,
    ),
    # matrix products: sums of at most 8 products
    Case(
        "matmul.default",
        lambda x, y: (x @ y, x @ y[0], x[0, 0, 0] @ y, x @ y[0, :, 0]),
        ((2, 1, 4, 6), (3, 6, 5)),
        ulps=8,
    ),
    Case("matmul.default", lambda x: (x[0] @ x[1], x @ x[0]), ulps=8),
    Case("mm.default", torch.mm, ((4, 6), (6, 3)), ulps=8),
    Case("bmm.default", torch.bmm, ((2, 4, 6), (2, 6, 3)), ulps=8),
    Case("mv.default", torch.mv, ((4, 6), (6,)), ulps=8),
    Case("dot.default", torch.dot, ((6,), (6,)), ulps=8),
    Case("addmm.default", lambda *xs: (torch.addmm(*xs), torch.addmm(*xs, beta=0.5, alpha=-2)), ADDED, ulps=20),
    Case("addmm.default", lambda *xs: torch.addmm(*xs, beta=0), ADDED, ulps=8),
    Case("baddbmm.default", torch.baddbmm, ((3,), (2, 4, 6), (2, 6, 3)), ulps=9),
    Case("outer.default", torch.outer, ((4,), (6,))),
    Case("einsum.default", lambda x, y: torch.einsum("bhid,bhjd->bhij", x, y), ((2, 3, 4, 6), (2, 3, 5, 6)), ulps=8),
    Case("einsum.default", lambda x, y: torch.einsum("nkctv, kvw -> nctw", x, y), ((2, 3, 4, 5, 2), (3, 2, 7)), ulps=8),
    Case("einsum.default", lambda x, y: torch.einsum("ab,c->cab", x, y), ((2, 3), (4,))),
    # attention: two products and a softmax
    Case(ATTENTION, F.scaled_dot_product_attention, ((2, 3, 4, 6), (2, 3, 5, 6), (2, 3, 5, 7)), ulps=40),
    Case(ATTENTION, F.scaled_dot_product_attention, ((3, 4, 6), (3, 5, 6), (3, 5, 6), (4, 5)), ulps=40),
    Case(
        ATTENTION,
        lambda *qkv: F.scaled_dot_product_attention(*qkv, is_causal=True, scale=0.3),
        ((3, 4, 6),) * 3,
        ulps=40,
    ),
    Case(
        ATTENTION,
        lambda *qkv: F.scaled_dot_product_attention(*qkv, attn_mask=VISIBLE),
        ((2, 3, 4, 6), (2, 3, 5, 6), (2, 3, 5, 6)),
        ulps=40,
    ),
    # pooling
    Case(
        "max_pool2d.default",
        lambda x: (F.max_pool2d(x, 2), F.max_pool2d(x, (3, 2), 2, 1), F.max_pool2d(x, 2, 1)),
        IMAGE,
    ),
    Case("max_pool2d.default", lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), IMAGE),
    Case("max_pool2d.default", lambda x: F.max_pool2d(x, 2, 2, 1, dilation=2, ceil_mode=True), IMAGE),
    # An average of at most 9 terms, divided once.
    Case("avg_pool2d.default", lambda x: (F.avg_pool2d(x, 2), F.avg_pool2d(x, 3, 2, 1)), IMAGE, ulps=10),
    Case("avg_pool2d.default", lambda x: F.avg_pool2d(x, 3, 2, 1, True), IMAGE, ulps=10),
    Case("avg_pool2d.default", lambda x: F.avg_pool2d(x, (3, 2), 2, 1, True, False), IMAGE, ulps=10),
    Case("adaptive_avg_pool2d.default", lambda x: F.adaptive_avg_pool2d(x, 1), IMAGE, ulps=36),
    Case("adaptive_avg_pool2d.default", lambda x: F.adaptive_avg_pool2d(x, (2, 3)), ((1, 2, 4, 6),), ulps=10),
    Case("adaptive_avg_pool2d.default", lambda x: F.adaptive_avg_pool2d(x, (3, 4)), IMAGE, ulps=10),
    Case(
        "adaptive_max_pool2d.default",
        lambda x: (F.adaptive_max_pool2d(x, 1), F.adaptive_max_pool2d(x, (3, 4)), F.adaptive_max_pool2d(x, (5, 7))),
        IMAGE,
    ),
    Case("max_pool2d_with_indices.default", lambda x: F.max_pool2d(x, 2, return_indices=True)[0], IMAGE),
    Case("avg_pool2d.default", lambda x: F.avg_pool2d(x, 3, 2, 1, True, divisor_override=7), IMAGE, ulps=10),
    Case("max_pool1d.default", lambda x: (F.max_pool1d(x, 3), F.max_pool1d(x, 3, 2, 1, 2, True)), SEQUENCE),
    Case("avg_pool1d.default", lambda x: (F.avg_pool1d(x, 3), F.avg_pool1d(x, 3, 2, 1, True)), SEQUENCE, ulps=4),
    Case("avg_pool1d.default", lambda x: F.avg_pool1d(x, 3, 2, 1, False, False), SEQUENCE, ulps=4),
    Case(
        "adaptive_avg_pool1d.default",
        lambda x: (F.adaptive_avg_pool1d(x, 1), F.adaptive_avg_pool1d(x, 4)),
        SEQUENCE,
        ulps=12,
    ),
    Case(
        "adaptive_max_pool1d.default",
        lambda x: (F.adaptive_max_pool1d(x, 1), F.adaptive_max_pool1d(x, 4)),
        SEQUENCE,
    ),
    # images: copies, but for what is between pixels
    Case("pad.default", lambda x: (F.pad(x, (1, 2)), F.pad(x, (1, 0, 2, 1), value=-1.5)), IMAGE),
    Case("pad.default", lambda x: (F.pad(x, (-1, 2, 0, -2, 1, 1)), F.pad(x, (-1, -1)), F.pad(x, (0, 0))), IMAGE),
    Case("pad.default", lambda x: (F.pad(x, (1, 2, 3, 0), "reflect"), F.pad(x, (-2, 1, 1, -1), "reflect")), IMAGE),
    Case("pad.default", lambda x: (F.pad(x, (1, 2, 3, 0), "circular"), F.pad(x, (-2, 1, 1, -1), "circular")), IMAGE),
    Case("pad.default", lambda x: (F.pad(x, (1, 9, 3, 0), "replicate"), F.pad(x, (-2, 1), "replicate")), SEQUENCE),
    Case("pad.default", lambda x: (F.pad(x, (2, 0)), F.pad(x, (2, 0, 1, 1)), F.pad(x, (2, 2), "reflect")), SEQUENCE),
    Case("pad.default", lambda x: (nn.ZeroPad2d(2)(x), nn.ReflectionPad2d(1)(x), nn.ReplicationPad2d(3)(x)), IMAGE),
    Case("upsample_nearest2d.vec", lambda x: (F.interpolate(x, scale_factor=2), F.interpolate(x, (9, 4))), IMAGE),
    Case("upsample_nearest1d.vec", lambda x: (F.interpolate(x, scale_factor=1.5), F.interpolate(x, 4)), SEQUENCE),
    Case("_upsample_nearest_exact2d.vec", lambda x: F.interpolate(x, (9, 4), mode="nearest-exact"), IMAGE),
    Case("_upsample_nearest_exact1d.vec", lambda x: F.interpolate(x, 4, mode="nearest-exact"), SEQUENCE),
    # Two stages of two products and a sum, and at most 8 pixels away the rounding of a point.
    Case("upsample_bilinear2d.vec", lambda x: F.interpolate(x, (9, 4), mode="bilinear"), IMAGE, ulps=16),
    Case("upsample_bilinear2d.vec", nn.UpsamplingBilinear2d(scale_factor=2), IMAGE, ulps=16),
    Case("upsample_linear1d.vec", lambda x: F.interpolate(x, scale_factor=1.5, mode="linear"), SEQUENCE, ulps=16),
    Case("channel_shuffle.default", lambda x: F.channel_shuffle(x, 3), ((2, 6, 3, 4),)),
    Case("channel_shuffle.default", lambda x: F.channel_shuffle(x, 3), ((2, 6, 5),)),
    Case("pixel_shuffle.default", lambda x: F.pixel_shuffle(x, 2), ((2, 12, 3, 4),)),
    Case("pixel_unshuffle.default", lambda x: F.pixel_unshuffle(x, 2), ((2, 3, 6, 4),)),
    Case("mean.dim", lambda x: (x.mean((2, 3)), x.mean((-1, -2), keepdim=True)), IMAGE, ulps=36),
    # activations
    Case("relu.default", F.relu),
    Case("clamp.default", lambda x: x.clamp(-0.5, 1.0)),
    Case("relu6.default", lambda x: ATEN.relu6(4 * x)),
    Case("hardtanh.default", lambda x: (F.hardtanh(x, -0.3, 0.7), F.hardtanh(2 * x), nn.ReLU6()(4 * x))),
    Case("leaky_relu.default", lambda x: (F.leaky_relu(x), F.leaky_relu(x, 0.3))),
    Case("netopt.sign.default", lambda x: (sign(x, "ste", 1.0), sign(x * 0, "swish_sign", 5.0))),
    Case("prelu.default", lambda x: F.prelu(x, SLOPES)),
    Case("prelu.default", lambda x: (F.prelu(x, SLOPES[:1]), F.prelu(x[0], SLOPES[:1]))),
    Case("prelu.default", lambda x: F.prelu(x, SLOPES[:3]), IMAGE),
    Case("elu.default", lambda x: (F.elu(x), F.elu(x, 0.4), ATEN.elu(x, 0.4, 1.7, 2.0)), ulps=4),
    Case("selu.default", F.selu, ulps=4),
    Case("celu.default", lambda x: (F.celu(x), F.celu(x, 0.4)), ulps=4),
    Case("gelu.default", lambda x: (F.gelu(x), F.gelu(x, approximate="tanh"))),
    Case("silu.default", F.silu),
    Case("sigmoid.default", torch.sigmoid),
    Case("tanh.default", torch.tanh),
    Case("hardswish.default", lambda x: F.hardswish(3 * x)),
    Case("hardsigmoid.default", lambda x: F.hardsigmoid(3 * x)),
    Case("softplus.default", lambda x: (F.softplus(x), F.softplus(x, 2.0, 0.5))),
    Case("glu.default", lambda x: (F.glu(x), F.glu(x, 0))),
    Case("log_sigmoid.default", lambda x: F.logsigmoid(4 * x)),
    Case("mish.default", F.mish),
    Case("exp.default", torch.exp),
    Case("log.default", lambda x: x.abs().log()),
    Case("sqrt.default", lambda x: x.abs().sqrt()),
    Case("rsqrt.default", lambda x: x.abs().rsqrt()),
    Case("reciprocal.default", lambda x: (1 / x, 3 / x, x.reciprocal())),
    Case("erf.default", torch.erf),
    Case("abs.default", torch.abs),
    Case("neg.default", lambda x: -x),
    Case("square.default", torch.square),
    Case("floor.default", torch.floor),
    # Products of up to three factors, each rounded, where PyTorch has a power function.
    Case("pow.Tensor_Scalar", lambda x: (x**2, x**3, x**-1, x**-2, x**7 / 8), ulps=256),
    Case("pow.Tensor_Scalar", lambda x: (x.abs() ** 0.5, x.abs() ** -0.5, x.abs() ** 2.5), ulps=32),
    Case("clamp.default", lambda x: (x.clamp(min=0.1), x.clamp(max=0.2))),
    Case("clamp_min.default", lambda x: x.clamp_min(0.1)),
    Case("clamp_max.default", lambda x: x.clamp_max(0.1)),
    Case("maximum.default", torch.maximum, ((4, 6), (6,))),
    Case("minimum.default", torch.minimum, ((4, 6), (6,))),
    Case("max.other", torch.max, ((4, 6), (6,))),
    Case("min.other", torch.min, ((4, 6), (6,))),
    # reductions: sums of at most 24 terms
    Case("sum.default", torch.sum, ulps=50),
    Case("sum.dim_IntList", lambda x: (x.sum(-1), x.sum((0, 2), keepdim=True), x.sum((1, 2))), ((2, 3, 4),), ulps=20),
    Case("mean.default", torch.mean, ulps=24),
    Case("mean.dim", lambda x: (x.mean(1), x.mean((0, -1)), x.mean((0, 2, 3))), IMAGE, ulps=70),
    Case("amax.default", lambda x: (x.amax(0), x.amax((0, -1), keepdim=True), x.amax()), ((2, 3, 4),)),
    Case("amin.default", lambda x: x.amin(-1)),
    Case("max.default", torch.max),
    Case("min.default", torch.min),
    Case("max.dim", lambda x: x.max(1, keepdim=True)[0]),
    Case("min.dim", lambda x: x.min(0).values),
    Case("var.dim", lambda x: (x.var(1), x.var((0, 1), unbiased=False, keepdim=True)), ulps=30),
    Case("var.correction", lambda x: (x.var(), x.var(0, correction=2)), ulps=30),
    Case("std.dim", lambda x: x.std(1), ulps=10),
    Case("std.correction", lambda x: x.std(), ulps=30),
    Case("linalg_vector_norm.default", lambda x: (x.norm(), x.norm(dim=1), F.normalize(x)), ulps=30),
    Case("rms_norm.default", lambda x: (F.rms_norm(x, (6,), SCALE), F.rms_norm(x, (4, 6), eps=0.1)), ulps=20),
    Case("group_norm.default", lambda x: F.group_norm(x, 2, SCALE, SHIFT), ((3, 6, 2, 2),), ulps=20),
    Case("group_norm.default", lambda x: F.group_norm(x, 3), ((3, 6),), ulps=10),
    # normalization
    Case("softmax.int", lambda x: (F.softmax(x, -1), F.softmax(x, 0, dtype=torch.float32))),
    Case("_softmax.default", lambda x: ATEN._softmax(x, -2, False)),
    Case("log_softmax.int", lambda x: (F.log_softmax(x, 1), F.log_softmax(x, -1)), ((2, 3, 4),)),
    Case("_log_softmax.default", lambda x: ATEN._log_softmax(x, -1, False)),
    Case("layer_norm.default", lambda x: (F.layer_norm(x, (6,), SCALE, SHIFT, 0.01), F.layer_norm(x, (6,), SCALE))),
    Case("layer_norm.default", lambda x: F.layer_norm(x, (4, 6)), ((3, 4, 6),)),
    Case("_native_batch_norm_legit_no_training.default", lambda x: (_batch_norm(x), _bare_batch_norm(x)), ulps=4),
    Case("_native_batch_norm_legit_no_training.default", _batch_norm, ((3, 6, 2, 2),), ulps=4),
    # arithmetic
    Case("add.Tensor", lambda x, y: (x + y, y + x, x + x), ((4, 6), (6,))),
    Case("add.Tensor", lambda x: (x + 0.1, 0.1 + x, x + True)),
    # Multiplying by the alpha is exact here; with another one PyTorch would round once (fused), netopt twice.
    Case("add.Tensor", lambda x, y: torch.add(x, y, alpha=-2), ((4, 6), (4, 1))),
    Case("sub.Tensor", lambda x, y: (x - y, y - x, torch.sub(x, y, alpha=4)), ((1, 6), (4, 1))),
    Case("sub.Tensor", lambda x: torch.sub(1, x)),
    Case("mul.Tensor", lambda x, y: (x * y, y * x, 0.1 * x, y * y), ((4, 6), ())),
    Case("div.Tensor", lambda x, y: (x / y, y / x, x / 3), ((4, 6), (4, 6))),
    Case("add.Scalar", lambda x: (ATEN.add.Scalar(x, 0.1), ATEN.add.Scalar(x, 3, 2))),
    Case("sub.Scalar", lambda x: ATEN.sub.Scalar(x, 3, 2)),
    Case("mul.Scalar", lambda x: ATEN.mul.Scalar(x, 0.1)),
    Case("div.Scalar", lambda x: ATEN.div.Scalar(x, 3)),
    Case("rsub.Scalar", lambda x: (0.1 - x, torch.rsub(x, 3, alpha=2))),
    Case("rsub.Tensor", lambda x, y: (torch.rsub(x, y), torch.rsub(x, y, alpha=2)), ((4, 6), (6,))),
    # shape
    Case("view.default", lambda x: (x.view(3, 8), x.reshape(2, -1, 3), x.unflatten(-1, (2, -1)), x.flatten())),
    Case("_unsafe_view.default", lambda x: x.T.reshape(3, 8)),
    Case("squeeze.default", torch.squeeze, ((1, 4, 1, 6),)),
    Case("squeeze.dim", lambda x: (x.squeeze(0), x.squeeze(-2), x.squeeze(1)), ((1, 4, 1, 6),)),
    Case("squeeze.dims", lambda x: x.squeeze((0, -2)), ((1, 4, 1, 1),)),
    Case("unsqueeze.default", lambda x: (x.unsqueeze(0), x.unsqueeze(-1), x[:, None])),
    Case("permute.default", lambda x: (x.permute(2, 0, -2), x.movedim(0, -1)), ((2, 3, 4),)),
    Case("permute.default", lambda x: x.T),
    Case("transpose.int", lambda x: (x.transpose(0, -1), x.mT, x.swapaxes(1, 1)), ((2, 3, 4),)),
    Case("t.default", lambda x, y: (x.t(), y.t()), ((4, 6), (5,))),
    Case("cat.default", lambda x, y: torch.cat([x, y, x], -1), ((4, 6), (4, 1))),
    Case("stack.default", lambda x, y: (torch.stack([x, y]), torch.stack([x, y], -1)), ((4, 6), (4, 6))),
    Case("expand.default", lambda x, y: (x.expand(3, -1, 2, 6), x.expand_as(y) + y), ((4, 1, 6), (2, 4, 5, 6))),
    Case("slice.Tensor", lambda x: (x[1:-1, -4::2], x.narrow(1, 2, 3))),
    Case("select.int", lambda x: (x[1], x[:, -1], x[-2, 3])),
    Case("split.Tensor", lambda x: (x.split(4, -1), x.chunk(3, 1)[::-1])),
    Case("split_with_sizes.default", lambda x: x.split([1, 3, 2], 1)),
    Case("unbind.int", lambda x: (x.unbind(-1), sum(row for row in x))),
    # nothing to do in eval mode
    Case("clone.default", lambda x: (x.clone(), F.dropout(x, 0.5, training=False), x.T.contiguous())),
    Case("detach.default", lambda x: x.detach()),
    Case("alias.default", lambda x: ATEN.alias(x) + 1),
    Case("_to_copy.default", lambda x: ATEN._to_copy(x, dtype=torch.float32)),
)

# Rows for ops that torch.export 2.13 takes apart before netopt sees them. What it writes in their place is exercised
# above. Each has a call that the importer and the ATen op must agree on.
NOT_EXPORTED: dict[str, tuple[str, Callable[[], tuple[Any, ...]]]] = {
    "batch_norm.default": (
        "becomes _native_batch_norm_legit_no_training",
        lambda: (_normal(4, 6), SCALE, SHIFT, MEAN, VARIANCE, False, 0.1, 1e-5, False),
    ),
    "reshape.default": ("becomes view or _unsafe_view", lambda: (_normal(4, 6), [3, -1])),
    "flatten.using_ints": ("becomes view", lambda: (_normal(2, 3, 4, 5), 1, -2)),
    "unflatten.int": ("becomes view", lambda: (_normal(2, 12, 3), -2, [2, -1])),
    "dropout.default": ("becomes clone in eval mode", lambda: (_normal(4, 6), 0.5, False)),
    "contiguous.default": ("is dropped, or becomes clone", lambda: (_normal(4, 6),)),
    "detach_.default": ("is dropped when the graph is made functional", lambda: (_normal(4, 6),)),
    "lift_fresh_copy.default": ("becomes clone", lambda: (_normal(4, 6),)),
    "to.dtype": ("becomes _to_copy, or is dropped", lambda: (_normal(4, 6), torch.float32)),
}

# Rows that are there for what they say when they refuse.
REFUSING = ("_native_batch_norm_legit.default", "_native_batch_norm_legit.no_stats", "native_dropout.default")


class Model(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


def _overload(row: str) -> torch._ops.OpOverload:
    """The overload of a row: of ATen, but for those of a library that the row names."""
    *library, packet, overload = row.split(".")
    ops = getattr(torch.ops, library[0]) if library else ATEN
    return getattr(getattr(ops, packet), overload)  # type: ignore[no-any-return]


def _import_by_hand(row: str, *args: Any) -> list[torch.Tensor]:
    """The results of a one-op graph that the importer of `row` makes of this call."""
    builder = GraphBuilder()
    inputs: list[torch.Tensor] = []

    def name_of(value: Any) -> Any:
        if isinstance(value, list) and any(isinstance(item, torch.Tensor) for item in value):
            return [name_of(item) for item in value]
        if not isinstance(value, torch.Tensor):
            return value
        name = f"x{len(inputs)}"
        inputs.append(value)
        builder.inputs += (name,)
        builder.types[name] = TensorType(tuple(value.shape))
        return name

    arguments = _overload(row)._schema.arguments
    assert len(args) <= len(arguments)
    given = [name_of(value) for value in args] + [argument.default_value for argument in arguments[len(args) :]]
    imported = IMPORTERS[row](
        Context(builder, "y", "layer"), {a.name: value for a, value in zip(arguments, given, strict=True)}
    )
    builder.outputs = (imported,) if isinstance(imported, str) else imported
    graph = builder.finish()
    verify(graph)
    return list(interpret(graph, inputs))


def _assert_same(results: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], ulps: float = 0.0) -> None:
    assert [r.shape for r in results] == [e.shape for e in expected]
    for result, right in zip(results, expected, strict=True):
        if ulps == 0:
            assert torch.equal(result, right)
        else:
            # Sums of at most 7 terms; no term of the cases above is much larger than the largest result or 1.
            size = max(1.0, right.abs().max().item())
            torch.testing.assert_close(result, right, rtol=0.0, atol=ulps * EPSILON * size)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.row)
def test_captured_op_equals_the_model(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    used = record_importers(monkeypatch)
    model = Model(case.forward).eval()
    inputs = tuple(_normal(*shape, seed=i) for i, shape in enumerate(case.shapes))
    graph, signature = capture(model, inputs)
    assert case.row in used
    expected = signature.output.flatten(model(*inputs), "expected")
    _assert_same(interpret(graph, inputs), expected, case.ulps)


@pytest.mark.parametrize("row", IMPORTERS)
def test_every_row_is_an_overload_of_aten_or_netopt(row: str) -> None:
    overload = _overload(row)
    assert isinstance(overload, torch._ops.OpOverload)
    assert str(overload) == (row if row.startswith("netopt.") else f"aten.{row}")


def test_a_conversion_that_changes_nothing_is_none() -> None:
    x = _normal(4, 6)
    graph, _ = capture(Model(lambda x: x.float() + 1).eval(), x)
    assert len(graph.nodes) == 1
    _assert_same(interpret(graph, [x]), [x + 1])


def test_every_row_is_exercised() -> None:
    # Recurrent layers are tested with their kernel.
    tables = (test_aten_of_whole_numbers.CASES, test_aten_of_composed_ops.CASES)
    elsewhere = set(recurrent.IMPORTERS) | {row for table in tables for row, *_ in table}
    assert {case.row for case in CASES} | elsewhere | set(NOT_EXPORTED) | set(REFUSING) == set(IMPORTERS)


def test_no_row_is_excused_that_has_a_case() -> None:
    assert {case.row for case in CASES} & set(NOT_EXPORTED) == set()


@pytest.mark.parametrize("row", NOT_EXPORTED)
def test_a_row_that_is_not_exported_equals_the_aten_op(row: str) -> None:
    _, arguments = NOT_EXPORTED[row]
    # 4 roundings of the batch norm, as above; the others only copy.
    ulps = 4.0 if row == "batch_norm.default" else 0.0
    _assert_same(_import_by_hand(row, *arguments()), [_overload(row)(*arguments())], ulps)


# --- shapes, against the ATen ops themselves, on all kinds of arguments

SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


def _numbered(*shape: int) -> torch.Tensor:
    """A tensor whose elements are all different."""
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape)


@given(st.data())
@PROPERTY
def test_slices(data: st.DataObject) -> None:
    x = _numbered(*data.draw(SHAPES))
    axis = data.draw(st.integers(-x.dim(), x.dim() - 1))
    ends = st.none() | st.integers(-7, 7) | st.just(2**63 - 1)
    args = (x, axis, data.draw(ends), data.draw(ends), data.draw(st.integers(1, 4)))
    expected = _overload("slice.Tensor")(*args)
    if expected.numel() == 0:
        with pytest.raises(InvalidArgument, match="slice: expected 0 <= start < stop"):
            _import_by_hand("slice.Tensor", *args)
    else:
        _assert_same(_import_by_hand("slice.Tensor", *args), [expected])


@given(st.data())
@PROPERTY
def test_selects_and_unbinds(data: st.DataObject) -> None:
    x = _numbered(*data.draw(SHAPES))
    axis = data.draw(st.integers(-x.dim(), x.dim() - 1))
    index = data.draw(st.integers(-x.shape[axis], x.shape[axis] - 1))
    _assert_same(_import_by_hand("select.int", x, axis, index), [x.select(axis, index)])
    _assert_same(_import_by_hand("unbind.int", x, axis), x.unbind(axis))


@given(st.data())
@PROPERTY
def test_splits(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    shape = list(data.draw(SHAPES))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    shape[axis] = sum(lengths)
    x = _numbered(*shape)
    _assert_same(_import_by_hand("split_with_sizes.default", x, lengths, axis), x.split(lengths, axis))
    size = data.draw(st.integers(1, shape[axis] + 2))
    _assert_same(_import_by_hand("split.Tensor", x, size, axis), x.split(size, axis))


@given(st.data())
@PROPERTY
def test_squeezes(data: st.DataObject) -> None:
    x = _numbered(*data.draw(st.lists(st.integers(1, 2), max_size=5)))
    _assert_same(_import_by_hand("squeeze.default", x), [x.squeeze()])
    axis = st.integers(-max(1, x.dim()), max(1, x.dim()) - 1)
    dim = data.draw(axis)
    _assert_same(_import_by_hand("squeeze.dim", x, dim), [x.squeeze(dim)])
    dims = data.draw(st.lists(axis, max_size=3, unique_by=lambda a: a % max(1, x.dim())))
    _assert_same(_import_by_hand("squeeze.dims", x, dims), [x.squeeze(tuple(dims))])
    dim = data.draw(st.integers(-x.dim() - 1, x.dim()))
    _assert_same(_import_by_hand("unsqueeze.default", x, dim), [x.unsqueeze(dim)])


@given(st.data())
@PROPERTY
def test_permutations(data: st.DataObject) -> None:
    x = _numbered(*data.draw(SHAPES))
    order = data.draw(st.permutations(range(x.dim())))
    axes = [axis - x.dim() if data.draw(st.booleans()) else axis for axis in order]
    _assert_same(_import_by_hand("permute.default", x, axes), [x.permute(axes)])
    first, second = (data.draw(st.integers(-x.dim(), x.dim() - 1)) for _ in range(2))
    _assert_same(_import_by_hand("transpose.int", x, first, second), [x.transpose(first, second)])


@given(st.data())
@PROPERTY
def test_joins(data: st.DataObject) -> None:
    shape = list(data.draw(SHAPES))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    parts = []
    for length in data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)):
        shape[axis] = length
        parts.append(_numbered(*shape))
    _assert_same(_import_by_hand("cat.default", parts, axis), [torch.cat(parts, axis)])
    same = [parts[0], parts[0] + 1, parts[0] - 1]
    axis = data.draw(st.integers(-len(shape) - 1, len(shape)))
    _assert_same(_import_by_hand("stack.default", same, axis), [torch.stack(same, axis)])


@given(st.data())
@PROPERTY
def test_reshapes(data: st.DataObject) -> None:
    shape = data.draw(SHAPES)
    x = _numbered(*shape)
    first = data.draw(st.integers(0, x.dim() - 1))
    last = data.draw(st.integers(first, x.dim() - 1))
    signed = [axis - x.dim() if data.draw(st.booleans()) else axis for axis in (first, last)]
    _assert_same(_import_by_hand("flatten.using_ints", x, *signed), [x.flatten(*signed)])
    target = list(data.draw(st.permutations(shape)))
    if data.draw(st.booleans()):
        target[data.draw(st.integers(0, len(target) - 1))] = -1
    for row in ("view.default", "_unsafe_view.default", "reshape.default"):
        _assert_same(_import_by_hand(row, x, target), [x.reshape(target)])


@pytest.mark.parametrize("row", ["squeeze.default", "t.default", "flatten.using_ints", "relu.default"])
def test_ops_of_a_scalar(row: str) -> None:
    x = torch.tensor(2.0)
    _assert_same(_import_by_hand(row, x), [_overload(row)(x)])


def test_permutations_of_a_scalar() -> None:
    x = torch.tensor(2.0)
    _assert_same(_import_by_hand("permute.default", x, []), [x])
    _assert_same(_import_by_hand("transpose.int", x, 0, -1), [x.transpose(0, -1)])


def test_empty_parts_of_a_split_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="slice: expected 0 <= start < stop <= 4"):
        _import_by_hand("split_with_sizes.default", _normal(4), [4, 0], 0)


# --- arguments that netopt does not lower


@pytest.mark.parametrize(
    ("row", "arguments", "message"),
    [
        ("softmax.int", (_normal(4, 6), 1, torch.float64), "softmax: expected dtype float32, found torch.float64"),
        ("log_softmax.int", (_normal(4), 0, torch.float16), "softmax: expected dtype float32, found torch.float16"),
        ("_to_copy.default", (_normal(4), torch.float64), "result: expected float32, .*, found torch.float64"),
        ("to.dtype", (_normal(4), torch.int16), "result: expected float32, .*, found torch.int16"),
        ("dropout.default", (_normal(4), 0.5, True), r"dropout that is active in eval mode; use torch.nn.Dropout, or"),
        (
            "native_dropout.default",
            (_normal(4), 0.5, True),
            r"dropout that is active in eval mode; use torch.nn.Dropout",
        ),
        ("clamp.default", (_normal(4),), "clamp: expected a minimum or a maximum, found neither"),
        ("pow.Tensor_Scalar", (_normal(4), math.inf), "power: expected a finite exponent, found inf"),
        ("pow.Scalar", (-2.0, _normal(4)), "power: expected a base above 0, found -2"),
        ("fft_fft.default", (_normal(2, 4097),), "a Fourier transform: expected 1 to 4096 points, found 4097"),
        ("sort.default", (_normal(2, 513),), "sorting: expected at most 512 elements, found 513"),
        ("var.dim", (_normal(1, 4), [0]), "variance: expected more than 1 elements, found 1"),
        ("linalg_vector_norm.default", (_normal(4), -1), "vector norm: expected an order above 0, found -1"),
        ("sum.default", (_normal(4), torch.float64), "result: expected float32, .*, found torch.float64"),
        (
            "einsum.default",
            ("ii,ij->j", [_normal(4, 4), _normal(4, 5)]),
            "einsum: expected no index twice",
        ),
        ("einsum.default", ("ab,b->bb", [_normal(4, 5), _normal(5)]), "einsum: expected each index of the result"),
        (
            "scaled_dot_product_attention.default",
            (_normal(2, 4, 6), _normal(2, 4, 6), _normal(2, 4, 6), None, 0.1),
            "attention: expected dropout_p=0, found 0.1",
        ),
        (
            "_native_batch_norm_legit.default",
            (_normal(4, 6), SCALE, SHIFT, MEAN, VARIANCE, True, 0.1, 1e-5),
            "batch normalization with the statistics of the batch; build the layer with track_running_stats=True",
        ),
        (
            "_native_batch_norm_legit.no_stats",
            (_normal(4, 6), SCALE, SHIFT, True, 0.1, 1e-5),
            "batch normalization with the statistics of the batch; build the layer with track_running_stats=True",
        ),
        (
            "batch_norm.default",
            (_normal(4, 6), SCALE, SHIFT, None, None, False, 0.1, 1e-5, False),
            "batch normalization with the statistics of the batch; build the layer with track_running_stats=True",
        ),
        (
            "batch_norm.default",
            (_normal(4, 6), SCALE, SHIFT, MEAN, VARIANCE, True, 0.1, 1e-5, False),
            "batch normalization with the statistics of the batch; build the layer with track_running_stats=True",
        ),
    ],
)
def test_refused_arguments_name_the_layer(row: str, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UnsupportedModel, match=f"^layer 'layer': {message}"):
        _import_by_hand(row, *arguments)


def test_dropout_of_nothing_is_allowed() -> None:
    x = _normal(4)
    _assert_same(_import_by_hand("dropout.default", x, 0.0, True), [x])


def test_the_indices_of_maxima_are_refused() -> None:
    model = Model(lambda x: F.max_pool2d(x, 2, return_indices=True)[1]).eval()
    with pytest.raises(
        UnsupportedModel, match="result 1 of op 'aten.max_pool2d_with_indices.default' .*; use the others"
    ):
        capture(model, _normal(1, 2, 4, 4))
