"""The passes that give a network its structure: which ops, with which weights and epilogues, compute it.

What comes after them decides in which formats and layouts values are stored.
"""

from __future__ import annotations

from netopt.graph.passes import Pass
from netopt.graph.passes.binarize_layers import binarize_layers
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

STRUCTURE: tuple[Pass, ...] = (
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
)
