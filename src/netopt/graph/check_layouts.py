"""Whether every op finds its inputs in layouts that it reads, as `choose_layouts` arranges it and a file claims it."""

from __future__ import annotations

from netopt.errors import InvalidArgument
from netopt.graph.graph import Graph, Node
from netopt.ops import ROW_MAJOR, Layouts, TensorType


def check_layouts(graph: Graph) -> None:
    """Check the layouts of a graph that is to be run.

    Raises:
        InvalidArgument: an op would read or write a layout that it does not know, or an op zeros around an
            image that are not there.
    """
    for node in graph.nodes:
        types, output = graph.node_types(node), graph.types[node.output]
        for name in node.inputs:
            type_, wanted = graph.types[name], node.op.wanted_layout(node.inputs.index(name), types, output)
            fits = type_.layout == ROW_MAJOR if name in graph.constants else wanted in (None, type_.layout)
            if not fits:
                raise InvalidArgument(
                    f"graph: layout of '{name}', read by '{node.output}'",
                    expected=str(wanted or ROW_MAJOR),
                    found=type_.layout,
                    layer=node.layer,
                )
        _check_halo(node, graph)
        _check_output(node, output)


def _check_halo(node: Node, graph: Graph) -> None:
    reads = node.op.halo_read(graph.node_types(node))
    if not any(reads):
        return
    halo = graph.types[node.inputs[0]].layout.halo
    if any(has < read for has, read in zip(halo, reads, strict=True)):
        raise InvalidArgument(
            f"graph: halo of '{node.inputs[0]}'", expected=f"at least {reads}", found=halo, layer=node.layer
        )


def _check_output(node: Node, type_: TensorType) -> None:
    if type_.format.packs_channels and (type_.layout.pitch or type_.layout.channels_last != (len(type_.shape) == 4)):
        raise InvalidArgument(f"graph: layout of the packed '{node.output}'", found=type_.layout, layer=node.layer)
    missed = node.op.layout_missed(type_)
    if missed is not None:
        found = f"{len(type_.shape)} axes, {type_.layout}"
        raise InvalidArgument(f"graph: '{node.output}'", expected=missed, found=found, layer=node.layer)
    fits = {
        Layouts.ANY: True,
        Layouts.IMAGES: type_.lies_as_image,
        Layouts.ROW_MAJOR: type_.layout == ROW_MAJOR,
    }
    if not fits[node.op.layouts]:
        raise InvalidArgument(f"graph: layout of '{node.output}'", found=type_.layout, layer=node.layer)
