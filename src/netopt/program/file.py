"""The .nopt file: one network, whole and checked. docs/format.md is its specification.

    header (64 bytes) | metadata (JSON, compressed, padded to 64 bytes) | constants, each at a multiple of 64 bytes

Nothing in the file is code, and reading it runs none.
"""

from __future__ import annotations

import dataclasses
import json
import os
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from netopt.errors import FileFormatError, InvalidArgument, UnsupportedModel
from netopt.files import write_atomically
from netopt.graph import Graph, Nesting, Node, Signature, verify
from netopt.graph.verify import MOST_AXES, check_shape
from netopt.kernels.machine.buffers import aligned_bytes
from netopt.memory import MemoryPlan, check_plan
from netopt.memory.chart import timeline_of
from netopt.numerics import Shape, align_up, number_format_from_json
from netopt.ops import OPS, Layout, TensorType, TorchRegion
from netopt.ops.serialize import op_from_json, op_to_json

MAGIC = b"\x89NOPT\r\n\x1a"
VERSION = 2
# magic, version, size of the header, size of the file, size of the metadata, checksum of all after the header; zeros;
# then the checksum of the header up to there.
_HEADER = struct.Struct("<8sIIQQI24s")
_CHECKSUM = struct.Struct("<I")
# Bytes of metadata, and values, lists and objects in them. A node and its value have about 650 bytes and 65 parts:
# these are some thirty thousand nodes.
_MOST_METADATA = 2**25
_MOST_PARTS = 2**21
# Entries of a list among an op's attributes.
_LONGEST_ATTRIBUTE = 64
# Characters of a message about what a file holds, which may be as long as the file.
_LONGEST_REASON = 400
HEADER_BYTES = _HEADER.size + _CHECKSUM.size


@dataclass(frozen=True)
class Network:
    """What a file holds."""

    graph: Graph
    plan: MemoryPlan
    signature: Signature


def write_network(path: str | Path, network: Network) -> None:
    """Write a .nopt file, atomically.

    Raises:
        UnsupportedModel: a part of the network runs in PyTorch, whose layers are named; or it has more nodes than a
            file may have.
        OSError: the file cannot be written; what was there before is intact.
    """
    write_atomically(Path(path), network_chunks(network))


def network_chunks(network: Network) -> list[bytes | memoryview]:
    """The bytes of a .nopt file, in pieces; raises as `write_network`."""
    for node in network.graph.nodes:
        if isinstance(node.op, TorchRegion):
            raise UnsupportedModel(
                f"{', '.join(node.op.aten)} runs in PyTorch, and a .nopt file holds no code",
                layer=node.layer,
                fix="write the layer with the ops that docs/ops.md lists, or lower the model where it is to run",
            )
    metadata = _metadata(network)
    types = network.graph.types
    constants = (types[name].format.to_bytes(value).data for name, value in network.graph.constants.items())
    sections: list[bytes | memoryview] = [metadata, *constants]
    checksum = 0
    for section in sections:
        for chunk in _padded(section):
            checksum = zlib.crc32(chunk, checksum)
    size = HEADER_BYTES + sum(align_up(len(section)) for section in sections)
    header = _HEADER.pack(MAGIC, VERSION, HEADER_BYTES, size, len(metadata), checksum, bytes(24))
    header += _CHECKSUM.pack(zlib.crc32(header))
    return [header, *(chunk for section in sections for chunk in _padded(section))]


def read_network(path: str | Path) -> Network:
    """Read a .nopt file. It is read as a whole: a file that is cut while it is mapped ends the process.

    Raises:
        FileFormatError: it is not a .nopt file, is of another version, truncated, damaged or inconsistent.
        OSError: the file cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        # Before memory is taken for the rest, which may be said to be anything.
        _check_header(str(path), file.read(HEADER_BYTES), size)
        file.seek(0)
        try:
            data = aligned_bytes(size).data
        except MemoryError:
            raise FileFormatError(str(path), expected="a file that fits the memory", found=f"{size} bytes") from None
        # It may be cut in this moment: what is missing is found by the checks.
        return network_of(data[: file.readinto(data)], str(path))


def network_of(data: memoryview, path: str) -> Network:
    """The network of a .nopt file's bytes, on whose memory its constants are; raises FileFormatError.

    Args:
        data: all bytes, which may be written to.
        path: what the file is called in messages.
    """
    metadata = _check_container(path, data)
    try:
        return _decode(json.loads(_inflated(metadata)), data, HEADER_BYTES + align_up(len(metadata)))
    except Exception as error:  # of any type: the checksum is right, so a faulty or a malicious program wrote it so
        reason = f"{type(error).__name__}: {error}"
        if len(reason) > _LONGEST_REASON:
            reason = f"{reason[:_LONGEST_REASON]}..."
        raise FileFormatError(path, expected="consistent metadata", found=reason) from error


def _check_header(path: str, data: bytes, actual: int) -> tuple[int, int]:
    """Bytes of the metadata, and the checksum of all after the header, which `data` begins with.

    Args:
        path: what the file is called in messages.
        data: its first bytes, or all.
        actual: the bytes that it has.
    """
    if not actual:
        raise FileFormatError(path, expected="a .nopt file", found="an empty file")
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise FileFormatError(path, expected="a .nopt file", found=f"one that begins with {data[:8]!r}")
    if len(data) < HEADER_BYTES:
        raise FileFormatError(f"{path} is truncated", expected=f"at least {HEADER_BYTES} bytes", found=len(data))
    header = data[: _HEADER.size]
    if _CHECKSUM.unpack(data[_HEADER.size : HEADER_BYTES])[0] != zlib.crc32(header):
        raise FileFormatError(f"{path} is damaged", expected="the header's checksum", found="another")
    _, version, header_bytes, size, metadata_bytes, checksum, reserved = _HEADER.unpack(header)
    if version != VERSION:
        raise FileFormatError(
            path, expected=f"format version {VERSION}", found=version, fix="read it with the netopt that wrote it"
        )
    if actual != size:
        state = "truncated" if actual < size else "damaged"
        raise FileFormatError(f"{path} is {state}", expected=f"{size} bytes", found=actual)
    if header_bytes != HEADER_BYTES or any(reserved) or HEADER_BYTES + align_up(metadata_bytes) > size:
        raise FileFormatError(f"{path} is damaged", expected="a consistent header", found=header)
    return metadata_bytes, checksum


def _check_container(path: str, data: memoryview) -> bytes:
    """The metadata of a file whose header and checksums are right."""
    metadata_bytes, checksum = _check_header(path, bytes(data[:HEADER_BYTES]), len(data))
    if zlib.crc32(data[HEADER_BYTES:]) != checksum:
        raise FileFormatError(f"{path} is damaged", expected="the content's checksum", found="another")
    return bytes(data[HEADER_BYTES : HEADER_BYTES + metadata_bytes])


def _metadata(network: Network) -> bytes:
    graph, plan, signature = network.graph, network.plan, network.signature
    data = {
        "signature": {
            "positional": signature.positional.to_json(),
            "keyword": signature.keyword.to_json(),
            "output": signature.output.to_json(),
        },
        "inputs": list(graph.inputs),
        "outputs": list(graph.outputs),
        "values": {
            name: {
                "shape": list(type_.shape),
                "format": type_.format.to_json(),
                "layout": {
                    "channels_last": type_.layout.channels_last,
                    "halo": list(type_.layout.halo),
                    "pitch": type_.layout.pitch,
                },
            }
            for name, type_ in graph.types.items()
        },
        "constants": list(graph.constants),
        "nodes": [
            {"op": op_to_json(node.op), "inputs": list(node.inputs), "output": node.output, "layer": node.layer}
            for node in graph.nodes
        ],
        "plan": {"offsets": dict(plan.offsets), "arena_bytes": plan.arena_bytes, "lower_bound": plan.lower_bound},
    }
    text = json.dumps(data, separators=(",", ":")).encode()
    if len(text) > _MOST_METADATA or _parts(text) > _MOST_PARTS:
        raise UnsupportedModel(
            f"a network of {len(graph.nodes):,} nodes is too large for a .nopt file, whose text may have "
            f"{_MOST_METADATA:,} bytes and {_MOST_PARTS:,} values",
            fix="save it in parts, each lowered alone",
        )
    return zlib.compress(text, 9)


def _inflated(metadata: bytes) -> bytes:
    """The JSON text, if it is no larger than any network's."""
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(metadata, _MOST_METADATA)
    except zlib.error as error:
        raise InvalidArgument("metadata", expected="compressed JSON", found=str(error)) from error
    if not inflater.eof or inflater.unused_data:
        raise InvalidArgument("metadata", expected=f"one compressed text of at most {_MOST_METADATA:,} bytes")
    # Before they are built: each takes some fifty times the memory of its two characters.
    parts = _parts(text)
    if parts > _MOST_PARTS:
        raise InvalidArgument("metadata", expected=f"at most {_MOST_PARTS:,} values", found=f"{parts:,}")
    return text


def _parts(text: bytes) -> int:
    """No fewer values, lists and objects are in a JSON text."""
    return sum(text.count(mark) for mark in (b",", b"[", b"{"))


def _decode(data: Any, file: memoryview, start: int) -> Network:
    _check_keys(data)
    _check_names(data)
    for node in data["nodes"]:
        _check_attributes(node["op"])
    types = {name: _type(name, value) for name, value in data["values"].items()}
    constants = {}
    for name in data["constants"]:
        constants[name] = _constant(file, start, types[name])
        start += align_up(types[name].bytes)
    if start != len(file):
        raise InvalidArgument("constants", expected=f"to end with the file, at {len(file)}", found=start)
    nodes = tuple(
        Node(
            op_from_json(node["op"], OPS),
            tuple(map(_text, node["inputs"])),
            _text(node["output"]),
            _text(node["layer"]),
        )
        for node in data["nodes"]
    )
    graph = Graph(tuple(map(_text, data["inputs"])), tuple(map(_text, data["outputs"])), nodes, types, constants)
    offsets = {name: _natural(offset) for name, offset in data["plan"]["offsets"].items()}
    plan = MemoryPlan(offsets, _natural(data["plan"]["arena_bytes"]), _natural(data["plan"]["lower_bound"]))
    signature = Signature(**{key: Nesting.from_json(value) for key, value in data["signature"].items()})
    verify(graph)
    check_plan(graph, plan)
    _check_signature(graph, signature)
    return Network(graph, dataclasses.replace(plan, timeline=timeline_of(graph, offsets)), signature)


def _constant(file: memoryview, start: int, type_: TensorType) -> torch.Tensor:
    if not type_.format.is_of_constants:
        raise InvalidArgument("format of a constant", expected="one of constants", found=type_.format)
    if start + type_.bytes > len(file):
        raise InvalidArgument("constants", expected="within the file", found=f"one that ends at {start + type_.bytes}")
    # Where a layout is claimed of a constant, which is refused later, there are more bytes than the elements take.
    data = np.frombuffer(file, np.uint8, type_.format.storage_bytes(type_.shape), start)
    return type_.format.from_bytes(data, type_.shape)


def _check_signature(graph: Graph, signature: Signature) -> None:
    if (signature.positional.kind, signature.keyword.kind) != ("tuple", "dict"):
        raise InvalidArgument(
            "signature", expected="a tuple of positional and a dict of keyword arguments", found=signature
        )
    counts = (signature.positional.count() + signature.keyword.count(), signature.output.count())
    if counts != (len(graph.inputs), len(graph.outputs)):
        raise InvalidArgument(
            "signature", expected=f"{len(graph.inputs)} inputs, {len(graph.outputs)} outputs", found=counts
        )


_KEYS: dict[str, type] = {
    "signature": dict,
    "inputs": list,
    "outputs": list,
    "values": dict,
    "constants": list,
    "nodes": list,
    "plan": dict,
}
_PARTS = {
    "values": {"shape", "format", "layout"},
    "nodes": {"op", "inputs", "output", "layer"},
}


def _check_keys(data: Any) -> None:
    """Refuse missing and foreign keys, and texts where there should be lists of texts."""
    if not isinstance(data, dict) or {key: type(value) for key, value in data.items()} != _KEYS:
        raise InvalidArgument("metadata", expected=f"an object with {', '.join(_KEYS)}", found=type(data).__name__)
    parts = [(part, _PARTS["values"]) for part in data["values"].values()]
    parts += [(part, _PARTS["nodes"]) for part in data["nodes"]]
    parts += [(data["plan"], {"offsets", "arena_bytes", "lower_bound"})]
    parts += [(data["signature"], {"positional", "keyword", "output"})]
    for part, keys in parts:
        if not isinstance(part, dict) or set(part) != keys:
            raise InvalidArgument("metadata", expected=f"an object with {sorted(keys)}", found=part)
    lists = [part["inputs"] for part in data["nodes"]] + [part["shape"] for part in data["values"].values()]
    objects = [part["format"] for part in data["values"].values()] + [data["plan"]["offsets"]]
    for part, kind in [*((p, list) for p in lists), *((p, dict) for p in objects)]:
        if type(part) is not kind:
            raise InvalidArgument("metadata", expected=f"a {kind.__name__}", found=part)


def _check_names(data: Any) -> None:
    """Each value is defined once and has one type, which is known before anything is made of nodes and types."""
    names = [*map(_text, data["inputs"]), *map(_text, data["constants"])]
    names += [_text(node["output"]) for node in data["nodes"]]
    if len(set(names)) != len(names):
        twice = next(name for name, number in Counter(names).items() if number > 1)
        raise InvalidArgument(f"graph: value '{twice}'", expected="one definition", found="more")
    if set(names) != set(data["values"]):
        name = next(iter(set(names) ^ set(data["values"])))
        raise InvalidArgument(f"graph: value '{name}'", expected="a definition, and a type in 'values'", found="one")


def _type(name: str, data: Any) -> TensorType:
    shape, layout = _shape(name, data["shape"]), _layout(data["layout"])
    return TensorType(shape, number_format_from_json(data["format"]), layout)


def _shape(name: str, data: Any) -> Shape:
    if len(data) > MOST_AXES:
        raise InvalidArgument(f"axes of '{name}'", expected=f"at most {MOST_AXES}", found=len(data))
    shape = tuple(map(_natural, data))
    check_shape(name, shape)
    return shape


def _check_attributes(data: Any) -> None:
    """Refuse lists longer than any op has, and numbers that no kernel computes with."""
    if isinstance(data, dict | list):
        if len(data) > _LONGEST_ATTRIBUTE:
            raise InvalidArgument("attributes of an op", expected=f"at most {_LONGEST_ATTRIBUTE}", found=len(data))
        for item in data.values() if isinstance(data, dict) else data:
            _check_attributes(item)
    elif type(data) is int and not -(2**31) <= data < 2**31:
        raise InvalidArgument("attribute of an op", expected="a number of 32 bits", found=data)


def _layout(data: Any) -> Layout:
    if set(data) != {"channels_last", "halo", "pitch"} or type(data["channels_last"]) is not bool:
        raise InvalidArgument("layout", expected="channels_last, halo and pitch", found=data)
    halo = tuple(map(_natural, data["halo"]))
    return Layout(data["channels_last"], halo, _natural(data["pitch"]))  # type: ignore[arg-type]


def _natural(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**48:
        raise InvalidArgument("size or offset", expected="an integer from 0 to 2^48", found=value)
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidArgument("name", expected="a string", found=value)
    return value


def _padded(section: bytes | memoryview) -> Iterator[bytes | memoryview]:
    yield section
    yield bytes(align_up(len(section)) - len(section))
