"""A training that goes on is bit for bit the whole one with any data, or is refused.

With the StatefulDataLoader of torchdata 0.11.0, which is not installed here, the same was tried by hand: shuffled, with
generators of its own and of a sampler, noise, an iterable data set, workers, persistent workers.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

import netopt
from netopt import InvalidArgument
from netopt.training.feed import Feed
from tests.training.test_checkpoint import as_older

EPOCHS, NUMBER = 4, 12
torch.manual_seed(0)
X, Y = torch.randn(NUMBER, 3), torch.arange(NUMBER) % 2
PAIRS = TensorDataset(X, Y)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)


class Own(Dataset[Any]):
    """Pairs with noise, drawn as `draw` says."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self.draw = draw

    def __len__(self) -> int:
        return NUMBER

    def __getitem__(self, index: int) -> Any:
        return X[index] + self.draw(), Y[index]


class Stream(IterableDataset[Any]):
    def __init__(self) -> None:
        self.random = np.random.default_rng(3)

    def __len__(self) -> int:
        return NUMBER

    def __iter__(self) -> Iterator[Any]:
        return iter([(X[index], Y[index]) for index in self.random.permutation(NUMBER)])


class Cut(Sampler[int]):
    """Some of another sampler's."""

    __slots__ = ("__inner",)

    def __init__(self, inner: Sampler[int]) -> None:
        self.__inner = inner

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(iter(self.__inner), 8)


class Counting(Dataset[Any]):
    """Its pairs are others with each epoch that was begun; it saves itself, if asked."""

    def __init__(self) -> None:
        self.seen = [0]

    def __len__(self) -> int:
        return NUMBER

    def __getitem__(self, index: int) -> Any:
        self.seen[0] += 1
        return X[index] * self.seen[0], Y[index]


class Saved(Counting):
    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen[0], "also": [torch.ones(2), None, "text", 1.5, (b"bytes", True)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen[0] = state["seen"]


class Shuffled:
    """Batches in an order that is shuffled further with each epoch."""

    def __init__(self) -> None:
        self.order = list(range(3))

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[Any]:
        random.shuffle(self.order)
        return iter([(X[4 * i : 4 * i + 4], Y[4 * i : 4 * i + 4]) for i in self.order])


class Course(Shuffled):
    """The last epoch has other data, by a count of its own."""

    def __init__(self) -> None:
        self.order = list(range(3))
        self.epoch = 0

    def __iter__(self) -> Iterator[Any]:
        self.epoch += 1
        scale = 2.0 if self.epoch == EPOCHS else 1.0
        return iter([(X[4 * i : 4 * i + 4] * scale, Y[4 * i : 4 * i + 4]) for i in self.order])


def torch_noise() -> float:
    return float(torch.rand(()))


def noise_of(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def enclosed() -> Callable[[], float]:
    generator = np.random.RandomState(4)
    return lambda: float(generator.rand())


def philox() -> Callable[[], float]:
    generator = np.random.Generator(np.random.Philox(7))
    return lambda: float(generator.random())


def loader(data: Any = PAIRS, **options: Any) -> DataLoader[Any]:
    return DataLoader(data, **{"batch_size": 4, **options})


KEPT: dict[str, Callable[[], Any]] = {
    "a list": lambda: [(X[:6], Y[:6]), (X[6:], Y[6:])],
    "shuffled": lambda: loader(shuffle=True),
    "generator of a loader": lambda: loader(shuffle=True, generator=seeded()),
    "generator of a sampler": lambda: loader(sampler=RandomSampler(PAIRS, generator=seeded())),
    "generator of both": lambda: loader(sampler=RandomSampler(PAIRS, generator=seeded()), generator=seeded()),
    "generator of a subset": lambda: loader(sampler=SubsetRandomSampler(range(8), generator=seeded())),
    "generator of weights": lambda: loader(sampler=WeightedRandomSampler([1.0] * NUMBER, 8, generator=seeded())),
    "batch sampler": lambda: DataLoader(
        PAIRS, batch_sampler=BatchSampler(RandomSampler(PAIRS, generator=seeded()), 4, drop_last=False)
    ),
    "nested samplers": lambda: DataLoader(
        PAIRS, batch_sampler=BatchSampler(Cut(Cut(RandomSampler(PAIRS, generator=seeded()))), 4, drop_last=True)
    ),
    "iterable data set": lambda: loader(Stream()),
    "noise by torch": lambda: loader(Own(torch_noise), shuffle=True),
    "noise by numpy": lambda: loader(Own(lambda: float(np.random.rand()))),  # noqa: NPY002  # what data do
    "noise by random": lambda: loader(Own(random.random)),
    "own torch": lambda: loader(Own(partial(noise_of, seeded()))),
    "own numpy": lambda: loader(Own(np.random.default_rng(2).random)),
    "own philox": lambda: loader(Own(philox())),
    "own numpy, old": lambda: loader(Own(enclosed())),
    "own random": lambda: loader(Own(random.Random(2).random)),
    "sampler of an epoch": lambda: loader(sampler=DistributedSampler(PAIRS, num_replicas=2, rank=0)),
    "saves itself": lambda: loader(Saved()),
    "workers": lambda: loader(Own(torch_noise), shuffle=True, num_workers=1, generator=seeded()),
    "persistent workers, no noise": lambda: loader(num_workers=1, persistent_workers=True, shuffle=True),
    "persistent workers, own generator": lambda: loader(
        num_workers=1, persistent_workers=True, shuffle=True, generator=seeded()
    ),
}

REFUSED: dict[str, Callable[[], Any]] = {
    "own order": Shuffled,
    "own course": Course,
    "own count": lambda: loader(Counting()),
    "persistent workers with noise": lambda: loader(Own(torch_noise), num_workers=1, persistent_workers=True),
    "noise from outside": lambda: loader(Own(lambda: float(np.random.default_rng().random()))),
}


def train(data: Any, path: Path | None, **options: Any) -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 2))
    torch.manual_seed(2)
    return netopt.retrain(model, data, epochs=EPOCHS, lr=0.05, checkpoint=path, **options)


def interrupted(data: Any, path: Path, after: int) -> None:
    def interrupt(epoch: Any) -> None:
        if epoch.number == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, path, on_epoch=interrupt)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", KEPT)
def test_it_goes_on_with_new_data(name: str, tmp_path: Path) -> None:
    """As in a new process, where all is made again."""
    whole = train(KEPT[name](), None)
    assert same(train(KEPT[name](), tmp_path / "whole"), whole)
    interrupted(KEPT[name](), tmp_path / "net", 3)
    interrupted_twice = KEPT[name]()
    random.seed(9)
    np.random.seed(9)  # noqa: NPY002  # of a new process
    assert same(train(interrupted_twice, tmp_path / "net"), whole)


@pytest.mark.parametrize("name", ["generator of a loader", "saves itself", "own numpy"])
def test_it_goes_on_with_the_same_data(name: str, tmp_path: Path) -> None:
    """Whose generators are where the interruption left them."""
    whole, data = train(KEPT[name](), None), KEPT[name]()
    interrupted(data, tmp_path / "net", 1)
    next(iter(data))
    assert same(train(data, tmp_path / "net"), whole)


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_where_it_would_be_another_training(name: str, tmp_path: Path) -> None:
    path = tmp_path / "net"
    interrupted(REFUSED[name](), path, 3)
    before = path.read_bytes()
    with pytest.raises(InvalidArgument) as caught:
        train(REFUSED[name](), path)
    expected = "the data of epoch 3 as they were when it was written"
    found = "another state of epoch" if name == "own course" else "others"
    assert str(caught.value).startswith(f"checkpoint '{path}': expected {expected}, found {found}; have the data draw")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["net"]


def test_other_data_are_refused(tmp_path: Path) -> None:
    interrupted(KEPT["a list"](), tmp_path / "net", 2)
    with pytest.raises(InvalidArgument, match="expected the data of epoch 2 as they were when it was written"):
        train([(X[:6] + 1e-6, Y[:6]), (X[6:], Y[6:])], tmp_path / "net")


@pytest.mark.parametrize(("name", "found"), [("shuffled", "none"), ("own torch", "dataset.draw.args[0]")])
def test_data_with_other_generators_are_refused(name: str, found: str, tmp_path: Path) -> None:
    interrupted(KEPT["generator of both"](), tmp_path / "net", 1)
    message = r"stateful parts at generator, sampler\.generator, as when the checkpoint was written, found "
    with pytest.raises(InvalidArgument, match=message) as caught:
        train(KEPT[name](), tmp_path / "net")
    assert f"found {found}; " in str(caught.value)


@pytest.mark.parametrize("name", ["generator of a loader", "saves itself", "persistent workers, no noise"])
def test_files_of_an_older_netopt_do_not_go_with_data_that_have_a_state(name: str, tmp_path: Path) -> None:
    interrupted(KEPT[name](), tmp_path / "net", 2)
    as_older(tmp_path / "net")
    with pytest.raises(InvalidArgument, match="expected one that holds the state of the data") as caught:
        train(KEPT[name](), tmp_path / "net")
    assert "found one of an older netopt; train anew with another file" in str(caught.value)


def test_a_score_leaves_no_trace_in_the_data(tmp_path: Path) -> None:
    data = KEPT["generator of a loader"]()

    def score(_: nn.Module) -> float:
        return float(next(iter(data))[0].sum())

    whole = train(KEPT["generator of a loader"](), None)
    assert same(train(data, tmp_path / "net", evaluate=score), whole)


def test_a_state_that_no_file_without_code_can_hold(tmp_path: Path) -> None:
    class Odd(Saved):
        def state_dict(self) -> dict[str, Any]:
            return {"seen": [{1, 2}]}

    with pytest.raises(InvalidArgument, match="state_dict of dataset of the data: expected tensors, .* found a set; "):
        train(loader(Odd()), tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def test_batches_do_not_depend_on_what_the_model_draws() -> None:
    """And neither PyTorch's, NumPy's nor Python's generator is left changed."""
    noisy = lambda: loader(Own(lambda: torch_noise() + random.random() + float(np.random.rand())))  # noqa: NPY002
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    plain = list(Feed(noisy(), 3, records=False).epoch(1))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]  # noqa: NPY002
    disturbed = []
    for batch in Feed(noisy(), 3, records=False).epoch(1):
        disturbed.append(batch)
        torch.rand(5)
    assert all(torch.equal(a[0][0], b[0][0]) for a, b in zip(plain, disturbed, strict=True))
    other = list(Feed(noisy(), 3, records=False).epoch(2))
    assert not torch.equal(plain[0][0][0], other[0][0][0])


def test_an_interruption_leaves_the_generators_as_they_were(tmp_path: Path) -> None:
    """In the middle of an epoch, while the traceback still holds all that was going on."""
    calls = []

    def noise() -> float:
        calls.append(random.random() + float(np.random.rand()) + torch_noise())  # noqa: NPY002  # what data do
        if len(calls) == NUMBER + 6:
            raise KeyboardInterrupt
        return 0.0

    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(2)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    with pytest.raises(KeyboardInterrupt) as caught:
        train(loader(Own(noise)), tmp_path / "net")
    assert caught.traceback
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]  # noqa: NPY002


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.flatten().flip(0).view_as(x),
        lambda x: x.reshape(3, 4),
        lambda x: x.view(torch.int32),
        lambda x: torch.where(torch.arange(12).view_as(x) == 7, x + 1e-3, x),
    ],
)
def test_the_checksum_sees_numbers_shapes_and_types(change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    def digest(x: torch.Tensor) -> int:
        feed = Feed([(x, torch.tensor([0]))], 0, records=True)
        list(feed.epoch(0))
        return feed.record().digest

    x = torch.arange(12.0).view(4, 3)
    assert digest(x) == digest(x.clone().T.contiguous().T) == digest(x[None].expand(2, 4, 3)[1])
    assert digest(change(x)) != digest(x)


@pytest.mark.parametrize("dtype", [torch.bool, torch.bfloat16, torch.complex64, torch.int8])
def test_tensors_of_all_types_and_layouts_are_read(dtype: torch.dtype) -> None:
    inputs = (
        torch.ones(2, 3).to(dtype),
        torch.zeros(0, dtype=dtype),
        torch.ones((), dtype=dtype),
        torch.eye(3).to_sparse(),
    )
    feed = Feed([(inputs, torch.tensor([0]))], 0, records=True)
    ((given, _),) = feed.epoch(0)
    assert given == inputs
