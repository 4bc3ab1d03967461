"""Importers that compose an ATen op of other ops: interpreter and program give what PyTorch gives, in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import netopt
from netopt.graph import interpret
from netopt.graph.capture import capture
from tests.graph.recording import record_importers


def _written(x: torch.Tensor, index: Any, value: Any) -> torch.Tensor:
    y = x.clone()
    y[index] += value
    return y


def _weight(*shape: int) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel()).sin().reshape(shape) * 0.3


MATRIX, IMAGE, SEQUENCE, VOLUME = (4, 6), (2, 4, 6, 8), (2, 4, 12), (2, 4, 5, 6, 7)
STARTS = torch.tensor([0, 3])
REPEATED = torch.tensor([1, 0, 3, 1])
WINDOW = torch.hann_window(12)
ONES, KERNEL = torch.ones(6), _weight(4, 3, 3, 3, 2)


def _stft(x: torch.Tensor, points: int, hop: int, **options: Any) -> torch.Tensor:
    return torch.stft(x, points, hop, window=WINDOW, return_complex=True, **options)


# The row that the case is for, the shape of x, a function of it.
CASES: tuple[tuple[str, tuple[int, ...], Callable[[torch.Tensor], Any]], ...] = (
    # elementary functions
    ("sin.default", MATRIX, lambda x: ((x * 9).sin(), (x * 1000).sin())),
    ("cos.default", MATRIX, lambda x: (x * 9).cos()),
    ("tan.default", MATRIX, lambda x: x.tan()),
    ("asin.default", MATRIX, lambda x: x.clamp(-1, 1).asin()),
    ("acos.default", MATRIX, lambda x: x.clamp(-1, 1).acos()),
    ("atan.default", MATRIX, lambda x: (x * 3).atan()),
    ("sinh.default", MATRIX, lambda x: x.sinh()),
    ("cosh.default", MATRIX, lambda x: x.cosh()),
    ("expm1.default", MATRIX, lambda x: (x.expm1(), (x * 1e-3).expm1(), (x * 20).expm1())),
    ("log1p.default", MATRIX, lambda x: (x.abs().log1p(), (x * 1e-3).log1p(), (x.abs() - 1).log1p())),
    ("ceil.default", MATRIX, lambda x: ((x * 3).ceil(), (x * 3).floor(), (x * 3).trunc())),
    ("floor.default", MATRIX, lambda x: (x.floor(), x.long().floor())),
    ("trunc.default", MATRIX, lambda x: (x * 3).trunc()),
    ("round.default", MATRIX, lambda x: ((x * 4).round(), ((x * 4).round() / 2).round())),
    ("log10.default", MATRIX, lambda x: x.abs().log10()),
    ("log2.default", MATRIX, lambda x: x.abs().log2()),
    ("exp2.default", MATRIX, lambda x: x.exp2()),
    ("sign.default", MATRIX, lambda x: (x.sign(), (x * 0).sign(), x.long().sign())),
    ("addcmul.default", MATRIX, lambda x: (torch.addcmul(x, x, x[0], value=0.25), torch.addcmul(x, x, x))),
    ("addcdiv.default", MATRIX, lambda x: torch.addcdiv(x, x, x.abs() + 1, value=2.0)),
    ("lerp.Scalar", MATRIX, lambda x: torch.lerp(x, x[:1], 0.3)),
    ("lerp.Tensor", MATRIX, lambda x: torch.lerp(x, x * 2, x[0])),
    ("hypot.default", MATRIX, lambda x: torch.hypot(x, x[0])),
    ("pow.Tensor_Scalar", MATRIX, lambda x: (x.abs() ** 1.7, x**9, x**2, x.abs() ** 2.5, x**-3, x**0, x.abs() ** -1.5)),
    ("pow.Tensor_Tensor", MATRIX, lambda x: (x.abs() ** torch.tensor([3.0]), x.abs() ** torch.tensor(0.3))),
    ("pow.Scalar", MATRIX, lambda x: (2.0**x, 10**x)),
    ("floor_divide.default", MATRIX, lambda x: (x // 0.7, (x * 9).long() // 4, (x * 9).long() // -4)),
    ("div.Tensor_mode", MATRIX, lambda x: torch.div(x, 0.3, rounding_mode="trunc")),
    ("div.Tensor_mode", MATRIX, lambda x: torch.div(x, x[0].abs() + 1, rounding_mode="floor")),
    ("div.Tensor_mode", MATRIX, lambda x: torch.div((x * 9).long(), 4, rounding_mode="trunc")),
    ("remainder.Scalar", MATRIX, lambda x: ((x * 9) % 4.0, (x * 9).long() % 4, (x * 9).long() % -4)),
    ("remainder.Tensor", MATRIX, lambda x: torch.remainder(x, x[0].abs() + 1)),
    ("fmod.Scalar", MATRIX, lambda x: (torch.fmod(x * 9, 4.0), torch.fmod((x * 9).long(), 4))),
    ("fmod.Tensor", MATRIX, lambda x: torch.fmod(x, x[0].abs() + 1)),
    ("threshold.default", MATRIX, lambda x: F.threshold(x, 0.1, -2.0)),
    ("rrelu.default", MATRIX, lambda x: F.rrelu(x, training=False)),
    ("nan_to_num.default", MATRIX, lambda x: (x.log().nan_to_num(), (x / 0).nan_to_num(1.0, 2.0, -3.0))),
    ("clamp.default", MATRIX, lambda x: x.clamp(min=0.1, max=float("inf"))),
    ("clamp.default", MATRIX, lambda x: x.clamp(max=0.2)),
    ("clamp.default", MATRIX, lambda x: x.clamp(-torch.inf, torch.inf)),
    ("clamp.default", MATRIX, lambda x: ((x * 9).long().clamp(-3, 5), (x * 9).long().clamp(min=0))),
    ("clamp.Tensor", MATRIX, lambda x: x.clamp(x.mean(), x.amax() / 2)),
    ("clamp_min.Tensor", MATRIX, lambda x: torch.clamp_min(x, x[0])),
    ("clamp_max.Tensor", MATRIX, lambda x: torch.clamp_max(x, x[0])),
    ("neg.default", MATRIX, lambda x: (-x, -(x * 9).long())),
    ("abs.default", MATRIX, lambda x: (x.abs(), (x * 9).long().abs())),
    # moves
    ("roll.default", IMAGE, lambda x: (x.roll((2, -1), (2, 3)), x.roll(5), x.roll(-9, 1), x.roll(0, 0))),
    ("flip.default", IMAGE, lambda x: (x.flip(3), x.flip((1, -2)))),
    ("fliplr.default", MATRIX, lambda x: x.fliplr()),
    ("flipud.default", MATRIX, lambda x: x.flipud()),
    ("repeat.default", SEQUENCE, lambda x: (x.repeat(1, 2, 3), x.repeat(2, 1, 1, 2), x[0, 0].repeat(3))),
    ("tile.default", MATRIX, lambda x: (x.tile(2), x.tile(2, 1, 3))),
    ("repeat_interleave.self_int", SEQUENCE, lambda x: (x.repeat_interleave(3, 1), x.repeat_interleave(2))),
    ("diagonal.default", SEQUENCE, lambda x: (x.diagonal(0, 1, 2), x.diagonal(1), x[0].diagonal(-2))),
    ("unfold.default", SEQUENCE, lambda x: (x.unfold(2, 4, 3), x.unfold(-1, 12, 1), x.unfold(1, 2, 1))),
    ("im2col.default", IMAGE, lambda x: (F.unfold(x, 3), F.unfold(x, (2, 3), (2, 1), (1, 2), (1, 2)))),
    ("col2im.default", (2, 4 * 9, 6 * 8), lambda x: F.fold(x, (6, 8), 3, padding=1)),
    ("col2im.default", (2, 3 * 4, 3 * 4), lambda x: F.fold(x, (6, 8), 2, stride=2)),
    # norms and distances
    ("instance_norm.default", IMAGE, F.instance_norm),
    ("instance_norm.default", IMAGE, lambda x: F.instance_norm(x, weight=ONES[:4] * 2, bias=ONES[:4])),
    ("instance_norm.default", SEQUENCE, lambda x: F.instance_norm(x, ONES[:4], ONES[:4], use_input_stats=False)),
    ("instance_norm.default", VOLUME, F.instance_norm),
    ("linalg_vector_norm.default", MATRIX, lambda x: x.norm()),
    ("linalg_vector_norm.default", MATRIX, lambda x: x.norm(1, 1)),
    ("linalg_vector_norm.default", MATRIX, lambda x: x.norm(3, dim=0)),
    ("linalg_vector_norm.default", MATRIX, lambda x: x.norm(torch.inf, 1, True)),
    ("norm.ScalarOpt_dim", MATRIX, lambda x: torch.ops.aten.norm.ScalarOpt_dim(x, 2, [1], True)),
    ("logsumexp.default", MATRIX, lambda x: (x.logsumexp(1), (x * 100).logsumexp((0, 1)), x.logsumexp(0, True))),
    ("cosine_similarity.default", MATRIX, lambda x: F.cosine_similarity(x[:, None], x[None], -1)),
    ("cosine_similarity.default", MATRIX, lambda x: F.cosine_similarity(x, x[:1], 0)),
    ("pairwise_distance.default", MATRIX, lambda x: F.pairwise_distance(x, x.flip(0))),
    ("cdist.default", MATRIX, lambda x: (torch.cdist(x, x[1:]), torch.cdist(x, x[1:], p=1.0))),
    ("var_mean.correction", MATRIX, lambda x: torch.var_mean(x, (0, 1), keepdim=True, correction=0)),
    ("var_mean.dim", MATRIX, lambda x: torch.var_mean(x, 1)),
    ("prod.default", MATRIX, lambda x: x.prod()),
    ("prod.dim_int", MATRIX, lambda x: (x.prod(1), x.prod(0, True), (x * 3).long().prod(1))),
    ("bilinear.default", MATRIX, lambda x: F.bilinear(x, x[:, :5], _weight(3, 6, 5), ONES[:3])),
    ("cumsum.default", SEQUENCE, lambda x: (x.cumsum(2), x.cumsum(0))),
    ("einsum.default", SEQUENCE, lambda x: torch.einsum("bct,bt,c->bc", x, x[:, 0], x[0, :, 0])),
    ("einsum.default", SEQUENCE, lambda x: (torch.einsum("...t,ts->...s", x, x[0].T), torch.einsum("bct", x))),
    ("einsum.default", SEQUENCE, lambda x: (torch.einsum("bct->tb", x), torch.einsum("bct,bct->", x, x))),
    ("einsum.default", MATRIX, lambda x: (torch.einsum("ij,kl->iljk", x, x), torch.einsum("ij,jk", x, x.T))),
    ("embedding_bag.padding_idx", (9, 4), lambda x: F.embedding_bag(torch.arange(8).reshape(4, 2), x, mode="mean")),
    (
        "embedding_bag.padding_idx",
        (9, 4),
        lambda x: F.embedding_bag(torch.arange(6), x, STARTS, mode="sum"),
    ),
    ("embedding_bag.padding_idx", (9, 4), lambda x: F.embedding_bag(x.argmax(0).reshape(2, 2), x, mode="max")),
    # volumes
    ("conv3d.default", VOLUME, lambda x: F.conv3d(x, _weight(6, 4, 2, 3, 2))),
    ("conv3d.default", VOLUME, lambda x: F.conv3d(x, _weight(6, 4, 1, 1, 1), ONES)),
    ("conv3d.default", VOLUME, lambda x: F.conv3d(x, _weight(6, 2, 3, 3, 3), ONES, (2, 1, 2), (1, 2, 0), (1, 1, 2), 2)),
    ("conv3d.padding", VOLUME, lambda x: F.conv3d(x, _weight(3, 4, 3, 2, 3), padding="same")),
    ("conv_transpose3d.input", VOLUME, lambda x: F.conv_transpose3d(x, _weight(4, 6, 2, 2, 2), ONES, 2)),
    (
        "conv_transpose3d.input",
        VOLUME,
        lambda x: F.conv_transpose3d(x, KERNEL, None, (2, 1, 2), 1, (1, 0, 0), 2, 1),
    ),
    ("max_pool3d.default", VOLUME, lambda x: F.max_pool3d(x, 2)),
    ("max_pool3d.default", VOLUME, lambda x: F.max_pool3d(x, (1, 2, 2), 2)),
    ("max_pool3d.default", VOLUME, lambda x: F.max_pool3d(x, 3, 1, 1)),
    ("avg_pool3d.default", VOLUME, lambda x: (F.avg_pool3d(x, 2), F.avg_pool3d(x, 3, 2, 1, count_include_pad=False))),
    ("avg_pool3d.default", VOLUME, lambda x: F.avg_pool3d(x, (3, 2, 2), 2, ceil_mode=True)),
    ("adaptive_avg_pool3d.default", VOLUME, lambda x: F.adaptive_avg_pool3d(x, 1)),
    ("adaptive_avg_pool3d.default", VOLUME, lambda x: F.adaptive_avg_pool3d(x, (2, 3, 4))),
    ("adaptive_max_pool3d.default", VOLUME, lambda x: F.adaptive_max_pool3d(x, (2, 3, 1))),
    # resizing
    ("upsample_bicubic2d.vec", IMAGE, lambda x: F.interpolate(x, scale_factor=2, mode="bicubic")),
    ("upsample_bicubic2d.vec", IMAGE, lambda x: F.interpolate(x, (5, 3), mode="bicubic", align_corners=True)),
    ("_upsample_bilinear2d_aa.vec", IMAGE, lambda x: F.interpolate(x, (3, 5), mode="bilinear", antialias=True)),
    ("_upsample_bicubic2d_aa.vec", IMAGE, lambda x: F.interpolate(x, (3, 5), mode="bicubic", antialias=True)),
    ("upsample_trilinear3d.vec", VOLUME, lambda x: F.interpolate(x, (3, 8, 7), mode="trilinear")),
    (
        "upsample_trilinear3d.vec",
        VOLUME,
        lambda x: F.interpolate(x, None, 2, "trilinear", True),
    ),
    ("upsample_nearest3d.vec", VOLUME, lambda x: (F.interpolate(x, scale_factor=2), F.interpolate(x, (3, 8, 7)))),
    ("_upsample_nearest_exact3d.vec", VOLUME, lambda x: F.interpolate(x, (3, 8, 7), mode="nearest-exact")),
    # sorting
    ("sort.default", MATRIX, lambda x: (*x.sort(1), *x.sort(0, descending=True))),
    ("sort.stable", MATRIX, lambda x: (x * 2).round().sort(dim=1, stable=True, descending=True)),
    ("sort.stable", MATRIX, lambda x: (x * 2).long().sort(dim=1, stable=True)),
    ("argsort.default", MATRIX, lambda x: x.argsort(1)),
    ("argsort.stable", MATRIX, lambda x: x.argsort(dim=0, stable=True)),
    ("topk.default", IMAGE, lambda x: (*x.topk(3, 1), *x.topk(2, -1, largest=False))),
    # adding at places
    ("index_add.default", MATRIX, lambda x: x.index_add(0, REPEATED, x * 2)),
    ("index_add.default", MATRIX, lambda x: x.index_add(1, REPEATED, x[:, :4], alpha=-2)),
    ("scatter_add.default", MATRIX, lambda x: x.scatter_add(0, REPEATED[:, None].expand(4, 6), x * 2)),
    ("scatter.value", MATRIX, lambda x: torch.zeros(4, 6).scatter(1, x.argsort(1)[:, :3], 1.0)),
    ("scatter.src", MATRIX, lambda x: x.scatter(0, x.argmax(0, keepdim=True), x[:1] * 2)),
    ("index_put.default", MATRIX, lambda x: torch.index_put(x, (REPEATED,), x * 3, accumulate=True)),
    ("index_copy.default", MATRIX, lambda x: x.index_copy(0, torch.tensor([2, 0]), x[2:])),
    ("index_fill.int_Scalar", MATRIX, lambda x: x.index_fill(1, torch.tensor([2, 0]), -1.0)),
    ("take.default", MATRIX, lambda x: x.take(torch.tensor([[0, 23], [7, -1]]))),
    ("take_along_dim.default", MATRIX, lambda x: x.take_along_dim(x.argmax(1, keepdim=True), 1)),
    ("take_along_dim.default", MATRIX, lambda x: x.take_along_dim(x.argsort(0), 0)),
    # Fourier transforms
    ("fft_fft.default", MATRIX, lambda x: torch.view_as_real(torch.fft.fft(x))),
    ("fft_ifft.default", MATRIX, lambda x: torch.fft.ifft(torch.fft.fft(x, dim=0) * 2, dim=0).real),
    ("fft_rfft.default", SEQUENCE, lambda x: torch.fft.rfft(x).abs()),
    ("fft_rfft.default", SEQUENCE, lambda x: torch.fft.rfft(x, n=7, dim=1, norm="ortho").imag),
    ("fft_irfft.default", SEQUENCE, lambda x: torch.fft.irfft(torch.fft.rfft(x) * _weight(7))),
    ("fft_irfft.default", SEQUENCE, lambda x: torch.fft.irfft(torch.fft.rfft(x), n=9)),
    ("fft_fft2.default", IMAGE, lambda x: torch.fft.fft2(x).real),
    ("fft_ifft2.default", IMAGE, lambda x: torch.fft.ifft2(torch.fft.fft2(x)).real),
    ("fft_rfft2.default", IMAGE, lambda x: torch.fft.rfft2(x, dim=(1, 2), norm="ortho").abs()),
    (
        "fft_irfft2.default",
        IMAGE,
        lambda x: torch.fft.irfft2(torch.fft.rfft2(x, None, (-2, -1), "forward"), (6, 8), (-2, -1), "forward"),
    ),
    ("fft_fftn.default", SEQUENCE, lambda x: torch.fft.fftn(x, dim=(1, 2)).real),
    ("fft_ifftn.default", SEQUENCE, lambda x: torch.fft.ifftn(torch.fft.fftn(x)).real),
    ("fft_rfftn.default", SEQUENCE, lambda x: torch.fft.rfftn(x).imag),
    ("fft_irfftn.default", SEQUENCE, lambda x: torch.fft.irfftn(torch.fft.rfftn(x), s=(2, 4, 12))),
    ("stft.default", (2, 60), lambda x: torch.stft(x, 16, 4, 12, WINDOW, return_complex=True).abs()),
    (
        "stft.default",
        (2, 60),
        lambda x: _stft(x, 12, 5, center=False, normalized=True).real,
    ),
    (
        "istft.default",
        (2, 60),
        lambda x: torch.istft(_stft(x, 12, 3), 12, 3, window=WINDOW),
    ),
    ("view_as_real.default", MATRIX, lambda x: (torch.complex(x, x * 2) * (1 + 2j)).real),
    ("view_as_real.default", MATRIX, lambda x: (torch.complex(x, x * 2) - torch.complex(x[:1], x)).imag),
    ("view_as_real.default", MATRIX, lambda x: torch.view_as_real(torch.complex(x, x * 2)[:, 1:3].transpose(0, 1))),
    ("view_as_complex.default", (4, 6, 2), lambda x: (torch.view_as_complex(x) * torch.view_as_complex(x).conj()).real),
    ("complex.default", MATRIX, lambda x: (torch.complex(x, x) / 2.0).abs()),
    ("polar.default", MATRIX, lambda x: torch.polar(x.abs(), x * 3).imag),
    ("_conj.default", MATRIX, lambda x: torch.view_as_real(torch.complex(x, x).conj().resolve_conj())),
)


class Model(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


def _input(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("row", "shape", "function"), CASES, ids=[f"{row}-{n}" for n, (row, *_) in enumerate(CASES)])
def test_results_are_those_of_pytorch(
    row: str, shape: tuple[int, ...], function: Callable[[torch.Tensor], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    used = record_importers(monkeypatch)
    model = Model(function).eval()
    graph, signature = capture(model, _input(shape, 0))
    assert row in used
    program = netopt.lower(model, _input(shape, 0))
    for seed in (0, 1):
        x = _input(shape, seed)
        expected = [value.clone() for value in signature.output.flatten(_plain(model(x)), "expected")]
        _assert_close(interpret(graph, [x]), expected)
        _assert_close(signature.output.flatten(program(x), "results"), expected)


def _plain(value: Any) -> Any:
    """Named tuples of PyTorch as tuples."""
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def _assert_close(results: Any, expected: Any) -> None:
    for result, right in zip(results, expected, strict=True):
        assert (result.dtype, result.shape) == (right.dtype, right.shape)
        if right.is_floating_point():
            # Sums of at most 108 products of sizes below 4, and functions of up to 16 units, in another order.
            size = max(1.0, right[right.isfinite()].abs().max().item())
            torch.testing.assert_close(result, right, rtol=0.0, atol=128 * size * 2.0**-24, equal_nan=True)
        else:
            assert torch.equal(result, right)


@pytest.mark.parametrize("x", [torch.tensor([[3.0, torch.nan, -1.0, 3.0, torch.inf, -torch.inf, torch.nan, 0.0]])])
@pytest.mark.parametrize("descending", [False, True])
def test_nan_is_sorted_as_the_largest(x: torch.Tensor, descending: bool) -> None:
    model = Model(lambda x: x.sort(dim=1, stable=True, descending=descending))
    values, index = netopt.lower(model, torch.zeros_like(x))(x)
    expected = x.sort(dim=1, stable=True, descending=descending)
    assert torch.equal(values.nan_to_num(9.0, 8.0, -8.0), expected.values.nan_to_num(9.0, 8.0, -8.0))
    assert torch.equal(index, expected.indices)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 3)),
        Model(lambda x: x.add_(1).mul(2)),
        Model(lambda x: _set_first(x) * 2),
    ],
    ids=["relu", "add", "part"],
)
def test_a_program_leaves_its_inputs_as_they_are(model: nn.Module) -> None:
    """What forward writes to its input is part of what it computes, and of nothing else."""
    x = _input(MATRIX, 0)
    program = netopt.lower(model.eval(), x)
    given = x.clone()
    result = program(given)
    assert torch.equal(given, x)
    with torch.no_grad():
        # Sums of 7 terms below 4.
        torch.testing.assert_close(result, model(x), rtol=0.0, atol=7 * 4 * 2.0**-23)


def _set_first(x: torch.Tensor) -> torch.Tensor:
    x[:, 0] = 5.0
    return x


@pytest.mark.parametrize(
    "activation", [name for name in nn.modules.activation.__all__ if name not in ("MultiheadAttention", "Softmax2d")]
)
def test_all_activations_of_pytorch_are_lowered(activation: str) -> None:
    layer = getattr(nn, activation)
    module = layer(0.1, 20.0) if activation == "Threshold" else layer(dim=1) if "oftm" in activation else layer()
    x = torch.linspace(-4, 4, 48).reshape(2, 4, 6)
    program = netopt.lower(module.eval(), x)
    with torch.no_grad():
        right = module(x)
    # Functions of up to 16 units of 2^-24.
    torch.testing.assert_close(program(x), right, rtol=0.0, atol=16 * right.abs().max().item() * 2.0**-24)
