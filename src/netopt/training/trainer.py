"""What a training does in each step and each epoch."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from netopt.console import Bar, progress
from netopt.errors import InvalidArgument, InvalidType, NetoptError
from netopt.training.batches import Data, check_labels, check_lengths, class_range
from netopt.training.checkpoint import Checkpoint
from netopt.training.distillation import Distillation, Outputs, at_least_float32, kl_divergence, match, replaced_layers
from netopt.training.feed import Feed
from netopt.training.schedule import LearningRate
from netopt.transform.constraints import Latent


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


def train(
    trainer: Trainer,
    data: Data,
    epochs: int,
    seed: int,
    *,
    file: Checkpoint | None,
    evaluate: Callable[[nn.Module], float] | None,
    on_epoch: Callable[[Epoch], None] | None,
) -> None:
    """Train the trainer's student, from where the file is, for the rest of the epochs."""
    student, feed = trainer.student, Feed(data, seed, records=file is not None)
    modes = {module: module.training for module in student.modules()}
    all_training = not student.training
    with (
        nullcontext() if file is None else file.held(),
        _own_generators(trainer.device),
        progress("retrain", epochs * len(feed)) as bar,
    ):
        done = 0 if file is None else _resumed(file, feed, epochs, bar)
        for number in range(done, epochs):
            _seed_generators(trainer.device, _seed_of_model(seed, number))
            _set_modes(modes, all_training=all_training)
            started = time.perf_counter()
            loss, accuracy = trainer.epoch(feed, number, bar)
            seconds = time.perf_counter() - started
            if file is not None:
                file.save(number + 1, feed.record())
            with feed.left_alone():
                score = None if evaluate is None else _score(evaluate, student)
                if on_epoch is not None:
                    on_epoch(Epoch(number + 1, loss, accuracy, trainer.lr, seconds, score))
    _set_modes(modes)
    student.zero_grad()


def _resumed(file: Checkpoint, feed: Feed, epochs: int, bar: Bar) -> int:
    """Go on from the file: the number of epochs that are behind."""
    done, record = file.load()
    if 0 < done < epochs:
        bar.update(description=f"reading the data of epoch {done} again")
        feed.resume(done, record, file.refused)
    bar.update(completed=done * len(feed), description="retrain")
    return done


class Trainer:
    """The state of a training, and one epoch of it."""

    def __init__(
        self,
        *,
        student: nn.Module,
        teacher: nn.Module | None,
        distillation: Distillation,
        optimizer: torch.optim.Optimizer,
        schedule: LearningRate,
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

    def epoch(self, feed: Feed, number: int, bar: Bar) -> tuple[float, float]:
        """Mean loss and accuracy of one pass through the data."""
        total, right, seen, steps = 0.0, 0, 0, 0
        with closing(feed.epoch(number)) as batches:
            for inputs, labels in batches:
                where = f"epoch {number + 1}, step {steps + 1}"
                self.lr = self.schedule(number * len(feed) + steps)
                for group in self.optimizer.param_groups:
                    group["lr"] = self.lr
                loss, hits = self._step(inputs, labels, where)
                steps += 1
                if not math.isfinite(loss):
                    raise self._diverged(f"loss in {where}", loss)
                total, right, seen = total + loss, right + hits, seen + len(labels)
                bar.advance(description=f"epoch {number + 1}, loss {total / steps:.3f}")
        if steps != len(feed):
            raise InvalidArgument(
                f"data in epoch {number + 1}",
                expected=f"{len(feed)} batches, as len(data) says",
                found=f"{steps}" if steps < len(feed) else "more",
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
        extremes = class_range(labels)
        inputs = tuple(tensor.to(self.device) for tensor in inputs)
        with self._autocast, self._taught.recording():
            logits = _logits(self.student, inputs, len(labels), "model", where)
        check_labels(labels, extremes, logits, where)
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
        check_lengths(inputs, number, where)
    if output.dim() != 2 or len(output) != number:
        shape = tuple(output.shape)
        raise InvalidArgument(f"output of the {whose}", expected=f"logits ({number}, classes)", found=shape)
    return at_least_float32(output)


@torch.no_grad()
def _score(evaluate: Callable[[nn.Module], float], student: nn.Module) -> float:
    return float(evaluate(student.eval()))


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


def _seed_of_model(seed: int, epoch: int) -> int:
    """Of what the model draws in an epoch: none that data are seeded with, which are below 2^63."""
    return (1 << 63) + (seed << 20) + epoch


def _set_modes(modes: Mapping[nn.Module, bool], *, all_training: bool = False) -> None:
    for module, training in modes.items():
        module.training = training or all_training


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
