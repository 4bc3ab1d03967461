"""The checksum at the end of an archive."""

from __future__ import annotations

import io
import zipfile

import pytest
import torch

from netopt.training.checksum import Damaged, check, with_checksum


def written() -> bytes:
    buffer = io.BytesIO()
    torch.save({"weights": torch.arange(9.0), "epochs": 3}, buffer)
    return b"".join(with_checksum(buffer.getbuffer()))


def test_it_is_read_as_before() -> None:
    content = written()
    check(content)
    assert torch.load(io.BytesIO(content), weights_only=True)["epochs"] == 3
    assert zipfile.ZipFile(io.BytesIO(content)).comment.startswith(b"netopt sha256 ")


def test_every_bit_counts() -> None:
    content = written()
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damaged):
            check(bytes(damaged))


def test_every_byte_counts() -> None:
    content = written()
    for size in range(len(content)):
        with pytest.raises(Damaged):
            check(content[:size])
    for more in (b"\0", b"netopt"):
        with pytest.raises(Damaged):
            check(content + more)
    with pytest.raises(Damaged):
        check(content[:100] + content[101:])


def test_archives_without_it_are_checked_by_their_own() -> None:
    buffer = io.BytesIO()
    torch.save(torch.arange(9.0), buffer)
    content = buffer.getvalue()
    check(content)
    place = content.index(torch.arange(9.0).numpy().tobytes())
    damaged = bytearray(content)
    damaged[place + 6] ^= 1
    with pytest.raises(Damaged, match="the checksum of its part archive/data/0 is another one"):
        check(bytes(damaged))
