"""Ops as plain data, for files and cache keys."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

from netopt.errors import InvalidArgument
from netopt.ops.op import Op
from netopt.ops.view import View

# Kernels compute coordinates in 32 bits.
_COORDINATES = 2**31


def op_to_json(op: Op) -> dict[str, object]:
    """The op's name and attributes as JSON data."""
    data: dict[str, object] = {"op": op.name}
    for field in dataclasses.fields(op):
        value = getattr(op, field.name)
        data[field.name] = _encode(value)
    return data


def _encode(value: object) -> object:
    if isinstance(value, Op):
        return op_to_json(value)
    return dataclasses.asdict(value) if isinstance(value, View) else value


def op_from_json(data: object, ops: Mapping[str, type[Op]]) -> Op:
    """The inverse of `op_to_json`.

    Raises:
        InvalidArgument: the op is not in `ops`, or an attribute is missing, foreign or of another type.
    """
    if not isinstance(data, dict) or not isinstance(data.get("op"), str) or data["op"] not in ops:
        raise InvalidArgument("op", expected=f"one of {', '.join(ops)}", found=data)
    kind = ops[data["op"]]
    hints = _hints(kind)
    wanted = {field.name for field in dataclasses.fields(kind)}
    if set(data) != wanted | {"op"}:
        raise InvalidArgument(f"attributes of {kind.name}", expected=str(sorted(wanted)), found=sorted(data))
    return kind(**{name: _decode(hints[name], data[name], ops, f"{kind.name}.{name}") for name in wanted})


@cache
def _hints(kind: type) -> dict[str, object]:
    """Types of the attributes: to find them takes longer than all else that is done for a node."""
    return typing.get_type_hints(kind)


def _decode_view(data: object, ops: Mapping[str, type[Op]], where: str) -> View:
    hints = _hints(View)
    if not isinstance(data, dict) or set(data) != set(hints):
        raise InvalidArgument(where, expected=f"a view with {', '.join(hints)}", found=data)
    fields: dict[str, Any] = {name: _decode(hints[name], data[name], ops, f"{where}.{name}") for name in hints}
    return View(**fields)


def _decode(hint: object, value: object, ops: Mapping[str, type[Op]], where: str) -> object:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        arguments = typing.get_args(hint)
        if value is None and type(None) in arguments:
            return None
        (hint,) = (a for a in arguments if a is not type(None))
    if isinstance(hint, type) and issubclass(hint, Op | View):
        part = op_from_json(value, ops) if issubclass(hint, Op) else _decode_view(value, ops, where)
        if isinstance(part, hint):
            return part
    elif typing.get_origin(hint) is tuple and isinstance(value, list | tuple):
        elements = typing.get_args(hint)
        if elements[-1] is Ellipsis or len(elements) == len(value):
            return tuple(_decode(elements[0], item, ops, where) for item in value)
    elif hint is float and type(value) in (int, float):
        try:
            return float(typing.cast(float, value))
        except OverflowError:  # an integer larger than any float; JSON has such numbers
            return math.inf
    elif type(value) is hint and not (type(value) is int and abs(value) >= _COORDINATES):
        return value
    raise InvalidArgument(where, expected=str(getattr(hint, "__name__", hint)), found=value)
