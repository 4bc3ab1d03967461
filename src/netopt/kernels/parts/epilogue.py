"""The epilogue of ops with weights in kernels: what becomes of the sums of a register tile, and how they are written.

To floats: scale, bias, residual, activation, rounding to the stored format. To signs: a threshold, packed into words.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import halide as hl

from netopt.kernels.machine.formats import Source, storage_type, stored
from netopt.kernels.parts.pointwise import apply_pointwise
from netopt.kernels.parts.word import Word
from netopt.numerics import SIGNS, CodeFormat, NumberFormat
from netopt.ops.pointwise import Pointwise


def finish(
    total: hl.Expr,
    activation: Pointwise | None,
    format_: NumberFormat,
    *,
    scale: hl.Expr | None = None,
    bias: hl.Expr | None = None,
    residual: hl.Expr | None = None,
) -> hl.Expr:
    """activation(total scale + bias + residual), as it is written to memory."""
    total = total if scale is None else total * scale
    for part in (bias, residual):
        total = total if part is None else total + part
    return stored(apply_pointwise(activation, total), format_)


@dataclass(frozen=True)
class Place:
    """Where an output of a register tile finds what its epilogue reads.

    Attributes:
        vector: in a scale, a bias, and thresholds.
        residual: in the residual.
        pixel: its column and line in an image; none in a matrix.
    """

    vector: list[hl.Expr]
    residual: list[hl.Expr]
    pixel: tuple[hl.Expr, ...] = ()


# place(n, m, *others): of output n of position m; see `TileSum`.
PlaceOf = Callable[..., Place]
# What is summed, of the total that is counted in registers.
Result = Callable[[hl.Expr, Place], hl.Expr]


class BandEpilogue:
    """The epilogue of one band: `value(n, m, *others)`; with a `word`, n counts words of outputs."""

    def __init__(self, value: Callable[..., hl.Expr], word: Word | None = None) -> None:
        self.value, self.word = value, word

    def schedule(self, stage: hl.Stage, n: hl.Var, consumer: hl.Func, loop: hl.Var | hl.RVar, lanes: int) -> None:
        """For the innermost loop of a stage over outputs, and for each turn of `loop`, of a register tile."""
        # --- schedule
        if self.word is None:
            stage.vectorize(n, lanes)
        else:
            stage.unroll(n)
            self.word.schedule(consumer, loop)


class Epilogue(ABC):
    """What becomes of sums."""

    outputs: ClassVar[int] = 1  # of an element that is written
    zero: int = 0  # 0 as it is written
    type: hl.Type  # of an element

    def __init__(self, inputs: Mapping[str, Source], result: Result | None = None) -> None:
        """Read what there is of "scale", "bias", "threshold" and "residual"; the total is the sum if not `result`."""
        self.inputs, self.result = inputs, result

    def start(self, place: Place) -> hl.Expr | None:
        """What sums in the numbers of the bias may begin with, in place of zero."""
        return None

    @abstractmethod
    def of_band(self, suffix: str, total: hl.Func, place: PlaceOf, others: int, *, has_begun: bool) -> BandEpilogue:
        """The epilogue of the sums `total`, which have as many other coordinates; `has_begun`: with `start`."""

    def _sum(self, total: hl.Func, place: PlaceOf, *at: hl.Expr) -> hl.Expr:
        value = hl.Expr(total[at])
        return value if self.result is None else self.result(value, place(*at))

    def _vector(self, name: str, place: Place) -> hl.Expr | None:
        return self.inputs[name][place.vector] if name in self.inputs else None


class FloatEpilogue(Epilogue):
    """activation(sum scale + bias + residual), in the format of the output."""

    def __init__(
        self,
        inputs: Mapping[str, Source],
        activation: Pointwise | None,
        format_: NumberFormat,
        result: Result | None = None,
    ) -> None:
        """See `Epilogue`."""
        super().__init__(inputs, result)
        self.activation, self.format, self.type = activation, format_, storage_type(format_)
        self.zero = format_.zero if isinstance(format_, CodeFormat) else 0

    def start(self, place: Place) -> hl.Expr | None:
        return None if "scale" in self.inputs else self._vector("bias", place)

    def of_band(self, suffix: str, total: hl.Func, place: PlaceOf, others: int, *, has_begun: bool) -> BandEpilogue:
        def value(*at: hl.Expr) -> hl.Expr:
            where = place(*at)
            return finish(
                hl.f32(self._sum(total, place, *at)),
                self.activation,
                self.format,
                scale=self._vector("scale", where),
                bias=None if has_begun and self.start(where) is not None else self._vector("bias", where),
                residual=self.inputs["residual"][where.residual] if "residual" in self.inputs else None,
            )

        return BandEpilogue(value)


class SignEpilogue(Epilogue):
    """+1 where a sum reaches its threshold, else -1, in words of 32 outputs."""

    # Thresholds behind the last output: below every sum, so that the bit is 0, and far enough above the smallest int32
    # that their difference is one, too.
    LOWEST: ClassVar[int] = -(2**30)
    outputs: ClassVar[int] = 32
    type = storage_type(SIGNS)

    def __init__(self, inputs: Mapping[str, Source], lanes: int, result: Result | None = None) -> None:
        """See `Epilogue`; `lanes` 32-bit numbers are in a vector, whatever the sums are counted in."""
        super().__init__(inputs, result)
        self.lanes = lanes

    def of_band(self, suffix: str, total: hl.Func, place: PlaceOf, others: int, *, has_begun: bool) -> BandEpilogue:
        along = [hl.Var("position"), *(hl.Var(f"other{i}") for i in range(others))]

        def difference(n: hl.Expr) -> hl.Expr:
            return self._sum(total, place, n, *along) - self.inputs["threshold"][place(n, *along).vector]

        word = Word(f"word{suffix}", difference, along, self.lanes)
        return BandEpilogue(lambda *at: hl.Expr(word.func[at]), word)
