"""Resizing that is one product with a constant for each axis: bicubic, antialiased, of volumes; and by places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from netopt.errors import UnsupportedModel
from netopt.graph.aten.context import Context, Imported, Importer
from netopt.graph.aten.products import along_axis
from netopt.numerics import INT64
from netopt.ops import Gather

# Elements of the matrix of one axis.
_LARGEST = 2**22


def _resized(op: str, interpolate: Callable[..., torch.Tensor], *, nearest: bool = False) -> Importer:
    """Along each axis what `interpolate` makes of it alone, which is a linear function."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        x: str = args["input"]
        shape = context.shape(x)
        scales = args.get("scale_factors") or [None] * (len(shape) - 2)
        sizes = args["output_size"] or [int(n * s) for n, s in zip(shape[2:], scales, strict=True)]
        corners = args.get("align_corners")
        for axis, size, scale in zip(range(2, len(shape)), sizes, scales, strict=True):
            n = shape[axis]
            if n * size > _LARGEST:
                raise UnsupportedModel(op, expected=f"sizes of product {_LARGEST}", found=n * size, layer=context.layer)
            matrix = interpolate(torch.eye(n, dtype=torch.float64), size, scale, corners)
            if nearest:
                places = context.builder.add_constant(f"{context.wish}_places", matrix.argmax(0), INT64)
                x = context.add(Gather(axis), x, places)
            elif n != size or not torch.equal(matrix, torch.eye(n, dtype=torch.float64)):
                x = along_axis(context, x, axis, matrix)
        return x

    return importer


def _by(function: torch._ops.OpOverload, axes: int, *, corners: bool) -> Callable[..., torch.Tensor]:
    """(n, size): what an ATen resize of so many axes makes of each unit vector along its last axis."""

    def interpolate(eye: torch.Tensor, size: int, scale: float | None, align: bool | None) -> torch.Tensor:
        x = eye.reshape(eye.shape[0], 1, *[1] * (axes - 1), eye.shape[1])
        sizes = [*[1] * (axes - 1), size]
        scales: Sequence[float | None] = [*[None] * (axes - 1), scale]
        given = (x, sizes, bool(align), *scales) if corners else (x, sizes, *scales)
        y: torch.Tensor = function(*given)
        return y.reshape(eye.shape[0], size)

    return interpolate


_ATEN = torch.ops.aten
_CUBIC = _by(_ATEN.upsample_bicubic2d.default, 2, corners=True)
_LINEAR = _by(_ATEN.upsample_linear1d.default, 1, corners=True)
_LINEAR_SMOOTH = _by(_ATEN._upsample_bilinear2d_aa.default, 2, corners=True)
_CUBIC_SMOOTH = _by(_ATEN._upsample_bicubic2d_aa.default, 2, corners=True)
_NEAREST = _by(_ATEN.upsample_nearest1d.default, 1, corners=False)
_NEAREST_EXACT = _by(_ATEN._upsample_nearest_exact1d.default, 1, corners=False)

IMPORTERS: dict[str, Importer] = {
    "upsample_bicubic2d.vec": _resized("bicubic", _CUBIC),
    "_upsample_bilinear2d_aa.vec": _resized("antialiased bilinear", _LINEAR_SMOOTH),
    "_upsample_bicubic2d_aa.vec": _resized("antialiased bicubic", _CUBIC_SMOOTH),
    "upsample_trilinear3d.vec": _resized("trilinear", _LINEAR),
    "upsample_nearest3d.vec": _resized("nearest", _NEAREST, nearest=True),
    "_upsample_nearest_exact3d.vec": _resized("nearest-exact", _NEAREST_EXACT, nearest=True),
}
