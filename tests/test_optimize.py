"""The three steps together."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import netopt
from netopt.datasets import digits
from netopt.factorization import SVD, FactoredDense


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
    result = netopt.optimize(network(), SVD(rank=2), train=fill, lower=True, example=x)
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
    with pytest.raises(netopt.InvalidType, match="train: expected a function"):
        netopt.optimize(network(), SVD(rank=2), train=3)  # type: ignore[arg-type]
    with pytest.raises(netopt.InvalidType, match="train: expected a model, or None .* found float"):
        netopt.optimize(network(), SVD(rank=2), train=lambda model: 0.5)  # type: ignore[arg-type, return-value]


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
    retrained = netopt.optimize(model, SVD(rank=4), train=fit, lower=True, example=test.images)
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
