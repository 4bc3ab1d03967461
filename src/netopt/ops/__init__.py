"""The ops: each one's attributes, reference, shape rule and cost."""

from netopt.ops.adaptive_pool2d import AdaptivePool2d
from netopt.ops.arg_reduce import ArgReduce
from netopt.ops.arithmetic import Arithmetic
from netopt.ops.batch_norm import BatchNorm
from netopt.ops.binary_conv2d import BinaryConv2d
from netopt.ops.binary_dense import BinaryDense
from netopt.ops.cast import Cast
from netopt.ops.channel_shuffle import ChannelShuffle
from netopt.ops.compare import Compare
from netopt.ops.concat import Concat
from netopt.ops.conv2d import Conv2d
from netopt.ops.conv_transpose2d import ConvTranspose2d
from netopt.ops.convert import Convert
from netopt.ops.dense import Dense
from netopt.ops.expand import Expand
from netopt.ops.gather import Gather
from netopt.ops.layer_norm import LayerNorm
from netopt.ops.matmul import Matmul
from netopt.ops.op import CHANNELS_LAST, ROW_MAJOR, Affine, Layout, Layouts, Op, TensorType
from netopt.ops.pad import Pad
from netopt.ops.permute import Permute
from netopt.ops.pixel_shuffle import PixelShuffle, PixelUnshuffle
from netopt.ops.pointwise import Pointwise
from netopt.ops.pool2d import Pool2d
from netopt.ops.recurrent import Recurrent
from netopt.ops.reduce import Reduce
from netopt.ops.relayout import Relayout
from netopt.ops.reshape import Reshape
from netopt.ops.resize import Resize
from netopt.ops.sign import Sign
from netopt.ops.sign_pool2d import SignPool2d
from netopt.ops.slice import Slice
from netopt.ops.softmax import Softmax
from netopt.ops.spatial_mean import SpatialMean
from netopt.ops.torch_region import TorchRegion
from netopt.ops.view import View
from netopt.ops.where import Where
from netopt.ops.winograd2d import Winograd2d

# The ops of files: TorchRegion is none, since it holds code.
OPS: dict[str, type[Op]] = {
    op.name: op
    for op in (
        AdaptivePool2d,
        ArgReduce,
        Arithmetic,
        BatchNorm,
        BinaryConv2d,
        BinaryDense,
        Cast,
        ChannelShuffle,
        Compare,
        Concat,
        Conv2d,
        ConvTranspose2d,
        Convert,
        Dense,
        Expand,
        Gather,
        LayerNorm,
        Matmul,
        Pad,
        Permute,
        PixelShuffle,
        PixelUnshuffle,
        Pointwise,
        Pool2d,
        Recurrent,
        Reduce,
        Relayout,
        Reshape,
        Resize,
        Sign,
        SignPool2d,
        Slice,
        Softmax,
        SpatialMean,
        Where,
        Winograd2d,
    )
}

__all__ = [
    "CHANNELS_LAST",
    "OPS",
    "ROW_MAJOR",
    "AdaptivePool2d",
    "Affine",
    "ArgReduce",
    "Arithmetic",
    "BatchNorm",
    "BinaryConv2d",
    "BinaryDense",
    "Cast",
    "ChannelShuffle",
    "Compare",
    "Concat",
    "Conv2d",
    "ConvTranspose2d",
    "Convert",
    "Dense",
    "Expand",
    "Gather",
    "LayerNorm",
    "Layout",
    "Layouts",
    "Matmul",
    "Op",
    "Pad",
    "Permute",
    "PixelShuffle",
    "PixelUnshuffle",
    "Pointwise",
    "Pool2d",
    "Recurrent",
    "Reduce",
    "Relayout",
    "Reshape",
    "Resize",
    "Sign",
    "SignPool2d",
    "Slice",
    "Softmax",
    "SpatialMean",
    "TensorType",
    "TorchRegion",
    "View",
    "Where",
    "Winograd2d",
]
