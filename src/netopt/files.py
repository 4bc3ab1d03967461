"""Files that are either whole or not there."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

# Names of files that are being written, of a fixed length, whatever the name of the file is.
_PREFIX, _SUFFIX = ".netopt-", ".tmp"


def write_atomically(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write the chunks to a new file, then move it to `path`.

    An interruption or a full disk leaves what was at `path` before. A file that was there keeps its mode; a link is
    followed, so that what it points to is replaced. A writer that is killed leaves nothing: the new file has no name
    until it is whole, or where the file system has no such files, the next writer in the folder removes it.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(os.path.realpath(path))
    descriptor, temporary = _new_file(path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            _keep_mode(descriptor, path)
            os.fsync(descriptor)
            if temporary is None:
                temporary = _named(descriptor, path.parent)
            temporary.replace(path)
    except BaseException:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise


def _new_file(folder: Path) -> tuple[int, Path | None]:
    """A file to be written, and its name, if it has one."""
    descriptor = _nameless(folder)
    if descriptor is not None:
        return descriptor, None
    _remove_abandoned(folder)
    # Not tempfile: its files are private, and a saved network should have the mode that open() gives.
    path = folder / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor, path


def _nameless(folder: Path) -> int | None:
    """A file without a name, of which nothing is left when its writer ends; None where there are no such files."""
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not Path("/proc/self/fd").is_dir():
        return None
    try:
        return os.open(folder, flag | os.O_WRONLY, 0o666)
    except OSError:
        return None  # if it is not for the file system, opening one with a name says why


def _named(descriptor: int, folder: Path) -> Path:
    """Give a file without a name one: no call replaces another file by it."""
    path = folder / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
    # With a descriptor of a folder, which an absolute path ignores, Python calls linkat, which follows the link.
    os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)
    return path


def _keep_mode(descriptor: int, path: Path) -> None:
    try:
        os.fchmod(descriptor, stat.S_IMODE(path.stat().st_mode))
    except FileNotFoundError:
        return  # a new file has the mode that open() gives


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed writers have left: a writer that lives holds the lock of its file."""
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            continue  # it is gone, or somebody else's
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except OSError:
            continue  # being written
        finally:
            os.close(descriptor)
