"""Quantized networks as programs: the codes of every value are those of the module and of the interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import netopt
from netopt.graph import interpret
from netopt.graph.passes import run_passes
from netopt.program.options import Lowering
from netopt.program.pipeline import storage
from netopt.quantization.fixed_point.techniques import FixedPoint
from tests.quantized.networks import INTEGER, make

TECHNIQUES = {
    "u8": FixedPoint(),
    "u7": FixedPoint(activations=7),
    "4 bits": FixedPoint(weights=4),
    "16 bits": FixedPoint(activations=16),
    "all 16": FixedPoint(weights=16, activations=16),
    "real": FixedPoint(scales="real"),
    "one step": FixedPoint(per_channel=False),
}


@pytest.mark.parametrize("technique", TECHNIQUES.values(), ids=TECHNIQUES)
@pytest.mark.parametrize("name", INTEGER)
def test_a_program_gives_what_the_module_gives_exactly(name: str, technique: FixedPoint, tmp_path: Path) -> None:
    model, x = make(name)
    network = netopt.quantize(model, technique, calibration=x)
    exact = network.exact(x[:3])
    program = netopt.lower(network, x[:3])
    found = program(x[:3])
    if technique.scales == "power":
        # The last layer's sums are rounded to float32 once: its steps are powers of two.
        assert torch.equal(found, exact.float())
    else:
        assert torch.allclose(found.double(), exact, rtol=1e-6, atol=1e-6)
    program.save(tmp_path / "net.nopt")
    assert torch.equal(netopt.load(tmp_path / "net.nopt")(x[:3]), found)
    assert torch.equal(program(x[:3]), found), "a second call"


@pytest.mark.parametrize("technique", [FixedPoint(), FixedPoint(scales="real")], ids=str)
def test_float_steps_are_within_a_code(technique: FixedPoint) -> None:
    model, x = make("attention")
    network = netopt.quantize(model, technique, calibration=x)
    exact, found = network.exact(x[:3]), netopt.lower(network, x[:3])(x[:3])
    assert (found - exact).abs().max() < 0.02 * exact.abs().max()


def test_codes_are_taken_as_they_are() -> None:
    model, x = make("residual")
    network = netopt.quantize(model, calibration=x)
    program = netopt.lower(network, x[:1])
    format_ = network.format_of(network.example_graph.inputs[0])
    assert format_ is not None
    codes = format_.encode(x[:1])
    assert codes.dtype == torch.int8
    assert torch.equal(program(codes), program(x[:1]))
    with pytest.raises(netopt.InvalidType, match=r"dtype torch.float32, or codes in torch.int8"):
        program(x[:1].to(torch.int16))


def test_values_take_a_byte_each() -> None:
    model, x = make("residual")
    small = netopt.lower(netopt.quantize(model, calibration=x), x[:1])
    large = netopt.lower(model, x[:1])
    assert small.arena_bytes < 0.3 * large.arena_bytes
    assert small.weight_bytes < 0.5 * large.weight_bytes


@pytest.mark.parametrize("name", INTEGER)
def test_the_interpreter_agrees_after_all_passes(name: str) -> None:
    model, x = make(name)
    network = netopt.quantize(model, calibration=x)
    graph, _ = network.as_graph(x[:2])
    passed = run_passes(graph, storage(Lowering()))
    assert torch.equal(
        interpret(passed, [x[:2]], dtype=torch.float64)[0], interpret(graph, [x[:2]], dtype=torch.float64)[0]
    )
