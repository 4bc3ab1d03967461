"""The public names, pinned: a change here is a change for every user."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import netopt
from netopt import datasets, report


def test_public_names() -> None:
    assert sorted(netopt.__all__) == [
        "Cost",
        "Decision",
        "Distillation",
        "FileFormatError",
        "Group",
        "InvalidArgument",
        "InvalidType",
        "Keep",
        "Layer",
        "Lowering",
        "NetoptError",
        "Optimized",
        "Policy",
        "Program",
        "Proposal",
        "Quantized",
        "Report",
        "Technique",
        "Training",
        "UnsupportedModel",
        "datasets",
        "factorization",
        "load",
        "load_weights",
        "lower",
        "optimize",
        "quantization",
        "quantize",
        "report",
        "restore_structure",
        "retrain",
        "save_weights",
        "structure_of",
        "zoo",
    ]
    assert all(hasattr(netopt, name) for name in netopt.__all__)
    assert dir(netopt) == sorted(netopt.__all__)


def test_public_names_of_the_packages() -> None:
    assert sorted(netopt.factorization.__all__) == [
        "Budget",
        "CP",
        "ChannelSVD",
        "DepthwiseSVD",
        "EVBMF",
        "Energy",
        "FactoredConv",
        "FactoredDense",
        "SVD",
        "SpatialSVD",
        "Tucker",
        "decompose",
        "factor_dense",
        "svd_factors",
    ]
    assert sorted(datasets.__all__) == [
        "Batches",
        "RegressionSplit",
        "Split",
        "cifar10",
        "digits",
        "friedman",
        "mnist",
    ]
    assert sorted(report.__all__) == ["Accuracy", "Comparison", "Measured", "Profile", "StepTime", "compare", "profile"]
    assert sorted(netopt.quantization.__all__) == [
        "AdaRound",
        "ApproxSign",
        "Binary",
        "BinaryBlock",
        "BinaryConnect",
        "BinaryWeight",
        "Bop",
        "Estimator",
        "FixedPoint",
        "FloatWeights",
        "INQ",
        "Identity",
        "KL",
        "LowBitConv1d",
        "LowBitConv2d",
        "LowBitLinear",
        "MSE",
        "Method",
        "MinMax",
        "Observer",
        "Percentile",
        "PowersOfTwo",
        "Quantizer",
        "RPReLU",
        "Residual",
        "ResidualInputs",
        "ResidualWeights",
        "SQNR",
        "STE",
        "Shift",
        "SignInputs",
        "SignWeights",
        "SwishSign",
        "Ternary",
        "TernaryWeights",
        "WeightOnly",
        "XNOR",
        "adaround",
        "bias_correction",
        "binarize",
        "binarize_convolution",
        "binarize_weights",
        "choose_bits",
        "constrain",
        "convert_to_binary_convolution",
        "convert_to_native_binary_convolution",
        "equalize",
        "place_weight",
        "pull_to_signs",
        "sign",
    ]
    for package in (netopt.factorization, netopt.quantization, datasets, report):
        assert all(hasattr(package, name) for name in package.__all__)


def test_the_reference_has_every_public_name() -> None:
    """Each with the heading that a reader looks for."""
    page = (Path(__file__).parent.parent / "docs" / "reference.md").read_text()
    headings = set(re.findall(r"heading: netopt\.(.+)", page))
    wanted = {name for name in netopt.__all__ if not isinstance(getattr(netopt, name), ModuleType)}
    for package in (netopt.factorization, netopt.quantization, datasets, report):
        wanted |= {f"{package.__name__.removeprefix('netopt.')}.{name}" for name in package.__all__}
    assert headings == wanted


def test_the_reference_names_what_there_is() -> None:
    page = (Path(__file__).parent.parent / "docs" / "reference.md").read_text()
    for path in re.findall(r"^::: (\S+)", page, re.MULTILINE):
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path


def test_the_verbs_are_functions_and_no_modules() -> None:
    """Whatever was imported before: no module is called as they are, and would take a verb's place."""
    importlib.import_module("netopt.verbs.optimize")
    assert all(callable(getattr(netopt, name)) for name in ("lower", "optimize", "retrain"))


def test_errors_are_of_the_builtin_kinds_that_fit() -> None:
    assert issubclass(netopt.InvalidArgument, ValueError)
    assert issubclass(netopt.InvalidType, TypeError)
    kinds = (netopt.InvalidArgument, netopt.InvalidType, netopt.UnsupportedModel, netopt.FileFormatError)
    assert all(issubclass(kind, netopt.NetoptError) for kind in kinds)
