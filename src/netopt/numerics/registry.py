"""The formats that files may name, and formats as plain data."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from functools import cache

import torch

from netopt.errors import InvalidArgument
from netopt.numerics.affine import Affine
from netopt.numerics.bfloat16 import BFLOAT16, BFloat16
from netopt.numerics.boolean import BOOL, Boolean
from netopt.numerics.fixed_point import FixedPoint
from netopt.numerics.float32 import FLOAT32, Float32
from netopt.numerics.format import NumberFormat
from netopt.numerics.grouped import Grouped
from netopt.numerics.int32 import INT32, Int32
from netopt.numerics.int64 import INT64, Int64
from netopt.numerics.sign import SignFormat
from netopt.numerics.uint8 import UINT8, UInt8

FORMATS: dict[str, type[NumberFormat]] = {
    f.name: f for f in (Float32, BFloat16, Int64, Int32, UInt8, Boolean, FixedPoint, Affine, SignFormat, Grouped)
}
# What networks take and give: floating formats, and whole numbers as PyTorch has them.
FLOATS = (FLOAT32, BFLOAT16)
WHOLES = (INT64, INT32, UINT8, BOOL)
_OF_DTYPES: dict[torch.dtype, NumberFormat] = {f.tensor_dtype: f for f in (FLOAT32, *WHOLES)}


def format_of(dtype: torch.dtype) -> NumberFormat | None:
    """The format that has the values of a tensor of PyTorch as they are; None where there is none."""
    return _OF_DTYPES.get(dtype)


def number_format_from_json(data: object) -> NumberFormat:
    """The inverse of `NumberFormat.to_json`.

    Raises:
        InvalidArgument: the name is unknown or the fields are not those of the format.
    """
    fields = dict(data) if isinstance(data, Mapping) else {}
    kind = FORMATS.get(str(fields.pop("name", "")))
    if kind is None or set(fields) != {field.name for field in dataclasses.fields(kind)}:
        raise _refused(data)
    hints = _hints(kind)
    return kind(**{name: _decode(hints[name], value, data) for name, value in fields.items()})


@cache
def _hints(kind: type) -> dict[str, object]:
    """Types of the fields: to find them takes longer than all else that is done for a value."""
    return typing.get_type_hints(kind)


def _decode(hint: object, value: object, data: object) -> typing.Any:
    """A field's value, of the type that the format declares: integers, rows of them, and formats of parts."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        is_row = isinstance(value, list)
        kinds = [kind for kind in typing.get_args(hint) if (typing.get_origin(kind) is tuple) == is_row]
        hint = kinds[0] if len(kinds) == 1 else None
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_decode(typing.get_args(hint)[0], item, data) for item in value)
    if isinstance(hint, type) and issubclass(hint, NumberFormat):
        return number_format_from_json(value)
    if hint in (int, bool) and type(value) is hint:
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # JSON has integers that are larger than any float, and Python's reads NaN.
    if hint is float and is_number and abs(typing.cast(float, value)) <= sys.float_info.max:
        return float(typing.cast(float, value))
    raise _refused(data)


def _refused(data: object) -> InvalidArgument:
    return InvalidArgument("number format", expected=f"one of {', '.join(FORMATS)} with its fields", found=data)
