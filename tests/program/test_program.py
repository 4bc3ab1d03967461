"""Programs: what they compute, what they refuse, and that the sizes they print are the sizes they use."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import netopt
from netopt import zoo
from netopt.graph import interpret
from netopt.graph.capture import capture
from netopt.memory import check_plan
from tests.networks import NETWORKS, Nested, TwoInputs
from tests.pipelines import run_passes
from tests.tolerance import assert_within, judge


@pytest.mark.parametrize("name", NETWORKS)
def test_program_agrees_with_model_and_interpreter(name: str) -> None:
    """All three are within the bound of the exact answer, and the model shows no trace of it."""
    model, example = NETWORKS[name]()
    before = copy.deepcopy(model.state_dict())
    program = netopt.lower(model, example)
    args = example if isinstance(example, tuple) else (example,)
    captured, _ = capture(model, example)
    lowered = run_passes(captured)
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        inputs = [torch.randn(x.shape, generator=generator) for x in args]
        # The program's arithmetic is that of the graph after the passes; the model's that of the graph before them.
        (bounded,) = judge(lowered, inputs)
        assert_within(program(*inputs), bounded)
        assert_within(interpret(lowered, inputs)[0], bounded)
        with torch.no_grad():
            assert_within(copy.deepcopy(model).eval()(*inputs), judge(captured, inputs)[0])
        torch.testing.assert_close(judge(captured, inputs)[0][0], bounded[0], rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_same_call_gives_the_same_bits() -> None:
    program = netopt.lower(nn.Sequential(nn.Linear(100, 50), nn.GELU(), nn.Linear(50, 10)), torch.randn(3, 100))
    x = torch.randn(3, 100)
    first = program(x)
    program(torch.randn(3, 100))
    assert torch.equal(program(x), first)


def test_results_are_copies() -> None:
    program = netopt.lower(nn.Linear(5, 5), torch.randn(2, 5))
    first = program(torch.ones(2, 5))
    kept = first.clone()
    program(torch.zeros(2, 5))
    assert torch.equal(first, kept)


@pytest.mark.parametrize(
    "make", [lambda x: x.T.contiguous().T, lambda x: torch.cat([x, x], 1)[:, ::2], lambda x: x.expand(6, 10)]
)
def test_inputs_need_not_be_contiguous(make: Callable[[torch.Tensor], torch.Tensor]) -> None:
    program = netopt.lower(nn.Linear(10, 4), torch.randn(6, 10))
    x = make(torch.randn(1, 10).repeat(6, 1))
    assert torch.equal(program(x), program(x.contiguous()))


@pytest.mark.parametrize("width", [8, 95])
@pytest.mark.parametrize("gradients", [False, True])
def test_a_large_image_is_copied_from_any_memory(width: int, gradients: bool) -> None:
    """From 8192 numbers on a kernel copies it, where it is contiguous and aligned; PyTorch does elsewhere."""
    torch.manual_seed(0)
    model = nn.Conv2d(3, 5, 3, padding=1)
    shape = (2, 3, 8192 // 6 // width + 2, width)
    program = netopt.lower(model, torch.zeros(shape))
    assert program(torch.full(shape, float("nan"))).isnan().all()
    x = torch.randn(shape)
    expected = program(x.clone(memory_format=torch.channels_last))
    apart = torch.empty(x.numel() + 1)[1:].view(shape).copy_(x)
    assert torch.equal(program(x.requires_grad_(gradients)), expected)
    assert torch.equal(program(apart), expected)


def test_inputs_that_record_gradients_are_used_without() -> None:
    program = netopt.lower(nn.Linear(10, 4), torch.randn(1, 10))
    assert not program(torch.randn(1, 10, requires_grad=True)).requires_grad


@pytest.mark.parametrize(
    ("argument", "kind", "message"),
    [
        (torch.randn(2, 11), ValueError, r"expected shape \(2, 10\), found \(2, 11\)"),
        (torch.randn(3, 10), ValueError, r"expected shape \(2, 10\), found \(3, 10\); lower the model again"),
        (torch.randn(2, 10).double(), TypeError, r"expected dtype torch.float32, found torch.float64"),
        (torch.ones(2, 10, dtype=torch.int64), TypeError, r"expected dtype torch.float32, found torch.int64"),
        (torch.randn(2, 10, device="meta"), ValueError, r"expected a tensor on the CPU, found one on meta"),
        ([[0.0] * 10] * 2, ValueError, r"expected a tensor, found a list of 2"),
        (None, ValueError, r"expected a tensor, found NoneType"),
    ],
)
def test_wrong_inputs_are_refused(argument: Any, kind: type[Exception], message: str) -> None:
    program = netopt.lower(nn.Linear(10, 4), torch.randn(2, 10))
    with pytest.raises(netopt.NetoptError, match=message) as caught:
        program(argument)
    assert isinstance(caught.value, kind)


def test_missing_and_additional_inputs_are_refused() -> None:
    program = netopt.lower(TwoInputs(), (torch.randn(2, 5), torch.randn(2, 5)))
    with pytest.raises(netopt.InvalidArgument, match="positional arguments: expected a tuple of 2"):
        program(torch.randn(2, 5))
    with pytest.raises(netopt.InvalidArgument, match=r"keyword arguments: expected a dict of nothing, found .*\['c'\]"):
        program(torch.randn(2, 5), torch.randn(2, 5), c=torch.randn(2, 5))


def test_nested_inputs_and_outputs_come_back_as_the_model_gives_them() -> None:
    x, y = torch.randn(2, 4), torch.randn(2, 4)
    example = {"batch": {"left": x, "rest": [y, x]}}
    program = netopt.lower(Nested(), example)
    result, expected = program(**example), Nested()(**example)
    assert set(result) == {"sum", "pair"}
    assert isinstance(result["pair"], tuple)
    assert torch.equal(result["sum"], expected["sum"])
    assert torch.equal(result["pair"][1], expected["pair"][1])


def test_an_example_can_be_given_back_as_it_was_given() -> None:
    two = (torch.randn(2, 5), torch.randn(2, 5))
    program = netopt.lower(TwoInputs(), two)
    assert torch.equal(program(two), program(*two))
    named = {"a": two[0], "b": two[1]}
    program = netopt.lower(TwoInputs(), named)
    assert torch.equal(program(named), program(**named))
    assert torch.equal(program({"b": two[1], "a": two[0]}), program(**named))


class Odd(nn.Module):
    """Returns its input, a constant, and one value twice."""

    def __init__(self) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.arange(3.0))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x.relu()
        return x, self.constant, y, y, y.reshape(-1)


def test_inputs_constants_and_repeated_values_as_outputs(tmp_path: Path) -> None:
    x = torch.randn(2, 3)
    program = netopt.lower(Odd(), x)
    program.save(tmp_path / "odd.nopt")
    for executor in (program, netopt.load(tmp_path / "odd.nopt")):
        for result, expected in zip(executor(x), Odd()(x), strict=True):
            assert torch.equal(result, expected)


def test_a_program_outlives_its_model_and_does_not_follow_it() -> None:
    model = nn.Sequential(nn.Linear(10, 4), nn.LayerNorm(4))
    x = torch.randn(1, 10)
    program = netopt.lower(model, x)
    first = program(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    assert torch.equal(program(x), first)
    gone = weakref.ref(model)
    del model, parameter
    gc.collect()
    assert gone() is None
    assert torch.equal(program(x), first)


def test_calls_from_several_threads() -> None:
    program = netopt.lower(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)), torch.randn(4, 64))
    inputs = [torch.full((4, 64), float(i)) for i in range(8)]
    expected = [program(x) for x in inputs]
    wrong: list[int] = []

    def work(index: int) -> None:
        wrong.extend(index for _ in range(200) if not torch.equal(program(inputs[index]), expected[index]))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


class Summed(nn.Module):
    """Needs a part in PyTorch between convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.back = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.back(self.conv(x).relu().logcumsumexp(3))
        return y


@pytest.mark.parametrize("threads", [1, 2])
def test_calls_of_images_and_parts_in_pytorch_from_several_threads(threads: int) -> None:
    """The input's halo, the arena and PyTorch's parts are all shared."""
    program = netopt.lower(Summed(), torch.zeros(2, 3, 9, 8), threads=threads, fallback=True)
    inputs = [torch.full((2, 3, 9, 8), float(i)) for i in range(6)]
    expected = [program(x) for x in inputs]

    def wrong(index: int) -> int:
        return sum(not torch.equal(program(inputs[index]), expected[index]) for _ in range(100))

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(wrong, range(6))) == [0] * 6


def test_a_pixel_that_is_nan_makes_all_outputs_of_its_image_nan() -> None:
    program = netopt.lower(zoo.lenet5(), torch.zeros(2, 1, 28, 28))
    x = torch.rand(2, 1, 28, 28)
    clean = program(x)
    x[1, 0, 14, 13] = torch.nan
    result = program(x)
    assert result[1].isnan().all()
    assert torch.equal(result[0], clean[0])
    x[1, 0, 14, 13] = 0.5
    assert not program(x).isnan().any()  # nothing of it is left in the arena


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["images", "lenet5", "mlp", "residual", "conv1d", "activations"])
def test_nan_and_infinity_go_where_they_go_in_pytorch(name: str, value: float) -> None:
    """NaN, infinity or a finite number, in each place of the output: a sum of infinities is the same in any order."""
    model, example = NETWORKS[name]()
    program, x = netopt.lower(model, example), torch.randn(example.shape)
    x.view(-1)[x.numel() // 2] = value
    with torch.no_grad():
        expected = copy.deepcopy(model).eval()(x)
    result = program(x)
    assert not expected.isfinite().all()
    assert torch.equal(result.isnan(), expected.isnan())
    assert torch.equal(result.isposinf(), expected.isposinf())
    assert torch.equal(result.isneginf(), expected.isneginf())


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads(threads: int) -> None:
    model, x = nn.Sequential(nn.Linear(512, 777), nn.ReLU(), nn.Linear(777, 10)), torch.randn(16, 512)
    assert torch.equal(netopt.lower(model, x, threads=threads)(x), netopt.lower(model, x)(x))


def test_sizes_are_those_used() -> None:
    """The arena is what the plan says, to the byte, and holds all that is computed; weights are counted once."""
    shared = nn.Linear(64, 64)
    model, x = nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(64, 10)), torch.randn(4, 64)
    program = netopt.lower(model, x)
    plan = program.memory_plan
    assert program.arena_bytes == plan.arena_bytes >= plan.lower_bound
    graph = run_passes(capture(model, x)[0])
    check_plan(graph, plan)
    # 64 x 64 and 10 x 64 weights with biases, the outputs padded to whole tiles.
    unpadded = 4 * (64 * 64 + 64 + 64 * 10 + 10)
    assert unpadded <= program.weight_bytes < 2 * unpadded
    assert program.multiply_adds == 4 * (2 * 64 * 64 + 64 * 10)


def test_pointwise_chain_runs_in_place_in_one_block() -> None:
    program = netopt.lower(nn.Sequential(nn.Sigmoid(), nn.Tanh(), nn.GELU()), torch.randn(1, 1000))
    assert program.arena_bytes == 4032  # 1000 float32, rounded up to 64 bytes


def test_summary_has_a_row_for_each_step_and_the_totals() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(20, 30), nn.ReLU())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x).reshape(2, 3, 10).softmax(-1)

    program = netopt.lower(Head(), torch.randn(2, 20))
    lines = program.summary().splitlines()
    assert [word in lines[0] for word in ("op", "layer", "schedule", "bytes", "multiply-adds")] == [True] * 5
    assert "dense + relu" in lines[2]
    assert "body.0" in lines[2]
    assert "1,200" in lines[2]
    assert "a view, no code" in lines[3]
    assert "softmax" in lines[4]
    assert f"arena {program.arena_bytes:,} bytes" in lines[-1]
    assert f"weights {program.weight_bytes:,} bytes" in lines[-1]


@pytest.mark.parametrize("name", NETWORKS)
def test_saved_and_loaded_programs_give_the_same_bits(name: str, tmp_path: Path) -> None:
    model, example = NETWORKS[name]()
    program = netopt.lower(model, example)
    program.save(tmp_path / "net.nopt")
    loaded = netopt.load(str(tmp_path / "net.nopt"))
    args = example if isinstance(example, tuple) else (example,)
    assert torch.equal(loaded(*args), program(*args))
    assert (loaded.arena_bytes, loaded.weight_bytes) == (program.arena_bytes, program.weight_bytes)
    loaded.save(tmp_path / "again.nopt")
    assert (tmp_path / "again.nopt").read_bytes() == (tmp_path / "net.nopt").read_bytes()


def test_saving_replaces_the_file_that_the_program_came_from(tmp_path: Path) -> None:
    path, x = tmp_path / "net.nopt", torch.randn(1, 9)
    netopt.lower(nn.Linear(9, 9), x).save(path)
    program = netopt.load(path)
    expected = program(x)
    program.save(path)
    assert torch.equal(program(x), expected)
    assert torch.equal(netopt.load(path)(x), expected)


def test_loading_what_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        netopt.load("no/such/file.nopt")
