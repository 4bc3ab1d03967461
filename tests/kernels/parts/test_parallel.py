"""Which loop threads share: the code has a task for it, and the results have the same bits."""

from __future__ import annotations

import re
from pathlib import Path

import halide as hl
import pytest
import torch

from netopt.kernels.machine.buffers import aligned_array
from netopt.kernels.machine.cpu import host_cpu
from netopt.kernels.registry import KERNELS
from netopt.ops import CHANNELS_LAST, Conv2d, Op, Pool2d
from tests.kernels.harness import problem_of, run_kernel


def inputs_of(op: Op, shape: tuple[int, ...], outputs: int, kernel: tuple[int, int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    if not isinstance(op, Conv2d):
        return [x]
    return [x, torch.randn(outputs, shape[1] // op.groups, *kernel, generator=generator)]


def tasks_of(op: Op, inputs: list[torch.Tensor], threads: int, path: Path) -> set[str]:
    """The loops that are split, as Halide names the functions made of them."""
    cpu, problem = host_cpu(), problem_of(op, inputs, threads, [CHANNELS_LAST], CHANNELS_LAST)
    kernel = KERNELS[type(op)]
    schedule = kernel.schedules(problem, cpu)[0]
    arrays = [aligned_array(shape) for shape in kernel.argument_shapes(problem, schedule, cpu)]
    [call] = kernel.calls(problem, schedule, cpu, arrays, None)
    pipeline = call.build()
    file, target = path / "code.txt", hl.Target(cpu.target)
    params = [source.param for source in pipeline.inputs]
    pipeline.output.compile_to_lowered_stmt(str(file), params, hl.StmtOutputFormat.Text, target)
    # Numbers after a $ or _, and more underscores, tell the functions of a process apart.
    names = re.findall(r"internal func \S+_for_\S+?_s\d+_(\S+)", file.read_text())
    return {re.sub(r"_+", "_", re.sub(r"[$_]\d+", "", name)).rstrip("_") for name in names}


def conv(groups: int = 1) -> Conv2d:
    return Conv2d((1, 1), (0, 0, 0, 0), (1, 1), groups, False)


# Tiles have at most six vectors of outputs: 768 channels are an even number of tiles, and 16 or 64 may be one.
CASES = {
    "output channels": (conv(), (1, 16, 9, 9), 768, (3, 3), r"c_c_out_chunk"),
    "lines": (conv(), (1, 32, 32, 33), 16, (3, 3), r"band\d_y_chunk"),
    "several lines at once": (conv(), (1, 64, 30, 9), 32, (3, 3), r"band\d_y_chunk"),
    "tiles of pixels": (conv(), (2, 64, 34, 32), 16, (1, 1), r"band\d_x_x_out_chunk"),
    "lines, depthwise": (conv(groups=16), (1, 16, 64, 66), 16, (5, 5), r"band\d_z_chunk"),
    "lines, pooling": (Pool2d("max", (3, 3), (2, 2)), (1, 64, 65, 65), 0, (0, 0), r"interior\d_y_chunk"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_loop_that_divides_evenly_is_split(case: str, tmp_path: Path) -> None:
    op, shape, outputs, kernel, name = CASES[case]
    inputs = inputs_of(op, shape, outputs, kernel)
    assert tasks_of(op, inputs, 1, tmp_path) == set()
    tasks = tasks_of(op, inputs, 2, tmp_path)
    assert tasks, "nothing is split"
    assert all(re.fullmatch(name, task) for task in tasks), tasks


@pytest.mark.parametrize("case", CASES)
def test_threads_give_the_same_bits(case: str) -> None:
    op, shape, outputs, kernel, _ = CASES[case]
    inputs = inputs_of(op, shape, outputs, kernel)
    results = [
        run_kernel(
            op, inputs, constants=range(1, len(inputs)), threads=n, layouts=[CHANNELS_LAST], output=CHANNELS_LAST
        )
        for n in (1, 2, 3)
    ]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("op", [conv(), Pool2d("max", (3, 3), (2, 2))], ids=["conv2d", "pool2d"])
def test_small_layers_run_on_one_thread(op: Op, tmp_path: Path) -> None:
    assert tasks_of(op, inputs_of(op, (1, 8, 9, 9), 32, (3, 3)), 4, tmp_path) == set()
