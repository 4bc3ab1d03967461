"""A checksum over a zip archive, such as torch.save writes, kept in the comment at its end.

torch.load looks at no checksum, and zip archives have them for contents alone. Files without this one, of an older
netopt, are checked by those.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zipfile

# The record at the end of an archive, of 22 bytes, its last two the length of the comment that follows it.
_END, _END_BYTES = b"PK\x05\x06", 22
_COMMENT = re.compile(rb"netopt sha256 ([0-9a-f]{64})")
_COMMENT_BYTES = 78


class Damaged(Exception):
    """A file is not what was written."""


def with_checksum(archive: memoryview) -> tuple[memoryview, bytes]:
    """The two parts of the file: an archive without comment, but for its last two bytes, and what follows instead."""
    assert bytes(archive[-_END_BYTES:-18]) == _END
    assert bytes(archive[-2:]) == b"\0\0"
    comment = b"netopt sha256 " + hashlib.sha256(archive[:-2]).hexdigest().encode()
    assert len(comment) == _COMMENT_BYTES
    return archive[:-2], struct.pack("<H", len(comment)) + comment


def check(content: bytes) -> None:
    """Raise Damaged unless the content of a file is what was written, to the last bit."""
    body, comment = content[: -2 - _COMMENT_BYTES], _COMMENT.fullmatch(content[-_COMMENT_BYTES:])
    if comment is not None:
        length = struct.pack("<H", _COMMENT_BYTES)
        right = content[len(body) : len(body) + 2] == length
        if not right or hashlib.sha256(body).hexdigest().encode() != comment[1]:
            raise Damaged("its checksum is another one: the file is damaged")
        return
    if content[-_END_BYTES:-18] != _END or content[-2:] != b"\0\0":
        raise Damaged("neither a checksum nor the end of an archive: the file is damaged, or none of retrain")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        wrong = archive.testzip()
    if wrong is not None:
        raise Damaged(f"the checksum of its part {wrong} is another one: the file is damaged")
