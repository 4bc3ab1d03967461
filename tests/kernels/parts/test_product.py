"""Products in a register tile: those that there are, and one of integers that shows what a new one needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import halide as hl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.kernels.machine.cpu import Cpu, host_cpu
from netopt.kernels.machine.formats import Array, Source
from netopt.kernels.parts.panels import pack_panels
from netopt.kernels.parts.product import Floats, PairsOfBFloat16, Product, SignsAsFloats, Summation, TermByTerm
from netopt.kernels.parts.sign_products import SignCounts, SignFlips
from netopt.kernels.parts.tile import TileSchedule, bands_of
from netopt.numerics import NumberFormat
from tests.kernels.binary import AVX2, AVX512, signs

VNNI = Cpu.of(hl.Target("x86-64-linux-avx-avx2-f16c-fma-sse41-avx512-avx512_skylake-avx512_cannonlake-avx512_zen4"))
TILE = TileSchedule(3, 2, 1)


@dataclass(frozen=True)
class Integers(TermByTerm):
    """16-bit integers in pairs, or bytes in fours, summed in 32 bits."""

    together: int

    @property
    def neighbours(self) -> int:  # type: ignore[override]
        return self.together

    @property
    def zero(self) -> hl.Expr:
        return hl.i32(0)

    @property
    def weight_format(self) -> NumberFormat:
        raise NotImplementedError

    def multiply(self, weight: Source, where: Sequence[hl.Expr], source: Source, there: Sequence[hl.Expr]) -> hl.Expr:
        return hl.i32(weight[where]) * hl.i32(source[there])


def pipeline(product: Product, weight: Array, x: Array, s: TileSchedule = TILE) -> tuple[hl.Func, list[hl.ImageParam]]:
    """x W^T, with W (outputs, inputs) in panels as the product takes them; and its arguments."""
    (rows, inputs), outputs, lanes = x.shape, len(weight), product.lanes
    params = [
        hl.ImageParam(hl.Buffer(array).type(), array.ndim, name)
        for name, array in (("weight", packed(product, weight)), ("x", x))
    ]
    n, out = hl.Var("n"), hl.Func("out")
    out[n, hl.Var("m")] = hl.undef(product.zero.type())
    for number, band in enumerate(bands_of(rows, s)):
        m = hl.RDom([(band.start, band.rows)], f"band{number}").x
        summation = Summation(
            suffix=f"_{number}",
            terms=inputs,
            schedule=s,
            start=lambda n: product.zero,
            weight=params[0],  # type: ignore[arg-type]
            panel=s.panel * lanes,
            source=params[1],  # type: ignore[arg-type]
            place=lambda m, others, term, window: [term, m],
        )
        sums = product.sums(summation)
        out[n, m] = hl.Expr(sums.total[n, m])
        m_out, m_in = hl.RVar("m_out"), hl.RVar("m_in")
        n_out, n_in = hl.Var("n_out"), hl.Var("n_in")
        stage = out.update(number).split(n, n_out, n_in, s.vectors * lanes, hl.TailStrategy.GuardWithIf)
        stage.split(m, m_out, m_in, band.tile).reorder(n_in, m_in, m_out, n_out).vectorize(n_in, lanes).unroll(m_in)
        sums.schedule(out, m_out, band)
    out.output_buffer().dim(0).set_bounds(0, outputs)
    return out, params


def packed(product: Product, weight: Array) -> Array:
    tile = TILE.vectors * product.lanes
    return pack_panels(weight[None], product.lanes, -(-len(weight) // tile) * tile, product.neighbours)[0]


@settings(max_examples=12, derandomize=True, deadline=None)
@given(
    rows=st.integers(1, 7), outputs=st.integers(1, 40), inputs=st.integers(1, 19), together=st.sampled_from([1, 2, 4])
)
def test_a_product_of_integers(rows: int, outputs: int, inputs: int, together: int) -> None:
    """Exact, whatever is left over of outputs and of groups of inputs."""
    generator = np.random.default_rng(0)
    weight, x = (generator.integers(-99, 99, (size, inputs)).astype(np.int16) for size in (outputs, rows))
    product = Integers(host_cpu().lanes, together)
    out, params = pipeline(product, weight, x)
    result = np.zeros((rows, outputs), np.int32)
    function = out.compile_to_callable(params, hl.Target(host_cpu().target))
    function(hl.Buffer(packed(product, weight)), hl.Buffer(x), hl.Buffer(result))
    assert np.array_equal(result, x.astype(np.int32) @ weight.T.astype(np.int32))


@pytest.mark.parametrize(
    ("cpu", "together", "types", "instruction"),
    [
        (AVX2, 2, (np.int16, np.int16), "vpmaddwd"),
        (AVX2, 2, (np.int8, np.int16), "vpmaddwd"),
        (AVX512, 2, (np.int16, np.int16), "vpmaddwd"),
        (VNNI, 4, (np.int8, np.uint8), "vpdpbusd"),
    ],
)
def test_instructions_for_neighbours_are_found(
    cpu: Cpu, together: int, types: tuple[type[np.generic], ...], instruction: str, tmp_path: Path
) -> None:
    """One for each vector of a tile of 3 x 2, and nothing else multiplies."""
    weight, x = np.ones((2 * cpu.lanes, 64), types[0]), np.ones((3, 64), types[1])
    out, params = pipeline(Integers(cpu.lanes, together), weight, x)
    out.compile_to_assembly(str(tmp_path / "code.s"), params, "f", hl.Target(cpu.target))
    found = re.findall(r"\bv?pm(?:add|ul)\w+|\bvpdp\w+", (tmp_path / "code.s").read_text())
    assert set(found) == {instruction}
    assert len(found) % 6 == 0


@pytest.mark.parametrize(
    ("product", "elements", "steps"),
    [
        (Floats(8), 70, 70),
        (SignsAsFloats(8), 70, 70),
        (PairsOfBFloat16(8, has_instruction=False), 70, 35),
        (SignFlips(8), 3, 3),
        (SignCounts.of(AVX2), 12, 12),
        (SignCounts.of(Cpu("popcount", 16, 32, has_popcount=True)), 3, 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Product) else "",
)
def test_elements_and_steps_of_70_terms(product: Product, elements: int, steps: int) -> None:
    assert (product.elements(70), product.steps(70)) == (elements, steps)


@pytest.mark.parametrize("product", [SignsAsFloats(8), SignFlips(8), SignCounts.of(AVX2)])
@pytest.mark.parametrize("terms", [1, 31, 32, 70])
def test_encoded_signs_are_decoded(product: Product, terms: int) -> None:
    weight = signs(2, 5, 3, terms).numpy()
    encoded = product.encoded(weight)
    assert encoded.shape == (2, 5, 3, product.elements(terms))
    again = product.decoded(encoded, terms)
    assert again.dtype == np.int8
    assert np.array_equal(again, weight)
