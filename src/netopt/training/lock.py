"""One training at a time writes a checkpoint."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from netopt.errors import InvalidArgument

# Descriptors of the locks of this process.
_held: set[int] = set()
# A file's name and what is put around it must not be longer than file systems take, 255 bytes.
_LONGEST = 200


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, a hidden file beside it, which is removed at the end.

    It is the kernel's (`flock`): it ends with the process that holds it, however that ends. What a killed one leaves
    of the hidden file locks nothing. Without a folder that can be written to, there is nothing to lock.

    Raises:
        InvalidArgument: another training, of this process or another one, holds it.
    """
    path = path.resolve()
    if not os.access(path.parent, os.W_OK):
        yield
        return
    lock = path.with_name(f".{_short(path.name)}.lock")
    descriptor = _acquired(lock, path)
    _held.add(descriptor)
    _close_in_children()
    try:
        yield
    finally:
        # Removed while it is held: who opened it before that sees, once it has the lock, that the file is gone.
        lock.unlink(missing_ok=True)
        _held.discard(descriptor)
        os.close(descriptor)


def _acquired(lock: Path, path: Path) -> int:
    """A descriptor of the lock's file, locked, which is still the one of that name."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise InvalidArgument(
                f"checkpoint '{path}'",
                expected="one that no other training writes",
                found="one that a running training holds",
                fix="wait for it or end it, or give another checkpoint=...",
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                os.close(descriptor)
                raise
            warnings.warn(
                f"checkpoint '{path}': its file system has no locks ({error.strerror}), so that another training on it "
                "would not be noticed; see that there is none",
                stacklevel=2,
            )
            return descriptor
        if _is_at(descriptor, lock):
            return descriptor
        os.close(descriptor)


def _is_at(descriptor: int, lock: Path) -> bool:
    """Whether the open file is the one of that name, and was not removed in the meantime."""
    try:
        return os.path.samestat(os.fstat(descriptor), lock.stat())
    except FileNotFoundError:
        return False


def _short(name: str) -> str:
    return name if len(os.fsencode(name)) <= _LONGEST else hashlib.sha256(os.fsencode(name)).hexdigest()


@cache
def _close_in_children() -> None:
    """Have forked processes, such as the workers of a DataLoader, let go: they may outlive a killed training."""
    os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()
