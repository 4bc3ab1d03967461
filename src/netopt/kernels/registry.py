"""The kernel of each op."""

from __future__ import annotations

from typing import Any

from netopt.errors import UnsupportedModel
from netopt.kernels.adaptive_pool2d import AdaptivePool2dKernel
from netopt.kernels.arg_reduce import ArgReduceKernel
from netopt.kernels.arithmetic import ArithmeticKernel
from netopt.kernels.binary_conv2d import BinaryConv2dKernel
from netopt.kernels.binary_dense import BinaryDenseKernel
from netopt.kernels.cast import CastKernel
from netopt.kernels.compare import CompareKernel
from netopt.kernels.conv2d import Conv2dKernel
from netopt.kernels.conv_transpose2d import ConvTranspose2dKernel
from netopt.kernels.convert import ConvertKernel
from netopt.kernels.copies import ConcatKernel, ExpandKernel, PermuteKernel, SliceKernel
from netopt.kernels.dense import DenseKernel
from netopt.kernels.gather import GatherKernel
from netopt.kernels.layer_norm import LayerNormKernel
from netopt.kernels.machine.kernel import Kernel
from netopt.kernels.matmul import MatmulKernel
from netopt.kernels.pad import PadKernel
from netopt.kernels.pointwise import PointwiseKernel
from netopt.kernels.pool2d import Pool2dKernel, SpatialMeanKernel
from netopt.kernels.recurrent import RecurrentKernel
from netopt.kernels.reduce import ReduceKernel
from netopt.kernels.relayout import RelayoutKernel
from netopt.kernels.resize import ResizeKernel
from netopt.kernels.shuffle import ChannelShuffleKernel, PixelShuffleKernel, PixelUnshuffleKernel
from netopt.kernels.sign import SignKernel
from netopt.kernels.sign_pool2d import SignPool2dKernel
from netopt.kernels.softmax import SoftmaxKernel
from netopt.kernels.where import WhereKernel
from netopt.kernels.winograd2d import Winograd2dKernel
from netopt.ops import Op

# A kernel takes back only schedules of its own making, so their type is nobody else's concern.
KERNELS: dict[type[Op], Kernel[Any, Any]] = {
    kernel.op: kernel
    for kernel in (
        AdaptivePool2dKernel(),
        ArgReduceKernel(),
        ArithmeticKernel(),
        BinaryConv2dKernel(),
        BinaryDenseKernel(),
        CastKernel(),
        ChannelShuffleKernel(),
        CompareKernel(),
        ConcatKernel(),
        Conv2dKernel(),
        ConvTranspose2dKernel(),
        ConvertKernel(),
        DenseKernel(),
        ExpandKernel(),
        GatherKernel(),
        LayerNormKernel(),
        MatmulKernel(),
        PadKernel(),
        PermuteKernel(),
        PixelShuffleKernel(),
        PixelUnshuffleKernel(),
        PointwiseKernel(),
        Pool2dKernel(),
        RecurrentKernel(),
        ReduceKernel(),
        RelayoutKernel(),
        ResizeKernel(),
        SignKernel(),
        SignPool2dKernel(),
        SliceKernel(),
        SoftmaxKernel(),
        SpatialMeanKernel(),
        WhereKernel(),
        Winograd2dKernel(),
    )
}


def kernel_of(op: Op, layer: str) -> Kernel[Any, Any]:
    """The kernel of an op.

    Raises:
        UnsupportedModel: there is none.
    """
    kernel = KERNELS.get(type(op))
    if kernel is None:
        names = ", ".join(sorted(kind.name for kind in KERNELS))
        raise UnsupportedModel(f"op '{op.name}' has no kernel", expected=f"one of {names}", layer=layer)
    return kernel
