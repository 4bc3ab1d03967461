"""The passes: each a plain function from graph to graph, run once, in the order of `PASSES`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from netopt.graph.graph import Graph
from netopt.graph.passes.binarize_layers import binarize_layers
from netopt.graph.passes.choose_layouts import choose_layouts
from netopt.graph.passes.drop_dead_code import drop_dead_code
from netopt.graph.passes.drop_identities import drop_identities
from netopt.graph.passes.find_float_thresholds import find_float_thresholds
from netopt.graph.passes.find_integer_thresholds import find_integer_thresholds
from netopt.graph.passes.fold_batch_norm import fold_batch_norm
from netopt.graph.passes.fold_binary_scales import fold_binary_scales
from netopt.graph.passes.fold_constants import fold_constants
from netopt.graph.passes.fold_pad import fold_pad
from netopt.graph.passes.fuse_activation import fuse_activation
from netopt.graph.passes.fuse_residual import fuse_residual
from netopt.graph.passes.fuse_scale import fuse_scale
from netopt.graph.passes.lower_matmul import lower_matmul
from netopt.graph.passes.merge_channel_shuffle import merge_channel_shuffle
from netopt.graph.passes.permute_flattened_weights import permute_flattened_weights
from netopt.graph.passes.read_in_place import read_in_place
from netopt.graph.passes.reshape_before_sign import reshape_before_sign
from netopt.graph.passes.simplify_views import simplify_views
from netopt.graph.passes.slice_early import slice_early
from netopt.graph.passes.write_concat_in_place import write_concat_in_place
from netopt.graph.verify import verify

Pass = Callable[[Graph], Graph]

PASSES: tuple[Pass, ...] = (
    fold_constants,  # weights that are computed from weights become weights
    drop_identities,  # so that the passes below see neighbours as neighbours
    merge_channel_shuffle,  # one op that reads images as they lie, where simplify_views would leave copies
    simplify_views,  # neighbours of neighbours, too, and fewer copies
    drop_dead_code,  # ... and do not count readers that nobody reads
    lower_matmul,  # products with weights are dense layers for the passes below
    fold_pad,  # a convolution's own padding costs nothing
    reshape_before_sign,  # so that a layer reads a sign, not the reshape of one
    binarize_layers,  # before batch norm changes weights: they are still +1 and -1
    find_integer_thresholds,  # what stands between sums and signs is still there, batch norm too
    fold_binary_scales,  # of the layers that have no threshold
    find_float_thresholds,  # last of the binary ones: what is left between numbers and packed signs
    fold_batch_norm,  # leaves none: into a layer beside it, or a convolution of its own, or mul and add
    fold_constants,  # what the folding computed
    fuse_residual,  # before the activation, which comes after the sum in the fused op
    fuse_activation,  # what is between a layer and its activation is never written to memory
    fuse_scale,  # no pass over the scores of an attention for a number that the product can multiply by
    read_in_place,  # after the scale, which may stand between a product and a permutation
    slice_early,  # past all that was fused
    permute_flattened_weights,  # before layouts: leaves a view where there would be a copy
    drop_dead_code,  # collects what the others left behind
    choose_layouts,  # after all that changes ops: the passes above know nothing of memory
    write_concat_in_place,  # last: needs the layouts
)


def run_passes(graph: Graph, wanted: Mapping[str, Pass] | None = None) -> Graph:
    """Run all passes and verify the graph after each.

    With the environment variable NETOPT_DUMP set to a folder, the graph is written there as text after each pass.

    Args:
        graph: what was captured.
        wanted: further passes by name, which the caller wants. One with the name of a pass of `PASSES` takes its place;
            the others run in their order just before `choose_layouts`, when convolutions have their ends, and no value
            has a layout yet.
    """
    folder = os.environ.get("NETOPT_DUMP")
    _dump(graph, folder, "00_captured")
    wanted = wanted or {}
    named = [(run.__name__, wanted.get(run.__name__, run)) for run in PASSES]
    further = [(name, run) for name, run in wanted.items() if name not in dict(named)]
    if further:
        before_layouts = PASSES.index(choose_layouts)
        named[before_layouts:before_layouts] = further
    for number, (name, run) in enumerate(named, 1):
        graph = run(graph)
        verify(graph)
        _dump(graph, folder, f"{number:02d}_{name}")
    return graph


def _dump(graph: Graph, folder: str | None, name: str) -> None:
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.txt").write_text(f"{graph}\n")
