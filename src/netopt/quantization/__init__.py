"""Networks of few bits: binary, ternary and multi-bit weights and inputs, trained, and lowered to kernels on bits."""

from netopt.quantization.binarize import (
    binarize,
    binarize_convolution,
    convert_to_binary_convolution,
    convert_to_native_binary_convolution,
)
from netopt.quantization.block import BinaryBlock, RPReLU, Shift
from netopt.quantization.estimators import STE, ApproxSign, Estimator, Identity, SwishSign, sign
from netopt.quantization.forms import (
    FloatWeights,
    ResidualInputs,
    ResidualWeights,
    SignInputs,
    SignWeights,
    TernaryWeights,
)
from netopt.quantization.layers import LowBitConv1d, LowBitConv2d, LowBitLinear
from netopt.quantization.techniques import XNOR, Binary, BinaryConnect, BinaryWeight, Residual, Ternary
from netopt.quantization.training import Bop, binarize_weights, constrain, pull_to_signs

__all__ = [
    "STE",
    "XNOR",
    "ApproxSign",
    "Binary",
    "BinaryBlock",
    "BinaryConnect",
    "BinaryWeight",
    "Bop",
    "Estimator",
    "FloatWeights",
    "Identity",
    "LowBitConv1d",
    "LowBitConv2d",
    "LowBitLinear",
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
    "binarize",
    "binarize_convolution",
    "binarize_weights",
    "constrain",
    "convert_to_binary_convolution",
    "convert_to_native_binary_convolution",
    "pull_to_signs",
    "sign",
]
