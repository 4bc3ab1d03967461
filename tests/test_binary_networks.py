"""Whole low-bit networks: module, interpreter, program and file agree, for every technique."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import netopt
from netopt.graph import interpret
from netopt.kernels.machine.cpu import host_cpu
from netopt.numerics import BFLOAT16, SIGNS
from netopt.ops import BinaryConv2d, BinaryDense
from netopt.program.lower import prepare
from netopt.program.options import Lowering
from netopt.program.program import Program
from netopt.quantization import XNOR, Binary, BinaryConnect, BinaryWeight, Residual, Ternary
from tests.binary_layers import assert_close, conv, images, labels, trained

TECHNIQUES: dict[str, Any] = {
    "BinaryWeight": BinaryWeight(select="*"),
    "BinaryConnect": BinaryConnect(select="*"),
    "XNOR": XNOR(select="*"),
    "Binary": Binary(),
    "Binary, bare": Binary(normalize=False, select="*"),
    "Binary, all parts": Binary(shortcut=True, rprelu=True, thresholds=True, pad_one=True),
    "Ternary": Ternary(select="*"),
    "Residual": Residual(weight_terms=2, input_terms=2),
    "Residual of weights": Residual(weight_terms=3, select="*"),
}


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 20, 3, padding=1), nn.BatchNorm2d(20), nn.ReLU()),
        *(nn.Conv2d(20, 20, 3, padding=1, bias=False), nn.BatchNorm2d(20), nn.Hardtanh(), nn.MaxPool2d(2)),
        *(nn.Conv2d(20, 33, 3, stride=2, padding=(1, 0)), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(66, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 5)),
    )


def _of_few_bits(technique: Any) -> nn.Module:
    result = netopt.optimize(_network(), technique, keep_if="always")
    return trained(result.model)


@pytest.mark.parametrize(("name", "batch"), [*((name, 3) for name in TECHNIQUES), ("Binary", 1), ("BinaryWeight", 1)])
def test_program_interpreter_and_file_agree_with_the_module(name: str, batch: int, tmp_path: Path) -> None:
    """A sign of a float sum may turn where the sum is 0 but for rounding: none does here, as all stay within 1e-6."""
    model, x = _of_few_bits(TECHNIQUES[name]), images(batch, 3, 8, 8)
    with torch.no_grad():
        expected = model(x)
    network = prepare(model, x, Lowering())
    program = Program(network, Lowering())
    (golden,) = interpret(network.graph, [x])
    result = program(x)
    # Of floats, 5 layers of sums of up to 180 numbers in another order: each is off by about sqrt(180) roundings.
    of_floats = name in ("BinaryConnect", "BinaryWeight", "Ternary", "Residual of weights")
    for value in (golden, result):
        assert_close(value, expected, 5 * 180**0.5 * 2.0**-24 if of_floats else 1e-6)
    assert torch.equal(program(x), result), "the arena's leftovers change nothing"
    program.save(tmp_path / "net.nopt")
    assert torch.equal(netopt.load(tmp_path / "net.nopt")(x), result)
    assert any(isinstance(node.op, BinaryConv2d | BinaryDense) for node in network.graph.nodes)


def _binary(batch: int) -> tuple[nn.Module, torch.Tensor]:
    """Signs throughout: sums are whole numbers up to the end."""
    torch.manual_seed(0)
    layers = [conv(3, 40, 3, padding=1), nn.BatchNorm2d(40), conv(40, 64, 3, padding=1), nn.MaxPool2d(2)]
    layers += [
        nn.BatchNorm2d(64),
        conv(64, 64, 3, groups=2, padding=1, pad_one=True),
        nn.BatchNorm2d(64),
        conv(64, 5, 1),
    ]
    return trained(nn.Sequential(*layers)), images(batch, 3, 10, 8)


@pytest.mark.parametrize(("batch", "threads"), [(1, 1), (3, 1), (3, 2)])
def test_whole_numbers_are_equal_to_the_bit(batch: int, threads: int) -> None:
    model, x = _binary(batch)
    network = prepare(model, x, Lowering(threads=threads))
    values = [network.graph.types[node.output].format for node in network.graph.nodes]
    assert values == [SIGNS] * (len(values) - 1) + [network.graph.types["conv2d_3"].format]
    with torch.no_grad():
        expected = model(x)
    assert torch.equal(interpret(network.graph, [x])[0], expected)
    assert torch.equal(Program(network, Lowering(threads=threads))(x), expected)


def test_values_of_signs_take_one_bit_of_memory() -> None:
    """A word for 32 channels, and the border of +1; the image of 3 x 10 x 8 floats is larger than most."""
    network = prepare(*_binary(1), Lowering())
    sizes = [network.graph.types[node.output].bytes for node in network.graph.nodes]
    assert sizes == [4 * 12 * 10, 8 * 12 * 10, 8 * 10 * 8, 8 * 7 * 6, 8 * 5 * 4, 4 * 5 * 5 * 4]
    assert network.plan.arena_bytes == network.plan.lower_bound < 4 * 240 + 64 + 960


@pytest.mark.skipif(not host_cpu().has_bfloat16, reason="this CPU has no bfloat16 instructions")
@pytest.mark.parametrize("name", ["BinaryWeight", "XNOR"])
def test_bfloat16(name: str, tmp_path: Path) -> None:
    """Numbers are rounded to 8 bits."""
    model, x = _of_few_bits(TECHNIQUES[name]), images(2, 3, 8, 8)
    network = prepare(model, x, Lowering(precision="bf16"))
    program = netopt.lower(model, x, precision="bf16")
    formats = {network.graph.types[node.output].format for node in network.graph.nodes}
    assert BFLOAT16 in formats
    layers = [node for node in network.graph.nodes if isinstance(node.op, BinaryConv2d | BinaryDense)]
    ends = {network.graph.types[name].format for node in layers if not node.op.gives_signs for name in node.inputs[2:]}
    assert ends == {BFLOAT16}, "beside weights of one bit, scales and biases are many of the bytes"
    (golden,) = interpret(network.graph, [x])
    result = program(x)
    assert result.dtype == torch.float32
    if name == "XNOR":
        # A sum beside 0 that is rounded the other way turns a sign: of 40, at most two here.
        assert float((result - golden).abs().max()) < 0.1 * float(golden.abs().max())
    else:
        # Both round to the same 8 bits, but where sums in another order meet a tie.
        torch.testing.assert_close(result, golden, rtol=0, atol=8e-3 * float(golden.abs().max()))
    program.save(tmp_path / "net.nopt")
    assert torch.equal(netopt.load(tmp_path / "net.nopt")(x), result)


def test_fewer_bits_are_fewer_bytes(tmp_path: Path) -> None:
    """Of the weights that are replaced, 1 bit of 32 is left in a file."""
    x, sizes = images(1, 3, 8, 8), {}
    for name, model in (("float", trained(_network())), ("one bit", _of_few_bits(TECHNIQUES["BinaryConnect"]))):
        path = tmp_path / f"{name}.nopt"
        netopt.lower(model, x).save(path)
        sizes[name] = path.stat().st_size
    weights = sum(w.numel() for n, w in _network().named_parameters() if w.dim() > 1)
    saved = weights * 31 / 8
    assert abs(sizes["float"] - sizes["one bit"] - saved) < 0.1 * saved, sizes


def test_the_layers_of_a_technique_become_binary_ops() -> None:
    network = prepare(_of_few_bits(TECHNIQUES["Binary"]), images(1, 3, 8, 8), Lowering())
    found = labels(network)
    assert (found[0], found[-1]) == ("conv2d", "dense")
    assert sum("binary" in label for label in found) == 3
