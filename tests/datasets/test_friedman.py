"""Friedman's first function."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from netopt import InvalidArgument
from netopt.datasets import friedman


def test_shapes_and_types() -> None:
    train, test = friedman(training=30, test=20)
    assert (train.inputs.shape, train.targets.shape) == ((30, 10), (30, 1))
    assert (test.inputs.shape, test.targets.shape) == ((20, 10), (20, 1))
    assert (train.inputs.dtype, train.targets.dtype) == (torch.float32, torch.float32)
    assert [len(part) for part in friedman()] == [50_000, 10_000]


def test_the_formula() -> None:
    train, _ = friedman(training=50, test=1, noise=0.0)
    for x, (y,) in zip(train.inputs.tolist(), train.targets.tolist(), strict=True):
        expected = 10 * math.sin(math.pi * x[0] * x[1]) + 20 * (x[2] - 0.5) ** 2 + 10 * x[3] + 5 * x[4]
        assert y == pytest.approx(expected, rel=2**-23)


def test_the_distributions() -> None:
    """Each bound is five standard errors of 20,000 points."""
    noisy, clean = friedman(training=20_000, noise=2.0)[0], friedman(training=20_000, noise=0.0)[0]
    assert torch.equal(noisy.inputs, clean.inputs)
    assert 0 <= float(noisy.inputs.min()) < 0.001
    assert 0.999 < float(noisy.inputs.max()) < 1
    assert bool(((noisy.inputs.mean(0) - 0.5).abs() < 5 * math.sqrt(1 / 12 / 20_000)).all())
    noise = noisy.targets - clean.targets
    assert abs(float(noise.mean())) < 5 * 2 / math.sqrt(20_000)
    assert abs(float(noise.std()) - 2) < 5 * 2 / math.sqrt(40_000)


def test_the_same_for_the_same_seed() -> None:
    first, again, other = friedman(test=5), friedman(training=7, test=5), friedman(test=5, seed=1)
    assert torch.equal(first[1].inputs, again[1].inputs)
    assert torch.equal(first[1].targets, again[1].targets)
    assert not torch.equal(first[1].inputs, other[1].inputs)
    assert not torch.equal(first[0].inputs[:5], first[1].inputs)


def test_the_first_point() -> None:
    """The same on every machine and with every version of NumPy, or results could not be compared."""
    point = friedman(training=1, test=1)[1]
    assert point.inputs[0, :3].tolist() == [0.5221570730209351, 0.8897387385368347, 0.9929482340812683]
    assert point.targets.item() == pytest.approx(23.85536766052246, rel=2**-23)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"training": 0}, "training: expected an integer of at least 1, found 0"),
        ({"test": 2.0}, r"test: expected an integer of at least 1, found 2\.0"),
        ({"seed": -1}, "seed: expected an integer of at least 0, found -1"),
        ({"noise": -0.5}, "noise: expected a finite number of at least 0, found -0.5"),
        ({"noise": math.inf}, "noise: expected .* found inf"),
        ({"noise": math.nan}, "noise: expected .* found nan"),
        ({"noise": True}, "noise: expected .* found True"),
    ],
)
def test_arguments_that_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        friedman(**arguments)
