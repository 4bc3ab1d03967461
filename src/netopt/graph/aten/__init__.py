"""How each ATen op that torch.export writes becomes ops of the graph: one row of `IMPORTERS` per ATen op.

An importer gets the context (builder, layer), and the ATen call's arguments by the names of its schema with defaults
filled in, tensors as names of graph values. It returns the name of the value that holds the result, or a tuple of
names where the ATen op has several results.
"""

from netopt.graph.aten import (
    conditions,
    elementwise,
    identities,
    images,
    indexing,
    layers,
    pooling,
    products,
    reductions,
    shapes,
    signs,
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
    **indexing.IMPORTERS,
    **shapes.IMPORTERS,
    **identities.IMPORTERS,
    **signs.IMPORTERS,
}

__all__ = ["IMPORTERS", "Context", "Imported", "Importer"]
