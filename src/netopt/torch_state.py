"""PyTorch as it is when nobody has changed it: what its user has set has no influence on what netopt computes.

Autocast, the default device and the default type belong to the thread or the process, and change what the same code
gives; so does inference mode.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

# torch.export and its stand-ins for tensors keep state of the process: one thread traces at a time.
_tracing = threading.RLock()


def _unlock_in_child() -> None:
    """A forked process has no other threads, and so none that would end what it was in."""
    global _tracing  # noqa: PLW0603
    _tracing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)


@contextmanager
def plain_torch() -> Iterator[None]:
    """Within the block, or the function that it decorates: no autocast, tensors on the CPU, no inference mode."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.autocast("cpu", enabled=False))
        stack.enter_context(torch.device("cpu"))
        yield


@contextmanager
def tracing() -> Iterator[None]:
    """The same for a trace: one at a time in the process, with numbers in float32 by default."""
    with _tracing:
        dtype = torch.get_default_dtype()
        with plain_torch():
            if dtype != torch.float32:
                torch.set_default_dtype(torch.float32)
            try:
                yield
            finally:
                if dtype != torch.float32:
                    torch.set_default_dtype(dtype)
