"""How a program runs a part that is not lowered: in PyTorch, between its kernels, on views of the arena."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from netopt.ops import TorchRegion
from netopt.torch_state import plain_torch


def run_of_torch(op: TorchRegion, inputs: Sequence[torch.Tensor], output: torch.Tensor) -> Callable[[], None]:
    """A function that runs the region on `inputs` and copies the result into `output`, both in the arena.

    PyTorch allocates what it computes in between, and uses as many threads as torch.get_num_threads() says.
    """

    def run() -> None:
        with plain_torch(), torch.no_grad():
            output.copy_(op.reference(*inputs))

    return run
