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
    until it is whole; where the file system has no such files, or in the moment in which it has one before it is moved,
    the next writer in the folder removes it.

    What is there and no file, such as a device or a pipe, is not replaced, but written to.

    Raises:
        OSError: the file cannot be written.
    """
    if _is_written_to(path):
        with path.open("wb") as device:
            device.writelines(chunks)
        return
    path = Path(os.path.realpath(path))
    _remove_abandoned(path.parent)
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


def _is_written_to(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False  # it is not there; what else is wrong is told by who writes it
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _new_file(folder: Path) -> tuple[int, Path | None]:
    """A file to be written, and its name, if it has one."""
    descriptor = _nameless(folder)
    if descriptor is not None:
        _is_locked(descriptor)
        return descriptor, None
    while True:
        path = _free_name(folder)
        # Not tempfile: its files are private, and a saved network should have the mode that open() gives.
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        # Between the two calls another writer may have taken it for an abandoned one.
        if not _is_locked(descriptor) or os.fstat(descriptor).st_nlink:
            return descriptor, path
        os.close(descriptor)


def _nameless(folder: Path) -> int | None:
    """A file without a name, of which nothing is left when its writer ends; None where there are no such files."""
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not Path("/proc/self/fd").is_dir():
        return None
    try:
        return os.open(folder, flag | os.O_WRONLY, 0o666)
    except OSError:
        return None  # if it is not for the file system, opening one with a name says why


def _free_name(folder: Path) -> Path:
    return folder / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"


def _is_locked(descriptor: int) -> bool:
    """Lock a file that is written, so that other writers leave it alone; False where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False  # then none can be had by those either who would remove it
    return True


def _named(descriptor: int, folder: Path) -> Path:
    """Give a file without a name one: no call replaces another file by it."""
    path = _free_name(folder)
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
            # No link, and no waiting for the other end of a pipe that somebody has called so.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:
            continue  # it is gone, or somebody else's
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                path.unlink(missing_ok=True)
        except OSError:
            continue  # being written, or in a folder without locks
        finally:
            os.close(descriptor)
