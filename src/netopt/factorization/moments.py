"""What a layer's inputs are like: second moments, with which the error of its output can be minimised.

For a layer y = W x, with the moment M = E[x x^T] of its inputs, E|(W - W') x|^2 = trace((W - W') M (W - W')^T): the
error of the output, where the error of the weights takes M to be the identity.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional as F

from netopt.errors import InvalidArgument
from netopt.factorization.geometry import Geometry
from netopt.transform.select import Layer

# Directions that the inputs hardly take get this share of the mean of all, so that roots can be inverted.
_FLOOR = 1e-3
# Of each input as many places are looked at as give this many for all of them; moments change little with more.
_PLACES = 100_000
# Rows that are multiplied together, at least.
_ROWS = 2048


def moment_of_dense(layer: Layer) -> torch.Tensor | None:
    """E[x x^T] of a dense layer's inputs, (n, n), in float64; None without calibration inputs."""
    if layer.calibration is None:
        return None
    return _mean_product((x.reshape(1, -1, x.shape[-1]) for x in layer.calibration()), layer)[0]


def moments_of_patches(layer: Layer, geometry: Geometry) -> list[torch.Tensor] | None:
    """For each group E[p p^T] of the patches that the kernel sees, (in kh kw, in kh kw), in float64.

    None without calibration inputs, and for transposed convolutions, which see no patches.
    """
    if layer.calibration is None or geometry.transposed:
        return None
    samples = (sample for x in layer.calibration() for sample in _patches(x, geometry))
    return list(_mean_product(samples, layer))


def _mean_product(samples: Iterator[torch.Tensor], layer: Layer) -> torch.Tensor:
    """The mean of x x^T over the rows of samples (groups, rows, n): (groups, n, n)."""
    total, rows = None, 0
    for sample in _gathered(samples):
        product = (sample.transpose(1, 2) @ sample).double()
        total, rows = (product if total is None else total + product), rows + sample.shape[1]
    if total is None or rows == 0:
        raise InvalidArgument(
            "calibration", expected="inputs for which the layer is called", found="none", layer=layer.name
        )
    if not torch.isfinite(total).all():
        raise InvalidArgument("calibration", expected="finite inputs of the layer", found="others", layer=layer.name)
    return total / rows


def _gathered(samples: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The samples joined until they have many rows: to add up a product of n columns costs as much as n rows do."""
    waiting: list[torch.Tensor] = []
    rows = 0
    for sample in samples:
        waiting.append(sample.float())
        rows += sample.shape[1]
        if rows >= max(_ROWS, sample.shape[2]):
            yield torch.cat(waiting, 1)
            waiting, rows = [], 0
    if waiting:
        yield torch.cat(waiting, 1)


def _patches(x: torch.Tensor, geometry: Geometry) -> Iterator[torch.Tensor]:
    """For each image (groups, places, in kh kw): what the kernel sees at some of its places, spread evenly.

    One image at a time, since patches are as many times larger than the image as the kernel has places.
    """
    if x.dim() == len(geometry.kernel) + 1:
        x = x.unsqueeze(0)
    x = F.pad(x.float(), *_padding(geometry))
    if len(geometry.kernel) == 1:
        x = x.unsqueeze(2)
    lead = (1,) * (2 - len(geometry.kernel))
    for image in torch.split(x, 1):
        patches = F.unfold(
            image, (*lead, *geometry.kernel), dilation=(*lead, *geometry.dilation), stride=(*lead, *geometry.stride)
        )
        rows = patches[0].T
        rows = rows[:: max(1, len(x) * len(rows) // _PLACES)]
        yield rows.reshape(len(rows), geometry.groups, -1).transpose(0, 1)


def _padding(geometry: Geometry) -> tuple[list[int], str]:
    """Arguments of `F.pad`."""
    mode = "constant" if geometry.padding_mode == "zeros" else geometry.padding_mode
    if isinstance(geometry.padding, str):
        amounts = []
        for kernel, dilation in zip(reversed(geometry.kernel), reversed(geometry.dilation), strict=True):
            total = dilation * (kernel - 1)
            amounts += [total // 2, total - total // 2]
        return amounts, mode
    return [amount for amount in reversed(geometry.padding) for _ in range(2)], mode


def channel_moment(moment: torch.Tensor, area: int) -> torch.Tensor:
    """The mean over the places of a kernel of the moment of the channels there: (in, in) of (in area, in area)."""
    channels = len(moment) // area
    return torch.einsum("akbk->ab", moment.view(channels, area, channels, area)) / area


def roots(moment: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """R and its inverse with R R = the moment, or nearly: small eigenvalues are raised to a floor."""
    values, vectors = torch.linalg.eigh(moment)
    values = values.clamp_min(0)
    mean = values.mean()
    if mean == 0:
        identity = torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
        return identity, identity
    root = (values + _FLOOR * mean).sqrt()
    return (vectors * root) @ vectors.T, (vectors / root) @ vectors.T


def principal_components(weight: torch.Tensor, moment: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the outputs W x: unit vectors (out, out), the largest first, and their mean squares (out,)."""
    values, vectors = torch.linalg.eigh(weight @ moment @ weight.T)
    return vectors.flip(1), values.flip(0).clamp_min(0)


def fitted(weight: torch.Tensor, moment: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """The G (out, k) that minimises E|(W - G B) x|^2 for features B (k, n) of the inputs: W M B^T (B M B^T)^-1."""
    gram = features @ moment @ features.T
    # Where features hardly vary, any G is as good: the least is taken.
    inverse: torch.Tensor = torch.linalg.pinv(gram, hermitian=True, rtol=1e-9)
    return weight @ moment @ features.T @ inverse


def relative_error(weight: torch.Tensor, other: torch.Tensor, moment: torch.Tensor | None) -> tuple[float, float]:
    """Squares of the error and of the size of the output; or of the weights, without a moment. Matrices (out, n)."""
    difference = weight - other
    if moment is None:
        return float(difference.square().sum()), float(weight.square().sum())
    return float((difference @ moment * difference).sum()), float((weight @ moment * weight).sum())


def root_ratio(wrong: float, size: float) -> float:
    """The relative error that two such squares, or sums of them, tell; 0 where there is nothing to be wrong about."""
    return (max(0.0, wrong) / size) ** 0.5 if size > 0 else 0.0
