"""How a user nests tensors: flat lists to and from tuples, lists and dicts.

Beside tensors, there may be None, numbers, truth and texts: they are part of the nesting, since a network was traced
for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from netopt.errors import FileFormatError, InvalidArgument, InvalidType

Value = bool | int | float | str | None


@dataclass(frozen=True)
class Nesting:
    """A nesting of tensors.

    Attributes:
        kind: "tensor", "tuple", "list", "dict" or "value".
        keys: the keys of a dict, in order.
        parts: what is nested, in order.
        value: what is no tensor: None, a bool, int, float or text.
    """

    kind: str
    keys: tuple[str, ...] = ()
    parts: tuple[Nesting, ...] = ()
    value: Value = None

    @classmethod
    def of(cls, value: object, where: str) -> Nesting:
        """The nesting of `value`.

        Raises:
            InvalidType: it holds something other than tensors, tuples, lists and dicts with string keys.
        """
        if isinstance(value, torch.Tensor):
            return cls("tensor")
        if type(value) is list or isinstance(value, tuple):
            # Named tuples are tuples: the classes of others are not kept.
            parts = tuple(cls.of(item, f"{where}[{i}]") for i, item in enumerate(value))
            return cls("list" if type(value) is list else "tuple", (), parts)
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            parts = tuple(cls.of(item, f"{where}[{key!r}]") for key, item in value.items())
            return cls("dict", tuple(value), parts)
        if value is None or type(value) in (bool, int, float, str):
            return cls("value", value=value)  # type: ignore[arg-type]
        raise InvalidType(
            where,
            expected="a tensor, None, a number or a text, or a tuple, list or dict (with string keys) of such",
            found=type(value).__name__,
        )

    def names(self, root: str) -> Iterator[str]:
        """A name for each tensor: x, x[0], x['mask'] ..."""
        if self.kind == "tensor":
            yield root
        labels: list[str] = [repr(key) for key in self.keys] or [str(i) for i in range(len(self.parts))]
        for label, part in zip(labels, self.parts, strict=True):
            yield from part.names(f"{root}[{label}]")

    def flatten(self, value: object, where: str) -> list[torch.Tensor]:
        """The tensors of `value`, in order.

        Raises:
            InvalidArgument: `value` is not nested so.
        """
        if self.kind == "tensor":
            if isinstance(value, torch.Tensor):
                return [value]
        elif self.kind == "value":
            if type(value) is type(self.value) and value == self.value:
                return []
        elif self.kind == "dict":
            if isinstance(value, Mapping) and set(value) == set(self.keys):
                items = [(f"{where}[{key!r}]", value[key]) for key in self.keys]
                return [t for part, (at, item) in zip(self.parts, items, strict=True) for t in part.flatten(item, at)]
        elif isinstance(value, tuple | list) and len(value) == len(self.parts):
            pairs = zip(self.parts, value, strict=True)
            return [t for i, (part, item) in enumerate(pairs) for t in part.flatten(item, f"{where}[{i}]")]
        raise InvalidArgument(where, expected=str(self), found=_describe(value))

    def unflatten(self, tensors: Iterator[torch.Tensor]) -> Any:
        """The inverse of `flatten`; takes as many tensors as it needs."""
        if self.kind == "tensor":
            return next(tensors)
        if self.kind == "value":
            return self.value
        parts = [part.unflatten(tensors) for part in self.parts]
        if self.kind == "dict":
            return dict(zip(self.keys, parts, strict=True))
        return tuple(parts) if self.kind == "tuple" else parts

    def is_single(self) -> bool:
        """Whether it is a nesting of exactly one tensor, one deep, as the arguments of most models are."""
        return len(self.parts) == 1 and self.parts[0].kind == "tensor"

    def count(self) -> int:
        """The number of tensors."""
        return int(self.kind == "tensor") + sum(part.count() for part in self.parts)

    def to_json(self) -> dict[str, object]:
        """The nesting as plain data."""
        if self.kind == "value":
            return {"kind": self.kind, "value": self.value}
        return {"kind": self.kind, "keys": list(self.keys), "parts": [part.to_json() for part in self.parts]}

    @classmethod
    def from_json(cls, data: object) -> Nesting:
        """The inverse of `to_json`; raises FileFormatError on anything else."""
        match data:
            case {"kind": "value", "value": (None | bool() | int() | float() | str()) as value, **rest} if not rest:
                return cls("value", value=value)
            case {"kind": ("tensor" | "tuple" | "list" | "dict") as kind, "keys": list(keys), "parts": list(parts)}:
                nested = tuple(cls.from_json(part) for part in parts)
                fits = len(keys) == len(nested) if kind == "dict" else not keys
                if (
                    fits
                    and all(isinstance(key, str) for key in keys)
                    and len(set(keys)) == len(keys)
                    and not (kind == "tensor" and nested)
                ):
                    return cls(kind, tuple(keys), nested)
        raise FileFormatError("structure of inputs or outputs", found=data)

    def __str__(self) -> str:
        if self.kind == "dict":
            return "a dict of " + (
                ", ".join(f"{k!r}: {p}" for k, p in zip(self.keys, self.parts, strict=True)) or "nothing"
            )
        if self.kind == "tensor":
            return "a tensor"
        if self.kind == "value":
            return repr(self.value)
        return f"a {self.kind} of {len(self.parts)} ({', '.join(map(str, self.parts))})"


@dataclass(frozen=True)
class Signature:
    """How a network is called.

    Attributes:
        positional: nesting of the positional arguments (a tuple).
        keyword: nesting of the keyword arguments (a dict).
        output: nesting of the result.
    """

    positional: Nesting
    keyword: Nesting
    output: Nesting


def _describe(value: object) -> str:
    if isinstance(value, Mapping):
        return f"a dict with keys {list(value)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return type(value).__name__
