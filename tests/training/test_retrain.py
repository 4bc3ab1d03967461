"""The trainer: its formulas against NumPy, what it leaves alone, interruptions, errors.

Longer than most, since it is all one function: the parts share their networks and data, and have headings.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import netopt
from netopt import InvalidArgument, InvalidType, NetoptError
from netopt.datasets import Batches, Split, digits
from netopt.factorization import SVD
from netopt.quantization import BinaryConnect
from netopt.training.distillation import Distillation
from netopt.training.trainer import Epoch
from tests.training.test_distillation import softmax

Batch = tuple[torch.Tensor, torch.Tensor]
# One step of it has a gradient that can be read off the weights: without warmup the first learning rate is lr.
STEP = {"epochs": 1, "warmup": 0.0, "optimizer": torch.optim.SGD}


def data(batches: int = 3, *, dtype: torch.dtype = torch.float32) -> list[Batch]:
    """Batches of 8 with 6 features and 4 classes."""
    random = torch.Generator().manual_seed(2)
    return [
        (torch.randn(8, 6, generator=random, dtype=dtype), torch.randint(0, 4, (8,), generator=random))
        for _ in range(batches)
    ]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4))


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(6, 4).double()


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def one_hot(labels: torch.Tensor) -> np.ndarray:
    return np.eye(4)[labels.numpy()]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """On networks this small, threads wait for one another most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Formulas


def test_one_step_on_labels_is_that_of_the_formula() -> None:
    model, ((x, labels),) = linear(), data(1, dtype=torch.float64)
    epochs: list[Epoch] = []
    new = netopt.retrain(model, [(x, labels)], lr=0.5, **STEP, on_epoch=epochs.append)
    w, b = model.weight.detach().numpy(), model.bias.detach().numpy()
    p = softmax(x.numpy() @ w.T + b)
    smaller = (p - one_hot(labels)) / 8
    assert np.allclose(new.weight.detach(), w - 0.5 * smaller.T @ x.numpy(), rtol=1e-12, atol=1e-14)
    assert np.allclose(new.bias.detach(), b - 0.5 * smaller.sum(0), rtol=1e-12, atol=1e-14)
    assert epochs[0].loss == pytest.approx(-np.log(p[np.arange(8), labels]).mean(), rel=1e-12)
    assert epochs[0].accuracy == (p.argmax(1) == labels.numpy()).mean()
    assert (epochs[0].number, epochs[0].lr, epochs[0].score) == (1, 0.5, None)


def test_label_smoothing_is_that_of_the_formula() -> None:
    model, ((x, labels),) = linear(), data(1, dtype=torch.float64)
    epochs: list[Epoch] = []
    netopt.retrain(model, [(x, labels)], label_smoothing=0.2, **STEP, on_epoch=epochs.append)
    p = softmax(x.numpy() @ model.weight.detach().numpy().T + model.bias.detach().numpy())
    wanted = 0.8 * one_hot(labels) + 0.2 / 4
    assert epochs[0].loss == pytest.approx(-(wanted * np.log(p)).sum() / 8, rel=1e-12)


def test_one_step_with_a_teacher_is_that_of_the_formula() -> None:
    model, ((x, labels),) = linear(), data(1, dtype=torch.float64)
    teacher = nn.Linear(6, 4).double()
    options, epochs = Distillation(temperature=3.0, weight=0.6), []
    new = netopt.retrain(
        model, [(x, labels)], lr=0.5, teacher=teacher, distillation=options, on_epoch=epochs.append, **STEP
    )
    w = model.weight.detach().numpy()
    with torch.no_grad():
        s, t = model(x).numpy(), teacher(x).numpy()
    p, soft, wanted = softmax(s), softmax(s / 3), softmax(t / 3)
    labelled = -np.log(p[np.arange(8), labels]).mean()
    taught = 9 * (wanted * np.log(wanted / soft)).sum() / 8
    assert epochs[0].loss == pytest.approx(0.4 * labelled + 0.6 * taught, rel=1e-12)
    slope = 0.4 * (p - one_hot(labels)) / 8 + 0.6 * 3 * (soft - wanted) / 8
    assert np.allclose(new.weight.detach(), w - 0.5 * slope.T @ x.numpy(), rtol=1e-12, atol=1e-14)


def test_features_are_those_of_the_replaced_layers_and_of_no_other() -> None:
    """The first layer is replaced; the last, changed but not replaced, counts through the logits alone."""
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 4)).double()
    student = netopt.optimize(teacher, SVD(rank=1, select="0")).model
    student[2].weight.data.mul_(2)
    ((x, labels),) = data(1, dtype=torch.float64)
    options, epochs = Distillation(temperature=1.0, weight=0.0, features=0.3), []
    netopt.retrain(student, [(x, labels)], teacher=teacher, distillation=options, on_epoch=epochs.append, **STEP)
    with torch.no_grad():
        p, s, t = softmax(student(x).numpy()), student[0](x).numpy(), teacher[0](x).numpy()
    error = ((s - t) ** 2).sum() / (t**2).sum()
    assert error > 0.01
    assert epochs[0].loss == pytest.approx(-np.log(p[np.arange(8), labels]).mean() + 0.3 * error, rel=1e-12)


def test_probabilities_as_labels() -> None:
    model, batches = linear(), data(dtype=torch.float64)
    epochs: list[Epoch] = []
    classes = netopt.retrain(model, batches, epochs=2, on_epoch=epochs.append)
    probabilities = [(x, torch.from_numpy(one_hot(labels))) for x, labels in batches]
    same_again = netopt.retrain(model, probabilities, epochs=2, on_epoch=epochs.append)
    assert torch.allclose(classes.weight, same_again.weight, rtol=1e-9)
    assert epochs[0].accuracy == epochs[2].accuracy
    assert epochs[0].loss == pytest.approx(epochs[2].loss)
    mixed = netopt.retrain(model, [(x, (y + 1) / 8) for x, y in probabilities], epochs=2)
    assert not torch.allclose(classes.weight, mixed.weight, rtol=1e-3)


class Noting(torch.optim.SGD):
    """Notes the learning rates of its steps."""

    seen: list[list[float]] = []  # noqa: RUF012 emptied by the test

    def step(self, closure: Any = None) -> Any:
        self.seen.append([group["lr"] for group in self.param_groups])
        return super().step(closure)


@pytest.mark.parametrize(
    ("warmup", "shares"),
    [
        # 10 steps: two up to 1, by thirds; then cosines over 8 steps.
        (0.2, [1 / 3, 2 / 3, 1, 0.961940, 0.853553, 0.691342, 0.5, 0.308658, 0.146447, 0.038060]),
        (0.0, [1, 0.975528, 0.904508, 0.793893, 0.654508, 0.5, 0.345492, 0.206107, 0.095492, 0.024472]),
        (1.0, [step / 11 for step in range(1, 11)]),
    ],
)
def test_learning_rates(warmup: float, shares: list[float]) -> None:
    Noting.seen = []
    epochs: list[Epoch] = []
    netopt.retrain(network(), data(5), epochs=2, lr=0.2, warmup=warmup, optimizer=Noting, on_epoch=epochs.append)
    # The literals have six digits.
    assert [rates[0] for rates in Noting.seen] == pytest.approx([0.2 * share for share in shares], abs=2e-7)
    assert all(len(set(rates)) == 1 and len(rates) == 2 for rates in Noting.seen)
    assert [epoch.lr for epoch in epochs] == [Noting.seen[4][0], Noting.seen[9][0]]


def test_weight_decay_is_for_matrices_alone() -> None:
    """Where the loss has no gradient, a step leaves the decay to be seen."""
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)).double()
    nn.init.zeros_(model[2].weight)
    nn.init.normal_(model[2].bias)
    optimizer = partial(torch.optim.SGD, weight_decay=0.1)
    new = netopt.retrain(model, data(1, dtype=torch.float64), epochs=1, lr=0.5, warmup=0, optimizer=optimizer)
    assert torch.allclose(new[0].weight, model[0].weight * (1 - 0.5 * 0.1), rtol=1e-14, atol=0)
    assert torch.equal(new[0].bias, model[0].bias)
    assert torch.equal(new[1].weight, model[1].weight)
    plain = netopt.retrain(model, data(1, dtype=torch.float64), lr=0.5, **STEP)
    assert torch.equal(new[2].bias, plain[2].bias)


def latent() -> nn.Sequential:
    """The middle layer has latent weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)).double()
    return netopt.optimize(model, BinaryConnect(), keep_if="always").model  # type: ignore[return-value]


def test_latent_weights_have_a_group_of_their_own() -> None:
    groups: list[dict[str, Any]] = []

    class Grouped(torch.optim.SGD):
        def __init__(self, params: list[dict[str, Any]], lr: float) -> None:
            groups.extend({**group, "params": [tuple(p.shape) for p in group["params"]]} for group in params)
            super().__init__(params, lr)

    netopt.retrain(latent(), data(1, dtype=torch.float64), epochs=1, optimizer=Grouped)
    assert groups == [
        {"params": [(8, 6), (4, 8)]},
        {"params": [(8,), (8,), (8,), (8,), (4,)], "weight_decay": 0.0},
        {"params": [(8, 8)], "weight_decay": 0.0, "latent": True},
    ]
    model = latent()
    model[1].weight.requires_grad_(False)
    groups.clear()
    netopt.retrain(model, data(1, dtype=torch.float64), epochs=1, optimizer=Grouped)
    assert [group.get("latent") for group in groups] == [None, None]


def test_latent_weights_have_no_decay() -> None:
    """Where the loss has no gradient, a step leaves the decay to be seen."""
    model = latent()
    nn.init.zeros_(model[3].weight)
    optimizer = partial(torch.optim.SGD, weight_decay=0.1)
    new = netopt.retrain(model, data(1, dtype=torch.float64), epochs=1, lr=0.5, warmup=0, optimizer=optimizer)
    assert torch.equal(new[1].weight, model[1].weight)
    assert torch.allclose(new[0].weight, model[0].weight * (1 - 0.5 * 0.1), rtol=1e-14, atol=0)


class Kicking(torch.optim.SGD):
    """Notes the largest latent weight before and after its steps, which are long."""

    seen: list[tuple[float, float]] = []  # noqa: RUF012 emptied by the test

    def step(self, closure: Any = None) -> Any:
        (weight,) = self.param_groups[-1]["params"]
        before = weight.detach().abs().max().item()
        with torch.no_grad():
            weight.mul_(2)
        self.seen.append((before, weight.detach().abs().max().item()))


def test_latent_weights_are_constrained_after_each_step() -> None:
    model = latent()
    nn.init.uniform_(model[1].weight, -0.9, 0.9)
    Kicking.seen = []
    new = netopt.retrain(model, data(3, dtype=torch.float64), epochs=2, optimizer=Kicking)
    assert len(Kicking.seen) == 6
    assert all(before <= 1 < after for before, after in Kicking.seen)
    assert np.array_equal(new[1].weight.detach(), np.clip(2**6 * model[1].weight.detach().numpy(), -1, 1))
    assert model[1].weight.abs().max() < 0.9


def test_a_penalty_is_a_term_of_the_loss() -> None:
    """Of half the sum of squares, which has the weight for its gradient. It sees the network that is trained."""
    model, batches = linear(), data(1, dtype=torch.float64)
    seen: list[nn.Module] = []
    epochs: list[Epoch] = []

    def squares(network: nn.Module) -> torch.Tensor:
        seen.append(network)
        return 0.5 * network.weight.square().sum()  # type: ignore[no-any-return, operator]

    plain = netopt.retrain(model, batches, lr=0.5, **STEP, on_epoch=epochs.append)
    new = netopt.retrain(model, batches, lr=0.5, **STEP, on_epoch=epochs.append, penalty=squares)
    w = model.weight.detach().numpy()
    assert np.allclose(new.weight.detach(), plain.weight.detach().numpy() - 0.5 * w, rtol=1e-12, atol=1e-14)
    assert torch.equal(new.bias, plain.bias)
    assert epochs[1].loss == pytest.approx(epochs[0].loss + 0.5 * (w**2).sum(), rel=1e-12)
    assert seen == [new]
    netopt.retrain(model, data(3, dtype=torch.float64), epochs=2, penalty=squares)
    assert len(seen) == 1 + 6


@pytest.mark.parametrize("frozen", [".weight", ".bias"])
def test_frozen_parameters_stay(frozen: str) -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 4))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.endswith(frozen))
    new = netopt.retrain(model, data(), epochs=1)
    for (name, before), after in zip(model.named_parameters(), new.parameters(), strict=True):
        assert torch.equal(before, after) == name.endswith(frozen)
        assert after.requires_grad == before.requires_grad


def norm_of_step(model: nn.Module, **options: Any) -> tuple[float, torch.Tensor]:
    new = netopt.retrain(model, data(1, dtype=torch.float64), lr=1.0, **STEP, **options)
    steps = zip(model.parameters(), new.parameters(), strict=True)
    change = torch.cat([(before - after).detach().flatten() for before, after in steps])
    return float(change.norm()), change


def test_clip_norm_bounds_the_gradient() -> None:
    model = linear()
    norm, change = norm_of_step(model)
    clipped_norm, clipped = norm_of_step(model, clip_norm=norm / 5)
    # clip_grad_norm_ divides by the norm + 1e-6.
    assert clipped_norm == pytest.approx(norm / 5, rel=1e-5)
    assert torch.allclose(5 * clipped, change, rtol=1e-5, atol=1e-9)
    assert torch.equal(norm_of_step(model, clip_norm=2 * norm)[1], change)


def test_gradients_that_the_caller_left_do_not_count() -> None:
    model = linear()
    norm, change = norm_of_step(model)
    model.frozen = nn.Parameter(torch.ones(5), requires_grad=False)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e6)
    assert torch.equal(norm_of_step(model, clip_norm=2 * norm)[1], torch.cat([change, torch.zeros(5)]))
    assert all(torch.equal(parameter.grad, torch.full_like(parameter, 1e6)) for parameter in model.parameters())


# What stays as it was


def test_nothing_of_the_callers_is_changed() -> None:
    model, teacher = network(), network()
    model[0].weight.grad = torch.ones(16, 6)
    teacher.train()
    before = copy.deepcopy((model.state_dict(), teacher.state_dict()))
    state = torch.get_rng_state()
    new = netopt.retrain(model, data(), epochs=2, lr=0.1, teacher=teacher, evaluate=lambda _: float(torch.rand(())))
    assert torch.equal(torch.get_rng_state(), state)
    for network_, saved in zip((model, teacher), before, strict=True):
        assert all(torch.equal(value, saved[key]) for key, value in network_.state_dict().items())
        assert all(module.training for module in network_.modules())
        assert not any(module._forward_hooks for module in network_.modules())
    assert torch.equal(model[0].weight.grad, torch.ones(16, 6))
    assert all(parameter.grad is None for parameter in new.parameters())
    assert not same(model, new)
    pointers = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert pointers.isdisjoint(tensor.data_ptr() for tensor in new.state_dict().values())


def test_an_error_leaves_the_random_state() -> None:
    model, state = network(), torch.get_rng_state()
    with pytest.raises(InvalidArgument, match="labels in"):
        netopt.retrain(model, [(torch.zeros(8, 6), torch.full((8,), 4))], epochs=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_generators_of_other_devices_are_not_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seeded = network(), []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    netopt.retrain(model, data(), epochs=1)
    assert seeded == []


def test_the_result_does_not_depend_on_the_callers_random_state() -> None:
    model, batches = network(), Batches(Split(torch.randn(32, 6), torch.randint(0, 4, (32,))), 8)
    results = []
    for caller, seed in ((1, 0), (2, 0), (1, 3)):
        torch.manual_seed(caller)
        results.append(netopt.retrain(model, batches, epochs=2, seed=seed))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_each_epoch_has_its_own_draws() -> None:
    orders: list[list[int]] = []

    class Noting(Batches):
        def __iter__(self) -> Iterator[Batch]:
            epoch = list(super().__iter__())
            orders.append([int(x[0]) for images, _ in epoch for x in images])
            return iter(epoch)

    netopt.retrain(nn.Linear(1, 4), Noting(Split(torch.arange(32.0)[:, None], torch.zeros(32).long()), 8), epochs=3)
    assert [sorted(order) for order in orders] == [list(range(32))] * 3
    assert orders[0] != orders[1] != orders[2] != orders[0]


class Modes(nn.Module):
    """Notes the modes in which it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bool] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(self.training)
        return x


@pytest.mark.parametrize(
    ("modes", "in_training"),
    [((True, True, True), (True, True)), ((True, False, True), (False, True)), ((False, False, False), (True, True))],
    ids=["training", "one in eval mode", "all in eval mode"],
)
def test_modes(modes: tuple[bool, bool, bool], in_training: tuple[bool, bool]) -> None:
    model = nn.Sequential(Modes(), nn.Linear(6, 4), Modes())
    model.training, model[0].training, model[2].training = modes

    def evaluate(network: nn.Module) -> float:
        network(torch.zeros(1, 6))
        return 0.5

    new = netopt.retrain(model, data(1), epochs=2, evaluate=evaluate)
    assert (new.training, new[0].training, new[2].training) == modes
    assert [new[0].seen, new[2].seen] == [[in_training[0], False] * 2, [in_training[1], False] * 2]
    assert model[0].seen == []


def test_the_teacher_is_in_eval_mode_and_needs_no_gradients() -> None:
    calls: list[tuple[bool, bool]] = []

    class Teacher(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append((self.training, torch.is_grad_enabled()))
            return super().forward(x)

    netopt.retrain(network(), data(2), epochs=1, teacher=Teacher(6, 4))
    assert calls == [(False, False)] * 2


def test_the_teacher_stays_what_it_was_when_it_is_the_model() -> None:
    """Both are copies: the teacher does not learn along."""
    model, batches = network(), data()
    options = Distillation(weight=1.0)
    other = netopt.retrain(model, batches, epochs=3, lr=0.1, teacher=copy.deepcopy(model), distillation=options)
    assert same(netopt.retrain(model, batches, epochs=3, lr=0.1, teacher=model, distillation=options), other)


# Interruptions


class Interrupted:
    """Batches of another one; the interruption comes before batch `at` of all."""

    def __init__(self, batches: Batches, at: int) -> None:
        self.batches, self.left = batches, at

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            yield batch


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, partial(torch.optim.SGD, momentum=0.9, nesterov=True)])
def test_a_resumed_training_is_bit_for_bit_an_uninterrupted_one(tmp_path: Path, optimizer: Any, bfloat16: bool) -> None:
    split = Split(torch.randn(32, 1, 6, 6), torch.randint(0, 4, (32,)))
    batches = Batches(split, 8, flip=True, shift=1, cutout=2)
    teacher = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 4)
    )
    student = netopt.optimize(teacher, SVD(rank=1)).model

    def train(data: Any, path: Path, on_epoch: Any) -> nn.Module:
        return netopt.retrain(
            student,
            data,
            epochs=5,
            lr=0.02,
            teacher=teacher,
            distillation=Distillation(features=0.5),
            optimizer=optimizer,
            bfloat16=bfloat16,
            checkpoint=path,
            evaluate=lambda model: float(model(split.images).sum() + torch.rand(())),
            on_epoch=on_epoch,
        )

    def interrupt(epoch: Epoch) -> None:
        if epoch.number == 4:
            raise KeyboardInterrupt

    whole: list[Epoch] = []
    expected = train(batches, tmp_path / "whole", whole.append)
    path = tmp_path / "interrupted"
    for data, on_epoch in ((Interrupted(batches, 2), None), (Interrupted(batches, 11), None), (batches, interrupt)):
        torch.manual_seed(7)  # of a new process
        with pytest.raises(KeyboardInterrupt):
            train(data, path, on_epoch)
    rest: list[Epoch] = []
    resumed = train(batches, path, rest.append)
    assert same(resumed, expected)
    assert [epoch.number for epoch in rest] == [5]
    assert (rest[0].loss, rest[0].accuracy, rest[0].lr, rest[0].score) == (
        whole[4].loss,
        whole[4].accuracy,
        whole[4].lr,
        whole[4].score,
    )
    assert torch.load(path, weights_only=True)["epochs"] == 5


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    model, epochs = network(), []
    done = netopt.retrain(model, data(), epochs=2, checkpoint=tmp_path / "net")
    again = netopt.retrain(model, data(), epochs=2, checkpoint=tmp_path / "net", on_epoch=epochs.append)
    assert same(done, again)
    assert epochs == []
    assert again.training


# Divergence


class NotFinite:
    """Batches of which one has a NaN: in the second pass, the third."""

    def __init__(self) -> None:
        self.passes = 0

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[Batch]:
        self.passes += 1
        for number, (x, labels) in enumerate(data(4), 1):
            yield (x * math.nan if (self.passes, number) == (2, 3) else x), labels


def test_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    message = (
        r"^loss in epoch 2, step 3: expected finite numbers, found nan; "
        r"train with a learning rate below 0.01, or with clip_norm=1.0$"
    )
    with pytest.raises(NetoptError, match=message):
        netopt.retrain(network(), NotFinite(), epochs=3, lr=0.01, checkpoint=tmp_path / "net")
    assert torch.load(tmp_path / "net", weights_only=True)["epochs"] == 1


class Spoiling(torch.optim.SGD):
    """Makes the weights NaN."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.fill_(math.nan)


def test_weights_that_are_not_finite_are_neither_saved_nor_returned(tmp_path: Path) -> None:
    with pytest.raises(NetoptError, match="weights after epoch 1: expected finite numbers, found NaN or infinity"):
        netopt.retrain(network(), data(1), epochs=1, optimizer=Spoiling, checkpoint=tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_frozen_parameters_may_be_infinite() -> None:
    model = linear()
    model.mask = nn.Parameter(torch.full((2,), -math.inf), requires_grad=False)
    assert torch.equal(netopt.retrain(model, data(1, dtype=torch.float64), epochs=1).mask, model.mask)


# Kinds of data and models


def test_several_inputs() -> None:
    batches = [((x, 2 * x), labels) for x, labels in data()]
    model = nn.Bilinear(6, 6, 4)
    new = netopt.retrain(model, batches, epochs=1)
    assert same(new, netopt.retrain(model, [[list(inputs), labels] for inputs, labels in batches], epochs=1))
    assert not same(new, model)


def test_a_data_loader() -> None:
    batches = data()
    dataset = torch.utils.data.TensorDataset(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
    loader = torch.utils.data.DataLoader(dataset, batch_size=8)
    model = network().eval()[:3]  # without dropout: to iterate over a loader draws a number
    assert same(netopt.retrain(model, loader, epochs=2), netopt.retrain(model, batches, epochs=2))
    shuffled = torch.utils.data.DataLoader(dataset, batch_size=8, shuffle=True)
    results = [netopt.retrain(network(), shuffled, epochs=2) for _ in range(2)]
    assert same(*results)


def test_bfloat16_is_near_and_keeps_the_weights_in_float32() -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    losses: list[Epoch] = []
    results = [
        netopt.retrain(model, data(), epochs=1, optimizer=torch.optim.SGD, bfloat16=narrow, on_epoch=losses.append)
        for narrow in (False, True)
    ]
    assert not same(*results)
    assert all(parameter.dtype is torch.float32 for parameter in results[1].parameters())
    # Products with 8 bits: errors of 0.4 % that average out.
    assert losses[1].loss == pytest.approx(losses[0].loss, rel=1e-2)
    assert losses[1].loss != losses[0].loss


def test_losses_of_bfloat16_are_computed_in_float32() -> None:
    torch.manual_seed(0)
    model, teacher, ((x, labels),) = nn.Linear(6, 4), nn.Linear(6, 4), data(1)
    epochs: list[Epoch] = []
    netopt.retrain(
        model,
        [(x, labels)],
        teacher=teacher,
        distillation=Distillation(temperature=1.0, weight=0.5),
        bfloat16=True,
        on_epoch=epochs.append,
        **STEP,
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        s, t = model(x), teacher(x)
    assert s.dtype is torch.bfloat16
    s, wanted = s.double().numpy(), softmax(t.double().numpy())
    p = softmax(s)
    loss = 0.5 * -np.log(p[np.arange(8), labels]).mean() + 0.5 * (wanted * np.log(wanted / p)).sum() / 8
    # Sums of a few float32 numbers; bfloat16 would be wrong by up to 4e-3.
    assert epochs[0].loss == pytest.approx(loss, rel=1e-6)


def test_a_model_with_one_parameter_vector() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :4] * self.factor

    assert not torch.equal(netopt.retrain(Scale(), data(), epochs=1).factor, torch.ones(4))


def test_epochs_print_as_lines() -> None:
    assert str(Epoch(3, 0.25, 0.5, 0.001, 2.4, None)) == "epoch   3  loss 0.2500  accuracy 0.5000  lr 0.00100  2 s"
    assert "accuracy 0.5000  evaluated 0.7500  lr" in str(Epoch(3, 0.25, 0.5, 0.001, 2.4, 0.75))


# What it is for


def agreement(one: nn.Module, other: nn.Module, images: torch.Tensor) -> float:
    with torch.inference_mode():
        return float((one(images).argmax(1) == other(images).argmax(1)).float().mean())


def test_a_teacher_improves_a_factored_network() -> None:
    training, test = digits()
    torch.manual_seed(0)
    batches = Batches(training, 64)
    original = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    original = netopt.retrain(original, batches, epochs=15, lr=1e-2)
    assert (original(test.images).argmax(1) == test.labels).float().mean() > 0.9
    # Not one label is right: all knowledge is the teacher's.
    unlabelled = [(images, torch.zeros_like(labels)) for images, labels in Batches(training, 64)]
    factored = netopt.optimize(original, SVD(rank=4)).model
    before = agreement(factored, original, test.images)
    for options in (Distillation(weight=1.0), Distillation(weight=1.0, features=1.0)):
        result = netopt.optimize(
            original,
            SVD(rank=4),
            train=lambda m, options=options: netopt.retrain(
                m, unlabelled, epochs=10, lr=1e-2, teacher=original, distillation=options
            ),
        )
        assert result.report.rows[0].replaced
        assert agreement(result.model, original, test.images) > before + 0.1


def test_features_bring_layers_nearer() -> None:
    training, _ = digits()
    torch.manual_seed(0)
    original = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    factored = netopt.optimize(original, SVD(rank=4, select="0")).model
    distances = []
    for features in (0.0, 10.0):
        options = Distillation(features=features)
        new = netopt.retrain(factored, Batches(training, 64), epochs=3, teacher=original, distillation=options)
        with torch.inference_mode():
            distances.append(float((new[0](training.images) - original[0](training.images)).norm()))
    assert distances[1] < 0.9 * distances[0]


# Errors


class Uncountable(torch.utils.data.IterableDataset[Batch]):
    def __iter__(self) -> Iterator[Batch]:
        return iter(data())


class Once:
    """An iterator that claims a length."""

    def __init__(self, batches: int, claimed: int) -> None:
        self.batches, self.claimed = iter(data(batches)), claimed

    def __len__(self) -> int:
        return self.claimed

    def __iter__(self) -> Iterator[Batch]:
        return self.batches


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": 3}, InvalidType, r"model: expected a torch.nn.Module, found int"),
        ({"model": nn.ReLU()}, InvalidArgument, "model: expected a parameter with requires_grad, found none"),
        ({"model": linear().requires_grad_(False)}, InvalidArgument, "expected a parameter with requires_grad"),
        ({"teacher": "net"}, InvalidType, "teacher: expected a torch.nn.Module, found str"),
        (
            {"distillation": Distillation()},
            InvalidArgument,
            "distillation: expected a teacher, found none; give teacher=",
        ),
        ({"distillation": 0.5, "teacher": linear()}, InvalidType, "distillation: expected a Distillation, found 0.5"),
        ({"optimizer": None}, InvalidType, "optimizer: expected a function, found None"),
        ({"penalty": 5e-6}, InvalidType, "penalty: expected a function, found 5e-06"),
        ({"evaluate": 1}, InvalidType, "evaluate: expected a function, found 1"),
        ({"on_epoch": "print"}, InvalidType, "on_epoch: expected a function, found 'print'"),
        ({"data": (batch for batch in data())}, InvalidType, "data: expected batches that can .* found generator"),
        ({"data": torch.zeros(4, 6)}, InvalidType, "data: .* found Tensor"),
        ({"data": None}, InvalidType, "data: .* found NoneType"),
        ({"data": Split(torch.zeros(4, 6), torch.zeros(4))}, InvalidType, "data: .* found Split"),
        ({"data": torch.utils.data.DataLoader(Uncountable())}, InvalidType, "data: .* found DataLoader"),
        ({"data": []}, InvalidArgument, "data: expected at least one batch, found none"),
        ({"epochs": 0}, InvalidArgument, "epochs: expected an integer of at least 1, found 0"),
        ({"epochs": True}, InvalidArgument, "epochs: .* found True"),
        ({"epochs": 2.0}, InvalidArgument, "epochs: .* found 2.0"),
        ({"lr": 0}, InvalidArgument, "lr: expected a number above 0, found 0"),
        ({"lr": -1e-3}, InvalidArgument, "lr: .* found -0.001"),
        ({"lr": math.nan}, InvalidArgument, "lr: .* found nan"),
        ({"lr": math.inf}, InvalidArgument, "lr: .* found inf"),
        ({"lr": True}, InvalidArgument, "lr: .* found True"),
        ({"lr": "0.1"}, InvalidArgument, "lr: .* found '0.1'"),
        ({"warmup": 1.1}, InvalidArgument, "warmup: expected a share of the steps, from 0 to 1, found 1.1"),
        ({"label_smoothing": -0.1}, InvalidArgument, "label_smoothing: expected a number from 0 to 1, found -0.1"),
        ({"clip_norm": 0}, InvalidArgument, "clip_norm: expected a number above 0, found 0"),
        ({"clip_norm": math.nan}, InvalidArgument, "clip_norm: .* found nan"),
        ({"seed": -1}, InvalidArgument, "seed: expected an integer from 0 to .* found -1"),
        ({"seed": 1 << 43}, InvalidArgument, "seed: expected an integer from 0 to"),
        ({"seed": 0.5}, InvalidArgument, "seed: expected an integer from 0 to .* found 0.5"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[NetoptError], message: str, tmp_path: Path) -> None:
    arguments = {"model": linear(), "data": data(1, dtype=torch.float64), "epochs": 1, **arguments}
    state = torch.get_rng_state()
    with pytest.raises(error, match=message):
        netopt.retrain(arguments.pop("model"), arguments.pop("data"), **arguments, checkpoint=tmp_path / "net")
    assert not (tmp_path / "net").exists()
    assert torch.equal(torch.get_rng_state(), state)


def test_no_replaced_layer_to_match() -> None:
    with pytest.raises(InvalidArgument, match="features: expected a replaced layer"):
        netopt.retrain(network(), data(), epochs=1, teacher=network(), distillation=Distillation(features=1.0))


X, LABELS = torch.zeros(8, 6), torch.zeros(8, dtype=torch.int64)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (X, InvalidType, r"batch of data in AT: expected a pair \(inputs, labels\) of tensors, found Tensor"),
        ((X, LABELS, LABELS), InvalidType, "batch of data in AT: .* found Tensor, Tensor, Tensor"),
        ((X, [0] * 8), InvalidType, "batch of data in AT: .* found Tensor, list"),
        (({"x": X}, LABELS), InvalidType, "inputs in AT: expected a tensor or a tuple of tensors, found dict; have"),
        (((X, 3), LABELS), InvalidType, "inputs in AT: expected a tensor or a tuple of tensors, found int; have"),
        (((), LABELS), InvalidType, "inputs in AT: expected a tensor or a tuple of tensors, found an empty tuple"),
        ((X, LABELS.int()), InvalidArgument, r"labels in AT: expected classes .* found \(8,\) as torch.int32"),
        ((X, LABELS.float()), InvalidArgument, r"labels in AT: .* found \(8,\) as torch.float32"),
        ((X, LABELS[:, None]), InvalidArgument, r"labels in AT: .* found \(8, 1\) as torch.int64"),
        ((X[:0], LABELS[:0]), InvalidArgument, r"labels in AT: .* at least one, found \(0,\)"),
        ((X, LABELS[:7]), InvalidArgument, "labels in AT: expected 8, one for each input, found 7; have"),
        ((X, LABELS + 4), InvalidArgument, "labels in AT: expected classes from 0 to 3, .* 4 logits, found 4; number"),
        ((X, LABELS - 100), InvalidArgument, "labels in AT: expected classes from 0 to 3, .*, found -100; number"),
        (
            (X, torch.full((8, 5), 0.2)),
            InvalidArgument,
            r"labels in AT: expected probabilities \(8, 4\), as the model's logits, found \(8, 5\); give",
        ),
        (
            (X[:, :5], LABELS),
            InvalidArgument,
            r"inputs in AT: expected what the model takes, found \(8, 5\) as torch.float32, and RuntimeError: mat1 .*;",
        ),
        (((X, X), LABELS), InvalidArgument, "inputs in AT: .* the model takes, found .*, and TypeError: .*;"),
        ((X[:, None], LABELS), InvalidArgument, r"output of the model: .* found \(8, 1, 4\)"),
    ],
)
def test_wrong_batches(batch: Any, error: type[NetoptError], message: str) -> None:
    with pytest.raises(error, match="^" + message.replace(" AT:", " epoch 1, step 2:")):
        netopt.retrain(nn.Linear(6, 4), [(X, LABELS), batch], epochs=1)


def test_inputs_that_a_network_does_not_take_have_the_cause() -> None:
    batches = [(torch.zeros(8, 3, 5, 5), LABELS)]
    model = nn.Sequential(nn.Conv2d(1, 4, 5), nn.Flatten())
    with pytest.raises(InvalidArgument, match=r"inputs in epoch 1, step 1: .* the model takes, found \(8, 3") as caught:
        netopt.retrain(model, batches, epochs=1)
    assert type(caught.value.__cause__) is RuntimeError
    fitting = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Flatten())
    with pytest.raises(InvalidArgument, match="inputs in epoch 1, step 1: expected what the teacher takes, found"):
        netopt.retrain(fitting, batches, epochs=1, teacher=model)


class BatchSecond(nn.Linear):
    """Inputs (length, batch, features), as a recurrent network's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.sum(0))


def test_the_batch_may_be_another_axis_of_the_inputs() -> None:
    model, (batch,) = BatchSecond(6, 4), data(1)
    new = netopt.retrain(model, [(batch[0].expand(3, 8, 6), batch[1])], epochs=1)
    assert new.weight.isfinite().all()
    assert not same(new, model)


@pytest.mark.parametrize(
    ("optimizer", "model", "error", "found"),
    [
        (torch.optim.LBFGS, linear(), InvalidArgument, "ValueError: LBFGS doesn't support"),
        (torch.optim.LBFGS, nn.Linear(6, 4, bias=False), InvalidArgument, "LBFGS"),
        (
            partial(torch.optim.SGD, momentum=-1.0),
            linear(),
            InvalidArgument,
            "ValueError: Invalid momentum value: -1.0",
        ),
        (lambda groups, lr: None, linear(), InvalidType, "one to NoneType"),
    ],
    ids=["two groups", "one group", "wrong option", "none"],
)
def test_wrong_optimizers(optimizer: Any, model: nn.Module, error: type[NetoptError], found: str) -> None:
    message = (
        rf"^optimizer: expected a function .* needs no closure, found {found}.*; give one such as torch.optim.AdamW$"
    )
    with pytest.raises(error, match=message):
        netopt.retrain(model, data(1), epochs=1, optimizer=optimizer)


class Pair(nn.Linear):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x), x


def test_outputs_that_are_no_logits() -> None:
    with pytest.raises(InvalidType, match="output of the model: expected a tensor of logits, found tuple"):
        netopt.retrain(Pair(6, 4), data(), epochs=1)
    with pytest.raises(InvalidType, match="output of the teacher: expected a tensor of logits, found tuple"):
        netopt.retrain(network(), data(), epochs=1, teacher=Pair(6, 4))
    with pytest.raises(InvalidArgument, match=r"output of the teacher: expected the model's \(8, 4\), found \(8, 3\)"):
        netopt.retrain(network(), data(), epochs=1, teacher=nn.Linear(6, 3))


@pytest.mark.parametrize(
    ("batches", "claimed", "message"),
    [
        (3, 3, "data in epoch 2: expected 3 batches, as len.data. says, found 0; give batches that can be iterated"),
        (2, 3, "data in epoch 1: expected 3 batches, .*, found 2;"),
        (4, 3, "data in epoch 1: expected 3 batches, .*, found more;"),
    ],
)
def test_data_that_are_not_as_long_as_they_say(batches: int, claimed: int, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        netopt.retrain(network(), Once(batches, claimed), epochs=2)


def test_data_without_an_end() -> None:
    data = Once(50, 3)
    with pytest.raises(InvalidArgument, match="found more"):
        netopt.retrain(network(), data, epochs=1)
    assert len(list(data.batches)) == 46
