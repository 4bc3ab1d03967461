"""Techniques that replace layers by several thinner ones."""

from typing import TYPE_CHECKING

from netopt.factorization.channel import ChannelSVD
from netopt.factorization.cp import CP
from netopt.factorization.dense import SVD, FactoredDense, factor_dense, svd_factors
from netopt.factorization.depthwise import DepthwiseSVD
from netopt.factorization.ranks import EVBMF, Energy
from netopt.factorization.spatial import SpatialSVD
from netopt.factorization.stages import FactoredConv
from netopt.factorization.tucker import Tucker
from netopt.lazy import lazy_names
from netopt.transform.budget import Budget

if TYPE_CHECKING:
    from netopt.verbs.decompose import decompose

__all__ = [
    "CP",
    "EVBMF",
    "SVD",
    "Budget",
    "ChannelSVD",
    "DepthwiseSVD",
    "Energy",
    "FactoredConv",
    "FactoredDense",
    "SpatialSVD",
    "Tucker",
    "decompose",
    "factor_dense",
    "svd_factors",
]

# A verb stands above the techniques that it applies.
__getattr__, __dir__ = lazy_names(__name__, {"netopt.verbs.decompose": ("decompose",)})
