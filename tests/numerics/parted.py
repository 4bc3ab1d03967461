"""A format of two parts, for tests: codes of the entries of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import INT32, NumberFormat, Part, PartedFormat, Shape


@dataclass(frozen=True)
class Codebook(PartedFormat):
    """At most `entries` different numbers, each of them in the format `table`."""

    entries: int
    table: NumberFormat
    name: ClassVar[str] = "codebook"

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        if not shape:
            raise InvalidArgument("codebook", expected="one axis or more", found=shape)
        return (Part("codes", shape, INT32), Part("table", (self.entries,), self.table))

    def split(self, numbers: torch.Tensor) -> Sequence[torch.Tensor]:
        table, codes = self.table.decode(self.table.encode(numbers)).unique(return_inverse=True)
        if len(table) > self.entries:
            raise InvalidArgument("codebook", expected=f"at most {self.entries} numbers", found=len(table))
        table = torch.nn.functional.pad(table, (0, self.entries - len(table)))
        return INT32.encode(codes), self.table.encode(table)

    def join(self, parts: Sequence[torch.Tensor], shape: Shape) -> torch.Tensor:
        codes, table = parts
        return self.table.decode(table)[codes.long()].reshape(shape)
