"""Where data keep a state, and that it is saved and restored."""

from __future__ import annotations

import io
import random
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from netopt import InvalidArgument
from netopt.training.data_state import DataState, check_saved, is_same


class Part:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Slotted:
    __slots__ = ("__hidden", "empty", "rng")

    def __init__(self) -> None:
        self.rng, self.__hidden = random.Random(1), torch.Generator().manual_seed(2)


class Keeps:
    """Its own numbers are in its state, its generator's are not, and it draws when it is asked first."""

    def __init__(self) -> None:
        self.generator, self.count, self.asked = torch.Generator().manual_seed(3), 0, False

    def state_dict(self) -> dict[str, Any]:
        if not self.asked:
            torch.rand(3, generator=self.generator)
        self.asked = True
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.asked = state["count"], False


def everything() -> Part:
    generator = np.random.RandomState(5)

    def drawn() -> float:
        return float(generator.rand())

    data = Part(
        list=[1, "text", torch.zeros(2), deque([random.Random(6)])],
        dict={"a": (np.random.default_rng(7),), 3: np.random.Generator(np.random.MT19937(8))},
        partial=partial(max, random.Random(9), key=np.random.Generator(np.random.SFC64(10)).random),
        closure=drawn,
        method=random.Random(11).random,
        slots=Slotted(),
        keeps=Keeps(),
        philox=np.random.Generator(np.random.Philox(12)),
    )
    data.myself = data
    return data


PLACES = [
    "closure.generator",
    "dict['a'][0]",
    "dict[3]",
    "keeps",
    "keeps.generator",
    "list[3][0]",
    "method.__self__",
    "partial.args[0]",
    "partial.keywords['key'].__self__",
    "philox",
    "slots._Slotted__hidden",
    "slots.rng",
]


def draw(data: Part) -> list[float]:
    """A number from every generator, of several kinds, for some keep half of what they drew."""
    numbers = [data.closure(), float(data.closure.__closure__[0].cell_contents.normal()), data.method()]
    numbers += [data.list[3][0].gauss(0, 1), data.dict["a"][0].integers(9, dtype=np.int32), data.dict[3].random()]
    numbers += [data.partial.args[0].random(), data.partial.keywords["key"](), data.slots.rng.random()]
    numbers += [float(torch.rand((), generator=part)) for part in (data.keeps.generator, data.slots._Slotted__hidden)]
    data.keeps.count += 1
    return [float(number) for number in (*numbers, data.philox.random(), data.keeps.count)]


def test_all_states_are_found_saved_and_restored() -> None:
    data = everything()
    state = DataState(data)
    draw(data)
    saved = state.save()
    assert sorted(saved) == PLACES
    check_saved(saved)
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    read = torch.load(file, weights_only=True)
    assert is_same(saved, read)
    wanted = [draw(data), draw(data)]
    assert not is_same(state.save(), saved)
    for other in (data, everything()):
        DataState(other).load(read)
        assert is_same(DataState(other).save(), saved)
        assert [draw(other), draw(other)] == wanted


def test_what_has_no_state_of_its_own() -> None:
    """The global generators, which are seeded; the system's, which has none; layers, which training saves."""
    data = Part(
        generator=torch.default_generator,
        system=random.SystemRandom(),
        layer=nn.Linear(2, 2),
        module=random,
        kind=Keeps,
        functions=[np.random.rand, random.random, torch.rand],
    )
    state = DataState(data)
    assert state.save() == {}
    assert not state.owns_some
    assert DataState(Part(inner=Keeps())).owns_some
    data_set = TensorDataset(torch.zeros(2, 1))
    assert not DataState(DataLoader(data_set, shuffle=True)).owns_some
    assert DataState(DataLoader(data_set, num_workers=1, persistent_workers=True)).owns_some


def test_a_score_leaves_generators_alone() -> None:
    data = everything()
    state = DataState(data)
    before = state.save()
    with suppress(KeyboardInterrupt), state.left_alone():
        draw(data)
        raise KeyboardInterrupt
    after = state.save()
    assert after.pop("keeps") == {"count": 1}
    assert before.pop("keeps") == {"count": 0}
    assert is_same(before, after)


def test_states_of_other_parts_are_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"stateful parts at a, as when .*, found b; give the same data again"):
        DataState(Part(b=random.Random(1))).load(DataState(Part(a=random.Random(1))).save())
    with pytest.raises(InvalidArgument, match="state of a of the data: expected what it takes, found"):
        DataState(Part(a=random.Random(1))).load(DataState(Part(a=torch.Generator())).save())


def test_numbers_and_texts_that_change() -> None:
    data = Part(epoch=0, name="a", fixed=1, time=1.5, inner=Part(count=3), many=[1, 2])
    state = DataState(data)
    assert state.changed() == {}
    data.epoch, data.name, data.time, data.inner.count, data.many[0] = 1, "b", 2.5, 4, 7
    assert state.changed() == {"epoch": 1, "inner.count": 4, "name": "b"}
    data.epoch = 0
    assert state.changed() == {"epoch": 0, "inner.count": 4, "name": "b"}
    other = DataState(Part(epoch=5, fixed=1))
    other.watch({"epoch": 1, "gone": 2})
    assert other.changed() == {"epoch": 5}


def test_samplers_are_told_the_epoch() -> None:
    class Sampler:
        def set_epoch(self, number: int) -> None:
            self.epoch = number

    sampler = Sampler()
    DataState(Part(inner=[sampler])).set_epoch(4)
    assert sampler.epoch == 4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(2), torch.zeros(3)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (torch.zeros(2), 0),
        ({"a": [1, (2, 3)]}, {"a": [1, (2, 4)]}),
        ({"a": 1}, {"b": 1}),
        ([1], (1,)),
        ([1], [1, 1]),
        ("text", "texts"),
    ],
)
def test_states_that_differ(one: object, other: object) -> None:
    assert not is_same(one, other)
    assert is_same(one, one)
    assert is_same(other, other)
