"""Discrete Fourier transforms as products with constants, and the complex numbers that they give and take.

A complex value is a pair of graph values: its real and its imaginary part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from netopt.errors import UnsupportedModel
from netopt.graph.aten.context import Context, Imported, Importer
from netopt.graph.aten.layers import convolution, transposed_convolution
from netopt.graph.aten.products import along_axis
from netopt.graph.aten.shapes import part
from netopt.ops import Arithmetic, Concat, Pad, Pointwise, Reshape

Pair = tuple[str, str]
# Points of a transform: the product takes this many multiply-adds for each.
_MOST_POINTS = 4096


def _scale(norm: str | None, points: int, *, inverse: bool) -> float:
    """What a transform is multiplied by, as `norm` says."""
    if norm == "ortho":
        return 1.0 / math.sqrt(points)
    return 1.0 / points if (norm == "forward") != inverse else 1.0


def _waves(rows: int, columns: int, points: int, sign: float) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin of sign * 2 pi j k / points, exact to float64: (rows, columns)."""
    turns = torch.outer(torch.arange(rows), torch.arange(columns)) % points
    angle = turns.double() * (sign * 2.0 * math.pi / points)
    return angle.cos(), angle.sin()


def _check_points(context: Context, points: int) -> None:
    if not 1 <= points <= _MOST_POINTS:
        raise UnsupportedModel(
            "a Fourier transform", expected=f"1 to {_MOST_POINTS} points", found=points, layer=context.layer
        )


def _resized(context: Context, x: str, axis: int, size: int | None) -> str:
    """The first elements along an axis, or zeros behind all."""
    found = context.shape(x)[axis]
    if size is None or size == found:
        return x
    if size < found:
        return part(context, x, axis, 0, size)
    rank = len(context.shape(x))
    behind = tuple(size - found if i == axis else 0 for i in range(rank))
    return context.add(Pad("constant", (0,) * rank, behind, 0.0), x)


def _transformed(
    context: Context, x: Imported, axis: int, size: int | None, norm: str | None, *, inverse: bool, half: bool = False
) -> Pair:
    """The transform of a real or complex value along an axis, or with `half` the first half of it and one more."""
    parts = [_resized(context, each, axis, size) for each in ((x,) if isinstance(x, str) else x)]
    points = context.shape(parts[0])[axis]
    _check_points(context, points)
    columns = points // 2 + 1 if half else points
    cos, sin = _waves(points, columns, points, 1.0 if inverse else -1.0)
    matrix = torch.cat([cos, sin], 1)
    if len(parts) == 2:
        matrix = torch.cat([matrix, torch.cat([-sin, cos], 1)], 0)
    joined = parts[0] if len(parts) == 1 else context.add(Concat(axis), *parts)
    both = along_axis(context, joined, axis, matrix * _scale(norm, points, inverse=inverse))
    return _halves(context, both, axis)


def _halves(context: Context, both: str, axis: int) -> Pair:
    size = context.shape(both)[axis] // 2
    return part(context, both, axis, 0, size), part(context, both, axis, size, 2 * size)


def _real_inverse(context: Context, x: Pair, axis: int, size: int | None, norm: str | None) -> str:
    """The real signal of which x is the first half of the transform, and one more."""
    points = 2 * (context.shape(x[0])[axis] - 1) if size is None else size
    _check_points(context, points)
    halves = [_resized(context, each, axis, points // 2 + 1) for each in x]
    both = context.add(Concat(axis), *halves)
    return along_axis(context, both, axis, _real_inverse_matrix(points) * _scale(norm, points, inverse=True))


def _real_inverse_matrix(points: int) -> torch.Tensor:
    """(2 * (points // 2 + 1), points): each frequency but the first, and the middle one, stands for two."""
    rows = points // 2 + 1
    cos, sin = _waves(rows, points, points, 1.0)
    weight = torch.full((rows, 1), 2.0, dtype=torch.float64)
    weight[0] = 1.0
    if points % 2 == 0:
        weight[-1] = 1.0
    return torch.cat([weight * cos, -weight * sin], 0)


def _fft(*, inverse: bool, half: bool = False) -> Importer:
    def importer(context: Context, args: dict[str, Any]) -> Imported:
        axis = _axis(context, args["self"], args["dim"])
        return _transformed(context, args["self"], axis, args["n"], args["norm"], inverse=inverse, half=half)

    return importer


def _fft_of_several(*, inverse: bool, half: bool = False) -> Importer:
    """Along one axis after the other, the last first."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        x: Imported = args["self"]
        axes, sizes = _axes(context, args)
        for number in reversed(range(len(axes))):
            first = half and number == len(axes) - 1
            x = _transformed(context, x, axes[number], sizes[number], args["norm"], inverse=inverse, half=first)
        return x

    return importer


def _irfft(context: Context, args: dict[str, Any]) -> Imported:
    axis = _axis(context, args["self"], args["dim"])
    return _real_inverse(context, _pair(context, args["self"]), axis, args["n"], args["norm"])


def _irfft_of_several(context: Context, args: dict[str, Any]) -> Imported:
    x, axes, sizes = args["self"], *_axes(context, args)
    for axis, size in zip(axes[:-1], sizes[:-1], strict=True):
        x = _transformed(context, x, axis, size, args["norm"], inverse=True)
    return _real_inverse(context, _pair(context, x), axes[-1], sizes[-1], args["norm"])


def _pair(context: Context, x: Imported) -> Pair:
    """A value as a complex one."""
    if isinstance(x, str):
        return x, context.filled(None, context.shape(x), 0.0, "imaginary")
    real, imaginary = x
    return real, imaginary


def _axis(context: Context, x: Imported, dim: int) -> int:
    return context.axis(x if isinstance(x, str) else x[0], dim)


def _axes(context: Context, args: dict[str, Any]) -> tuple[list[int], list[int | None]]:
    x = args["self"] if isinstance(args["self"], str) else args["self"][0]
    sizes, dims = args["s"], args["dim"]
    if dims is None:
        rank = len(context.shape(x))
        dims = list(range(rank if sizes is None else -len(sizes), rank if sizes is None else 0))
        dims = list(range(rank)) if sizes is None else dims
    axes = [context.axis(x, dim) for dim in dims]
    return axes, [None] * len(axes) if sizes is None else [None if size == -1 else size for size in sizes]


# --- short-time transforms


def _stft(context: Context, args: dict[str, Any]) -> Imported:
    """One convolution, whose kernels are the waves in the window: (..., frequencies, frames)."""
    x, points = args["self"], args["n_fft"]
    _check_points(context, points)
    shape = context.shape(x)
    x = context.add(Reshape((1,) * (2 - len(shape)) + shape), x)
    hop = args["hop_length"] or points // 4
    rows = points // 2 + 1 if args["onesided"] in (None, True) else points
    cos, sin = _waves(rows, points, points, -1.0)
    kernel = torch.cat([cos, sin]) * _window(context, args, points)
    if args["normalized"]:
        kernel = kernel / math.sqrt(points)
    batch, length = context.shape(x)
    image = context.add(Reshape((batch, 1, 1, length)), x)
    weight = _constant(context, "waves", kernel.reshape(2 * rows, 1, 1, points))
    y = convolution(context, image, weight, None, (1, hop), (0, 0, 0, 0), (1, 1), 1)
    frames = context.shape(y)[3]
    both = context.add(Reshape((*shape[:-1], 2 * rows, frames)), y)
    pair = _halves(context, both, len(shape) - 1)
    return pair if args["return_complex"] in (None, True) else _stacked(context, pair)


def _window(context: Context, args: dict[str, Any], points: int) -> torch.Tensor:
    """The window, in the middle of as many points as the transform has."""
    length = args["win_length"] or points
    if args["window"] is None:
        window = torch.ones(length, dtype=torch.float64)
    else:
        known = context.builder.constants.get(args["window"])
        if known is None:
            raise UnsupportedModel("window", expected="one that is known when lowering", layer=context.layer)
        window = known.double()
    before = (points - length) // 2
    return torch.nn.functional.pad(window, (before, points - length - before))


def _istft(context: Context, args: dict[str, Any]) -> Imported:
    """The sum of all frames where they overlap, by a transposed convolution, over the sum of squared windows."""
    x, points = _pair(context, args["self"]), args["n_fft"]
    _check_points(context, points)
    if args["onesided"] is False or args["return_complex"]:
        raise UnsupportedModel("istft", expected="the half of a real signal's", layer=context.layer)
    *lead, rows, frames = context.shape(x[0])
    hop, window = args["hop_length"] or points // 4, _window(context, args, points)
    kernel = _real_inverse_matrix(points) / points * window
    if args["normalized"]:
        kernel = kernel * math.sqrt(points)
    both = context.add(Concat(len(lead)), *x)
    images = context.add(Reshape((math.prod(lead), 2 * rows, 1, frames)), both)
    weight = _constant(context, "waves", kernel.reshape(2 * rows, 1, 1, points))
    y = transposed_convolution(context, images, weight, None, (1, hop), (0, 0), (0, 0), (1, 1), 1)
    squares = torch.nn.functional.conv_transpose1d(
        torch.ones(1, 1, frames, dtype=torch.float64), window.square().reshape(1, 1, points), stride=hop
    ).reshape(-1)
    start = points // 2 if args["center"] else 0
    length = args["length"] or (squares.numel() - start - (points // 2 if args["center"] else 0))
    stop = min(start + length, squares.numel())
    y = part(context, y, 3, start, stop)
    scale = _constant(context, "overlap", 1.0 / squares[start:stop])
    y = context.add(Arithmetic("mul"), context.add(Reshape((math.prod(lead), stop - start)), y), scale)
    return context.add(Reshape((*lead, length)), _resized(context, y, 1, length))


def _constant(context: Context, role: str, value: torch.Tensor) -> str:
    return context.builder.add_constant(f"{context.wish}_{role}", value.float())


# --- complex numbers


def _stacked(context: Context, pair: Pair) -> str:
    """Both parts along a new last axis."""
    rank = len(context.shape(pair[0]))
    parts = [context.add(Reshape((*context.shape(each), 1)), each) for each in pair]
    return context.add(Concat(rank), *parts)


def _view_as_complex(context: Context, args: dict[str, Any]) -> Imported:
    x = args["self"]
    shape = context.shape(x)
    parts = (part(context, x, len(shape) - 1, i, i + 1) for i in (0, 1))
    real, imaginary = (context.add(Reshape(shape[:-1]), each) for each in parts)
    return real, imaginary


def _magnitude(context: Context, args: dict[str, Any]) -> Imported:
    squares = [context.add(Pointwise("square"), each) for each in args["self"]]
    return context.add(Pointwise("sqrt"), context.add(Arithmetic("add"), *squares))


def _conjugate(context: Context, args: dict[str, Any]) -> Imported:
    real, imaginary = args["self"]
    return real, context.add(Pointwise("neg"), imaginary)


def _each(function: str) -> Importer:
    """Of the parts one by one: sums, and differences."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        if args.get("alpha", 1) != 1:
            raise UnsupportedModel("a complex sum", expected="alpha=1", found=args["alpha"], layer=context.layer)
        first, second = (_operand(context, args[name]) for name in ("self", "other"))
        real, imaginary = (context.add(Arithmetic(function), a, b) for a, b in zip(first, second, strict=True))
        return real, imaginary

    return importer


def _operand(context: Context, value: Any) -> Pair:
    if isinstance(value, complex):
        return context.operand(value.real), context.operand(value.imag)
    return _pair(context, context.operand(value) if isinstance(value, int | float) else value)


def _product(context: Context, args: dict[str, Any]) -> Imported:
    first, second = args["self"], args["other"]
    for x, y in ((first, second), (second, first)):
        if isinstance(x, tuple) and not isinstance(y, tuple | complex):
            number = context.operand(y)
            real, imaginary = (context.add(Arithmetic("mul"), each, number) for each in x)
            return real, imaginary
    (a, b), (c, d) = _operand(context, first), _operand(context, second)
    products = [context.add(Arithmetic("mul"), x, y) for x, y in ((a, c), (b, d), (a, d), (b, c))]
    return context.add(Arithmetic("sub"), *products[:2]), context.add(Arithmetic("add"), *products[2:])


def _quotient(context: Context, args: dict[str, Any]) -> Imported:
    if isinstance(args["other"], tuple | complex):
        raise UnsupportedModel("a complex quotient", expected="a real divisor", layer=context.layer)
    number = context.operand(args["other"])
    real, imaginary = (context.add(Arithmetic("div"), each, number) for each in args["self"])
    return real, imaginary


def _polar(context: Context, args: dict[str, Any]) -> Imported:
    real, imaginary = (
        context.add(Arithmetic("mul"), args["abs"], context.add(Pointwise(function), args["angle"]))
        for function in ("cos", "sin")
    )
    return real, imaginary


def of_parts(importer: Importer) -> Importer:
    """An importer that moves elements, for complex values: of each part."""

    def both(context: Context, args: dict[str, Any]) -> Imported:
        real, imaginary = (
            importer(context, {name: _part_of(value, index) for name, value in args.items()}) for index in (0, 1)
        )
        assert isinstance(real, str)
        assert isinstance(imaginary, str)
        return real, imaginary

    return both


def _part_of(value: Any, index: int) -> Any:
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(each, str) for each in value):
        return value[index]
    return [_part_of(each, index) for each in value] if isinstance(value, list) else value


# Those that read or give complex values.
IMPORTERS: dict[str, Importer] = {
    "fft_fft.default": _fft(inverse=False),
    "fft_ifft.default": _fft(inverse=True),
    "fft_rfft.default": _fft(inverse=False, half=True),
    "fft_irfft.default": _irfft,
    "fft_fft2.default": _fft_of_several(inverse=False),
    "fft_ifft2.default": _fft_of_several(inverse=True),
    "fft_rfft2.default": _fft_of_several(inverse=False, half=True),
    "fft_irfft2.default": _irfft_of_several,
    "fft_fftn.default": _fft_of_several(inverse=False),
    "fft_ifftn.default": _fft_of_several(inverse=True),
    "fft_rfftn.default": _fft_of_several(inverse=False, half=True),
    "fft_irfftn.default": _irfft_of_several,
    "stft.default": _stft,
    "istft.default": _istft,
    "view_as_real.default": lambda context, args: _stacked(context, args["self"]),
    "view_as_complex.default": _view_as_complex,
    "complex.default": lambda context, args: (args["real"], args["imag"]),
    "polar.default": _polar,
    "_conj.default": _conjugate,
}
# Those that do something else where a value that they read is complex.
OF_COMPLEX: dict[str, Importer] = {
    "abs.default": _magnitude,
    "mul.Tensor": _product,
    "mul.Scalar": _product,
    "div.Tensor": _quotient,
    "div.Scalar": _quotient,
    "add.Tensor": _each("add"),
    "sub.Tensor": _each("sub"),
}
# Those that move elements.
MOVING: Sequence[str] = (
    *("view.default", "_unsafe_view.default", "reshape.default", "squeeze.dim", "squeeze.default", "unsqueeze.default"),
    *("permute.default", "transpose.int", "expand.default", "slice.Tensor", "select.int", "cat.default"),
    *("clone.default", "alias.default", "detach.default", "roll.default", "flip.default", "repeat.default"),
)
