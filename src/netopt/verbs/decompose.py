"""A whole network decomposed in one call: each layer by the method for its kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, overload

from torch import nn

from netopt.errors import InvalidArgument, InvalidType
from netopt.example import Example
from netopt.factorization.allot import allotted
from netopt.factorization.channel import ChannelSVD
from netopt.factorization.convolution import ConvFactorization
from netopt.factorization.decomposition import Factorization
from netopt.factorization.dense import SVD
from netopt.factorization.ranks import Rank, check_rule
from netopt.factorization.tucker import Tucker
from netopt.program.options import Precision
from netopt.program.program import Program
from netopt.transform.apply import KeepIf, Train
from netopt.transform.budget import Budget
from netopt.transform.candidate import Candidate
from netopt.transform.cost import Cost
from netopt.transform.group import Group
from netopt.transform.observe import Calibration
from netopt.transform.select import Layer, Selection
from netopt.transform.technique import Keep, Proposal, Technique
from netopt.verbs.optimize import Optimized, optimize


@dataclass(frozen=True, kw_only=True)
class ByKind(Technique):
    """Each layer by the factorization for its kind; a budget is spread over all of them together.

    Attributes:
        dense: for dense layers; None leaves them whole.
        pointwise: for 1 x 1 (pointwise) convolutions; None likewise.
        convolution: for the others; None likewise.
        first: whether the first layer of the network is decomposed, too.
    """

    dense: Factorization | None
    pointwise: Factorization | None
    convolution: Factorization | None
    first: bool = False
    handles: ClassVar[tuple[type[nn.Module], ...]] = (*SVD.handles, *ConvFactorization.handles)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.first, bool):
            raise InvalidType("first", expected="True or False", found=repr(self.first))

    @property
    def name(self) -> str:
        return "decompose"

    def method_for(self, layer: Layer) -> Factorization | Keep:
        """The factorization that decomposes this layer, or why none does."""
        if layer.is_first and not self.first:
            return Keep("is the first layer")
        if isinstance(layer.module, nn.Linear):
            method = self.dense
        else:
            method = self.pointwise if all(extent == 1 for extent in layer.kernel_size) else self.convolution
        if method is None or type(layer.module) not in method.handles:
            return Keep("no method for its kind was given")
        return method

    def replace(self, layer: Layer) -> nn.Module | Proposal | Keep:
        method = self.method_for(layer)
        return method if isinstance(method, Keep) else method.replace(layer)

    def prepare(self, layers: Sequence[Layer], network: Cost) -> Technique:
        methods = (self.dense, self.pointwise, self.convolution)
        rules = [method.rank for method in methods if method is not None]
        budget = next((rule for rule in rules if isinstance(rule, Budget)), None)
        if budget is None:
            return self
        if any(rule != budget for rule in rules):
            raise InvalidArgument("Budget", expected="one for all methods", found="different rules for rank")
        ranks = allotted(budget, map(self._candidate, layers), network)
        dense, pointwise, convolution = (method and replace(method, rank=ranks) for method in methods)
        return replace(self, dense=dense, pointwise=pointwise, convolution=convolution)

    def _candidate(self, layer: Layer) -> Candidate:
        method = self.method_for(layer)
        if isinstance(method, Keep):
            return Candidate(Group((layer,)), Cost.of(layer.module, layer.input_shapes))
        return method.candidate(layer)


@overload
def decompose(
    model: nn.Module,
    rank: Rank,
    *,
    convolution: type[ConvFactorization] | ConvFactorization | None = Tucker,
    pointwise: type[ConvFactorization] | ConvFactorization | None = ChannelSVD,
    dense: type[SVD] | SVD | None = SVD,
    first: bool = False,
    select: Selection | None = None,
    train: Train | None = None,
    lower: Literal[False] = False,
    example: Example | None = None,
    calibration: Calibration | None = None,
    keep_if: KeepIf | None = None,
    margin: float = 0.05,
    iterative: bool = False,
    recover: Train | None = None,
    threads: int = 1,
    tune: bool = False,
    exact: bool = True,
    precision: Precision = "float32",
    fallback: bool = False,
    target: str | None = None,
) -> Optimized[None]: ...


@overload
def decompose(
    model: nn.Module,
    rank: Rank,
    *,
    convolution: type[ConvFactorization] | ConvFactorization | None = Tucker,
    pointwise: type[ConvFactorization] | ConvFactorization | None = ChannelSVD,
    dense: type[SVD] | SVD | None = SVD,
    first: bool = False,
    select: Selection | None = None,
    train: Train | None = None,
    lower: Literal[True],
    example: Example | None = None,
    calibration: Calibration | None = None,
    keep_if: KeepIf | None = None,
    margin: float = 0.05,
    iterative: bool = False,
    recover: Train | None = None,
    threads: int = 1,
    tune: bool = False,
    exact: bool = True,
    precision: Precision = "float32",
    fallback: bool = False,
    target: str | None = None,
) -> Optimized[Program]: ...


@overload
def decompose(
    model: nn.Module,
    rank: Rank,
    *,
    convolution: type[ConvFactorization] | ConvFactorization | None = Tucker,
    pointwise: type[ConvFactorization] | ConvFactorization | None = ChannelSVD,
    dense: type[SVD] | SVD | None = SVD,
    first: bool = False,
    select: Selection | None = None,
    train: Train | None = None,
    lower: bool,
    example: Example | None = None,
    calibration: Calibration | None = None,
    keep_if: KeepIf | None = None,
    margin: float = 0.05,
    iterative: bool = False,
    recover: Train | None = None,
    threads: int = 1,
    tune: bool = False,
    exact: bool = True,
    precision: Precision = "float32",
    fallback: bool = False,
    target: str | None = None,
) -> Optimized[Program | None]: ...


# Long by its options, most of them those of `optimize`.
def decompose(
    model: nn.Module,
    rank: Rank,
    *,
    convolution: type[ConvFactorization] | ConvFactorization | None = Tucker,
    pointwise: type[ConvFactorization] | ConvFactorization | None = ChannelSVD,
    dense: type[SVD] | SVD | None = SVD,
    first: bool = False,
    select: Selection | None = None,
    train: Train | None = None,
    lower: bool = False,
    example: Example | None = None,
    calibration: Calibration | None = None,
    keep_if: KeepIf | None = None,
    margin: float = 0.05,
    iterative: bool = False,
    recover: Train | None = None,
    threads: int = 1,
    tune: bool = False,
    exact: bool = True,
    precision: Precision = "float32",
    fallback: bool = False,
    target: str | None = None,
) -> Optimized[Program | None]:
    """A new model in which all dense layers and convolutions are decomposed, and the report.

    `netopt.optimize` with one technique for each kind of layer, in one pass, so that a budget covers them together.

    Args:
        model: a trained network; it is not changed.
        rank: the rule for all layers; see `netopt.factorization.ranks`.
        convolution: method for convolutions with kernels larger than 1 x 1: a class, which gets `rank`, or a
            technique with a rank of its own; None leaves them whole.
        pointwise: method for 1 x 1 (pointwise) convolutions; likewise.
        dense: method for dense layers; likewise.
        first: decompose the network's first layer, too: it has few inputs, and its error goes through the whole
            network.
        select: which layers; None for all.
        train: see `netopt.optimize`. So are the options below.
        lower: see `netopt.optimize`.
        example: see `netopt.optimize`; needed for a budget of multiply-adds.
        calibration: see `netopt.optimize`.
        keep_if: see `netopt.optimize`.
        margin: see `netopt.optimize`.
        iterative: see `netopt.optimize`.
        recover: see `netopt.optimize`.
        threads: see `netopt.lower`. So are the options below.
        tune: see `netopt.lower`.
        exact: see `netopt.lower`.
        precision: see `netopt.lower`.
        fallback: see `netopt.lower`.
        target: see `netopt.lower`.

    Raises:
        NetoptError: as `netopt.optimize`.
    """
    check_rule(rank)

    def method(given: Any, kind: Any, name: str) -> Any:
        if given is None or isinstance(given, kind):
            if given is not None and given.select is not None:
                raise InvalidArgument(
                    name,
                    expected="a technique without select",
                    found=repr(given.select),
                    fix="give select=... to decompose",
                )
            return given
        if isinstance(given, type) and issubclass(given, kind):
            return given(rank=rank)
        raise InvalidType(name, expected=f"a {kind.__name__}, or the class of one", found=repr(given))

    technique = ByKind(
        dense=method(dense, SVD, "dense"),
        pointwise=method(pointwise, ConvFactorization, "pointwise"),
        convolution=method(convolution, ConvFactorization, "convolution"),
        first=first,
        select=select,
    )
    return optimize(
        model,
        technique,
        train=train,
        lower=lower,
        example=example,
        calibration=calibration,
        keep_if=keep_if,
        margin=margin,
        iterative=iterative,
        recover=recover,
        threads=threads,
        tune=tune,
        exact=exact,
        precision=precision,
        fallback=fallback,
        target=target,
    )
