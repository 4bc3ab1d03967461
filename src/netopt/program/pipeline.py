"""The passes of lowering: all of them, in their order, as the options want them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from netopt.graph import Graph
from netopt.graph.passes import Pass
from netopt.graph.passes.choose_layouts import choose_layouts
from netopt.graph.passes.convert_formats import convert_formats
from netopt.graph.passes.structure import STRUCTURE
from netopt.graph.passes.use_bfloat16 import use_bfloat16
from netopt.graph.passes.use_winograd import Chooser, use_winograd
from netopt.graph.passes.write_concat_in_place import write_concat_in_place
from netopt.kernels.choose_convolution import choose_convolution
from netopt.kernels.machine.tune import streams
from netopt.memory import copies_for_memory
from netopt.program.options import Lowering


def pipeline(options: Lowering) -> tuple[Pass, ...]:
    """The passes that lowering with these options runs, in their order."""
    return (*STRUCTURE, *storage(options))


def storage(options: Lowering) -> tuple[Pass, ...]:
    """Those that decide in which formats and layouts values are stored, which run last."""
    narrow = options.precision == "bf16"
    # Winograd's errors are far below those of rounding to bfloat16.
    inexact = narrow or not options.exact
    winograd = partial(use_winograd, chooser=partial(_chooser, options))
    return (
        convert_formats,  # of networks that come with formats: before other passes ask what is next to what
        *_where(inexact, winograd),  # convolutions have their epilogues
        *_where(narrow, use_bfloat16),  # after it: transformed weights stay in float32
        choose_layouts,  # after all that changes ops: the passes above know nothing of memory
        partial(write_concat_in_place, copies=copies_for_memory),  # last: needs the layouts
    )


def _where(wanted: bool, run: Pass) -> Sequence[Pass]:
    return (run,) if wanted else ()


def _chooser(options: Lowering, graph: Graph) -> Chooser:
    return partial(
        choose_convolution,
        threads=options.threads,
        cpu=options.cpu,
        streamed=streams(graph),
        tuned=options.tune,
        narrow=options.precision == "bf16",
    )
