"""Dense layers as a product of two thinner ones.

y = W x + b with W (m, n) becomes y = U (V x) + b with U (m, k) and V (k, n): k (m + n) multiply-adds instead of m n.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from netopt.errors import InvalidArgument, InvalidType
from netopt.factorization.ranks import Energy, Rank, check_rank, check_rule, resolve_rank
from netopt.select import Layer, Predicate, Selection
from netopt.technique import Keep, Technique, inherit, transform

Factors = tuple[torch.Tensor, torch.Tensor]


class FactoredDense(nn.Module):
    """y = U (V x) + b, for x of any leading shape (..., n).

    Two ordinary `nn.Linear` layers: `v` (n -> k, no bias), then `u` (k -> m, with the bias).
    """

    def __init__(self, u: torch.Tensor, v: torch.Tensor, bias: nn.Parameter | None) -> None:
        """Take over the factors U (m, k) and V (k, n), and the bias (m,)."""
        super().__init__()
        # On the meta device nothing is drawn at random, so that the caller's random state is left alone.
        self.v = nn.Linear(v.shape[1], v.shape[0], bias=False, device="meta")
        self.u = nn.Linear(u.shape[1], u.shape[0], bias=bias is not None, device="meta")
        self.v.weight = nn.Parameter(v)
        self.u.weight = nn.Parameter(u)
        if bias is not None:
            self.u.bias = bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output, (..., m)."""
        y: torch.Tensor = self.u(self.v(x))
        return y

    @property
    def in_features(self) -> int:
        """n."""
        return self.v.in_features

    @property
    def out_features(self) -> int:
        """m."""
        return self.u.out_features

    @property
    def rank(self) -> int:
        """k."""
        return self.v.out_features

    @property
    def weight(self) -> torch.Tensor:
        """U V, (m, n): for code that reads the weight of the layer that stood here."""
        return self.u.weight @ self.v.weight

    @property
    def bias(self) -> torch.Tensor | None:
        """b, (m,), or None."""
        return self.u.bias

    def __repr__(self) -> str:
        return f"FactoredDense({self.in_features} -> {self.rank} -> {self.out_features}, bias={self.bias is not None})"


def svd_factors(weight: torch.Tensor, rank: int) -> Factors:
    """The best approximation of rank k in the Frobenius norm: U (m, k) and V (k, n), with U V = the truncated SVD.

    The singular values are split between both factors, the root of each to each, so that gradients of both are of one
    size in retraining.

    Args:
        weight: (m, n), float32 or float64.
        rank: k, from 1 to min(m, n).

    Source: Eckart and Young, 1936: the error is the root of the sum of the squared singular values left out.
    """
    return _truncate(torch.linalg.svd(weight, full_matrices=False), rank)


@dataclass(frozen=True, kw_only=True)
class SVD(Technique):
    """Replace dense layers by their truncated singular value decomposition.

    Attributes:
        rank: a number, a fraction, Energy(share) or a function of W (m, n); see `netopt.factorization.ranks`.
        select: which dense layers; None for all.
    """

    rank: Rank
    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rule(self.rank)

    def replace(self, layer: Layer) -> nn.Module | Keep:
        weight = _weight_of(layer)
        if isinstance(self.rank, Energy):
            decomposition = torch.linalg.svd(weight, full_matrices=False)
            rank = resolve_rank(self.rank, weight, decomposition[1], layer.name)
            return _saves_nothing(weight, rank) or _replacement(layer, *_truncate(decomposition, rank))
        rank = resolve_rank(self.rank, weight, None, layer.name)
        # The decomposition takes seconds for a big layer, so it comes after the question whether it is wanted.
        return _saves_nothing(weight, rank) or _replacement(layer, *svd_factors(weight, rank))


@dataclass(frozen=True, kw_only=True)
class _UserFactors(Technique):
    """`factor_dense` with a factor function of the user's."""

    projection_function: Callable[[torch.Tensor], int] | None
    factor_function: Callable[[torch.Tensor, int], tuple[Any, Any]]
    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)

    @property
    def name(self) -> str:
        return "factor_dense"

    def replace(self, layer: Layer) -> nn.Module | Keep:
        weight = _weight_of(layer)
        full = min(weight.shape)
        wanted = full
        if self.projection_function is not None:
            wanted = check_rank(self.projection_function(weight.clone()), full, layer.name)
            if (keep := _saves_nothing(weight, wanted)) is not None:
                return keep
        factors: object = self.factor_function(weight.clone(), wanted)
        u, v = _check_factors(factors, weight, None if self.projection_function is None else wanted, layer.name)
        return _saves_nothing(weight, v.shape[0]) or _replacement(layer, u, v)


def factor_dense(
    model: nn.Module,
    projection_function: Callable[[torch.Tensor], int] | None = None,
    filter_function: Predicate | None = None,
    factor_function: Callable[[torch.Tensor, int], tuple[Any, Any]] | None = None,
) -> nn.Module:
    """A new model in which dense layers are factored; the caller's is not changed.

    A layer stays as it is where the filter says so, and where the rank would save nothing: k (m + n) >= m n.
    `netopt.optimize(model, SVD(rank=...))` does the same and returns a report, too.

    Args:
        model: any module; it may itself be an `nn.Linear`.
        projection_function: the rank k, from 1 to min(m, n), for a copy of a weight matrix W (m, n) = (out, in).
        filter_function: whether to factor a layer. It is asked for every dense layer, and for nothing else, with a
            `netopt.Layer`; None means every dense layer.
        factor_function: `(W, k) -> (U, V)`, tensors or arrays with U (m, k) and V (k, n); by default the truncated SVD.
            Without a projection function it gets k = min(m, n), and its factors decide the rank.

    Raises:
        InvalidArgument: neither a projection nor a factor function is given, a rank is out of range, factors are of the
            wrong shape or not finite, or a weight holds NaN or infinity; names the layer.
        InvalidType: a function returns something of another type.
    """
    for name, function in (
        ("projection_function", projection_function),
        ("filter_function", filter_function),
        ("factor_function", factor_function),
    ):
        if function is not None and not callable(function):
            raise InvalidType(name, expected="a function", found=repr(function))
    selection: Selection | None = filter_function
    if factor_function is not None:
        technique: Technique = _UserFactors(
            projection_function=projection_function, factor_function=factor_function, select=selection
        )
    elif projection_function is not None:
        technique = SVD(rank=projection_function, select=selection)
    else:
        raise InvalidArgument(
            "factor_dense",
            expected="a projection_function, a factor_function or both",
            found="neither",
            fix="give projection_function=lambda W: k, or use SVD(rank=...)",
        )
    return transform(model, technique)[0]


def _weight_of(layer: Layer) -> torch.Tensor:
    """A copy of W in float32, or in float64 where it is that."""
    assert isinstance(layer.module, nn.Linear)
    weight = layer.module.weight.detach()
    if weight.is_meta:
        raise InvalidArgument("weight", expected="values", found="a tensor on the meta device", layer=layer.name)
    if not torch.isfinite(weight).all():
        raise InvalidArgument("weight", expected="finite numbers", found="NaN or infinity", layer=layer.name)
    return weight.to(torch.promote_types(weight.dtype, torch.float32), copy=True)


def _truncate(decomposition: tuple[torch.Tensor, torch.Tensor, torch.Tensor], rank: int) -> Factors:
    u, s, vh = decomposition
    root = s[:rank].sqrt()
    return (u[:, :rank] * root).contiguous(), (root[:, None] * vh[:rank]).contiguous()


def _saves_nothing(weight: torch.Tensor, rank: int) -> Keep | None:
    m, n = weight.shape
    if rank * (m + n) < m * n:
        return None
    return Keep(f"rank {rank} saves nothing: {rank} x ({m} + {n}) >= {m} x {n}")


def _check_factors(factors: object, weight: torch.Tensor, rank: int | None, layer: str) -> Factors:
    """The user's factors as tensors of the weight's type and device."""
    if not isinstance(factors, tuple | list) or len(factors) != 2:
        raise InvalidType("factor_function", expected="a pair (U, V)", found=type(factors).__name__, layer=layer)
    try:
        u, v = (torch.as_tensor(f).detach().to(weight.device, weight.dtype).contiguous() for f in factors)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidType("factor_function", expected="two matrices", found=str(error), layer=layer) from None
    m, n = weight.shape
    k = rank if rank is not None else (v.shape[0] if v.dim() == 2 else 0)
    if u.shape != (m, k) or v.shape != (k, n) or not 1 <= k <= min(m, n):
        wanted = "k" if rank is None else str(rank)
        raise InvalidArgument(
            "factors",
            expected=f"U ({m}, {wanted}) and V ({wanted}, {n})",
            found=f"U {tuple(u.shape)} and V {tuple(v.shape)}",
            layer=layer,
        )
    if not (torch.isfinite(u).all() and torch.isfinite(v).all()):
        raise InvalidArgument("factors", expected="finite numbers", found="NaN or infinity", layer=layer)
    return u, v


def _replacement(layer: Layer, u: torch.Tensor, v: torch.Tensor) -> nn.Module:
    linear = layer.module
    assert isinstance(linear, nn.Linear)
    bias_trains = linear.bias is not None and linear.bias.requires_grad
    # The bias itself, not a copy: it keeps its identity within the new model.
    replacement = FactoredDense(u, v, linear.bias)
    inherit(replacement, linear)
    if linear.bias is not None:
        replacement.u.bias.requires_grad_(bias_trains)
    return replacement
