"""How a network is trained: one object, checked when it is built, and what makes a training of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TypeGuard

import torch
from torch import nn

from netopt.errors import InvalidArgument, InvalidType
from netopt.training.batches import Data, check_data
from netopt.training.checkpoint import Checkpoint
from netopt.training.distillation import Distillation
from netopt.training.optimizer import make_optimizer
from netopt.training.schedule import LearningRate
from netopt.training.trainer import Epoch, Trainer, train

# What the text of a checkpoint names where it is not the default.
_TOLD = ("warmup", "label_smoothing", "clip_norm", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Training:
    """The options of `netopt.retrain`, which says more of them.

    Attributes:
        epochs: how often to go through the data.
        lr: the largest learning rate.
        distillation: how a teacher is used; `Distillation()` if None.
        optimizer: `(parameter groups, lr=...)` to an optimizer.
        warmup: share of all steps in which the learning rate rises.
        label_smoothing: as of `F.cross_entropy`.
        clip_norm: bound on the norm of all gradients together.
        bfloat16: compute matrix products and convolutions at that precision.
        penalty: a further term of the loss, of the model.
        seed: of PyTorch's generators.

    Raises:
        InvalidArgument: a number is out of range.
        InvalidType: a value is of another type.
    """

    epochs: int
    lr: float = 1e-3
    distillation: Distillation | None = None
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW
    warmup: float = 0.05
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    bfloat16: bool = False
    penalty: Callable[[nn.Module], torch.Tensor] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.distillation is not None and not isinstance(self.distillation, Distillation):
            raise InvalidType("distillation", expected="a Distillation", found=repr(self.distillation))
        if not callable(self.optimizer):
            raise InvalidType("optimizer", expected="a function", found=repr(self.optimizer))
        _check_function("penalty", self.penalty)
        if not isinstance(self.bfloat16, bool):
            raise InvalidType("bfloat16", expected="True or False", found=repr(self.bfloat16))
        self._check_numbers()

    def _check_numbers(self) -> None:
        epochs, seed, clip_norm = self.epochs, self.seed, self.clip_norm
        for name, right, expected in (
            ("epochs", type(epochs) is int and epochs >= 1, "an integer of at least 1"),
            ("lr", _is_number(self.lr) and 0 < self.lr < math.inf, "a number above 0"),
            ("warmup", _is_share(self.warmup), "a share of the steps, from 0 to 1"),
            ("label_smoothing", _is_share(self.label_smoothing), "a number from 0 to 1"),
            ("clip_norm", clip_norm is None or (_is_number(clip_norm) and clip_norm > 0), "a number above 0"),
            ("seed", type(seed) is int and 0 <= seed < 1 << 43, "an integer from 0 to 2^43 - 1"),
        ):
            if not right:
                raise InvalidArgument(name, expected=expected, found=repr(getattr(self, name)))

    def on(
        self,
        data: Data,
        *,
        teacher: nn.Module | None = None,
        checkpoint: str | Path | None = None,
        evaluate: Callable[[nn.Module], float] | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> Callable[[nn.Module], nn.Module]:
        """A function that trains a copy of a model so and returns it, as `train` and `recover` of `netopt.optimize`.

        Args:
            data: see `netopt.retrain`. So are the others.
            teacher: see `netopt.retrain`.
            checkpoint: see `netopt.retrain`; for one training alone.
            evaluate: see `netopt.retrain`.
            on_epoch: see `netopt.retrain`.

        Raises:
            InvalidArgument, InvalidType: an argument cannot be used.
        """
        if teacher is not None and not isinstance(teacher, nn.Module):
            raise InvalidType("teacher", expected="a torch.nn.Module", found=type(teacher).__name__)
        if self.distillation is not None and teacher is None:
            raise InvalidArgument("distillation", expected="a teacher", found="none", fix="give teacher=the original")
        _check_function("evaluate", evaluate)
        _check_function("on_epoch", on_epoch)
        check_data(data)
        if checkpoint is not None and not isinstance(checkpoint, str | Path):
            raise InvalidType("checkpoint", expected="the path of a file", found=repr(checkpoint))
        if checkpoint == "":
            raise InvalidArgument("checkpoint", expected="the path of a file", found="an empty text")
        path = None if checkpoint is None else Path(checkpoint)
        return partial(self._train, data=data, teacher=teacher, path=path, evaluate=evaluate, on_epoch=on_epoch)

    def _train(
        self,
        model: nn.Module,
        *,
        data: Data,
        teacher: nn.Module | None,
        path: Path | None,
        evaluate: Callable[[nn.Module], float] | None,
        on_epoch: Callable[[Epoch], None] | None,
    ) -> nn.Module:
        if not isinstance(model, nn.Module):
            raise InvalidType("model", expected="a torch.nn.Module", found=type(model).__name__)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise InvalidArgument("model", expected="a parameter with requires_grad", found="none")
        student = copy.deepcopy(model)  # gradients are not copied
        optimizer = make_optimizer(self.optimizer, student, self.lr)
        trainer = Trainer(
            student=student,
            teacher=teacher,
            distillation=self.distillation or Distillation(),
            optimizer=optimizer,
            schedule=LearningRate(self.lr, self.epochs * len(data), self.warmup),
            label_smoothing=self.label_smoothing,
            clip_norm=self.clip_norm,
            bfloat16=self.bfloat16,
            penalty=self.penalty,
        )
        text = self._text(len(data), teacher is not None)
        file = None if path is None else Checkpoint(path, text, student, optimizer)
        train(trainer, data, self.epochs, self.seed, file=file, evaluate=evaluate, on_epoch=on_epoch)
        return student

    def _text(self, batches: int, taught: bool) -> str:
        """What a checkpoint says of the training; files hold it, so that it must stay as it is."""
        defaults = {field.name: field.default for field in fields(self)}
        told = {name: getattr(self, name) for name in _TOLD}
        unusual = "".join(f", {name} {value}" for name, value in told.items() if value != defaults[name])
        teacher = f", {self.distillation or Distillation()}" if taught else ""
        pulled = "" if self.penalty is None else ", with a penalty"
        training = f"{self.epochs} epochs of {batches} batches, lr {self.lr}, seed {self.seed}"
        return f"{training}{unusual}{teacher}{pulled}"


def _check_function(name: str, function: object) -> None:
    if function is not None and not callable(function):
        raise InvalidType(name, expected="a function", found=repr(function))


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, float | int) and not isinstance(value, bool)


def _is_share(value: object) -> bool:
    return _is_number(value) and 0 <= value <= 1
