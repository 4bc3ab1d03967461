"""Dense layers as a product of two thinner ones.

y = W x + b with W (m, n) becomes y = U (V x) + b with U (m, k) and V (k, n): k (m + n) multiply-adds instead of m n.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import torch
from torch import nn

from netopt.errors import FileFormatError, InvalidArgument, InvalidType
from netopt.factorization.decomposition import Decomposition, Factorization, inherit_with_bias
from netopt.factorization.moments import moment_of_dense, principal_components, relative_error, root_ratio
from netopt.factorization.ranks import Ranks, check_rank
from netopt.factorization.truncate import truncated
from netopt.transform.apply import transform
from netopt.transform.cost import Cost
from netopt.transform.finite import finite_weight
from netopt.transform.select import Layer, Predicate, Selection
from netopt.transform.structure_file import Structured
from netopt.transform.technique import Proposal, Technique

Factors = tuple[torch.Tensor, torch.Tensor]


class FactoredDense(nn.Module, Structured):
    """y = U (V x) + b, for x of any leading shape (..., n).

    Two ordinary `nn.Linear` layers: `v` (n -> k, no bias), then `u` (k -> m, with the bias).
    """

    kind: ClassVar[str] = "factored dense layer"

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

    def describe(self) -> dict[str, Any]:
        """Sizes, for a file."""
        return {
            "inputs": self.in_features,
            "rank": self.rank,
            "outputs": self.out_features,
            "bias": self.bias is not None,
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> FactoredDense:
        """What `describe` described, without values.

        Raises:
            FileFormatError: a size is missing or is no integer.
        """
        try:
            m, k, n = sizes = [description[key] for key in ("outputs", "rank", "inputs")]
            if not all(type(size) is int and size > 0 for size in sizes) or type(description["bias"]) is not bool:
                raise ValueError(f"sizes {sizes}, bias {description['bias']!r}")
            bias = nn.Parameter(torch.empty(m, device="meta")) if description["bias"] else None
            return cls(torch.empty(m, k, device="meta"), torch.empty(k, n, device="meta"), bias)
        except Exception as error:  # whatever wrong values make torch and Python raise
            raise FileFormatError(
                "structure", expected="sizes of a factored dense layer", found=f"{type(error).__name__}: {error}"
            ) from error

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
    return _contiguous(truncated(torch.linalg.svd(weight, full_matrices=False), rank))


@dataclass(frozen=True, kw_only=True)
class SVD(Factorization):
    """Replace dense layers by their truncated singular value decomposition.

    With calibration inputs what is cut off is what is least in the outputs on them, and not in the weights.

    Attributes:
        rank: see `netopt.factorization.ranks`; the full rank is min(m, n).
        multiple: ranks that a rule finds are rounded to the nearest multiple; 1, since at batch 1 time follows the
            bytes.
        select: which dense layers; None for all.
    """

    multiple: int | None = 1
    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)

    def decomposition(self, layer: Layer) -> DenseDecomposition:
        return DenseDecomposition(layer)


class DenseDecomposition(Decomposition):
    """A dense layer and the singular values of its weight, or with calibration inputs of its outputs."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer, finite_weight(layer.module, layer.name))

    @property
    def full(self) -> Ranks:
        return (min(self.weight.shape),)

    @cached_property
    def _moment(self) -> torch.Tensor | None:
        return moment_of_dense(self.layer)

    @cached_property
    def _parts(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Orthonormal U, s and V^T of unit rows, U diag(s) V^T = W; what is largest, in the outputs if known, first."""
        if self._moment is None:
            parts = torch.linalg.svd(self.weight, full_matrices=False)
            return parts[0], parts[1], parts[2]
        u, weight = self._outputs[1], self.weight.double()
        rows = u.T @ weight
        s = rows.norm(dim=1)
        return u, s, rows / s.clamp_min(torch.finfo(s.dtype).tiny)[:, None]

    @cached_property
    def _outputs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The principal components of the outputs on the calibration inputs: squared sizes, and directions."""
        assert self._moment is not None
        directions, sizes = principal_components(self.weight.double(), self._moment)
        return sizes[: self.full[0]], directions[:, : self.full[0]]

    def energies(self) -> list[torch.Tensor]:
        return [self._parts[1].square() if self._moment is None else self._outputs[0]]

    def unfoldings(self) -> list[list[torch.Tensor]]:
        return [[self.weight]]

    def cost(self, ranks: Ranks) -> Cost:
        m, n = self.weight.shape
        parameters = ranks[0] * (m + n)
        rows = sum(torch.Size(shape[:-1]).numel() for shape in self.layer.input_shapes) or 1
        return Cost(parameters, rows * parameters)

    def build(self, ranks: Ranks) -> nn.Module:
        u, v = _contiguous(truncated(self._parts, ranks[0]))
        return _replacement(self.layer, u.to(self.weight.dtype), v.to(self.weight.dtype))

    def error(self, module: nn.Module) -> float:
        assert isinstance(module, FactoredDense)
        with torch.no_grad():
            weight = module.u.weight.double() @ module.v.weight.double()
        return root_ratio(*relative_error(self.weight.double(), weight, self._moment))


@dataclass(frozen=True, kw_only=True)
class _UserFactors(Technique):
    """`factor_dense` with a factor function of the user's."""

    projection_function: Callable[[torch.Tensor], int] | None
    factor_function: Callable[[torch.Tensor, int], tuple[Any, Any]]
    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)

    @property
    def name(self) -> str:
        return "factor_dense"

    def replace(self, layer: Layer) -> nn.Module | Proposal:
        weight = finite_weight(layer.module, layer.name)
        if self.projection_function is None:
            return self._factored(layer, weight, None)
        rank = check_rank(self.projection_function(weight.clone()), min(weight.shape), layer.name)
        bias = 0 if layer.bias is None else layer.bias.numel()
        return Proposal(rank * sum(weight.shape) + bias, partial(self._factored, layer, weight, rank), f"rank {rank}")

    def _factored(self, layer: Layer, weight: torch.Tensor, rank: int | None) -> nn.Module:
        factors: object = self.factor_function(weight.clone(), min(weight.shape) if rank is None else rank)
        return _replacement(layer, *_check_factors(factors, weight, rank, layer.name))


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


def _contiguous(factors: Factors) -> Factors:
    return factors[0].contiguous(), factors[1].contiguous()


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
    # The bias itself, not a copy: it keeps its identity within the new model.
    return inherit_with_bias(FactoredDense(u, v, linear.bias), linear)
