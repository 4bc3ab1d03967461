"""Batches, epoch by epoch, drawn from generators of their own, and what a checkpoint keeps of them."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from netopt.errors import InvalidArgument
from netopt.training.batches import Data, unpack
from netopt.training.data_state import DataState, State, check_saved, is_same

Batch = tuple[tuple[torch.Tensor, ...], torch.Tensor]

_REMEDY = (
    "have the data draw from the generators of PyTorch, NumPy and Python, from one that a sampler or data set holds, "
    "or have state_dict and load_state_dict; without persistent_workers; or remove the file to train anew"
)


@dataclass(frozen=True)
class Record:
    """What a checkpoint keeps of the data of its last epoch.

    Attributes:
        before: the state of the data before it.
        after: the same after it.
        digest: of all its batches, in their order.
        changed: attributes of the data that are not what they were, after it.
    """

    before: State
    after: State
    digest: int
    changed: dict[str, int | str]

    def as_state(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)


class Feed:
    """The batches of a training.

    While an epoch is fed, NumPy's and Python's global generators are the feed's own, and while a batch is made,
    PyTorch's: seeded for each epoch. So batches do not depend on what the model draws, and the caller's generators are
    left alone.
    """

    def __init__(self, data: Data, seed: int, *, records: bool) -> None:
        """Say what is fed.

        Args:
            data: batches.
            seed: of the generators.
            records: whether `record` will be asked for, which reads all batches once more.
        """
        self._data, self._seed, self._records = data, seed, records
        self._state = DataState(data)
        self._before: State = {}
        self._digest = self._number = 0
        self._draws = self._seeds(0)

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self._data)

    def epoch(self, number: int) -> Generator[Batch]:
        """The batches of an epoch, from 0: at most one more than `len`. To be closed if it is not exhausted."""
        self._number = number
        self._state.set_epoch(number)
        # Asked for without a checkpoint, too: it may draw.
        self._before = self._saved(number)
        if self._records:
            check_saved(self._before)
        self._digest = 0
        # Seeded for each epoch, so that a resumed training draws what an uninterrupted one would.
        self._draws = self._seeds(number)
        with self._drawing() as outside:
            for step, batch in enumerate(islice(self._data, len(self._data) + 1), 1):
                inputs, labels = unpack(batch, f"epoch {number + 1}, step {step}")
                if self._records:
                    for tensor in (*inputs, labels):
                        self._digest = _digest(tensor, self._digest)
                # The model draws from PyTorch's alone; to swap the others as well takes 0.2 ms.
                inside = torch.get_rng_state()
                torch.set_rng_state(outside[0])
                try:
                    yield inputs, labels
                finally:
                    outside[0] = torch.get_rng_state()
                    torch.set_rng_state(inside)

    def record(self) -> Record:
        """What is to be known of the epoch that was fed last."""
        return Record(self._before, self._saved(self._number), self._digest, self._state.changed())

    def resume(self, done: int, record: Record | None, refused: Callable[[str, str, str], Exception]) -> None:
        """Bring the data to where they were after `done` epochs: go through those of the last one again.

        Args:
            done: epochs that were trained, at least 1.
            record: what was fed in the last of them; None in a file of an older netopt, which kept nothing of the data.
            refused: makes the error, from what was expected, found, and what to do.

        Raises:
            Exception: the data are not what they were then, so that the training would not be the uninterrupted one.
        """
        if record is None:
            if self._state.owns_some:
                raise refused(
                    "one that holds the state of the data, which keep some from epoch to epoch",
                    "one of an older netopt",
                    "train anew with another file, or give data that draw from PyTorch's generators alone",
                )
            return
        self._draws = self._seeds(done - 1)
        try:
            with self._drawing():
                if done > 1:
                    self._state.start_workers()
                self._state.load(record.before)
        except InvalidArgument as error:
            raise refused("one of these data", str(error), _REMEDY) from error
        self._state.watch(record.changed)
        for _ in self.epoch(done - 1):
            pass
        what = f"the data of epoch {done} as they were when it was written"
        if self._digest != record.digest:
            raise refused(what, "others", _REMEDY)
        now = self.record()
        other = [place for place, state in record.after.items() if not is_same(state, now.after.get(place))]
        other += [place for place, value in record.changed.items() if now.changed.get(place, value) != value]
        if other:
            raise refused(what, f"another state of {', '.join(other)}", _REMEDY)

    def left_alone(self) -> AbstractContextManager[None]:
        """What is drawn from the data's own generators inside leaves no trace."""
        return self._state.left_alone()

    def _seeds(self, number: int) -> list[Any]:
        """The states of the global generators at the start of an epoch."""
        return _seeded((self._seed << 20) + number)

    def _saved(self, number: int) -> State:
        """The state of the data, before or after an epoch."""
        self._draws = self._seeds(number)
        with self._drawing():
            return self._state.save()

    @contextmanager
    def _drawing(self) -> Iterator[list[Any]]:
        """The global generators are the feed's inside; the states that they have again afterwards."""
        outside = _global_states()
        _set_global_states(self._draws)
        try:
            yield outside
        finally:
            self._draws = _global_states()
            _set_global_states(outside)


def _seeded(seed: int) -> list[Any]:
    """The states of the three global generators for a seed below 2^64."""
    words = [seed & 0xFFFFFFFF, seed >> 32]
    return [
        torch.Generator().manual_seed(seed).get_state(),
        np.random.RandomState(words).get_state(legacy=False),
        random.Random(seed).getstate(),  # it draws an order, no secret
    ]


def _global_states() -> list[Any]:
    return [torch.get_rng_state(), np.random.get_state(legacy=False), random.getstate()]  # noqa: NPY002  # data use it


def _set_global_states(states: list[Any]) -> None:
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])  # noqa: NPY002  # likewise
    random.setstate(states[2])


def _digest(tensor: torch.Tensor, start: int) -> int:
    """A checksum (CRC-32) of a tensor's shape, type and bytes, that goes on from another one."""
    tensor = tensor.detach().cpu()
    if tensor.layout is not torch.strided or tensor.is_quantized:
        tensor = tensor.to_dense() if not tensor.is_quantized else tensor.int_repr()
    flat = tensor.resolve_conj().resolve_neg().contiguous().reshape(-1)
    said = zlib.crc32(f"{tuple(tensor.shape)} {tensor.dtype}".encode(), start)
    return zlib.crc32(flat.view(torch.uint8).numpy().data, said) if flat.numel() else said
