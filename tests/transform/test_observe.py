"""What layers are given: shapes on an example, values on calibration inputs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from netopt.errors import InvalidArgument, InvalidType
from netopt.transform.observe import Observer, input_shapes


class Branches(nn.Module):
    """A layer called twice, one not called, one that gets two tensors, and a change in place."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.idle = nn.Linear(4, 4), nn.Linear(4, 4)
        self.both = nn.Bilinear(4, 4, 2)
        self.embed = nn.Embedding(3, 4)
        self.last = nn.Linear(2, 3)
        self.calls = 0

    def forward(self, x: torch.Tensor, rows: int = 1) -> torch.Tensor:
        self.calls += 1
        first = self.twice(x)
        second = self.twice(first[:rows])
        first.mul_(2)  # after it was given to `twice` a second time
        embedded = self.embed(torch.zeros(len(second), dtype=torch.int64))
        return self.last(input=self.both(second, embedded))


def hooked(model: nn.Module, name: str, batches: list[Any]) -> list[torch.Tensor]:
    """The same by a hook, with complete runs."""
    seen: list[torch.Tensor] = []
    model = copy.deepcopy(model).eval()
    model.get_submodule(name).register_forward_pre_hook(
        lambda _, args, kwargs: seen.append([*args, *kwargs.values()][0].detach().clone()), with_kwargs=True
    )
    for batch in batches:
        model(batch)
    return seen


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "example",
    [{"x": torch.zeros(5, 4), "rows": 2}, (torch.zeros(5, 4), 2), [torch.zeros(5, 4), 2]],
    ids=["keywords", "positional", "list"],
)
def test_shapes_of_each_call(example: Any) -> None:
    shapes = input_shapes(Branches(), example)
    assert shapes["twice"] == ((5, 4), (2, 4))
    assert shapes["last"] == ((2, 2),)
    assert shapes["idle"] == ()
    assert shapes["both"] == shapes["embed"] == shapes[""] == ()


def test_shapes_of_a_model_that_is_one_layer() -> None:
    assert input_shapes(nn.Linear(4, 2), torch.zeros(3, 4)) == {"": (torch.Size((3, 4)),)}


def test_the_model_is_left_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout())
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    # A batch of one: in training mode, batch normalization would refuse it.
    assert input_shapes(model, torch.zeros(1, 4))["1"] == ((1, 3),)
    list(Observer(model, torch.ones(1, 4)).inputs("1"))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(module.training and not module._forward_pre_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_an_example_that_does_not_fit() -> None:
    with pytest.raises(InvalidArgument, match="example: expected an input that the model takes, found RuntimeError"):
        input_shapes(nn.Linear(4, 2), torch.zeros(3, 5))
    with pytest.raises(InvalidArgument, match="found TypeError: .*unexpected keyword argument"):
        input_shapes(nn.Linear(4, 2), {"y": torch.zeros(3, 4)})


@pytest.mark.parametrize("name", ["0", "2", "3"])
def test_inputs_are_those_that_a_hook_sees(name: str) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 5), nn.BatchNorm1d(5))
    x = torch.randn(10, 4)
    wanted = hooked(model, name, [x[:4], x[4:8], x[8:]])
    assert equal(list(Observer(model, x, batch=4).inputs(name)), wanted)
    assert equal(list(Observer(model, [x[:4], x[4:8], x[8:]]).inputs(name)), wanted)


def test_pairs_with_labels() -> None:
    model, x = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5)), torch.randn(10, 4)
    labels = torch.zeros(5, dtype=torch.int64)
    wanted = hooked(model, "1", [x[:5], x[5:]])
    for pairs in ([(x[:5], labels), (x[5:], labels)], [[x[:5], labels], [x[5:], labels]]):
        assert equal(list(Observer(model, pairs).inputs("1")), wanted)


def test_batches_may_be_examples() -> None:
    model, x = Branches(), torch.randn(5, 4)
    wanted = hooked(model, "last", [x])
    for batch in ({"x": x}, (x,), [x, 1]):
        assert equal(list(Observer(model, [batch]).inputs("last")), wanted)


def test_a_layer_called_twice_is_seen_twice() -> None:
    model, x = Branches(), torch.randn(5, 4)
    assert equal(list(Observer(model, [x, 2 * x]).inputs("twice")), hooked(model, "twice", [x, 2 * x]))
    assert list(Observer(model, [x]).inputs("idle")) == []


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.runs: list[int] = []

    def __deepcopy__(self, memo: dict[int, object]) -> Counted:
        copied = Counted()
        copied.runs = self.runs
        return copied

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs.append(len(x))
        return x


def test_nothing_runs_after_the_layer() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Counted(), nn.Linear(4, 4), Counted())
    observer = Observer(model, torch.zeros(6, 4), batch=4)
    list(observer.inputs("0"))  # the first question runs all batches as a whole, to count calls
    assert model[3].runs == [4, 2]
    model[1].runs.clear()
    model[3].runs.clear()
    list(observer.inputs("2"))
    assert model[1].runs == [4, 2]
    assert model[3].runs == []


class ByBatch(nn.Module):
    """One layer for a batch of small numbers, another one, twice, for large ones."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.small(x) if x.max() < 1 else self.large(self.large(x))


@pytest.mark.parametrize("name", ["small", "large"])
def test_calls_may_depend_on_the_batch(name: str) -> None:
    torch.manual_seed(0)
    model, batches = ByBatch(), [torch.rand(3, 4), 5 + torch.rand(2, 4), torch.rand(1, 4)]
    observer, wanted = Observer(model, batches), hooked(model, name, batches)
    assert len(wanted) == 2
    for _ in range(2):  # counts calls, then knows them
        assert equal(list(observer.inputs(name)), wanted)


class Pair(nn.Module):
    def forward(self, *given: Any) -> torch.Tensor:
        return given[0][0] if given else torch.zeros(1)


class Pairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pair, self.nothing, self.dense = Pair(), Pair(), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(self.pair((x, x))) + self.nothing()


def test_layers_that_are_given_no_tensor() -> None:
    observer, x = Observer(Pairs(), torch.ones(2, 4)), torch.ones(2, 4)
    assert equal(list(observer.inputs("dense")), [x])
    with pytest.raises(InvalidArgument, match="^layer 'pair': calibration: expected a tensor .*, found tuple$"):
        list(observer.inputs("pair"))
    with pytest.raises(InvalidArgument, match="^layer 'nothing': calibration: expected a tensor .*, found no argument"):
        list(observer.inputs("nothing"))


def test_two_layers_at_a_time() -> None:
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), torch.randn(8, 4)
    observer = Observer(model, x, batch=2)
    pairs = list(zip(observer.inputs("0"), observer.inputs("1"), strict=True))
    assert equal([first for first, _ in pairs], hooked(model, "0", list(x.split(2))))
    assert equal([second for _, second in pairs], hooked(model, "1", list(x.split(2))))


def test_a_change_of_what_is_given_changes_no_inputs() -> None:
    x = torch.ones(2, 4)
    for given in Observer(nn.Linear(4, 4), x).inputs(""):
        given.zero_()
    assert x.eq(1).all()


@pytest.mark.parametrize("calibration", [torch.zeros(0, 4), [], (), torch.tensor(1.0)])
def test_no_inputs(calibration: Any) -> None:
    with pytest.raises(InvalidArgument, match="calibration: expected at least one input, found none"):
        Observer(nn.Linear(4, 2), calibration)


@pytest.mark.parametrize("calibration", ["images", 3, {"x": torch.zeros(1, 4)}, iter([torch.zeros(1, 4)])])
def test_what_is_no_calibration(calibration: Any) -> None:
    with pytest.raises(InvalidType, match="calibration: expected a tensor, or a list of batches, found "):
        Observer(nn.Linear(4, 2), calibration)


def test_calibration_that_does_not_fit() -> None:
    message = "calibration: expected inputs that the model takes, found "
    with pytest.raises(InvalidArgument, match=message + "RuntimeError"):
        Observer(nn.Linear(4, 2), torch.zeros(1, 5))
    with pytest.raises(InvalidArgument, match=message + "TypeError"):
        Observer(nn.Linear(4, 2), [(torch.zeros(1, 4), torch.zeros(1))])  # labels are integers
    late = Observer(nn.Linear(4, 2), [torch.zeros(1, 4), "images"])
    with pytest.raises(InvalidArgument, match=message):
        list(late.inputs(""))
