"""Where networks lose time against the peak of the core: the worst layers of each, and why.

    taskset -c 0 python bench/layer_rates.py [--batch N] [--only NAME ...] [--exact | --inexact] [--worst N]
        [--untuned] [--rounds N]

The time lost is that of a step less what its multiply-adds take at the core's peak, which is measured first, in the
same process. Puts a row for each network into bench/results/layer_rates.json, in place of an older one, and prints
tables.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import machine
import torch
from bandwidth import bandwidths
from core_peak import peaks
from networks import NETWORKS, as_trained
from reasons import Machine, reasons
from table import Row, merge

import netopt
from netopt.console import render_table
from netopt.kernels.machine.tune import STREAMED_BYTES
from netopt.program.program import Program
from netopt.program.step import shape_text
from netopt.report import StepTime, profile


def main() -> None:
    """Measure all networks, print the tables and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--worst", type=int, default=10, help="layers of each network")
    parser.add_argument("--exact", action="store_true", default=True, help="without Winograd's algorithm: the default")
    parser.add_argument("--inexact", dest="exact", action="store_false", help="with Winograd's algorithm")
    parser.add_argument("--untuned", action="store_true", help="default schedules")
    parser.add_argument("--rounds", type=int, help="the same for all networks")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    core, reads = peaks(300)["float32"]["peak_gmacs"], bandwidths()
    limits = Machine(core, reads["shared cache"], reads["memory"])
    print(f"peak {core:.1f} GMAC/s; reads, GB/s: " + ", ".join(f"{name} {rate:.1f}" for name, rate in reads.items()))
    for name in options.only:
        make, image, rounds = NETWORKS[name]
        x = torch.randn(options.batch, *image)
        program = netopt.lower(as_trained(make()), x, exact=options.exact, tune=not options.untuned)
        kind = f"{'exact' if options.exact else 'inexact'}, {'default' if options.untuned else 'tuned'}"
        result = _measured(f"{name}, batch {options.batch}, {kind}", program, x, limits, options.rounds or 3 * rounds)
        result["read_gbytes_per_second"] = reads
        result["layers"] = result["layers"][: options.worst]
        merge([result], Path(__file__).parent / "results" / "layer_rates.json")
        print(_table(result))
    print(json.dumps(machine.describe()))


def _measured(name: str, program: Program, x: torch.Tensor, limits: Machine, rounds: int) -> Row:
    """Figures of the network, and of all its steps, the most time lost first."""
    result = profile(program, x, rounds=rounds)
    streamed = program.weight_bytes > STREAMED_BYTES
    layers = [_layer(row, limits, streamed) for row in result.rows]
    needed = program.multiply_adds / limits.gmacs / 1e6
    return {
        "name": name,
        "threads": 1,
        "peak_gmacs": limits.gmacs,
        "call_ms": result.call.median,
        "steps_ms": result.steps_ms,
        "multiply_adds": program.multiply_adds,
        "needed_ms": needed,
        "share_of_peak": needed / result.steps_ms,
        "layers": sorted(layers, key=lambda layer: -layer["lost_ms"]),
    }


def _layer(row: StepTime, limits: Machine, streamed: bool) -> dict[str, object]:
    needed = row.multiply_adds / limits.gmacs / 1e6
    return {
        "op": row.op,
        "layer": row.layer,
        "inputs": [shape_text(type_) for type_ in row.step.inputs],
        "output": shape_text(row.step.output),
        "schedule": row.step.how,
        "ms": row.ms,
        "lost_ms": row.ms - needed,
        "share_of_time": row.share,
        "gmacs": row.gmacs,
        "share_of_peak": needed / row.ms,
        "gbytes_per_second": row.gbytes_per_second,
        "reasons": reasons(row, limits, streamed=streamed),
    }


def _table(result: Row) -> str:
    columns = ["op", "layer", "input", "weight", "output", "schedule", "why"]
    figures = ["ms", "lost ms", "share", "GMAC/s", "of peak", "GB/s"]
    cells = [
        (
            layer["op"],
            layer["layer"],
            *(*layer["inputs"][:2], "", "")[:2],
            layer["output"],
            layer["schedule"],
            "; ".join(layer["reasons"]),
            f"{layer['ms']:.4f}",
            f"{layer['lost_ms']:.4f}",
            f"{layer['share_of_time']:.1%}",
            f"{layer['gmacs']:.1f}" if layer["gmacs"] else "-",
            f"{layer['share_of_peak']:.0%}" if layer["gmacs"] else "-",
            f"{layer['gbytes_per_second']:.1f}",
        )
        for layer in result["layers"]
    ]
    title = (
        f"{result['name']}: {result['steps_ms']:.3f} ms, {result['share_of_peak']:.0%} of the peak "
        f"({result['needed_ms']:.3f} ms)"
    )
    return render_table([*columns, *figures], cells, title=title, text_columns=len(columns))


if __name__ == "__main__":
    main()
