"""The points that are chosen are PyTorch's, for any size and any factor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from netopt import InvalidArgument
from netopt.graph import Graph, interpret
from netopt.graph.aten import IMPORTERS, Context
from netopt.graph.graph import GraphBuilder
from netopt.ops import Resize, TensorType

PROPERTY = settings(max_examples=150, derandomize=True, deadline=None)
PIXELS = st.tuples(st.integers(1, 13), st.integers(1, 13))
MODES = st.sampled_from(["nearest", "nearest-exact", "bilinear"])
FACTORS = st.sampled_from([0.3, 0.5, 2 / 3, 0.75, 1.0, 1.1, 1.5, 5 / 3, 2.0, 2.3, 3.0])


def _imported(x: torch.Tensor, mode: str, **options: Any) -> Graph:
    """The graph of the ATen op that F.interpolate is exported as."""
    kind = {"nearest": "upsample_nearest", "nearest-exact": "_upsample_nearest_exact"}.get(mode, f"upsample_{mode}")
    factors = options.get("scale_factor")
    factors = [factors] * (x.dim() - 2) if isinstance(factors, float) else factors
    size = options.get("size")
    size = [size] * (x.dim() - 2) if isinstance(size, int) else size
    builder = GraphBuilder()
    builder.inputs, builder.types = ("x",), {"x": TensorType(tuple(x.shape))}
    arguments = {"input": "x", "output_size": size, "scale_factors": factors}
    arguments["align_corners"] = options.get("align_corners")
    result = IMPORTERS[f"{kind}{x.dim() - 2}d.vec"](Context(builder, "y", ""), arguments)
    assert isinstance(result, str)
    builder.outputs = (result,)
    return builder.finish()


def _compare(x: torch.Tensor, **options: Any) -> None:
    expected = F.interpolate(x, **options)
    (result,) = interpret(_imported(x, **options), [x])
    if "nearest" in options["mode"]:
        assert torch.equal(result, expected)
    else:
        # PyTorch may fuse the product and the sum of a point: 2^-24 of at most 40 pixels, times a difference of
        # pixels below 10; and the rounding of two stages.
        torch.testing.assert_close(result, expected, rtol=0.0, atol=(40 * 10 + 8 * 10) * 2.0**-24)


@PROPERTY
@given(image=PIXELS, factors=st.tuples(FACTORS, FACTORS), mode=MODES)
def test_factors(image: tuple[int, int], factors: tuple[float, float], mode: str) -> None:
    sizes = [int(n * f) for n, f in zip(image, factors, strict=True)]
    # PyTorch has two kernels that disagree where a factor near 2 gives exactly twice the size.
    doubled = any(m == 2 * n and f != 2.0 for n, m, f in zip(image, sizes, factors, strict=True))
    if min(sizes) < 1 or (doubled and mode == "nearest"):
        return
    _compare(torch.randn(1, 2, *image, generator=torch.Generator().manual_seed(0)), scale_factor=factors, mode=mode)


@PROPERTY
@given(image=PIXELS, size=PIXELS, mode=MODES, corners=st.booleans())
def test_sizes(image: tuple[int, int], size: tuple[int, int], mode: str, corners: bool) -> None:
    options = {"align_corners": corners} if mode == "bilinear" else {}
    _compare(torch.randn(2, 1, *image, generator=torch.Generator().manual_seed(0)), size=size, mode=mode, **options)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear"])
def test_sequences(mode: str) -> None:
    x = torch.randn(2, 3, 11, generator=torch.Generator().manual_seed(0))
    for options in ({"size": 7}, {"scale_factor": 1.5}, {"scale_factor": 2 / 3}, {"scale_factor": 1.05}):
        _compare(x, mode=mode, **options)


@pytest.mark.parametrize(
    ("function", "size", "step"),
    [("cubic", (2, 2), (1.0, 1.0)), ("nearest", (0, 2), (1.0, 1.0)), ("nearest", (2, 2), (0.1, 1.0))],
)
def test_impossible(function: str, size: Any, step: Any) -> None:
    """0.1 is no float32 number: the step that PyTorch uses is rounded."""
    with pytest.raises(InvalidArgument, match="of resize"):
        Resize(function, size, step)
