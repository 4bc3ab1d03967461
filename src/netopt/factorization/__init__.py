"""Factorizations: a layer as a product of cheaper ones."""

from netopt.factorization.dense import SVD, FactoredDense, factor_dense, svd_factors
from netopt.factorization.ranks import Energy

__all__ = ["SVD", "Energy", "FactoredDense", "factor_dense", "svd_factors"]
