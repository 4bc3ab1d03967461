"""How many codes differ between the quantized module and the native program, on all test images.

    python bench/fixed_point_exact.py DATA OUT [NAMES] [--images N]

The module is evaluated exactly, in float64; the program gives all values that are codes, in one call. Networks, data
and the folders are those of bench/fixed_point_peers.py. Prints a line for each network: values compared, and how many
differ.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch
from fixed_point_peers import PROBLEMS

import netopt
from netopt.graph import Graph, Nesting, Signature
from netopt.graph.passes import run_passes
from netopt.memory import check_plan, order_for_memory, plan_memory
from netopt.numerics import CodeFormat
from netopt.program.file import Network
from netopt.program.options import Lowering
from netopt.program.pipeline import storage
from netopt.program.program import Program
from netopt.quantized.network import QuantizedNetwork

BATCH = 50


def coded_values(graph: Graph) -> tuple[str, ...]:
    """What the network computes that is codes, and its outputs."""
    computed = [node.output for node in graph.nodes]
    return tuple(n for n in computed if isinstance(graph.types[n].format, CodeFormat) or n in graph.outputs)


def program_of_all(network: QuantizedNetwork, example: torch.Tensor, names: tuple[str, ...]) -> Program:
    """A program that returns all these values."""
    graph, signature = network.as_graph(example)
    graph = dataclasses.replace(graph, outputs=names)
    graph = order_for_memory(run_passes(graph, storage(Lowering())))
    plan = plan_memory(graph)
    check_plan(graph, plan)
    nesting = Nesting("tuple", (), tuple(Nesting("tensor") for _ in names))
    signature = Signature(signature.positional, signature.keyword, nesting)
    return Program(Network(graph, plan, signature), Lowering())


def compare(name: str, data: Path, out: Path, images: int) -> str:
    """The line of a network."""
    problem = PROBLEMS[name]
    calibration, inputs, _ = problem.load(data)
    network = netopt.quantize(problem.trained(out), calibration=calibration)
    graph, _ = network.as_graph(inputs[:BATCH])
    names = coded_values(graph)
    program = program_of_all(network, inputs[:BATCH], names)
    compared = differing = 0
    for batch in inputs[: images // BATCH * BATCH].split(BATCH):
        found = dict(zip(names, program(batch), strict=True))
        with torch.no_grad():
            for value, exact in network.watch(batch.double()):
                if value in found:
                    quantizer = network.quantizer(value)
                    expected = exact if quantizer is None else quantizer(exact)
                    compared += expected.numel()
                    differing += int((found[value] != expected.float()).sum())
    return f"{name}: {images // BATCH * BATCH:,} inputs, {compared:,} values of {len(names)} ops, {differing:,} differ"


def main() -> None:
    """Compare what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", default=["resnet23", "lenet5", "friedman"])
    parser.add_argument("--images", type=int, default=10_000)
    arguments = parser.parse_args()
    for name in arguments.names:
        print(compare(name, arguments.data, arguments.out, arguments.images), flush=True)


if __name__ == "__main__":
    main()
