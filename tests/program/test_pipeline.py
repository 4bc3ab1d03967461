from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from netopt.graph import Graph
from netopt.graph.capture import capture
from netopt.graph.passes import Pass, pass_name, run_passes
from netopt.kernels.machine.cpu import host_cpu
from netopt.program.options import Lowering
from netopt.program.pipeline import pipeline

ORDER = [
    "fold_constants",
    "drop_identities",
    "read_sequences_as_images",
    "merge_channel_shuffle",
    "simplify_views",
    "drop_dead_code",
    "lower_matmul",
    "fold_pad",
    "reshape_before_sign",
    "binarize_layers",
    "find_integer_thresholds",
    "fold_binary_scales",
    "find_float_thresholds",
    "fold_batch_norm",
    "fold_constants",
    "fuse_residual",
    "fuse_activation",
    "fuse_scale",
    "read_in_place",
    "slice_early",
    "permute_flattened_weights",
    "drop_dead_code",
    "convert_formats",
    "choose_layouts",
    "write_concat_in_place",
]
SERVER = "x86-64-linux-avx-avx2-avx512-avx512_cannonlake-avx512_sapphirerapids-avx512_skylake-f16c-fma-sse41"


def test_order() -> None:
    assert [pass_name(run) for run in pipeline(Lowering())] == ORDER


@pytest.mark.parametrize(
    ("options", "further"),
    [
        (Lowering(exact=False), ["use_winograd"]),
        (Lowering(precision="bf16", target=SERVER), ["use_winograd", "use_bfloat16"]),
        (Lowering(exact=False, precision="bf16", target=SERVER), ["use_winograd", "use_bfloat16"]),
        (Lowering(fallback=True, threads=2), []),
    ],
)
def test_further_passes_run_just_before_the_layouts(options: Lowering, further: list[str]) -> None:
    passes = pipeline(options)
    place = ORDER.index("choose_layouts")
    assert [pass_name(run) for run in passes] == [*ORDER[:place], *further, *ORDER[place:]]
    graph, _ = capture(nn.Conv2d(8, 8, 3, padding=1), torch.ones(1, 8, 6, 6))
    has_layouts: list[bool] = []

    def spy(run: Pass) -> Pass:
        def spied(graph: Graph) -> Graph:
            has_layouts.append(any(type_.layout.channels_last for type_ in graph.types.values()))
            return run(graph)

        return spied

    run_passes(graph, [spy(run) for run in passes])
    assert has_layouts == [False] * (len(passes) - 1) + [True]


def test_the_way_to_compute_a_convolution_is_chosen_for_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []

    def choose(op: object, *_: object, **given: object) -> object:
        seen.append(tuple(given[name] for name in ("threads", "cpu", "streamed", "tuned", "narrow")))
        return op

    monkeypatch.setattr("netopt.program.pipeline.choose_convolution", choose)
    graph, _ = capture(nn.Conv2d(8, 8, 3, padding=1), torch.ones(1, 8, 6, 6))
    arm = Lowering(exact=False, threads=3, target="arm-64-linux")
    for options in (Lowering(exact=False, tune=True), arm, Lowering(precision="bf16", target=SERVER)):
        run_passes(graph, pipeline(options))
    host, phone, server = seen
    assert host == (1, host_cpu(), False, True, False)
    assert phone == (3, arm.cpu, False, False, False)
    assert server[1:] == (Lowering(target=SERVER).cpu, False, False, True)


def test_the_documented_table_is_the_list() -> None:
    page = (Path(__file__).parents[2] / "docs" / "lowering.md").read_text()
    assert re.findall(r"^\| \d+ \| `(\w+)` \|", page, re.MULTILINE) == ORDER
