"""Low-bit networks: binary, ternary and multi-bit weights and inputs, trained, and lowered to kernels on bits."""

from typing import TYPE_CHECKING

from netopt.lazy import lazy_names
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
