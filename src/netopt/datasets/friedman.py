"""Friedman's first function: a regression that can be drawn anew in any number, no download."""

from __future__ import annotations

import math

import numpy as np
import torch

from netopt.datasets.regression_split import RegressionSplit
from netopt.errors import InvalidArgument


def friedman(
    *, training: int = 50_000, test: int = 10_000, noise: float = 1.0, seed: int = 0
) -> tuple[RegressionSplit, RegressionSplit]:
    """Points (number, 10), uniform on [0, 1), and y (number, 1) of each, as (training, test) parts.

    y = 10 sin(pi x0 x1) + 20 (x2 - 0.5)^2 + 10 x3 + 5 x4 + noise. x5 to x9 have no influence. No model has a root mean
    square error on the test part below `noise`, apart from chance. A seed gives the same points on every machine, and
    neither part depends on the size of the other.

    Source: Friedman, 1991, "Multivariate adaptive regression splines", section 4.3, equation 61.

    Args:
        training: points in the first part.
        test: points in the second part.
        noise: standard deviation of what is added to y, normally distributed; 1 in the paper.
        seed: of the points and of the noise, from 0.

    Raises:
        InvalidArgument: a number of points is not an integer of at least 1, the noise is negative or not finite, or the
            seed is not an integer of at least 0.
    """
    for name, value, least in (("training", training, 1), ("test", test, 1), ("seed", seed, 0)):
        if type(value) is not int or value < least:
            raise InvalidArgument(name, expected=f"an integer of at least {least}", found=repr(value))
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise < math.inf:
        raise InvalidArgument("noise", expected="a finite number of at least 0", found=repr(noise))
    return _draw(training, noise, (seed, 0)), _draw(test, noise, (seed, 1))


def _draw(number: int, noise: float, seed: tuple[int, int]) -> RegressionSplit:
    # NumPy's generator, not PyTorch's, whose normal numbers may differ between CPUs.
    generator = np.random.default_rng(seed)
    points = generator.random((number, 10), dtype=np.float32)
    x = points.astype(np.float64)
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    y += noise * generator.standard_normal(number)
    return RegressionSplit(torch.from_numpy(points), torch.from_numpy(y.astype(np.float32)).unsqueeze(1))
