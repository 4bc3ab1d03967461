"""Importers of whole numbers, truth and indices: interpreter and program give what PyTorch gives, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import netopt
from netopt.graph import interpret
from netopt.graph.capture import capture
from tests.graph.recording import record_importers
from tests.pipelines import run_passes


def _written(x: torch.Tensor, *key: Any, value: Any) -> torch.Tensor:
    y = x.clone()
    y[key] = value
    return y


ORDER, PART = torch.tensor([3, 0, 2, 1]), torch.tensor([4, 0, 5])
TRUTH = torch.tensor([True, False, True, True, False, True])

# The row that the case is for, a function of x (4, 6), whole numbers i (4, 6) from 0 to 3, and truth b (4, 6).
CASES: tuple[tuple[str, Callable[..., Any]], ...] = (
    ("eq.Tensor", lambda x, i, b: (x == x[0], i == i.T[:1, :1], b == b[:, :1], i == x)),
    ("eq.Scalar", lambda x, i, b: (x == 1, i == 2, i == 2.5, b == True)),  # noqa: E712
    ("ne.Tensor", lambda x, i, b: (x != x[0], i.int() != i[0], (i > 1) != b)),
    ("ne.Scalar", lambda x, i, b: (x != 0, i != 2)),
    ("lt.Tensor", lambda x, i, b: (x < x[0], i < i[:, :1].to(torch.uint8), b < i)),
    ("lt.Scalar", lambda x, i, b: (x < 0.5, i < 2, i.to(torch.uint8) < 3)),
    ("le.Tensor", lambda x, i, b: (x <= x[0], i <= i[0])),
    ("le.Scalar", lambda x, i, b: (x <= 0, i <= 1)),
    ("gt.Tensor", lambda x, i, b: (x > x[0], i > i[0])),
    ("gt.Scalar", lambda x, i, b: (x > 0, i > 1)),
    ("ge.Tensor", lambda x, i, b: (x >= x[0], i >= i[0])),
    ("ge.Scalar", lambda x, i, b: (x >= 0, i >= 1)),
    ("logical_and.default", lambda x, i, b: (torch.logical_and(x > 0, b), torch.logical_and(i, b), x.logical_and(i))),
    ("logical_or.default", lambda x, i, b: (torch.logical_or(x > 0, b), torch.logical_or(i, b))),
    ("logical_xor.default", lambda x, i, b: (torch.logical_xor(x > 0, b), torch.logical_xor(i, b))),
    ("logical_not.default", lambda x, i, b: (torch.logical_not(b), torch.logical_not(i), torch.logical_not(x))),
    ("__and__.Tensor", lambda x, i, b: (x > 0) & b[:, :1]),
    ("__and__.Scalar", lambda x, i, b: (b & True, b & False)),
    ("__or__.Tensor", lambda x, i, b: (x > 0) | b),
    ("__or__.Scalar", lambda x, i, b: (b | True, b | False)),
    ("__xor__.Tensor", lambda x, i, b: (x > 0) ^ b),
    ("__xor__.Scalar", lambda x, i, b: (b ^ True, b ^ False)),
    ("bitwise_and.Tensor", lambda x, i, b: torch.bitwise_and(b, i > 1)),
    ("bitwise_and.Scalar", lambda x, i, b: torch.bitwise_and(b, True)),
    ("bitwise_or.Tensor", lambda x, i, b: torch.bitwise_or(b, i > 1)),
    ("bitwise_or.Scalar", lambda x, i, b: torch.bitwise_or(b, False)),
    ("bitwise_xor.Tensor", lambda x, i, b: torch.bitwise_xor(b, i > 1)),
    ("bitwise_xor.Scalar", lambda x, i, b: torch.bitwise_xor(b, True)),
    ("bitwise_not.default", lambda x, i, b: ~b),
    ("where.self", lambda x, i, b: (torch.where(b, x, x[0]), torch.where(b, i, i[0]), torch.where(x > 0, i, x))),
    ("where.ScalarOther", lambda x, i, b: (torch.where(b, x, -1.5), torch.where(b, i, 7))),
    ("where.ScalarSelf", lambda x, i, b: torch.where(b, 2.0, x)),
    ("where.Scalar", lambda x, i, b: (torch.where(b, 2.0, -1.0), torch.where(b, 2, 5))),
    ("masked_fill.Scalar", lambda x, i, b: (x.masked_fill(b, -torch.inf), i.masked_fill(b, 9))),
    ("masked_fill.Tensor", lambda x, i, b: x.masked_fill(b, x.amax())),
    ("triu.default", lambda x, i, b: (x.triu(), x.triu(-1), i.triu(1))),
    ("tril.default", lambda x, i, b: (x.tril(), x[None].tril(2))),
    ("isnan.default", lambda x, i, b: (x - x).masked_fill(b, torch.nan).isnan()),
    ("isinf.default", lambda x, i, b: x.masked_fill(b, -torch.inf).isinf()),
    ("isfinite.default", lambda x, i, b: torch.isfinite(x.masked_fill(b, torch.inf).masked_fill(i == 1, torch.nan))),
    ("fill.Scalar", lambda x, i, b: (x * 2).fill_(3.0) + x),
    ("fill.Tensor", lambda x, i, b: (_written(x, 1, value=2.0), (x * 2).fill_(x.amax()))),
    ("any.default", lambda x, i, b: ((x > 0).any(), i.any())),
    ("any.dim", lambda x, i, b: (b.any(1), b.any(0, keepdim=True))),
    ("any.dims", lambda x, i, b: b.any((0, 1))),
    ("all.default", lambda x, i, b: b.all()),
    ("all.dim", lambda x, i, b: (b.all(1), i.all(1, keepdim=True))),
    ("all.dims", lambda x, i, b: b.all((0, 1))),
    ("argmax.default", lambda x, i, b: (x.argmax(), x.argmax(1), x.argmax(0, keepdim=True), i.argmax(-1))),
    ("argmin.default", lambda x, i, b: (x.argmin(), x.argmin(-2), i.argmin(1))),
    ("max.dim", lambda x, i, b: (*x.max(1), *i.max(0, keepdim=True))),
    ("min.dim", lambda x, i, b: (*x.min(1), *i.min(0))),
    ("cumsum.default", lambda x, i, b: (i.cumsum(1), b.cumsum(0), i[:, :1].cumsum(1), i.cumsum(1, dtype=torch.int32))),
    ("sum.default", lambda x, i, b: (i.sum(), b.sum())),
    ("sum.dim_IntList", lambda x, i, b: (i.sum(1), b.sum((0, 1)), i.int().sum(0, keepdim=True))),
    ("amax.default", lambda x, i, b: (i.amax(1), i.to(torch.uint8).amin(0))),
    ("embedding.default", lambda x, i, b: (F.embedding(i, x), F.embedding(i[0].int(), x))),
    (
        "index_select.default",
        lambda x, i, b: (x.index_select(0, i[0]), x.index_select(1, PART), i.index_select(-1, PART)),
    ),
    ("index.Tensor", lambda x, i, b: (x[ORDER], x[:, PART], x[ORDER, ORDER], x[..., TRUTH], i[ORDER[:, None], PART])),
    (
        "index.Tensor",
        lambda x, i, b: (x[i], x[i, i], x[:, i[0]], x[None, ORDER][0, :, PART], x[i[0] - 2], x.T[None][:, i[0], i[1]]),
    ),
    ("index.Tensor", lambda x, i, b: (x[None].expand(2, -1, -1)[torch.tensor([0, 1]), :, i[0, :2]], x[-1 - i[:, 0]])),
    (
        "gather.default",
        lambda x, i, b: (x.gather(0, i), x.gather(1, i), i.gather(0, i[:2, :3]), x.gather(1, PART[None])),
    ),
    (
        "slice_scatter.default",
        lambda x, i, b: (_written(x, slice(1, 3), value=x[:2]), _written(x, slice(None), slice(0, 6, 2), value=-1.0)),
    ),
    (
        "select_scatter.default",
        lambda x, i, b: (_written(x, 1, value=x[0]), _written(i, slice(None), -1, value=i[:, 0])),
    ),
    (
        "index_put.default",
        lambda x, i, b: (_written(x, ORDER[:2], value=x[2:]), _written(x, slice(None), PART, value=0.5)),
    ),
    (
        "index_put.default",
        lambda x, i, b: (_written(x, ORDER, ORDER, value=x[0, :4]), _written(x, slice(None), TRUTH, value=1.0)),
    ),
    ("scatter.src", lambda x, i, b: x.scatter(0, ORDER[:, None].expand(4, 6), x * 2)),
    ("scatter.value", lambda x, i, b: x.scatter(1, ORDER[:, None], 5.0)),
    ("copy.default", lambda x, i, b: (torch.empty(4, 6).copy_(x), (x * 1).copy_(x[:1]), (x * 1).copy_(i))),
    ("one_hot.default", lambda x, i, b: (F.one_hot(i, 4), F.one_hot(x.argmax(1), 6).float())),
    (
        "_to_copy.default",
        lambda x, i, b: (i.float(), b.long(), i.int(), b.to(torch.uint8), (x * 9).long(), x.bool(), i.to(x)),
    ),
    ("type_as.default", lambda x, i, b: (b.type_as(x), i.type_as(x) * x, b.type_as(i))),
    (
        "add.Tensor",
        lambda x, i, b: (x + i, i + b, i + 1, i + 1.5, b + b, i.int() + i, x + b, torch.add(i, i, alpha=3), 1 + b),
    ),
    ("sub.Tensor", lambda x, i, b: (x - i, i - 2, i - i[0], i.int() - 1)),
    ("rsub.Scalar", lambda x, i, b: (1 - i, 1.0 - b.float(), 3 - i.int())),
    ("mul.Tensor", lambda x, i, b: (x * i, i * i, i * 2, b * b, b * x, i * 0.5, i * b)),
    ("div.Tensor", lambda x, i, b: (i / 2, i / (i + 1), x / (i + 1))),
    ("maximum.default", lambda x, i, b: (torch.maximum(i, i[0]), torch.minimum(i, 3 - i))),
    ("exp.default", lambda x, i, b: i.exp() * 0 + i.sqrt() * 0 + i.sigmoid() * 0),
)


class Model(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


def _inputs(seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 6, generator=generator)
    return x, torch.randint(4, (4, 6), generator=generator), torch.randint(2, (4, 6), generator=generator) > 0


@pytest.mark.parametrize(("row", "function"), CASES, ids=[f"{row}-{number}" for number, (row, _) in enumerate(CASES)])
def test_results_are_those_of_pytorch(row: str, function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    used = record_importers(monkeypatch)
    model = Model(function).eval()
    graph, signature = capture(model, _inputs(0))
    assert row in used
    program = netopt.lower(model, _inputs(0))
    for seed in (0, 1):
        inputs = _inputs(seed)
        expected = signature.output.flatten(model(*inputs), "expected")
        _assert_equal(interpret(graph, inputs), expected)
        _assert_equal(interpret(run_passes(graph), inputs), expected)
        _assert_equal(signature.output.flatten(program(*inputs), "results"), expected)


def _assert_equal(results: Any, expected: Any) -> None:
    for result, right in zip(results, expected, strict=True):
        assert result.dtype == right.dtype
        assert torch.equal(result, right)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x, i, b: i & 1, r"operations on bits: expected bool, found torch.int64"),
        (lambda x, i, b: x[b], r"a choice of elements by a computed mask, .*; keep all of them, with torch.where"),
        (lambda x, i, b: _written(x, i[:, 0], value=0.0), r"writing at computed indices; use indices that are known"),
        (lambda x, i, b: x[torch.tensor([0, 4])], r"indices: expected -4 to 3, found 4"),
        (lambda x, i, b: F.embedding(torch.tensor([-9]), x), r"indices: expected -4 to 3, found -9"),
        (lambda x, i, b: i.to(torch.int16) + 1, r"result: expected float32, int64, .*, found torch.int16; convert it"),
    ],
)
def test_what_is_refused(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(netopt.UnsupportedModel, match=message):
        capture(Model(function), _inputs(0))
