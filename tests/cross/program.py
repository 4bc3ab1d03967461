"""One C program that calls kernels which were compiled ahead of time, on memory that it reads from a file.

All operands of all kernels lie in one memory image. The program reads it, calls the kernels, and writes it back.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import halide as hl
import numpy as np
from numpy.typing import NDArray

from netopt.kernels.machine.buffers import aligned_bytes, array_at, array_bytes
from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array
from netopt.kernels.machine.kernel import Call, Problem, Schedule
from netopt.kernels.registry import KERNELS
from netopt.numerics import ALIGNMENT
from tests.cross.operands import argument, values_of
from tests.cross.targets import CrossTarget

# What memory holds that nothing was written to.
UNTOUCHED = 0xC5

_TYPES = {"f": "halide_type_float", "i": "halide_type_int", "u": "halide_type_uint"}

_MAIN = """\
#include <stdio.h>
#include <stdlib.h>
#include "HalideRuntime.h"
{headers}

{functions}

int main(int count, char **names) {{
    static int (*const calls[])(uint8_t *) = {{{calls}}};
    static const size_t size = {size};
    uint8_t *memory = aligned_alloc({alignment}, size);
    FILE *file = count == 3 ? fopen(names[1], "rb") : NULL;
    if (memory == NULL || file == NULL || fread(memory, 1, size, file) != size || fclose(file) != 0) return 2;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {{
        fprintf(stderr, "call %zu\\n", i);  /* the last line tells where a crash was */
        if (calls[i](memory) != 0) return 1;
    }}
    file = fopen(names[2], "wb");
    if (file == NULL || fwrite(memory, 1, size, file) != size || fclose(file) != 0) return 2;
    free(memory);
    return 0;
}}
"""


@dataclass(frozen=True)
class Region:
    """The operands of one kernel, in a part of the memory image; `arrays` are views of `memory`."""

    memory: NDArray[np.uint8]
    arrays: tuple[Array, ...]

    @classmethod
    def of(cls, problem: Problem, schedule: Schedule, cpu: Cpu) -> Region:
        """Inputs with their values, an output that nothing was written to, and room between them."""
        shapes = KERNELS[type(problem.op)].argument_shapes(problem, schedule, cpu)
        operands = list(zip(shapes, [t.format for t in (*problem.inputs, problem.output)], strict=True))
        starts = [0]
        for shape, format_ in operands:
            starts.append(-(-(starts[-1] + array_bytes(shape, format_)) // ALIGNMENT) * ALIGNMENT + ALIGNMENT)
        memory = aligned_bytes(starts[-1])
        memory.fill(UNTOUCHED)
        arrays = tuple(array_at(memory, at, *operand) for at, operand in zip(starts[:-1], operands, strict=True))
        for index, value in enumerate(values_of(problem)):
            given = argument(problem, schedule, cpu, index, value)
            arrays[index][...] = given.reshape(arrays[index].shape)
        return cls(memory, arrays)

    def offset_of(self, array: Array) -> int:
        """Bytes from the start to an array that is a part of one of the operands."""
        offset = int(array.ctypes.data - self.memory.ctypes.data)
        assert 0 <= offset < self.memory.size
        return offset


@dataclass(frozen=True)
class Outcome:
    """What a kernel did: its output, and how many bytes it wrote beside that."""

    output: Array
    stray_bytes: int


def run_kernels(problems: Mapping[str, Problem], target: CrossTarget, folder: Path) -> dict[str, Outcome]:
    """For each problem what its kernel did on the target, under its default schedule."""
    cpu = Cpu.of(hl.Target(target.name))
    regions: dict[str, Region] = {}
    functions: list[str] = []
    start = 0
    for name, problem in problems.items():
        kernel = KERNELS[type(problem.op)]
        schedule = kernel.schedules(problem, cpu)[0]
        region = regions[name] = Region.of(problem, schedule, cpu)
        for call in kernel.calls(problem, schedule, cpu, region.arrays, None):
            symbol = f"kernel_{len(functions)}"
            _compile_kernel(call, cpu, folder / symbol, name)
            functions.append(_function(symbol, call, region, start))
        start += region.memory.size
    image = np.concatenate([region.memory for region in regions.values()])
    after = _run(functions, image, target, folder)
    ends = np.cumsum([region.memory.size for region in regions.values()])
    return {
        name: _outcome(region, part)
        for (name, region), part in zip(regions.items(), np.split(after, ends[:-1]), strict=True)
    }


def _outcome(region: Region, after: NDArray[np.uint8]) -> Outcome:
    """What has become of a region."""
    output = region.arrays[-1]
    result = np.ndarray(output.shape, output.dtype, after, region.offset_of(output))
    # With this output in its place, all should be as it was.
    output[...] = result
    return Outcome(result, int(np.count_nonzero(region.memory != after)))


def _compile_kernel(call: Call, cpu: Cpu, path: Path, name: str) -> None:
    """Write the object and the header of a kernel, without Halide's runtime."""
    outputs = {hl.OutputFileType.object: f"{path}.o", hl.OutputFileType.c_header: f"{path}.h"}
    target = hl.Target(cpu.target).with_feature(hl.TargetFeature.NoRuntime)
    try:
        pipeline = call.build()
        pipeline.output.compile_to(outputs, [source.param for source in pipeline.inputs], path.name, target)
    except hl.HalideError as error:
        error.add_note(f"in the kernel of '{name}'")
        raise


def _function(symbol: str, call: Call, region: Region, start: int) -> str:
    """A C function that calls a kernel on its part of the memory image, which begins at `start`."""
    lines = [f"static int call_{symbol}(uint8_t *memory) {{"]
    for number, array in enumerate(call.arrays):
        axes = zip(reversed(array.shape), reversed(array.strides), strict=True)
        dimensions = ", ".join(f"{{0, {size}, {stride // array.itemsize}, 0}}" for size, stride in axes)
        type_ = f"{{{_TYPES[array.dtype.kind]}, {8 * array.itemsize}, 1}}"
        lines += [
            f"    halide_dimension_t d{number}[] = {{{dimensions}}};",
            f"    halide_buffer_t b{number} = {{.host = memory + {start + region.offset_of(array)}, .type = {type_}, "
            f".dimensions = {array.ndim}, .dim = d{number}}};",
        ]
    arguments = ", ".join(f"&b{number}" for number in range(len(call.arrays)))
    return "\n".join([*lines, f"    return {symbol}({arguments});", "}"])


def _run(functions: Sequence[str], image: NDArray[np.uint8], target: CrossTarget, folder: Path) -> NDArray[np.uint8]:
    """The memory image after all kernels have run."""
    symbols = [f"kernel_{number}" for number in range(len(functions))]
    source = _MAIN.format(
        headers="\n".join(f'#include "{symbol}.h"' for symbol in symbols),
        functions="\n\n".join(functions),
        calls=", ".join(f"call_{symbol}" for symbol in symbols),
        size=image.size,
        alignment=ALIGNMENT,
    )
    (folder / "main.c").write_text(source)
    image.tofile(folder / "before")
    hl.compile_standalone_runtime(str(folder / "runtime.o"), hl.Target(target.name))
    include = next(Path(hl.__file__).parent.rglob("HalideRuntime.h")).parent
    objects = ["main.c", "runtime.o", *(f"{symbol}.o" for symbol in symbols)]
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-isystem", str(include), "-o", "program"]
    _command([target.compiler, *flags, *objects, "-lpthread", "-ldl", "-lm"], folder)
    _command([*target.runner, "./program", "before", "after"], folder)
    return np.fromfile(folder / "after", np.uint8)


def _command(words: Sequence[str], folder: Path) -> None:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: status {done.returncode}\n{done.stdout}{done.stderr}"
