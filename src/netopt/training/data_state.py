"""What data keep from one epoch to the next, so that a resumed training sees the batches that the whole one would.

Generators that samplers and data sets own, and what has a state of its own by the names `state_dict` and
`load_state_dict`, are found wherever they lie in the data.
"""

from __future__ import annotations

import json
import random
import types
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from netopt.errors import InvalidArgument

State = dict[str, Any]

# What has no parts that could draw numbers; not walked into, for there may be many.
_PLAIN = (int, float, complex, str, bytes, bytearray, memoryview, type(None), torch.Tensor, np.ndarray, np.generic)
_PLAIN_TYPES = frozenset((int, float, bool, str, bytes, type(None), torch.Tensor, np.ndarray))
_CLOSED = (types.ModuleType, type, np.dtype, torch.dtype, torch.device)
# The generators behind torch.rand, random.random and numpy.random.rand.
_GLOBAL = (torch.default_generator, random.random.__self__, np.random.rand.__self__)  # type: ignore[attr-defined]
_SAVED = (torch.Tensor, int, float, str, bytes, type(None))


@runtime_checkable
class Stateful(Protocol):
    """What saves and restores itself, such as torchdata's StatefulDataLoader."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any) -> None: ...


class DataState:
    """The state of data: of generators, of stateful parts, and small numbers and texts that change.

    Attributes:
        data: any object that is iterated over.
    """

    def __init__(self, data: object) -> None:
        self.data = data
        self._first = dict(self._values())
        self._watched: set[str] = set()

    @property
    def owns_some(self) -> bool:
        """Whether there is a state that seeding the global generators does not set: it must be saved."""
        return any(True for _ in self._stateful()) or any(True for _ in self._lasting())

    def save(self) -> State:
        """The state of all parts that have one, by their places.

        Those of generators are taken last: a StatefulDataLoader that was not iterated over yet makes its iterator when
        it is asked, which draws from them.
        """
        parts = sorted(self._stateful(), key=lambda item: _is_generator(item[1]))
        return {place: _state_of(part) for place, part in parts}

    def load(self, saved: State) -> None:
        """Restore what `save` gave.

        Raises:
            InvalidArgument: the data have other parts than those that were saved, or do not take their state.
        """
        parts = dict(self._stateful())
        if parts.keys() != saved.keys():
            raise InvalidArgument(
                "data",
                expected=f"generators and stateful parts at {_names(saved)}, as when the checkpoint was written",
                found=_names(parts),
                fix="give the same data again",
            )
        for place, part in sorted(parts.items(), key=lambda item: _is_generator(item[1])):
            try:
                _restore(part, saved[place])
                if isinstance(part, Stateful):
                    part.state_dict()  # it draws now what it draws in `save`
            except Exception as error:  # whatever a part makes of another's state
                raise InvalidArgument(
                    f"state of {place} of the data",
                    expected="what it takes",
                    found=f"{type(error).__name__}: {error}",
                    fix="give the same data again",
                ) from error

    @contextmanager
    def left_alone(self) -> Iterator[None]:
        """What is drawn from the data's own generators inside leaves no trace."""
        kept = [(part, _state_of(part)) for _, part in self._stateful() if _is_generator(part)]
        try:
            yield
        finally:
            for part, state in kept:
                _restore(part, state)

    def start_workers(self) -> None:
        """Start those that outlive an epoch: a loader draws more numbers in the epoch in which it does so."""
        for loader in self._lasting():
            iter(loader)

    def set_epoch(self, number: int) -> None:
        """Tell samplers that want to know it the epoch, from 0, as torch's DistributedSampler does."""
        for _, part in _parts(self.data):
            tell = getattr(type(part), "set_epoch", None)
            if callable(tell):
                tell(part, number)

    def changed(self) -> dict[str, int | str]:
        """Whole numbers and texts among the attributes of the data that are not what they were, by their places.

        They are not restored, as what else belongs to them is not known; but it is seen if they differ.
        """
        values = dict(self._values())
        self._watched |= {place for place, value in values.items() if self._first.get(place, value) != value}
        return {place: values[place] for place in sorted(self._watched) if place in values}

    def watch(self, places: Mapping[str, object]) -> None:
        """Have `changed` tell of these places, too."""
        self._watched |= places.keys()

    def _lasting(self) -> Iterator[DataLoader[Any]]:
        for _, part in _parts(self.data):
            if isinstance(part, DataLoader) and part.persistent_workers:
                yield part

    def _stateful(self) -> Iterator[tuple[str, Any]]:
        for place, part in _parts(self.data):
            if _is_stateful(part):
                yield place, part

    def _values(self) -> Iterator[tuple[str, int | str]]:
        for place, part in _parts(self.data):
            if not isinstance(part, DataLoader | Mapping | list | tuple) and not _is_stateful(part):
                for name, value in _attributes(part):
                    if type(value) in (int, bool, str):
                        yield _join(place, name), value


def _is_generator(part: object) -> bool:
    return isinstance(part, torch.Generator | random.Random | np.random.Generator | np.random.RandomState)


def _is_stateful(part: object) -> bool:
    """Whether a part has a state to be saved. The global generators are seeded instead."""
    if _is_generator(part):
        return part not in _GLOBAL and not isinstance(part, random.SystemRandom)
    return isinstance(part, Stateful) and not isinstance(part, nn.Module)


def _state_of(part: Any) -> Any:
    if isinstance(part, torch.Generator):
        return part.get_state()
    if isinstance(part, random.Random):
        return json.dumps(part.getstate())
    if isinstance(part, np.random.Generator | np.random.RandomState):
        bits = part.bit_generator.state if isinstance(part, np.random.Generator) else part.get_state(legacy=False)
        return json.dumps(bits, default=_array_as_json)
    return part.state_dict()


def _restore(part: Any, state: Any) -> None:
    if isinstance(part, torch.Generator):
        part.set_state(state)
    elif isinstance(part, random.Random):
        version, numbers, gauss = json.loads(state)
        part.setstate((version, tuple(numbers), gauss))
    elif isinstance(part, np.random.Generator):
        part.bit_generator.state = json.loads(state, object_hook=_array_from_json)
    elif isinstance(part, np.random.RandomState):
        part.set_state(json.loads(state, object_hook=_array_from_json))
    else:
        part.load_state_dict(state)


def is_same(one: Any, other: Any) -> bool:
    """Whether two states, as they are saved, are the same to the last bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(is_same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(is_same, one, other))
    return bool(one == other)


def _array_as_json(value: object) -> object:
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    assert isinstance(value, np.generic)
    return value.item()


def _array_from_json(found: dict[str, Any]) -> Any:
    return np.array(found["array"], found["dtype"]) if found.keys() == {"array", "dtype"} else found


def check_saved(state: object, place: str = "") -> None:
    """Raise InvalidArgument unless a file without code can hold what `DataState.save` gave."""
    if isinstance(state, Mapping):
        for key, value in state.items():
            check_saved(key, place)
            check_saved(value, place or key)
    elif type(state) in (list, tuple):
        for value in state:  # type: ignore[attr-defined]
            check_saved(value, place)
    elif type(state) not in (*_SAVED, bool):
        raise InvalidArgument(
            f"state_dict of {place} of the data",
            expected="tensors, numbers and text in dicts, lists and tuples, which a checkpoint can hold",
            found=f"a {type(state).__name__}",
            fix="give such a state_dict, or train without checkpoint",
        )


def _parts(data: object) -> Iterator[tuple[str, Any]]:
    """All objects that the data consist of, each once, with its place, such as "sampler.generator"."""
    seen: set[int] = set()
    waiting: deque[tuple[str, object]] = deque([("", data)])
    while waiting:
        place, part = waiting.popleft()  # those that lie less deep first, for their places are shorter
        if id(part) in seen or isinstance(part, (*_PLAIN, *_CLOSED)):
            continue
        seen.add(id(part))
        yield place or "the data", part
        # What saves itself may leave out generators in it, as StatefulDataLoader leaves out its sampler's.
        if not _is_generator(part):
            waiting += [(_join(place, name), inner) for name, inner in _inner(part) if type(inner) not in _PLAIN_TYPES]


def _inner(part: object) -> Iterator[tuple[str, object]]:
    if isinstance(part, Mapping):
        yield from ((f"[{key!r}]", value) for key, value in part.items())
    elif isinstance(part, list | tuple | deque):
        yield from ((f"[{index}]", value) for index, value in enumerate(part))
    elif isinstance(part, partial):
        yield from (("func", part.func), ("args", part.args), ("keywords", part.keywords))
    elif isinstance(part, types.MethodType | types.BuiltinMethodType):
        yield "__self__", part.__self__
    elif isinstance(part, types.FunctionType):
        yield from _enclosed(part)
    yield from _attributes(part)


def _enclosed(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    """What a function holds of the variables around it."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue


def _attributes(part: object) -> Iterator[tuple[str, Any]]:
    for name, value in list(getattr(part, "__dict__", {}).items()):
        # The workers of a loader that keeps them: handles of processes.
        if not (name == "_iterator" and isinstance(part, DataLoader)):
            yield name, value
    for kind in type(part).__mro__:
        slots = vars(kind).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            private = slot.startswith("__") and not slot.endswith("__")
            name = f"_{kind.__name__.lstrip('_')}{slot}" if private else slot
            if hasattr(part, name):
                yield name, getattr(part, name)


def _join(place: str, name: str) -> str:
    if place in ("", "the data"):
        return name
    return place + name if name.startswith("[") else f"{place}.{name}"


def _names(places: Mapping[str, object]) -> str:
    return ", ".join(sorted(places)) or "none"
