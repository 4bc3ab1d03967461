"""The .nopt file of a convolutional network: any byte changed, any claim about layouts, and programs from files."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import netopt
from netopt.errors import FileFormatError, NetoptError
from netopt.graph.check_layouts import check_layouts
from netopt.program.file import Network, write_network
from netopt.program.lower import prepare
from netopt.program.options import Lowering
from netopt.program.program import Program
from tests.program.test_file import PROPERTY, _file, _mutate, _parts, _read


class Images(nn.Module):
    """Halos of two kinds, a residual in place, a slice and a concatenation of channels, and a copy to row-major."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.depthwise = nn.Conv2d(3, 3, (3, 1), padding=(1, 0), groups=3)
        self.fc = nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.conv(x).relu()
        y = y + self.depthwise(y)
        y = torch.cat([y[:, 1:], y[:, :1]], 1)
        return self.fc(F.max_pool2d(y, 2).flatten(1)), y.softmax(3)


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return prepare(Images(), torch.zeros(1, 2, 4, 4), Lowering())


@pytest.fixture(scope="module")
def images(network: Network, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("format") / "images.nopt"
    write_network(path, network)
    return path.read_bytes()


@given(index=st.integers(0, 2**20), mask=st.integers(1, 255))
@settings(PROPERTY, max_examples=300)
def test_any_byte_changed(index: int, mask: int, tmp_path: Path, images: bytes) -> None:
    data = bytearray(images)
    data[index % len(data)] ^= mask
    with pytest.raises(FileFormatError, match=r"net\.nopt"):
        _read(tmp_path, bytes(data))


def _is_refused(network: Network) -> bool:
    """Whether the network is refused; what is not must run."""
    try:
        program = Program(network, Lowering())
    except NetoptError:
        return True
    inputs = [torch.randn(port.shape) for port in program.inputs]
    program(*network.signature.positional.unflatten(iter(inputs)))
    return False


@given(seed=st.integers(0, 2**32))
@settings(PROPERTY, max_examples=600)
def test_metadata_changed_at_random(seed: int, tmp_path: Path, images: bytes) -> None:
    """Behind right checksums: refused when read, refused as a program, or a program that runs."""
    choose = random.Random(seed)
    metadata, constants = _parts(images)
    for _ in range(choose.choice([1, 1, 1, 2, 3])):
        _mutate(metadata, choose)
    try:
        network = _read(tmp_path, _file(json.dumps(metadata).encode(), constants))
    except FileFormatError:
        return
    _is_refused(network)


def _layouts() -> Iterator[dict[str, Any]]:
    for halo in ((0, 0, 0, 0), (1, 1, 1, 1), (1, 1, 0, 0), (0, 1, 1, 1), (1, 1, 1, 0), (0, 0, 1, 1)):
        yield {"channels_last": True, "halo": list(halo), "pitch": 0}
    yield {"channels_last": False, "halo": [0, 0, 0, 0], "pitch": 0}


def test_layouts_that_are_claimed_are_refused_or_right(tmp_path: Path, images: bytes, network: Network) -> None:
    """A layout that a kernel does not know would be read as what it is not; a larger halo is fine."""
    x = torch.randn(1, 2, 4, 4)
    expected = Program(network, Lowering())(x)
    counts = {"file": 0, "program": 0, "right": 0}
    metadata, constants = _parts(images)
    for name, value in metadata["values"].items():
        for layout in _layouts() if len(value["shape"]) == 4 else ():
            changed = json.loads(json.dumps(metadata))
            changed["values"][name]["layout"] = layout
            try:
                read = _read(tmp_path, _file(json.dumps(changed).encode(), constants))
            except FileFormatError:
                counts["file"] += 1
                continue
            if _is_refused(read):
                counts["program"] += 1
                continue
            for result, value_ in zip(Program(read, Lowering())(x), expected, strict=True):
                assert torch.equal(result, value_)
            counts["right"] += 1
    assert min(counts.values()) >= 10, counts


@pytest.mark.parametrize(
    ("name", "layout", "message"),
    [
        ("x", (True, [0, 1, 1, 1]), r"halo of 'x': expected at least \(1, 1, 1, 1\), found \(0, 1, 1, 1\)"),
        ("x", (False, [0] * 4), r"layout of 'x', read by 'relu': expected .*channels_last=True"),
        (
            "cat_relayout",
            (True, [0] * 4),
            "layout of 'cat_relayout', read by 'softmax': expected .*=False",
        ),
        ("add", (False, [0] * 4), "layer 'depthwise': graph: layout of 'add'"),
    ],
)
def test_the_error_says_which_layout(
    name: str, layout: tuple[bool, list[int]], message: str, tmp_path: Path, images: bytes
) -> None:
    metadata, constants = _parts(images)
    metadata["values"][name]["layout"] = {"channels_last": layout[0], "halo": layout[1], "pitch": 0}
    network = _read(tmp_path, _file(json.dumps(metadata).encode(), constants))
    with pytest.raises(netopt.InvalidArgument, match=message):
        check_layouts(network.graph)
