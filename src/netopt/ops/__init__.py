"""The ops: each one's attributes, reference, shape rule and cost."""

from netopt.ops.arithmetic import Arithmetic
from netopt.ops.batch_norm import BatchNorm
from netopt.ops.concat import Concat
from netopt.ops.conv2d import Conv2d
from netopt.ops.dense import Dense
from netopt.ops.layer_norm import LayerNorm
from netopt.ops.op import CHANNELS_LAST, ROW_MAJOR, Layout, Op, TensorType
from netopt.ops.permute import Permute
from netopt.ops.pointwise import Pointwise
from netopt.ops.pool2d import Pool2d
from netopt.ops.relayout import Relayout
from netopt.ops.reshape import Reshape
from netopt.ops.slice import Slice
from netopt.ops.softmax import Softmax
from netopt.ops.spatial_mean import SpatialMean
from netopt.ops.torch_region import TorchRegion

# The ops of files: TorchRegion is none, since it holds code.
OPS: dict[str, type[Op]] = {
    op.name: op
    for op in (
        Arithmetic,
        BatchNorm,
        Concat,
        Conv2d,
        Dense,
        LayerNorm,
        Permute,
        Pointwise,
        Pool2d,
        Relayout,
        Reshape,
        Slice,
        Softmax,
        SpatialMean,
    )
}

__all__ = [
    "CHANNELS_LAST",
    "OPS",
    "ROW_MAJOR",
    "Arithmetic",
    "BatchNorm",
    "Concat",
    "Conv2d",
    "Dense",
    "LayerNorm",
    "Layout",
    "Op",
    "Permute",
    "Pointwise",
    "Pool2d",
    "Relayout",
    "Reshape",
    "Slice",
    "Softmax",
    "SpatialMean",
    "TensorType",
    "TorchRegion",
]
