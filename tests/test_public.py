"""The public names, pinned: a change here is a change for every user."""

from __future__ import annotations

import netopt


def test_public_names() -> None:
    assert sorted(netopt.__all__) == [
        "Cost",
        "FileFormatError",
        "InvalidArgument",
        "InvalidType",
        "Keep",
        "Layer",
        "NetoptError",
        "Optimized",
        "Program",
        "Report",
        "Technique",
        "UnsupportedModel",
        "factorization",
        "load",
        "lower",
        "optimize",
    ]
    assert sorted(netopt.factorization.__all__) == ["Energy", "FactoredDense", "SVD", "factor_dense", "svd_factors"]
    assert all(hasattr(netopt, name) for name in netopt.__all__)


def test_errors_are_of_the_builtin_kinds_that_fit() -> None:
    assert issubclass(netopt.InvalidArgument, ValueError)
    assert issubclass(netopt.InvalidType, TypeError)
    kinds = (netopt.InvalidArgument, netopt.InvalidType, netopt.UnsupportedModel, netopt.FileFormatError)
    assert all(issubclass(kind, netopt.NetoptError) for kind in kinds)
