"""Few bits: binary, ternary and multi-bit weights and inputs; and fixed point, placed from data and trained."""

from typing import TYPE_CHECKING

from netopt.lazy import lazy_names
from netopt.quantization.fixed_point.adaround import AdaRound, adaround
from netopt.quantization.fixed_point.bias_correction import bias_correction
from netopt.quantization.fixed_point.calibration import (
    KL,
    MSE,
    SQNR,
    Method,
    MinMax,
    Percentile,
    choose_bits,
    place_weight,
)
from netopt.quantization.fixed_point.equalize import equalize
from netopt.quantization.fixed_point.observer import Observer
from netopt.quantization.fixed_point.powers_of_two import INQ, PowersOfTwo
from netopt.quantization.fixed_point.quantizer import Quantizer
from netopt.quantization.fixed_point.techniques import FixedPoint, WeightOnly
from netopt.quantization.signs.block import BinaryBlock, RPReLU, Shift
from netopt.quantization.signs.estimators import STE, ApproxSign, Estimator, Identity, SwishSign, sign
from netopt.quantization.signs.forms import (
    FloatWeights,
    ResidualInputs,
    ResidualWeights,
    SignInputs,
    SignWeights,
    TernaryWeights,
)
from netopt.quantization.signs.layers import LowBitConv1d, LowBitConv2d, LowBitLinear
from netopt.quantization.signs.techniques import XNOR, Binary, BinaryConnect, BinaryWeight, Residual, Ternary
from netopt.quantization.signs.training import Bop, binarize_weights, constrain, pull_to_signs

if TYPE_CHECKING:
    from netopt.verbs.binarize import (
        binarize,
        binarize_convolution,
        convert_to_binary_convolution,
        convert_to_native_binary_convolution,
    )

__all__ = [
    "INQ",
    "KL",
    "MSE",
    "SQNR",
    "STE",
    "XNOR",
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
    "Identity",
    "LowBitConv1d",
    "LowBitConv2d",
    "LowBitLinear",
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
    "Shift",
    "SignInputs",
    "SignWeights",
    "SwishSign",
    "Ternary",
    "TernaryWeights",
    "WeightOnly",
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

# Verbs stand above the techniques that they apply.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "netopt.verbs.binarize": (
            "binarize",
            "binarize_convolution",
            "convert_to_binary_convolution",
            "convert_to_native_binary_convolution",
        )
    },
)
