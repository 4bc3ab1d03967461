"""The ops: each one's attributes, reference, shape rule and cost."""

from netopt.ops.arithmetic import Arithmetic
from netopt.ops.batch_norm import BatchNorm
from netopt.ops.concat import Concat
from netopt.ops.dense import Dense
from netopt.ops.layer_norm import LayerNorm
from netopt.ops.op import Op, TensorType
from netopt.ops.permute import Permute
from netopt.ops.pointwise import Pointwise
from netopt.ops.reshape import Reshape
from netopt.ops.slice import Slice
from netopt.ops.softmax import Softmax

OPS: dict[str, type[Op]] = {
    op.name: op for op in (Arithmetic, BatchNorm, Concat, Dense, LayerNorm, Permute, Pointwise, Reshape, Slice, Softmax)
}

__all__ = [
    "OPS",
    "Arithmetic",
    "BatchNorm",
    "Concat",
    "Dense",
    "LayerNorm",
    "Op",
    "Permute",
    "Pointwise",
    "Reshape",
    "Slice",
    "Softmax",
    "TensorType",
]
