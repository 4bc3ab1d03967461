"""Techniques that replace layers by several thinner ones."""

from netopt.factorization.channel import ChannelSVD
from netopt.factorization.cp import CP
from netopt.factorization.decompose import decompose
from netopt.factorization.dense import SVD, FactoredDense, factor_dense, svd_factors
from netopt.factorization.depthwise import DepthwiseSVD
from netopt.factorization.ranks import EVBMF, Budget, Energy
from netopt.factorization.spatial import SpatialSVD
from netopt.factorization.stages import FactoredConv
from netopt.factorization.tucker import Tucker

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
