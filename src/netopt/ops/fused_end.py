"""What ops with weights do at their end: bias, residual, activation."""

from __future__ import annotations

from netopt.ops.op import Op
from netopt.ops.pointwise import Pointwise


class FusedEnd(Op):
    """An op with inputs x, weight, bias if any, residual if any, in this order.

    Subclasses have the attributes, so that each keeps its own order of them.
    """

    has_bias: bool
    has_residual: bool
    activation: Pointwise | None

    @property
    def label(self) -> str:
        parts = [self.name]
        if self.has_residual:
            parts.append("add")
        if self.activation is not None:
            parts.append(self.activation.label)
        return " + ".join(parts)

    @property
    def residual_index(self) -> int:
        """Position of the residual among the inputs."""
        return 3 if self.has_bias else 2
