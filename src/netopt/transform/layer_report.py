"""What became of the layers of a network."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from netopt.console import count, render_table
from netopt.transform.cost import Cost


@dataclass(frozen=True)
class LayerReport:
    """What became of one candidate layer.

    Attributes:
        layer: qualified name.
        kind: type of the layer.
        technique: name of the technique.
        replaced: whether it was replaced.
        reason: why not, or what replaced it.
        before: cost of the layer.
        after: cost of what stands there now.
        error: of what replaced it, or would have, from 0 to 1: root mean square of the change of the weights, or with
            calibration inputs of the outputs, relative to theirs; None where it is not known.
        before_ms: latency of the lowered layer in milliseconds; None where it was not measured.
        after_ms: latency of its lowered replacement, whether that was kept or not; None likewise.
    """

    layer: str
    kind: str
    technique: str
    replaced: bool
    reason: str
    before: Cost
    after: Cost
    error: float | None = None
    before_ms: float | None = None
    after_ms: float | None = None


@dataclass(frozen=True)
class NetworkTimes:
    """The whole network, lowered, before and after: medians in milliseconds, measured in turn in one run."""

    before_ms: float
    after_ms: float

    def __str__(self) -> str:
        ratio = self.before_ms / self.after_ms
        change = f"{ratio:.2f} times faster" if ratio >= 1 else f"{1 / ratio:.2f} times slower"
        return f"whole network, lowered: {self.before_ms:.4f} ms -> {self.after_ms:.4f} ms, {change}"


@dataclass(frozen=True)
class Outlook:
    """What replacements can bring the whole network, as far as it is known before that is measured.

    Attributes:
        candidates: share of the time of the lowered network, as it was, that all candidate layers take.
        replaced: that those take that were replaced.
        by_times: how many times faster it would be by the replaced layers' own times.
        by_multiply_adds: how many times faster it would be if its time went by its multiply-adds.
    """

    candidates: float
    replaced: float
    by_times: float
    by_multiply_adds: float

    @property
    def at_most(self) -> float:
        """How many times faster it would be if the replacements took no time (Amdahl's law)."""
        return 1 / (1 - self.replaced) if self.replaced < 1 else math.inf

    def __str__(self) -> str:
        return (
            f"candidate layers take {self.candidates:.0%} of the network's time, "
            f"the replaced ones {self.replaced:.0%}: at most {self.at_most:.2f} times faster\n"
            f"expected: {self.by_times:.2f} times faster by the times of layers, {self.by_multiply_adds:.2f} times by "
            "multiply-adds"
        )


@dataclass(frozen=True)
class Report:
    """A row for each candidate layer of each technique. `print(report)` shows a table.

    Attributes:
        rows: the candidates.
        network: times of the whole network, where layers were kept by their times.
        outlook: what was to be had of that, likewise.
    """

    rows: tuple[LayerReport, ...]
    network: NetworkTimes | None = None
    outlook: Outlook | None = None

    def __str__(self) -> str:
        columns: tuple[str, ...] = ("layer", "type", "technique", "replaced", "note")
        texts = len(columns)
        in_bytes = any(cost.bytes != 4 * cost.parameters for row in self.rows for cost in (row.before, row.after))
        columns += ("parameters", "->", *(("bytes", "->") if in_bytes else ()), "multiply-adds", "->")
        has_errors = any(row.error is not None for row in self.rows)
        has_times = any(row.before_ms is not None for row in self.rows)
        columns += (("error",) if has_errors else ()) + (("ms", "->") if has_times else ())
        cells = []
        for row in self.rows:
            cell: tuple[object, ...] = (row.layer or "(the model)", row.kind, row.technique)
            cell += ("yes" if row.replaced else "no", row.reason)
            cell += (count(row.before.parameters), count(row.after.parameters))
            cell += (count(row.before.bytes), count(row.after.bytes)) if in_bytes else ()
            cell += (count(row.before.multiply_adds), count(row.after.multiply_adds))
            cell += ("" if row.error is None else f"{row.error:.3f}",) if has_errors else ()
            cells.append(cell + ((_ms(row.before_ms), _ms(row.after_ms)) if has_times else ()))
        replaced = sum(row.replaced for row in self.rows)
        lines = [render_table(columns, cells, text_columns=texts)]
        lines.append(f"{replaced} of {len(self.rows)} candidate layers replaced")
        if self.outlook is not None:
            lines.append(str(self.outlook))
        if self.network is not None:
            lines.append(str(self.network))
        return "\n".join(lines)

    def undone(self) -> Report:
        """The same, with all replacements taken back because the whole network was slower with them."""
        rows = [
            replace(row, replaced=False, reason=f"{row.reason}: the whole network is slower so", after=row.before)
            if row.replaced
            else row
            for row in self.rows
        ]
        return replace(self, rows=tuple(rows))

    def __add__(self, other: Report) -> Report:
        return Report(self.rows + other.rows, other.network or self.network, other.outlook or self.outlook)


def _ms(time: float | None) -> str:
    return "" if time is None else f"{time:.4f}"
