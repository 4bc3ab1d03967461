"""The three steps together."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn

import netopt
from netopt.datasets import digits
from netopt.factorization import SVD, FactoredDense, decompose
from netopt.search.whole import WholeNetwork
from netopt.transform.layer_report import NetworkTimes
from netopt.transform.policy import Verdict


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10))


def test_transform_alone() -> None:
    result = netopt.optimize(network(), SVD(rank=2))
    assert isinstance(result.model[0], FactoredDense)
    assert result.program is None
    assert [row.replaced for row in result.report.rows] == [True, True]


def test_train_in_place_and_train_that_returns_a_model() -> None:
    seen: list[nn.Module] = []

    def in_place(model: nn.Module) -> None:
        seen.append(model)
        with torch.no_grad():
            model[0].u.bias.fill_(5.0)  # type: ignore[index]

    result = netopt.optimize(network(), SVD(rank=2), train=in_place)
    assert seen == [result.model]
    assert result.model[0].bias.eq(5.0).all()
    other = network()
    assert netopt.optimize(network(), SVD(rank=2), train=lambda model: other).model is other


def test_the_program_is_of_the_trained_model() -> None:
    def fill(model: nn.Module) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(0.5)

    x = torch.ones(1, 20)
    result = netopt.optimize(network(), SVD(rank=2), train=fill, lower=True, example=x, keep_if="smaller")
    assert result.program is not None
    torch.testing.assert_close(result.program(x), result.model(x))
    assert result.program.multiply_adds == 2 * (20 + 30) + 2 * (30 + 10)


def test_no_technique_is_lowering_alone() -> None:
    model, x = network(), torch.randn(3, 20)
    result = netopt.optimize(model, [], lower=True, example=x)
    assert result.program is not None
    torch.testing.assert_close(result.program(x), model(x))
    assert result.report.rows == ()


def test_wrong_arguments() -> None:
    with pytest.raises(netopt.InvalidArgument, match="example: expected an input"):
        netopt.optimize(network(), SVD(rank=2), lower=True)
    with pytest.raises(netopt.InvalidArgument, match='give example=... with keep_if="faster"'):
        netopt.optimize(network(), SVD(rank=2), keep_if="faster")
    with pytest.raises(netopt.InvalidArgument, match="keep_if: expected .* found 'quicker'"):
        netopt.optimize(network(), SVD(rank=2), keep_if="quicker")  # type: ignore[arg-type]
    for margin in (1.0, -0.1, float("nan"), "5 %", False, None):
        with pytest.raises(netopt.InvalidArgument, match="margin: expected a share from 0, below 1"):
            netopt.optimize(network(), SVD(rank=2), margin=margin)  # type: ignore[arg-type]
    with pytest.raises(netopt.InvalidArgument, match="iterative: expected train or recover, found neither"):
        netopt.optimize(network(), SVD(rank=2), iterative=True)
    with pytest.raises(netopt.InvalidType, match="recover: expected a function"):
        netopt.optimize(network(), SVD(rank=2), recover=3)  # type: ignore[arg-type]
    with pytest.raises(netopt.InvalidType, match="recover: expected a model, or None .* found float"):
        netopt.optimize(network(), SVD(rank=2), recover=lambda model: 0.5)  # type: ignore[arg-type, return-value]
    with pytest.raises(netopt.InvalidType, match="calibration: expected a tensor"):
        netopt.optimize(network(), SVD(rank=2), calibration="images")  # type: ignore[arg-type]
    with pytest.raises(netopt.InvalidType, match="train: expected a function"):
        netopt.optimize(network(), SVD(rank=2), train=3)  # type: ignore[arg-type]
    with pytest.raises(netopt.InvalidType, match="train: expected a model, or None .* found float"):
        netopt.optimize(network(), SVD(rank=2), train=lambda model: 0.5)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_if": "quicker"}, "keep_if: expected"),
        ({"precision": "fp8"}, "precision: expected"),
        ({"threads": 0}, "threads: expected"),
        ({"target": "pentium"}, "target: expected"),
        ({"margin": 1.0}, "margin: expected"),
    ],
)
def test_options_are_checked_before_any_work(options: dict[str, object], message: str) -> None:
    class Untouchable(nn.Module):
        def __deepcopy__(self, memo: object) -> nn.Module:
            raise AssertionError("copied")

    with pytest.raises(netopt.InvalidArgument, match=message):
        netopt.optimize(Untouchable(), SVD(rank=2), **options)  # type: ignore[call-overload]
    with pytest.raises(netopt.InvalidArgument, match=message):
        decompose(Untouchable(), 2, **options)  # type: ignore[call-overload]


def test_with_an_example_layers_stay_unless_they_become_faster() -> None:
    """The large layer becomes far faster at rank 16. The small one has fewer parameters, and is not called."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.large, self.idle = nn.Linear(2048, 2048), nn.Linear(64, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.large(x))

    result = netopt.optimize(Net(), SVD(rank=16), example=torch.zeros(1, 2048))
    large, idle = result.report.rows
    assert large.replaced
    assert large.before_ms is not None
    assert large.after_ms is not None
    assert large.after_ms < large.before_ms
    assert (large.before.multiply_adds, large.after.multiply_adds) == (2048 * 2048, 16 * 4096)
    assert (idle.replaced, idle.before_ms, idle.after_ms) == (False, None, None)
    assert "is not called for the example" in idle.reason
    assert result.report.network is not None
    assert result.report.network.after_ms < result.report.network.before_ms
    assert str(result.report).splitlines()[-1].startswith("whole network, lowered: ")
    assert result.program is None


def test_a_layer_that_does_not_become_faster_stays_and_its_times_are_reported() -> None:
    """A rank of nearly three quarters is nearly one and a half times the work."""
    result = netopt.optimize(nn.Sequential(nn.Linear(512, 512)), SVD(rank=380), example=torch.zeros(1, 512))
    (row,) = result.report.rows
    assert isinstance(result.model[0], nn.Linear)
    assert row.reason == "FactoredDense(512 -> 380 -> 512, bias=True): not faster by 5%"
    assert row.before_ms is not None
    assert row.after_ms is not None
    assert row.after_ms > row.before_ms
    assert row.error is not None
    assert 0 < row.error < 0.5
    assert row.after == row.before
    assert result.report.network is None


@pytest.mark.parametrize(("after", "replaced"), [(2.1, False), (2.02, True), (1.9, True)])
def test_replacements_are_undone_where_the_whole_network_is_slower(
    monkeypatch: pytest.MonkeyPatch, after: float, replaced: bool
) -> None:
    """`netopt.optimize` names both the function and the module."""
    module = sys.modules["netopt.verbs.optimize"]
    monkeypatch.setattr(module, "FasterBy", lambda **_: lambda _: Verdict(True, "", 1.0, 0.5))
    monkeypatch.setattr(WholeNetwork, "times", lambda *_: NetworkTimes(2.0, after))
    model, x = network(), torch.randn(3, 20)
    result = netopt.optimize(model, SVD(rank=2, select="0"), example=x)
    row = result.report.rows[0]
    assert row.replaced is replaced
    assert isinstance(result.model[0], FactoredDense) is replaced  # type: ignore[index]
    assert ("the whole network is slower so" in row.reason) is not replaced
    assert (row.after == row.before) is not replaced
    assert result.report.network == NetworkTimes(2.0, after)
    if not replaced:
        assert torch.equal(result.model(x), model(x))
        assert result.model is not model


def test_smaller_and_always_measure_nothing() -> None:
    for keep_if, kept in (("smaller", False), ("always", True)):
        result = netopt.optimize(network(), SVD(rank=10), example=torch.zeros(1, 20), keep_if=keep_if)  # type: ignore[arg-type]
        first, second = result.report.rows
        # Rank 10: 530 parameters for 630, and 410 for 310.
        assert (first.replaced, second.replaced) == (True, kept)
        assert all(row.before_ms is None for row in result.report.rows)
        assert result.report.network is None


def test_iterative_trains_after_each_replacement() -> None:
    seen: list[tuple[str, list[str]]] = []

    def note(step: str) -> Callable[[nn.Module], None]:
        return lambda model: seen.append((step, [type(layer).__name__ for layer in model][::2]))  # type: ignore[attr-defined]

    half, whole = ["FactoredDense", "Linear"], ["FactoredDense", "FactoredDense"]
    netopt.optimize(network(), SVD(rank=2), train=note("train"), recover=note("recover"))
    assert seen == [("recover", half), ("recover", whole), ("train", whole)]
    seen.clear()
    netopt.optimize(network(), SVD(rank=2), recover=note("recover"), iterative=True)
    assert seen == [("recover", half), ("recover", whole)]
    seen.clear()
    netopt.optimize(network(), SVD(rank=2), train=note("train"), iterative=True)
    assert seen == [("train", half), ("train", whole), ("train", whole)]
    seen.clear()
    netopt.optimize(network(), SVD(rank=2), train=note("train"))
    assert seen == [("train", whole)]


def test_a_layer_is_replaced_as_it_was_trained() -> None:
    """What `recover` makes of the second layer is what is factored next."""

    def recover(model: nn.Module) -> nn.Module:
        model = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(0.5)
        return model

    result = netopt.optimize(network(), SVD(rank=2, select=["0", "2"]), recover=recover)
    assert all(parameter.eq(0.5).all() for parameter in result.model.parameters())
    calls: list[nn.Module] = []

    def once(model: nn.Module) -> nn.Module | None:
        calls.append(model)
        return recover(model) if len(calls) == 1 else None

    result = netopt.optimize(network(), SVD(rank=2), recover=once)
    torch.testing.assert_close(result.model[2].weight, torch.full((10, 30), 0.5))  # type: ignore[index, union-attr]


def test_calibration_lowers_the_error_of_outputs() -> None:
    """Inputs of one direction: a factorization of rank 1 that knows them loses next to nothing."""
    model, direction = nn.Sequential(nn.Linear(20, 30)), torch.randn(1, 20)
    inputs = torch.randn(100, 1) * direction
    blind = netopt.optimize(model, SVD(rank=1)).model
    seeing = netopt.optimize(model, SVD(rank=1), calibration=inputs)
    wanted = model(inputs).detach()

    def error(other: nn.Module) -> float:
        return float((other(inputs).detach() - wanted).norm() / wanted.norm())

    assert error(blind) > 0.1
    assert error(seeing.model) < 0.01
    assert seeing.report.rows[0].error is not None
    assert seeing.report.rows[0].error < 0.02


def test_the_network_of_another_type_has_no_times() -> None:
    """Only float32 is lowered; the layers are measured as they would be."""
    result = netopt.optimize(
        nn.Sequential(nn.Linear(2048, 2048)).double(), SVD(rank=16), example=torch.zeros(1, 2048).double()
    )
    assert result.report.rows[0].replaced
    assert result.report.network is None


def test_retraining_on_real_digits_recovers_accuracy() -> None:
    """The whole path on real input: what rank 4 loses, a few epochs win back, and the program keeps it."""
    train, test = digits()

    def fit(model: nn.Module) -> None:
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(train.images), train.labels).backward()
            optimizer.step()

    def accuracy(predict: object) -> float:
        return float((predict(test.images).argmax(1) == test.labels).float().mean())  # type: ignore[operator]

    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    fit(model)
    factored = netopt.optimize(model, SVD(rank=4))
    retrained = netopt.optimize(model, SVD(rank=4), train=fit, lower=True, example=test.images, keep_if="smaller")
    before, lost, recovered = accuracy(model), accuracy(factored.model), accuracy(retrained.model)
    assert before > 0.95
    assert lost < before - 0.1
    assert recovered > lost + 0.1
    assert retrained.program is not None
    assert accuracy(retrained.program) == recovered


def test_lowering_takes_its_options() -> None:
    """Winograd's algorithm, asked for, is in the summary."""
    model = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())
    result = netopt.optimize(model, [], lower=True, example=torch.randn(1, 32, 24, 24), exact=False)
    assert result.program is not None
    assert "winograd2d + relu" in result.program.summary()
    with pytest.raises(netopt.InvalidArgument, match="precision"):
        netopt.optimize(model, [], lower=True, example=torch.randn(1, 32, 24, 24), precision="fp8")


@pytest.mark.parametrize("name", ["lower", "iterative"])
def test_flags_are_true_or_false(name: str) -> None:
    with pytest.raises(netopt.InvalidType, match=f"{name}: expected True or False, found 'yes'"):
        netopt.optimize(network(), SVD(rank=1), **{name: "yes"})  # type: ignore[call-overload]


def test_wrong_arguments_are_found_before_the_network_is_lowered() -> None:
    x = torch.zeros(1, 4)
    with pytest.raises(netopt.InvalidType, match="model: expected a torch.nn.Module, found str"):
        netopt.optimize("model", SVD(rank=2), example=x)  # type: ignore[call-overload]
    with pytest.raises(netopt.InvalidType, match="techniques: expected a netopt.Technique or a sequence of them"):
        netopt.optimize(nn.Linear(4, 4), [SVD], example=x)  # type: ignore[call-overload]
