"""The passes of lowering: all of them, in their order, as the options want them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from netopt.graph import Graph
from netopt.graph.passes import Pass
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
from netopt.graph.passes.read_sequences_as_images import read_sequences_as_images
from netopt.graph.passes.reshape_before_sign import reshape_before_sign
from netopt.graph.passes.simplify_views import simplify_views
from netopt.graph.passes.slice_early import slice_early
from netopt.graph.passes.use_bfloat16 import use_bfloat16
from netopt.graph.passes.use_winograd import Chooser, use_winograd
from netopt.graph.passes.write_concat_in_place import write_concat_in_place
from netopt.kernels.choose_convolution import choose_convolution
from netopt.kernels.machine.tune import streams
from netopt.memory import copies_for_memory
from netopt.program.options import Lowering


def pipeline(options: Lowering) -> tuple[Pass, ...]:
    """The passes that lowering with these options runs, in their order."""
    narrow = options.precision == "bf16"
    # Winograd's errors are far below those of rounding to bfloat16.
    inexact = narrow or not options.exact
    winograd = partial(use_winograd, chooser=partial(_chooser, options))
    return (
        fold_constants,  # weights that are computed from weights become weights
        drop_identities,  # so that the passes below see neighbours as neighbours
        read_sequences_as_images,  # so that 1-D convolutions, too, find their neighbours
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
