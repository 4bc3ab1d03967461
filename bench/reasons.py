"""Why a step is slower than the core's peak: what can be computed from its op, shapes and schedule."""

from __future__ import annotations

from dataclasses import dataclass

from netopt.kernels.machine.cpu import host_cpu
from netopt.kernels.parts.tile import TileSchedule, bands_of
from netopt.ops import Conv2d, Dense, TorchRegion, Winograd2d
from netopt.program.step import Step
from netopt.report import StepTime

# A call into compiled code from Python takes about this much; a step below twice as much is mostly that.
CALL_MS = 0.0008
# Sums at once that hide the latency of an addition: four cycles, two additions a cycle.
SUMS_AT_ONCE = 8


@dataclass(frozen=True)
class Machine:
    """What a core does at most: GMAC/s, and GB/s read from its caches and from memory."""

    gmacs: float
    cache: float
    memory: float


def reasons(row: StepTime, machine: Machine, *, streamed: bool) -> list[str]:
    """All that apply, bytes first; streamed: the network's weights come from memory on each run."""
    step = row.step
    if isinstance(step.op, TorchRegion):
        return ["runs in PyTorch"]
    found = [*_bytes(row, machine, streamed), *_shape(step)]
    if isinstance(step.op, Winograd2d):
        found.append(_transforms(step, machine, row.ms))
    if row.ms < 2 * CALL_MS:
        found.append("call overhead")
    return found or ["not explained by bytes or shapes"]


def _bytes(row: StepTime, machine: Machine, streamed: bool) -> list[str]:
    """Weights or activations, where to move them takes more than a third of the time."""
    source = machine.memory if streamed else machine.cache
    weights = row.step.constant_bytes / source / 1e6
    # What one step writes the next one reads: from the cache, where it fits.
    activations = row.step.activation_bytes / machine.cache / 1e6
    found = []
    for what, ms, size in (
        ("weights", weights, row.step.constant_bytes),
        ("activations", activations, row.step.activation_bytes),
    ):
        if ms > row.ms / 3:
            per = f", {size / row.multiply_adds:.2f} a multiply-add" if row.multiply_adds else ""
            found.append(f"bytes of {what}: {ms / row.ms:.0%} of the time at full bandwidth{per}")
    return found


def _shape(step: Step) -> list[str]:
    """Few channels, and what the tile leaves over."""
    if not step.multiply_adds:
        return ["no products"]
    if not isinstance(step.op, Conv2d | Dense) or not isinstance(step.schedule, TileSchedule):
        return []
    weight, lanes, found = step.inputs[1].shape, host_cpu().lanes, []
    groups = step.op.groups if isinstance(step.op, Conv2d) else 1
    outputs, inputs = weight[0] // groups, weight[1]
    if outputs == inputs == 1:
        return [f"depthwise: {weight[2] * weight[3]} products a number"]
    products = step.multiply_adds // step.output.elements
    if products < 64:
        found.append(f"few channels: sums of {products} products")
    tile = step.schedule.vectors * lanes
    padded = -(-outputs // tile) * tile
    if padded * 0.95 > outputs:
        found.append(f"remainder: {outputs} outputs a group fill {outputs / padded:.0%} of the tiles' vectors")
    rows = _rows(step, weight)
    loss = _idle(rows, step.schedule)
    if loss > 0.05:
        found.append(f"remainder: {rows} rows in tiles of {step.schedule.rows} leave {loss:.0%} of the sums empty")
    return found


def _rows(step: Step, weight: tuple[int, ...]) -> int:
    """What the register tile runs along: pixels of a line, of all lines where the window is one pixel, or rows."""
    if isinstance(step.op, Conv2d) and not (
        weight[2:] == (1, 1) and step.op.stride == (1, 1) and not any(step.output.layout.halo)
    ):
        return step.output.shape[3]
    return step.output.elements // (weight[0])


def _idle(rows: int, schedule: TileSchedule) -> float:
    """The share of time in which too few sums are under way to keep the core busy."""
    busy = rows * schedule.vectors
    taken = sum(
        band.rows // band.tile * max(band.tile * schedule.vectors, SUMS_AT_ONCE) for band in bands_of(rows, schedule)
    )
    return 1 - busy / taken


def _transforms(step: Step, machine: Machine, ms: float) -> str:
    assert isinstance(step.op, Winograd2d)
    products = step.multiply_adds / machine.gmacs / 1e6
    return (
        f"Winograd: its products take {products / ms:.0%} of the time at the peak, transforms and the rest what is left"
    )
