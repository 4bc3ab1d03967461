"""What layers with weights read and write where they multiply codes by codes."""

from __future__ import annotations

from collections.abc import Sequence

from netopt.numerics import CodeFormat, NumberFormat
from netopt.ops.epilogue import EpilogueOp
from netopt.ops.op import TensorType, is_code_of_values


def multiplies_codes(inputs: Sequence[TensorType]) -> bool:
    """Whether x and the weight are codes that products of whole numbers take."""
    return _is_factor(inputs[0].format) and _is_weight(inputs[1].format)


def reads_codes(op: EpilogueOp, index: int, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
    """Whether it reads input `index` in a format of codes: x and weight both, biases of such sums, any residual."""
    formats = [type_.format for type_ in inputs]
    formats[index] = format_
    if index == op.residual_index:
        return is_code_of_values(format_)
    if not (_is_factor(formats[0]) and _is_weight(formats[1])):
        return False
    return index < 2 or (index == op.bias_index and _has_step_of_sums(format_, inputs))


def _is_factor(format_: NumberFormat) -> bool:
    return is_code_of_values(format_)


def _is_weight(format_: NumberFormat) -> bool:
    if not isinstance(format_, CodeFormat) or format_.zero != 0:
        return False
    return format_.is_signed and format_.bits <= 16


def _has_step_of_sums(format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
    """Whether a bias stands for multiples of what sums stand for, so that they may begin with it."""
    if not isinstance(format_, CodeFormat) or not format_.is_signed or format_.zero != 0:
        return False
    steps, wanted = format_.steps, step_of_sums(inputs)
    longest = max(len(steps), len(wanted))
    return all(len(row) in (1, longest) for row in (steps, wanted)) and (
        steps * (longest // len(steps)) == wanted * (longest // len(wanted))
    )


def step_of_sums(inputs: Sequence[TensorType]) -> tuple[float, ...]:
    """What a unit of a sum of products of codes stands for: one number, or one for each output."""
    x, weight = inputs[0].format, inputs[1].format
    assert isinstance(x, CodeFormat) and isinstance(weight, CodeFormat)
    return tuple(x.steps[0] * step for step in weight.steps)
