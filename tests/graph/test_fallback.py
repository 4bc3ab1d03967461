"""fallback=True: only what cannot be lowered runs in PyTorch, results are PyTorch's, and nothing is silent."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import netopt
from netopt.graph import interpret
from netopt.graph.capture import capture
from netopt.ops import Dense, TorchRegion
from tests.pipelines import run_passes


class Model(nn.Module):
    """A function of its layers and inputs."""

    def __init__(self, function: Callable[..., Any], **state: Any) -> None:
        super().__init__()
        self.function = function
        for name, value in state.items():
            setattr(self, name, value)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(self, *inputs)


def _layers() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "six": nn.Linear(6, 6),
        "up": nn.Linear(6, 8),
        "same": nn.Linear(8, 8),
        "down": nn.Linear(8, 4),
        "conv": nn.Conv2d(3, 4, 3, padding=1),
        "back": nn.Conv2d(4, 2, 3, padding=1),
    }


def _gather(m: Any, x: torch.Tensor) -> torch.Tensor:
    """The indices, whole numbers, leave the region."""
    y = m.up(x).relu()
    return m.down(y.gather(1, y.cummax(1).indices)).relu()  # type: ignore[no-any-return]


def _between(m: Any, x: torch.Tensor) -> torch.Tensor:
    """A dense layer between two readers of float64, which no graph has: the region takes it in."""
    wide = x.double()
    return (wide * m.six(wide.float()).double()).float()  # type: ignore[no-any-return]


def _values_and_indices(m: Any, x: torch.Tensor) -> torch.Tensor:
    """Numbers and whole numbers leave the region, which runs for each."""
    values, index = m.up(x).cummax(1)
    return m.same(values).gather(1, index)  # type: ignore[no-any-return]


def _several(m: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    values, _ = x.cummax(1)
    top, _ = (values * 2).cummin(1)
    return values.logcumsumexp(1), top.logcumsumexp(1), m.up(values)


def _number(m: Any, x: torch.Tensor) -> torch.Tensor:
    return x * x[0, 0].item() + m.down(m.up(x))[:, :1]  # type: ignore[no-any-return]


def _dynamic(m: Any, x: torch.Tensor) -> torch.Tensor:
    """A shape that depends on values, inside."""
    return x[x > 0].sum() + x


def _computed_weight(m: Any, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, x[:3] * 2).relu() + 1


def _computed_filter(m: Any, x: torch.Tensor) -> torch.Tensor:
    return F.conv_transpose2d(m.conv(x), x[:, :1].expand(4, 1, 5, 6)[..., :2, :2]).relu()


def _double(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.up((x.double() * 2).float())  # type: ignore[no-any-return]


def _images(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.back(torch.special.i0(F.interpolate(m.conv(x), scale_factor=2))).relu()  # type: ignore[no-any-return]


def _split(m: Any, x: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, 1)
    return b.gather(1, a.cummax(1).indices)


def _branch(m: Any, x: torch.Tensor) -> torch.Tensor:
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    def less(x: torch.Tensor) -> torch.Tensor:
        return x - 1

    return m.up(torch.cond(x[0, 0] > 0, double, less, (x,)))  # type: ignore[no-any-return]


def _twice(m: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    y = m.up(x).logcumsumexp(1)
    return y, y.relu(), y


SHAPES = {_images: (1, 3, 5, 6), _computed_filter: (1, 3, 5, 6)}
# function, the ATen ops of each region
CASES: list[tuple[Callable[..., Any], list[str]]] = [
    (_gather, ["cummax"]),
    (_between, ["_to_copy linear mul"]),
    (_values_and_indices, ["cummax", "cummax"]),
    (_several, ["cummax logcumsumexp", "cummin logcumsumexp"]),
    (_number, ["item mul"]),
    (_dynamic, ["index sum"]),
    (_computed_weight, ["linear"]),
    (_computed_filter, ["conv_transpose2d"]),
    (_double, ["_to_copy mul"]),
    (_images, ["special_i0"]),
    (_split, ["cummax"]),
    (_branch, ["cond"]),
    (_twice, ["logcumsumexp"]),
]


@pytest.mark.parametrize(("function", "regions"), CASES, ids=[case[0].__name__ for case in CASES])
def test_equals_pytorch_and_names_its_parts(function: Callable[..., Any], regions: list[str]) -> None:
    model = Model(function, **_layers()).eval()
    example = torch.randn(SHAPES.get(function, (5, 6)))
    with pytest.raises(netopt.UnsupportedModel, match="fallback=True"):
        netopt.lower(model, example)
    program = netopt.lower(model, example, fallback=True)
    found = [" ".join(op.removeprefix("aten.").partition(".")[0] for op in ops) for _, ops in program.fallbacks]
    assert found == regions
    lowered = run_passes(capture(model, example, fallback=True)[0])
    for seed in (1, 2):  # the second run finds the arena as the first has left it
        x = torch.randn(example.shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            expected = model(x)
        outputs = expected if isinstance(expected, tuple) else (expected,)
        results = program(x)
        # Sums of at most 40 products of sizes up to 8, in another order: 40 x 8 x 2^-24.
        for result, value in zip(results if isinstance(results, tuple) else (results,), outputs, strict=True):
            torch.testing.assert_close(result, value, rtol=2e-5, atol=2e-5)
        for result, value in zip(interpret(lowered, [x]), outputs, strict=True):
            torch.testing.assert_close(result, value, rtol=2e-5, atol=2e-5)


def test_only_the_region_is_taken() -> None:
    graph, _ = capture(Model(_between, **_layers()), torch.randn(5, 6), fallback=True)
    assert [type(node.op) for node in graph.nodes] == [TorchRegion]
    graph, _ = capture(Model(_gather, **_layers()), torch.randn(5, 6), fallback=True)
    assert [node.op.name for node in graph.nodes[:3]] == ["dense", "pointwise", "torch_region"]
    assert [node.op.name for node in graph.nodes[-2:]] == ["dense", "pointwise"]


def test_the_graph_is_the_same_where_all_is_lowered() -> None:
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(24, 3)).eval()
    x = torch.randn(2, 2, 8)
    with_fallback, without = capture(model, x, fallback=True)[0], capture(model, x)[0]
    assert with_fallback.nodes == without.nodes
    assert list(with_fallback.constants) == list(without.constants)
    assert netopt.lower(model, x, fallback=True).fallbacks == ()


def test_summary_names_each_part_and_says_what_the_arena_leaves_out() -> None:
    head = Model(_gather, **_layers())
    program = netopt.lower(nn.Sequential(nn.ReLU(), head), torch.randn(5, 6), fallback=True)
    lines = program.summary().splitlines()
    (row,) = [line for line in lines if "runs in PyTorch" in line]
    assert "PyTorch: aten.cummax.default" in row
    assert " 1 " in row
    assert lines[-1] == (
        "in PyTorch: layer '1': aten.cummax.default. "
        "The arena does not include the memory that PyTorch allocates there."
    )
    assert program.fallbacks == (("1", ("aten.cummax.default",)),)
    assert "PyTorch" not in netopt.lower(nn.ReLU(), torch.randn(2)).summary()


def test_saving_is_refused_by_layer(tmp_path: Path) -> None:
    program = netopt.lower(nn.Sequential(Model(_gather, **_layers())), torch.randn(5, 6), fallback=True)
    message = r"^layer '0': aten.cummax.default runs in PyTorch, and a .nopt file holds no code; "
    with pytest.raises(netopt.UnsupportedModel, match=message):
        program.save(tmp_path / "net.nopt")
    assert list(tmp_path.iterdir()) == []


def test_constants_of_a_region_are_its_own_and_are_counted() -> None:
    scale = nn.Parameter(torch.arange(1.0, 7.0))
    model = Model(lambda m, x: torch.logaddexp(x, m.scale), scale=scale)
    x = torch.randn(5, 6)
    program = netopt.lower(model, x, fallback=True)
    first = program(x)
    assert torch.equal(first, torch.logaddexp(x, scale.detach()))
    assert program.weight_bytes == 24
    with torch.no_grad():
        scale.fill_(100.0)
    assert torch.equal(program(x), first)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert torch.equal(program(x), first)


def test_what_is_computed_from_constants_is_computed_once() -> None:
    """Weights of a parametrization need no PyTorch at run time."""
    model = Model(lambda m, x: F.linear(x, m.up.weight.abs().exp().logcumsumexp(0), m.up.bias), **_layers())
    x = torch.randn(5, 6)
    program = netopt.lower(model, x, fallback=True)
    assert program.fallbacks == ()
    graph = run_passes(capture(model, x, fallback=True)[0])
    assert [type(node.op) for node in graph.nodes] == [Dense]
    with torch.no_grad():
        # 8 sums of weights below 2 each, times 6 inputs: sums of 6 terms below 50.
        torch.testing.assert_close(program(x), model(x), rtol=1e-5, atol=6 * 50 * 2.0**-23)


def test_random_numbers_are_drawn_anew_in_each_call() -> None:
    program = netopt.lower(Model(lambda m, x: x + torch.rand(6)), torch.randn(5, 6), fallback=True)
    torch.manual_seed(3)
    first, second = program(torch.zeros(5, 6)), program(torch.zeros(5, 6))
    torch.manual_seed(3)
    assert torch.equal(first, torch.rand(6).expand(5, 6))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda m, x: x.double(), r"torch.float64 \(5, 6\)"),
        (lambda m, x: (x, x.to(torch.int16)), r"torch.int16 \(5, 6\)"),
        (lambda m, x: x[x > 0], r"torch.float32 \(u0,\)"),
        (lambda m, x: x[:0] * 2, r"torch.float32 \(0, 6\)"),
    ],
)
def test_outputs_must_be_of_a_format_and_shape_that_is_known(function: Callable[..., Any], found: str) -> None:
    message = rf"output \d of the model: expected .*float32, .*, of a shape .*, found {found}; convert it in forward"
    with pytest.raises(netopt.UnsupportedModel, match=message):
        netopt.lower(Model(function), torch.randn(5, 6), fallback=True)


def test_control_flow_is_no_matter_of_fallback() -> None:
    model = Model(lambda m, x: x if x.sum() > 0 else -x)
    with pytest.raises(netopt.UnsupportedModel, match="control flow depends on the value of a tensor"):
        netopt.lower(model, torch.randn(5, 6), fallback=True)


def test_a_write_to_a_buffer_is_refused_with_fallback_too() -> None:
    def function(m: Any, x: torch.Tensor) -> torch.Tensor:
        m.calls.add_(1)
        return x * m.calls

    with pytest.raises(netopt.UnsupportedModel, match="the model writes to 'calls' in forward"):
        netopt.lower(Model(function, calls=nn.Buffer(torch.zeros(1))), torch.randn(5, 6), fallback=True)


def test_optimize_takes_fallback() -> None:
    model, x = nn.Sequential(nn.Linear(6, 6), Model(lambda m, x: x.logcumsumexp(1))), torch.randn(5, 6)
    technique = netopt.factorization.SVD(rank=3)
    with pytest.raises(netopt.UnsupportedModel, match=r"layer '1': .*op 'aten.logcumsumexp.default' .* fallback=True"):
        netopt.optimize(model, technique, lower=True, example=x)
    result = netopt.optimize(model, technique, train=lambda m: None, lower=True, example=x, fallback=True)
    assert result.program is not None
    assert result.program.fallbacks == (("1", ("aten.logcumsumexp.default",)),)
    with torch.no_grad():
        torch.testing.assert_close(result.program(x), result.model(x), rtol=2e-5, atol=2e-5)


def test_regions_keep_the_order_of_what_they_read() -> None:
    """Three regions and a dense layer that depend on each other crosswise."""

    def function(m: Any, x: torch.Tensor) -> torch.Tensor:
        a = x.logcumsumexp(1)
        b = m.square(a)
        c = b.logcumsumexp(1) + a.logcumsumexp(0)
        return m.square(c).logcumsumexp(0) + b  # type: ignore[no-any-return]

    torch.manual_seed(0)
    model, x = Model(function, square=nn.Linear(6, 6)), torch.randn(5, 6)
    program = netopt.lower(model, x, fallback=True)
    with torch.no_grad():
        # Sums of up to 6 x 6 x 5 terms, of sizes up to 10.
        torch.testing.assert_close(program(x), model(x), rtol=0.0, atol=180 * 10 * 2.0**-23)
    graph = run_passes(capture(model, x, fallback=True)[0])
    assert sum(isinstance(node.op, TorchRegion) for node in graph.nodes) == 3
