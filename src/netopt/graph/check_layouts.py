"""Whether every op finds its inputs in layouts that it reads, as `choose_layouts` arranges it and a file claims it."""

from __future__ import annotations

from netopt.errors import InvalidArgument
from netopt.graph.graph import Graph, Node
from netopt.graph.passes.choose_layouts import ANY_LAYOUT, IMAGE_OPS, halo_read, wanted_layout
from netopt.numerics import SIGNS
from netopt.ops import ROW_MAJOR, Relayout, Sign, TensorType


def check_layouts(graph: Graph) -> None:
    """Check the layouts of a graph that is to be run.

    Raises:
        InvalidArgument: an op would read or write a layout that it does not know, or an op zeros around an
            image that are not there.
    """
    for node in graph.nodes:
        for name in node.inputs:
            type_, wanted = graph.types[name], wanted_layout(name, node, graph.types)
            fits = type_.layout == ROW_MAJOR if name in graph.constants else wanted in (None, type_.layout)
            if not fits:
                raise InvalidArgument(
                    f"graph: layout of '{name}', read by '{node.output}'",
                    expected=str(wanted or ROW_MAJOR),
                    found=type_.layout,
                    layer=node.layer,
                )
        _check_halo(node, graph)
        _check_output(node, graph.types[node.output])


def _check_halo(node: Node, graph: Graph) -> None:
    reads = halo_read(node, graph.types)
    if not any(reads):
        return
    halo = graph.types[node.inputs[0]].layout.halo
    if any(has < read for has, read in zip(halo, reads, strict=True)):
        raise InvalidArgument(
            f"graph: halo of '{node.inputs[0]}'", expected=f"at least {reads}", found=halo, layer=node.layer
        )


def _check_output(node: Node, type_: TensorType) -> None:
    if type_.format == SIGNS and (type_.layout.pitch or type_.layout.channels_last != (len(type_.shape) == 4)):
        raise InvalidArgument(f"graph: layout of the signs '{node.output}'", found=type_.layout, layer=node.layer)
    is_pixel = len(type_.shape) == 4 and type_.shape[2:] == (1, 1)
    is_image = type_.layout.channels_last or is_pixel
    if isinstance(node.op, Sign) and node.op.has_threshold and not is_image and len(type_.shape) > 2:
        found = f"{len(type_.shape)} axes, {type_.layout}"
        raise InvalidArgument(
            f"graph: '{node.output}'", expected="thresholds of rows or of images", found=found, layer=node.layer
        )
    if isinstance(node.op, (*ANY_LAYOUT, Relayout)):
        return
    fits = is_image if isinstance(node.op, IMAGE_OPS) else type_.layout == ROW_MAJOR
    if not fits:
        raise InvalidArgument(f"graph: layout of '{node.output}'", found=type_.layout, layer=node.layer)
