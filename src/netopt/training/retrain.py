"""A plain trainer for networks that have lost some accuracy: labels, and the original as a teacher."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import torch
from torch import nn
from torch.nn import functional as F

from netopt.console import Bar, progress
from netopt.errors import InvalidArgument, InvalidType, NetoptError
from netopt.training.checkpoint import Checkpoint
from netopt.training.distillation import Distillation, Outputs, at_least_float32, kl_divergence, match, replaced_layers
from netopt.transform.constraints import Latent


class Data(Protocol):
    """Batches (inputs, labels) that can be iterated over again and again: a DataLoader, a list, `datasets.Batches`."""

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Epoch:
    """What happened in one epoch.

    Attributes:
        number: from 1.
        loss: mean over the batches.
        accuracy: share of the training inputs whose class was right when they were trained with.
        lr: learning rate of its last step.
        seconds: it took.
        score: what `evaluate` returned; None without it.
    """

    number: int
    loss: float
    accuracy: float
    lr: float
    seconds: float
    score: float | None

    def __str__(self) -> str:
        score = "" if self.score is None else f"  evaluated {self.score:.4f}"
        training = f"epoch {self.number:3}  loss {self.loss:.4f}  accuracy {self.accuracy:.4f}"
        return f"{training}{score}  lr {self.lr:.5f}  {self.seconds:.0f} s"


# Long by its options and what is said of each; the training itself is the last twenty lines.
def retrain(
    model: nn.Module,
    data: Data,
    *,
    epochs: int,
    lr: float = 1e-3,
    teacher: nn.Module | None = None,
    distillation: Distillation | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
    warmup: float = 0.05,
    label_smoothing: float = 0.0,
    clip_norm: float | None = None,
    bfloat16: bool = False,
    penalty: Callable[[nn.Module], torch.Tensor] | None = None,
    checkpoint: str | Path | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    seed: int = 0,
) -> nn.Module:
    """Train a copy of a classifier, and return it. The caller's model and random state are not changed.

    The learning rate rises linearly, then falls to zero along a cosine (Loshchilov and Hutter, 1608.03983). Vectors,
    such as biases and the parameters of normalization, have no weight decay, nor have latent weights, which are
    constrained after each step (`netopt.transform.constraints.Latent`). The device is the model's.

    Args:
        model: its output are logits (batch, classes). Modules in eval mode stay so, unless the whole model is in it.
        data: batches (inputs, labels): inputs are a tensor or a tuple of them, labels classes (batch,) as int64 or
            probabilities (batch, classes).
        epochs: how often to go through the data.
        lr: the largest learning rate.
        teacher: a network with the same inputs and outputs, such as the original; used in eval mode.
        distillation: how the teacher is used; by default `Distillation()`.
        optimizer: `(parameter groups, lr=...)` to an optimizer, such as `torch.optim.AdamW`, or
            `functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=5e-4)`.
        warmup: share of all steps in which the learning rate rises.
        label_smoothing: as of `F.cross_entropy`.
        clip_norm: bound on the norm of all gradients together.
        bfloat16: compute matrix products and convolutions at that precision: faster on CPUs and GPUs that have it.
        penalty: a further term of the loss, of the model, computed in each step.
        checkpoint: a file written after each epoch. If it is there at the start, training goes on from it, and gives
            what it would have given without the interruption. It holds tensors, numbers and text, no code.
        evaluate: a score of the model in eval mode, computed after each epoch without gradients, for `on_epoch`.
        on_epoch: is told of each epoch, for a log.
        seed: of PyTorch's generators, from which the data may draw their order; from 0.

    Raises:
        InvalidArgument: a number is out of range; data have no batches, or not as many as they say; labels or logits
            have another shape; a label is no class of the model; model or teacher do not take the inputs; the
            optimizer takes no groups or needs a closure; features are to match where no layer is replaced; the
            checkpoint is of another training.
        InvalidType: an argument or a batch is of another type.
        NetoptError: the loss or a weight became NaN or infinite; says when. The last checkpoint stays.
    """
    functions = {"optimizer": optimizer, "penalty": penalty, "evaluate": evaluate, "on_epoch": on_epoch}
    _check(model, data, teacher, distillation, **functions)
    _check_numbers(epochs, lr, warmup=warmup, label_smoothing=label_smoothing, clip_norm=clip_norm, seed=seed)
    student = copy.deepcopy(model)  # gradients are not copied
    options = distillation or Distillation()
    trainer = _Trainer(
        student=student,
        teacher=teacher,
        distillation=options,
        optimizer=_made(optimizer, student, lr),
        schedule=_Schedule(lr, epochs * len(data), warmup),
        label_smoothing=label_smoothing,
        clip_norm=clip_norm,
        bfloat16=bfloat16,
        penalty=penalty,
    )
    taught = "" if teacher is None else f", {options}"
    unusual = _unusual(warmup=warmup, label_smoothing=label_smoothing, clip_norm=clip_norm, bfloat16=bfloat16)
    pulled = "" if penalty is None else ", with a penalty"
    training = f"{epochs} epochs of {len(data)} batches, lr {lr}, seed {seed}{unusual}{taught}{pulled}"
    file = None if checkpoint is None else Checkpoint(Path(checkpoint), training, student, trainer.optimizer)
    done = 0 if file is None else file.load()
    modes = {module: module.training for module in student.modules()}
    with _own_generators(trainer.device), progress("retrain", epochs * len(data)) as bar:
        bar.update(completed=done * len(data))
        for number in range(done, epochs):
            # Seeded for each epoch, so that a resumed training draws what an uninterrupted one would.
            _seed_generators(trainer.device, (seed << 20) + number)
            _set_modes(modes, all_training=not model.training)
            started = time.perf_counter()
            loss, accuracy = trainer.epoch(data, number, bar)
            seconds = time.perf_counter() - started
            if file is not None:
                file.save(number + 1)
            score = None if evaluate is None else _score(evaluate, student)
            if on_epoch is not None:
                on_epoch(Epoch(number + 1, loss, accuracy, trainer.lr, seconds, score))
    _set_modes(modes)
    student.zero_grad()
    return student


@dataclass(frozen=True)
class _Schedule:
    """The learning rate of each step: linear up to `lr`, then a half cosine down to 0."""

    lr: float
    steps: int
    warmup: float

    def __call__(self, step: int) -> float:
        rising = self.warmup * self.steps
        if step < rising:
            return self.lr * (step + 1) / (rising + 1)
        return self.lr * (1 + math.cos(math.pi * (step - rising) / max(1.0, self.steps - rising))) / 2


class _Trainer:
    """The state of a training, and one epoch of it."""

    def __init__(
        self,
        *,
        student: nn.Module,
        teacher: nn.Module | None,
        distillation: Distillation,
        optimizer: torch.optim.Optimizer,
        schedule: _Schedule,
        label_smoothing: float,
        clip_norm: float | None,
        bfloat16: bool,
        penalty: Callable[[nn.Module], torch.Tensor] | None,
    ) -> None:
        self.student, self.optimizer, self.schedule, self.lr = student, optimizer, schedule, 0.0
        self.device = next(student.parameters()).device
        self._teacher = None if teacher is None else copy.deepcopy(teacher).eval().to(self.device)
        self._distillation, self._label_smoothing, self._clip_norm = distillation, label_smoothing, clip_norm
        self._penalty = penalty
        self._latent = [module for module in student.modules() if isinstance(module, Latent)]
        self._autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16)
        names = replaced_layers(student, teacher) if teacher is not None and distillation.features else []
        self._taught = Outputs(student, names)
        self._teaching = Outputs(student if self._teacher is None else self._teacher, names)

    def epoch(self, data: Data, number: int, bar: Bar) -> tuple[float, float]:
        """Mean loss and accuracy of one pass through the data."""
        total, right, seen, steps = 0.0, 0, 0, 0
        for batch in islice(data, len(data) + 1):
            where = f"epoch {number + 1}, step {steps + 1}"
            inputs, labels = _unpack(batch, where)
            self.lr = self.schedule(number * len(data) + steps)
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr
            loss, hits = self._step(inputs, labels, where)
            steps += 1
            if not math.isfinite(loss):
                raise self._diverged(f"loss in {where}", loss)
            total, right, seen = total + loss, right + hits, seen + len(labels)
            bar.advance(description=f"epoch {number + 1}, loss {total / steps:.3f}")
        if steps != len(data):
            raise InvalidArgument(
                f"data in epoch {number + 1}",
                expected=f"{len(data)} batches, as len(data) says",
                found=f"{steps}" if steps < len(data) else "more",
                fix="give batches that can be iterated over again and again, such as a DataLoader or a list",
            )
        if not all(torch.isfinite(weight).all() for weight in self.student.parameters() if weight.requires_grad):
            raise self._diverged(f"weights after epoch {number + 1}", "NaN or infinity")
        return total / steps, right / seen

    def _diverged(self, subject: str, found: object) -> NetoptError:
        fix = f"train with a learning rate below {self.schedule.lr}, or with clip_norm=1.0"
        return NetoptError(subject, expected="finite numbers", found=found, fix=fix)

    def _step(self, inputs: tuple[torch.Tensor, ...], labels: torch.Tensor, where: str) -> tuple[float, int]:
        """The loss, and the number of inputs whose class was right."""
        # Before the pass: on a GPU, to read them after it would wait for it.
        extremes = _extremes(labels)
        inputs = tuple(tensor.to(self.device) for tensor in inputs)
        with self._autocast, self._taught.recording():
            logits = _logits(self.student, inputs, len(labels), "model", where)
        _check_labels(labels, extremes, logits, where)
        labels = labels.to(self.device)
        loss = F.cross_entropy(logits, labels, label_smoothing=self._label_smoothing)
        if self._teacher is not None:
            with torch.no_grad(), self._autocast, self._teaching.recording():
                wanted = _logits(self._teacher, inputs, len(labels), "teacher", where)
            options = self._distillation
            soft = kl_divergence(logits, wanted, options.temperature)
            loss = (1 - options.weight) * loss + options.weight * soft
            if options.features:
                loss = loss + options.features * match(self._taught.of, self._teaching.of)
        if self._penalty is not None:
            loss = loss + self._penalty(self.student)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(self.student.parameters(), self._clip_norm)
        self.optimizer.step()
        for module in self._latent:
            module.constrain()
        classes = labels if labels.dim() == 1 else labels.argmax(1)
        return loss.item(), int((logits.detach().argmax(1) == classes).sum())


def _made(optimizer: Callable[..., torch.optim.Optimizer], model: nn.Module, lr: float) -> torch.optim.Optimizer:
    expected = "a function (parameter groups, lr=...) to an optimizer whose step needs no closure"
    fix = "give one such as torch.optim.AdamW"
    try:
        made: object = optimizer(_groups(model), lr=lr)
    except (TypeError, ValueError) as error:
        raise InvalidArgument("optimizer", expected=expected, found=_reason(error), fix=fix) from error
    if not isinstance(made, torch.optim.Optimizer):
        raise InvalidType("optimizer", expected=expected, found=f"one to {type(made).__name__}", fix=fix)
    if isinstance(made, torch.optim.LBFGS):  # it takes a single group
        raise InvalidArgument("optimizer", expected=expected, found="LBFGS", fix=fix)
    return made


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    layers = [module for module in model.modules() if isinstance(module, Latent)]
    latent = {weight for layer in layers for weight in layer.latent_weights()}
    others = [parameter for parameter in trained if parameter not in latent]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in others if parameter.dim() > 1]},
        {"params": [parameter for parameter in others if parameter.dim() <= 1], "weight_decay": 0.0},
        {"params": [parameter for parameter in trained if parameter in latent], "weight_decay": 0.0, "latent": True},
    ]
    return [group for group in groups if group["params"]]


@torch.no_grad()
def _score(evaluate: Callable[[nn.Module], float], student: nn.Module) -> float:
    return float(evaluate(student.eval()))


def _unusual(**options: float | None) -> str:
    """The options of `retrain` that are not its defaults."""
    defaults = retrain.__kwdefaults__ or {}
    return "".join(f", {name} {value}" for name, value in options.items() if value != defaults[name])


@contextmanager
def _own_generators(device: torch.device) -> Iterator[None]:
    """What is drawn and seeded inside leaves no trace."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


def _seed_generators(device: torch.device, seed: int) -> None:
    """Seed those that `_own_generators` saves; torch.manual_seed would seed those of all devices."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _set_modes(modes: Mapping[nn.Module, bool], *, all_training: bool = False) -> None:
    for module, training in modes.items():
        module.training = training or all_training


def _unpack(batch: object, where: str) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """A batch's inputs and its labels."""
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not isinstance(batch[1], torch.Tensor):
        found = ", ".join(type(part).__name__ for part in (batch if isinstance(batch, tuple | list) else (batch,)))
        expected = "a pair (inputs, labels) of tensors"
        raise InvalidType(f"batch of data in {where}", expected=expected, found=found)
    inputs, labels = batch
    several = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    others = [type(tensor).__name__ for tensor in several if not isinstance(tensor, torch.Tensor)]
    if others or not several:
        raise InvalidType(
            f"inputs in {where}",
            expected="a tensor or a tuple of tensors",
            found=", ".join(others) or "an empty tuple",
            fix="have the data give the model's arguments in their order",
        )
    classes = labels.dim() == 1 and labels.dtype == torch.int64
    if not labels.numel() or not (classes or (labels.dim() == 2 and labels.is_floating_point())):
        raise InvalidArgument(
            f"labels in {where}",
            expected="classes (batch,) as int64 or probabilities (batch, classes), at least one",
            found=f"{tuple(labels.shape)} as {labels.dtype}",
            fix="have the data give one of these",
        )
    return several, labels


def _logits(network: nn.Module, inputs: tuple[torch.Tensor, ...], number: int, whose: str, where: str) -> torch.Tensor:
    """What the model or the teacher makes of the inputs to `number` labels."""
    try:
        output: object = network(*inputs)
    except (NetoptError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        shapes = ", ".join(f"{tuple(tensor.shape)} as {tensor.dtype}" for tensor in inputs)
        raise InvalidArgument(
            f"inputs in {where}",
            expected=f"what the {whose} takes",
            found=f"{shapes}, and {_reason(error)}",
            fix="give data of the shape and type that it was made for",
        ) from error
    if not isinstance(output, torch.Tensor):
        raise InvalidType(f"output of the {whose}", expected="a tensor of logits", found=type(output).__name__)
    # Asked only where something is wrong: the batch of a recurrent network's inputs may be on another axis.
    if not output.dim() or len(output) != number:
        _check_lengths(inputs, number, where)
    if output.dim() != 2 or len(output) != number:
        shape = tuple(output.shape)
        raise InvalidArgument(f"output of the {whose}", expected=f"logits ({number}, classes)", found=shape)
    return at_least_float32(output)


def _check_lengths(inputs: tuple[torch.Tensor, ...], number: int, where: str) -> None:
    lengths = [len(tensor) for tensor in inputs if tensor.dim()]
    if lengths and number not in lengths:
        raise InvalidArgument(
            f"labels in {where}",
            expected=f"{lengths[0]}, one for each input",
            found=number,
            fix="have the data give as many labels as inputs",
        )


def _extremes(labels: torch.Tensor) -> tuple[int, int] | None:
    """The least and the largest class; None for probabilities."""
    if labels.dim() != 1:
        return None
    least, largest = labels.aminmax()
    return int(least), int(largest)


def _check_labels(labels: torch.Tensor, extremes: tuple[int, int] | None, logits: torch.Tensor, where: str) -> None:
    """Whether they are of the classes that the model has logits for."""
    classes = logits.shape[1]
    if extremes is None and labels.shape != logits.shape:
        raise InvalidArgument(
            f"labels in {where}",
            expected=f"probabilities {tuple(logits.shape)}, as the model's logits",
            found=tuple(labels.shape),
            fix="give a probability for each class that the model has",
        )
    for label in extremes or ():
        if not 0 <= label < classes:
            raise InvalidArgument(
                f"labels in {where}",
                expected=f"classes from 0 to {classes - 1}, as the model has {classes} logits",
                found=label,
                fix="number the classes from 0, or give a model with more of them",
            )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, float | int) and not isinstance(value, bool)


def _check(
    model: object, data: object, teacher: object, distillation: object, *, optimizer: object, **functions: object
) -> None:
    if not isinstance(model, nn.Module):
        raise InvalidType("model", expected="a torch.nn.Module", found=type(model).__name__)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InvalidArgument("model", expected="a parameter with requires_grad", found="none")
    if teacher is not None and not isinstance(teacher, nn.Module):
        raise InvalidType("teacher", expected="a torch.nn.Module", found=type(teacher).__name__)
    if distillation is not None and not isinstance(distillation, Distillation):
        raise InvalidType("distillation", expected="a Distillation", found=repr(distillation))
    if distillation is not None and teacher is None:
        raise InvalidArgument("distillation", expected="a teacher", found="none", fix="give teacher=the original")
    for name, function in (("optimizer", optimizer), *functions.items()):
        if not callable(function) and (name == "optimizer" or function is not None):
            raise InvalidType(name, expected="a function", found=repr(function))
    _check_data(data)


def _check_data(data: object) -> None:
    batches = -1
    if isinstance(data, Sized) and isinstance(data, Iterable) and not isinstance(data, torch.Tensor):
        with suppress(TypeError):  # of a DataLoader of an iterable data set
            batches = len(data)
    if batches < 0:
        raise InvalidType(
            "data",
            expected="batches that can be iterated over in each epoch and counted, such as a DataLoader or a list",
            found=type(data).__name__,
        )
    if batches == 0:
        raise InvalidArgument("data", expected="at least one batch", found="none")


def _check_numbers(
    epochs: object, lr: object, *, warmup: object, label_smoothing: object, clip_norm: object, seed: object
) -> None:
    for name, value, right, expected in (
        ("epochs", epochs, type(epochs) is int and epochs >= 1, "an integer of at least 1"),
        ("lr", lr, _is_number(lr) and 0 < lr < math.inf, "a number above 0"),
        ("warmup", warmup, _is_number(warmup) and 0 <= warmup <= 1, "a share of the steps, from 0 to 1"),
        (
            "label_smoothing",
            label_smoothing,
            _is_number(label_smoothing) and 0 <= label_smoothing <= 1,
            "a number from 0 to 1",
        ),
        ("clip_norm", clip_norm, clip_norm is None or (_is_number(clip_norm) and clip_norm > 0), "a number above 0"),
        ("seed", seed, type(seed) is int and 0 <= seed < 1 << 43, "an integer from 0 to 2^43 - 1"),
    ):
        if not right:
            raise InvalidArgument(name, expected=expected, found=repr(value))
