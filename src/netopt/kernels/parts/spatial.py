"""Images in memory: operands seen by their logical coordinates, whatever their layout, and outputs with their halo."""

from __future__ import annotations

from collections.abc import Callable

import halide as hl

from netopt.kernels.machine.formats import Element, storage_type, stored
from netopt.kernels.machine.kernel import fix_output, whole_input
from netopt.numerics import CodeFormat, NumberFormat, Shape
from netopt.ops import Layout, TensorType
from netopt.ops.spatial import Sides


def channels_last(type_: TensorType) -> Layout:
    """The layout of a value of images: where height and width are 1, row-major order is channels last, too."""
    if not type_.layout.channels_last:
        assert type_.shape[2:] == (1, 1), type_
        return Layout(channels_last=True)
    return type_.layout


class SpatialInput:
    """A (batch, channels, height, width) operand, or with `broadcast` one that is broadcast, read at (c, x, y, n)."""

    def __init__(self, name: str, type_: TensorType, *, broadcast: bool = False) -> None:
        """Make the parameter. Its row-major shape in memory is `shape`."""
        self.broadcast = broadcast
        self.sizes = (1,) * (4 - len(type_.shape)) + type_.shape
        self.layout = type_.layout
        self.shape = self.layout.physical(self.sizes)
        self.param = whole_input(name, self.shape, type_)

    def at(self, c: hl.Expr, x: hl.Expr, y: hl.Expr, n: hl.Expr) -> hl.Expr:
        """The element at these logical coordinates; with `broadcast` the only one along an axis of size 1."""
        return self.param[self.place(c, x, y, n)]

    def wide(self, c: hl.Expr, x: hl.Expr, y: hl.Expr, n: hl.Expr) -> hl.Expr:
        """The same in float64."""
        return self.param.wide(self.place(c, x, y, n))

    def element(self, c: hl.Expr, x: hl.Expr, y: hl.Expr, n: hl.Expr) -> Element:
        """The element, to be read in any way."""
        return self.param.element(self.place(c, x, y, n))

    def code(self, c: hl.Expr, x: hl.Expr, y: hl.Expr, n: hl.Expr) -> hl.Expr:
        """The element as it is stored."""
        return self.param.param[self.place(c, x, y, n)]

    def place(self, c: hl.Expr, x: hl.Expr, y: hl.Expr, n: hl.Expr) -> list[hl.Expr]:
        """Where the element at these logical coordinates is."""
        if self.broadcast:
            batch, channels, height, width = self.sizes
            pairs = ((c, channels), (x, width), (y, height), (n, batch))
            c, x, y, n = (hl.Expr(0) if size == 1 else v for v, size in pairs)
        if not self.layout.channels_last:
            return [x, y, c, n]
        top, _, left, _ = self.layout.halo
        return [c, x + left, y + top, n]


class SpatialOutput:
    """A channels-last output: `func` with its interior defined by `define`, and zeros in its halo."""

    def __init__(self, type_: TensorType) -> None:
        """Make an undefined function over the whole memory of a value of this type."""
        batch, channels, height, width = type_.shape
        self.type = type_
        self.batch, self.channels, self.height, self.width = batch, channels, height, width
        self.layout = channels_last(type_)
        self.shape: Shape = self.layout.physical(type_.shape)
        self.func = hl.Func("out")
        self.c, self.n = hl.Var("c"), hl.Var("n")
        self.func[self.c, hl.Var("x"), hl.Var("y"), self.n] = hl.undef(storage_type(type_.format))
        self.updates = 0

    def define(
        self, value: Callable[..., hl.Expr], start: int = 0, width: int | None = None, *, stored_already: bool = False
    ) -> tuple[hl.Stage, hl.RVar, hl.RVar]:
        """Define columns `start` .. `start + width` of the interior as value(c, x, y, n) of the logical coordinates.

        The value is a number, or with `stored_already` an element as it is written.

        Returns the stage, and the loops over columns and rows.
        """
        top, _, left, _ = self.layout.halo
        columns = self.width if width is None else width
        inner = hl.RDom([(start + left, columns), (top, self.height)], f"interior{self.updates}")
        result = value(self.c, inner.x - left, inner.y - top, self.n)
        self.func[self.c, inner.x, inner.y, self.n] = result if stored_already else self.stored(result)
        stage = self.func.update(self.updates)
        self.updates += 1
        return stage, inner.x, inner.y

    def stored(self, value: hl.Expr) -> hl.Expr:
        """A float32 value as it is written to the output's memory."""
        return stored(value, self.type.format)

    def finish(self, lanes: int) -> hl.Func:
        """Add the zeros of the halo, fix the shape in memory, and return the function."""
        zero = zero_of(self.type.format)
        zero_halo(self.func, [self.c], self.n, self.layout.halo, self.shape, self.updates, lanes, zero)
        fix_output(self.func, self.shape, self.type)
        return self.func


def zero_of(format_: NumberFormat) -> int:
    """0 as it is stored: of codes that of the zero point."""
    return format_.zero if isinstance(format_, CodeFormat) else 0


def zero_halo(
    func: hl.Func, channels: list[hl.Var], n: hl.Var, halo: Sides, shape: Shape, updates: int, lanes: int, zero: int = 0
) -> None:
    """Write the zeros around each image of a function [*channels, x, y, n] that has `updates` updates already.

    `shape` is (batch, height, width, ...) in memory, halo included; `zero` is 0 as it is stored.
    """
    top, bottom, left, right = halo
    _, height, width = shape[:3]
    strips = [
        ((0, width), (0, top)),
        ((0, width), (height - bottom, bottom)),
        ((0, left), (top, height - top - bottom)),
        ((width - right, right), (top, height - top - bottom)),
    ]
    for columns, rows in strips:
        if columns[1] and rows[1]:
            strip = hl.RDom([columns, rows], f"halo{updates}")
            func[[*channels, strip.x, strip.y, n]] = hl.cast(func.types()[0], zero)
            func.update(updates).vectorize(channels[0], lanes, hl.TailStrategy.GuardWithIf)
            updates += 1
