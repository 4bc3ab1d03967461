"""How each ATen op that torch.export writes becomes ops of the graph: one row of `IMPORTERS` per ATen op.

An importer gets the context (builder, layer), and the ATen call's arguments by the names of its schema with defaults
filled in, tensors as names of graph values. It returns the name of the value that holds the result, or a tuple of
names where the ATen op has several results.
"""

from netopt.graph.aten import (
    conditions,
    elementwise,
    fourier,
    functions,
    identities,
    images,
    indexing,
    layers,
    moves,
    norms,
    pooling,
    products,
    recurrent,
    reductions,
    resampling,
    shapes,
    signs,
    sorting,
    volumes,
)
from netopt.graph.aten.context import Context, Imported, Importer

IMPORTERS: dict[str, Importer] = {
    **layers.IMPORTERS,
    **products.IMPORTERS,
    **pooling.IMPORTERS,
    **images.IMPORTERS,
    **reductions.IMPORTERS,
    **elementwise.IMPORTERS,
    **conditions.IMPORTERS,
    **fourier.IMPORTERS,
    **functions.IMPORTERS,
    **moves.IMPORTERS,
    **norms.IMPORTERS,
    **recurrent.IMPORTERS,
    **resampling.IMPORTERS,
    **sorting.IMPORTERS,
    **volumes.IMPORTERS,
    **indexing.IMPORTERS,
    **shapes.IMPORTERS,
    **identities.IMPORTERS,
    **signs.IMPORTERS,
}

# Of complex values, which are pairs: what is another function of them, and what moves each part.
OF_COMPLEX: dict[str, Importer] = {
    **{row: fourier.of_parts(IMPORTERS[row]) for row in fourier.MOVING},
    **fourier.OF_COMPLEX,
}

__all__ = ["IMPORTERS", "OF_COMPLEX", "Context", "Imported", "Importer"]
