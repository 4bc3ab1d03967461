"""The file that a training goes on from after an interruption."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from netopt.errors import InvalidArgument
from netopt.files import write_atomically
from netopt.training.checksum import check, with_checksum
from netopt.training.feed import Record
from netopt.training.lock import locked

_REMEDY = "each training needs a file of its own: give another checkpoint=..., or remove the file to train anew"


@dataclass(frozen=True)
class Checkpoint:
    """A training's file: tensors, numbers and text, no code.

    Attributes:
        path: of the file.
        training: says what is trained how; a file of another training is refused.
        model: whose state is saved and restored.
        optimizer: the same.
    """

    path: Path
    training: str
    model: nn.Module
    optimizer: torch.optim.Optimizer

    @contextmanager
    def held(self) -> Iterator[None]:
        """The file is this training's alone; its folder is made.

        Raises:
            InvalidArgument: another training has it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path):
            yield

    def save(self, epochs: int, record: Record) -> None:
        """Replace the file by one with `epochs` behind it, of which the last was fed with what `record` tells."""
        state = {
            "training": self.training,
            "epochs": epochs,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "data": record.as_state(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.path, with_checksum(buffer.getbuffer()))

    def load(self) -> tuple[int, Record | None]:
        """Restore model and optimizer.

        Returns:
            The number of epochs behind them, 0 where there is no file, and what was fed in the last one; None without
            an epoch, and where an older netopt wrote the file.

        Raises:
            InvalidArgument: the file is damaged, or of another training, optimizer or model. It stays as it is.
        """
        if not self.path.exists():
            return 0, None
        try:
            content = self.path.read_bytes()
            check(content)
            # On the CPU, where optimizers keep their counts of steps; loading moves the rest to the model's device.
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            training, epochs = state["training"], int(state["epochs"])
            model, optimizer = state["model"], state["optimizer"]
            record = Record(**state["data"]) if "data" in state else None
            settings = _settings(optimizer)
        except Exception as error:  # whatever a damaged file makes torch raise
            raise self.refused("one written by retrain", _reason(error)) from error
        if training != self.training:
            raise self.refused(f"one of {self.training}", training)
        if settings != _settings(self.optimizer.state_dict()):
            raise self.refused(f"one of this {type(self.optimizer).__name__}", "another optimizer, or other options")
        try:
            self.model.load_state_dict(model)
            self.optimizer.load_state_dict(optimizer)
        except (RuntimeError, ValueError, KeyError) as error:
            raise self.refused("one of this model", _reason(error)) from error
        return epochs, record

    def refused(self, expected: str, found: str, fix: str = _REMEDY) -> InvalidArgument:
        """The error for a file that this training cannot go on from."""
        return InvalidArgument(f"checkpoint '{self.path}'", expected=expected, found=found, fix=fix)


def _settings(state: dict[str, Any]) -> list[dict[str, Any]]:
    """The optimizer's options for each group of parameters, without what changes from step to step."""
    return [
        {key: value for key, value in group.items() if key not in ("lr", "params")} for group in state["param_groups"]
    ]


def _reason(error: Exception) -> str:
    """The first two lines of a message: the first of load_state_dict's only says that there are errors."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}"
