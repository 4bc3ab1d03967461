"""An inspection as one HTML file that needs nothing else: tables, memory over time, and histograms as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from netopt.console import count
from netopt.report.inspection import Constant, InspectedStep, Inspection, decibels_text, share_text
from netopt.report.rounding import Histogram

_STYLE = """
:root { color-scheme: light dark; --before: #c2410c; --after: #4f7fbf; --line: #8888; }
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
td.number, th.number { text-align: right; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: .3rem; padding: .5rem; }
svg { width: 100%; height: auto; display: block; }
.after { fill: var(--after); } .before { fill: none; stroke: var(--before); stroke-width: 1.5; }
.axis { stroke: var(--line); } text { fill: currentColor; font-size: 10px; }
"""
_WIDTH, _HEIGHT = 320, 110


def page_of(inspection: Inspection, title: str) -> str:
    """The page.

    Args:
        inspection: of a network.
        title: what the page is called, such as the name of the network's file.
    """
    parts = [
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>',
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>",
        f"<p>Arena {count(inspection.arena_bytes)} bytes (lower bound {count(inspection.lower_bound)}), constants "
        f"{count(inspection.constant_bytes)} bytes.</p>",
        *(f"<p>{escape(note[:1].upper() + note[1:])}.</p>" for note in inspection.notes),
        "<h2>Memory</h2>\n<p>Bytes of the arena that are taken at each step.</p>",
        _bars(inspection.steps),
        "<h2>Steps</h2>",
        _table(inspection),
        *_histograms(inspection),
        "</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _table(inspection: Inspection) -> str:
    texts = ("op", "layer", "value", "shape", "type", "position", "weights")
    numbers = ["bytes", "weight bytes", "arena"]
    numbers += ["smallest", "largest", "saturated", "SQNR dB"] if inspection.runs else []
    head = [f"<th>{name}</th>" for name in texts] + [f'<th class="number">{name}</th>' for name in numbers]
    lines = ["<table>", f"<tr>{''.join(head)}</tr>"]
    lines += [f"<tr>{''.join(_cells(step, inspection.runs > 0))}</tr>" for step in inspection.steps]
    return "\n".join([*lines, "</table>"])


def _cells(step: InspectedStep, has_data: bool) -> Iterator[str]:
    weight = step.constants[0] if step.constants else None
    shape = "x".join(map(str, step.shape)) or "scalar"
    weights = "" if weight is None else weight.format
    for text in (step.op, step.layer, step.value, shape, step.type, step.position, weights):
        yield f"<td>{escape(text)}</td>"
    bytes_ = count(sum(constant.bytes for constant in step.constants)) if step.constants else ""
    numbers = [count(step.bytes), bytes_, count(step.arena_bytes)]
    if has_data:
        numbers += ["", ""] if step.range is None else [f"{number:.4g}" for number in step.range]
        numbers += [share_text(step.saturated), decibels_text(step.sqnr_db)]
    for number in numbers:
        yield f'<td class="number">{escape(number)}</td>'


def _bars(steps: Sequence[InspectedStep]) -> str:
    """A bar for each step."""
    most = max((step.arena_bytes for step in steps), default=0) or 1
    width = 960 / max(1, len(steps))
    lines = ['<svg viewBox="0 0 960 120" role="img" aria-label="Bytes of the arena at each step">']
    for index, step in enumerate(steps):
        height = 110 * step.arena_bytes / most
        label = escape(f"{step.value}: {step.op}, {count(step.arena_bytes)} bytes")
        lines.append(
            f'<rect class="after" x="{index * width:.2f}" y="{112 - height:.2f}" width="{0.85 * width:.2f}" '
            f'height="{height:.2f}"><title>{label}</title></rect>'
        )
    return "\n".join([*lines, '<path class="axis" d="M0 112H960"/>', "</svg>"])


def _histograms(inspection: Inspection) -> Iterator[str]:
    values = [step for step in inspection.steps if step.histogram is not None]
    if values:
        yield (
            "<h2>Values, before and after rounding</h2>\n<p>How many numbers fall where, on a logarithmic scale: the "
            "line before rounding, the bars after. Between the dashed lines are the codes; what lies beyond is "
            "saturated.</p>"
        )
        yield '<div class="plots">'
        for step in values:
            figures = f"saturated {share_text(step.saturated)}, SQNR {decibels_text(step.sqnr_db)} dB"
            if step.histogram is not None:
                yield _figure(step.histogram, f"{step.value}: {step.type} after {step.op}", figures)
        yield "</div>"
    constants = list(_constants(inspection.steps))
    if constants:
        yield (
            "<h2>Codes of parameters</h2>\n<p>How often each code stands there, on a logarithmic scale. What they "
            "were before rounding is not in the file.</p>"
        )
        yield '<div class="plots">'
        for constant, histogram in constants:
            shape = "x".join(map(str, constant.shape))
            yield _figure(histogram, f"{constant.name}: {constant.format}", f"{shape}, {count(constant.bytes)} bytes")
        yield "</div>"


def _constants(steps: Iterable[InspectedStep]) -> Iterator[tuple[Constant, Histogram]]:
    """Those with codes, each once."""
    seen: set[str] = set()
    for step in steps:
        for constant in step.constants:
            if constant.histogram is not None and constant.name not in seen:
                seen.add(constant.name)
                yield constant, constant.histogram


def _figure(histogram: Histogram, title: str, figures: str) -> str:
    """A histogram with its caption."""
    most = math.log1p(max(*histogram.before, *histogram.after, 1))
    width = _WIDTH / len(histogram.after)
    lines = [f'<figure>\n<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 14}" role="img" aria-label="{escape(title)}">']
    for index, number in enumerate(histogram.after):
        if number:
            height = (_HEIGHT - 8) * math.log1p(number) / most
            lines.append(
                f'<rect class="after" x="{index * width:.2f}" y="{_HEIGHT - height:.2f}" width="{width:.2f}" '
                f'height="{height:.2f}"/>'
            )
    if histogram.before:
        lines.append(f'<path class="before" d="{_outline(histogram.before, width, most)}"/>')
    for end, anchor in zip(histogram.ends, ("start", "end"), strict=True):
        x = _WIDTH * (end - histogram.low) / (histogram.high - histogram.low)
        lines.append(f'<path class="axis" stroke-dasharray="3 3" d="M{x:.2f} 0V{_HEIGHT}"/>')
        lines.append(f'<text x="{x:.2f}" y="{_HEIGHT + 12}" text-anchor="{anchor}">{end:.4g}</text>')
    lines += [
        f'<path class="axis" d="M0 {_HEIGHT}H{_WIDTH}"/>',
        "</svg>",
        f"<figcaption><code>{escape(title)}</code><br>{escape(figures)}</figcaption>\n</figure>",
    ]
    return "\n".join(lines)


def _outline(counts: Sequence[int], width: float, most: float) -> str:
    """A line along the tops of the bins."""
    heights = [_HEIGHT - (_HEIGHT - 8) * math.log1p(number) / most for number in counts]
    return f"M0 {_HEIGHT}" + "".join(f"V{height:.2f}h{width:.3f}" for height in heights) + f"V{_HEIGHT}"
