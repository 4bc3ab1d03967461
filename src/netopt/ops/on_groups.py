"""What dense layers read beside weights that have a scale for each group of inputs."""

from __future__ import annotations

from netopt.numerics import FLOATS, CodeFormat, Grouped, NumberFormat
from netopt.ops.epilogue import EpilogueOp
from netopt.ops.op import is_code_of_values


def reads_beside_groups(op: EpilogueOp, index: int, format_: NumberFormat) -> bool:
    """Whether it reads input `index` in a format: floats, and x and the residual as codes, too."""
    if index == 1:
        return isinstance(format_, Grouped)
    if index == 0 and isinstance(format_, CodeFormat):
        # The number of steps fits into 16 bits.
        return is_code_of_values(format_) and (format_.zero == 0 or format_.bits <= 8)
    return format_ in FLOATS or (index == op.residual_index and is_code_of_values(format_))
