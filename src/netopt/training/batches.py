"""Batches of data: what they are, and what must hold of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from contextlib import suppress
from typing import Any, Protocol

import torch

from netopt.errors import InvalidArgument, InvalidType


class Data(Protocol):
    """Batches (inputs, labels) that can be iterated over again and again: a DataLoader, a list, `datasets.Batches`."""

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


def check_data(data: object) -> None:
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


def unpack(batch: object, where: str) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
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


def check_lengths(inputs: tuple[torch.Tensor, ...], number: int, where: str) -> None:
    lengths = [len(tensor) for tensor in inputs if tensor.dim()]
    if lengths and number not in lengths:
        raise InvalidArgument(
            f"labels in {where}",
            expected=f"{lengths[0]}, one for each input",
            found=number,
            fix="have the data give as many labels as inputs",
        )


def class_range(labels: torch.Tensor) -> tuple[int, int] | None:
    """The least and the largest class; None for probabilities."""
    if labels.dim() != 1:
        return None
    least, largest = labels.aminmax()
    return int(least), int(largest)


def check_labels(labels: torch.Tensor, extremes: tuple[int, int] | None, logits: torch.Tensor, where: str) -> None:
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
