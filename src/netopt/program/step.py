"""What is known of a step of a program without running it."""

from __future__ import annotations

from dataclasses import dataclass

from netopt.kernels.machine.kernel import Schedule
from netopt.ops import Op, TensorType, TorchRegion


@dataclass(frozen=True, kw_only=True)
class Step:
    """A node of the graph, as a program runs it.

    Attributes:
        op: what it computes, with all that was fused into it.
        layer: the layer of the model that it comes from.
        inputs: the types of its inputs, constants included.
        output: the type of its output.
        constants: which of the inputs are constants.
        schedule: how its kernel runs; None where it has none: for a view, and for a part in PyTorch.
    """

    op: Op
    layer: str
    inputs: tuple[TensorType, ...]
    output: TensorType
    constants: tuple[int, ...]
    schedule: Schedule | None

    @property
    def runs(self) -> bool:
        """Whether there is anything to run: not for a view."""
        return self.schedule is not None or isinstance(self.op, TorchRegion)

    @property
    def how(self) -> str:
        """The schedule, or what there is in place of a kernel."""
        if self.schedule is not None:
            return str(self.schedule).strip()
        return "runs in PyTorch" if self.runs else "a view, no code"

    @property
    def constant_bytes(self) -> int:
        """Bytes of its constants, as the graph has them: without the padding of a packed layout."""
        in_torch = self.op.constant_bytes if isinstance(self.op, TorchRegion) else 0
        return in_torch + sum(self.inputs[index].bytes for index in self.constants)

    @property
    def activation_bytes(self) -> int:
        """Bytes of what it reads besides constants and of what it writes, each once."""
        read = sum(type_.bytes for index, type_ in enumerate(self.inputs) if index not in self.constants)
        return read + self.output.bytes

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one run."""
        return self.op.multiply_adds(self.inputs)


def shape_text(type_: TensorType) -> str:
    """A shape as tables show it, such as 1x64x56x56."""
    return "x".join(map(str, type_.shape)) or "scalar"
