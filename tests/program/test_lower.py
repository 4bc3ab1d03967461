"""Networks that are awkward to lay out in memory: each equals PyTorch, with as few copies as it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import netopt
from netopt import zoo
from netopt.graph import interpret
from netopt.kernels.machine.cpu import host_cpu
from netopt.ops import Relayout
from netopt.program.lower import prepare
from netopt.program.options import Lowering
from netopt.program.program import Program
from tests.tolerance import assert_within, judge


class Model(nn.Module):
    """A function of its layers and inputs."""

    def __init__(self, function: Callable[..., object], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs: torch.Tensor) -> object:
        return self.function(self, *inputs)


def _pooled(x: torch.Tensor) -> torch.Tensor:
    return F.adaptive_avg_pool2d(x, 1)


def _conv(inputs: int = 3, outputs: int = 8) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _convnext() -> Model:
    """Depthwise convolution, then normalization and dense layer over the channels of each pixel, then a sum."""
    layers = {"conv": nn.Conv2d(8, 8, 7, padding=3, groups=8), "norm": nn.LayerNorm(8), "fc": nn.Linear(8, 8)}

    def function(m: Model, x: torch.Tensor) -> torch.Tensor:
        return x + m.fc(m.norm(m.conv(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)

    return Model(function, **layers)


def _shuffled(m: Model, x: torch.Tensor) -> torch.Tensor:
    return m.conv(x).view(1, 2, 4, 6, 7).transpose(1, 2).reshape(1, 8, 6, 7).relu()


BATCH_NORMS = (
    *(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
    *(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)),
)
ONE_DIMENSION = (nn.Conv1d(2, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 4, 5, stride=2))

# name, model, shapes of the inputs, copies between layouts
CASES: list[tuple[str, nn.Module, list[tuple[int, ...]], int]] = [
    ("slice to one pixel", Model(lambda m, x: m.conv(x)[:, :, 2:3, 3:4], conv=_conv()), [(2, 3, 6, 7)], 1),
    ("select a pixel", Model(lambda m, x: m.conv(x)[:, :, 2, 3], conv=_conv()), [(2, 3, 6, 7)], 1),
    ("pad one pixel", Model(lambda m, x: m.d(_pooled(m.conv(x))), conv=_conv(), d=_conv(8)), [(2, 3, 6, 7)], 0),
    ("dense over channels", _convnext(), [(2, 8, 9, 7)], 0),
    ("several outputs", Model(lambda m, x: (m.conv(x), m.conv(x).relu(), x), conv=_conv()), [(1, 3, 5, 5)], 0),
    ("channel shuffle", Model(_shuffled, conv=_conv()), [(1, 3, 6, 7)], 0),
    ("softmax over channels", Model(lambda m, x: m.conv(x).softmax(1), conv=_conv()), [(1, 3, 6, 7)], 1),
    ("broadcast input", Model(lambda m, x, y: m.conv(x) * y + y, conv=_conv()), [(1, 3, 6, 7), (8, 1, 1)], 0),
    ("broadcast row", Model(lambda m, x, y: m.conv(x) + y, conv=_conv()), [(1, 3, 6, 7), (7,)], 0),
    ("batch norms everywhere", nn.Sequential(*BATCH_NORMS), [(1, 3, 8, 8)], 0),
    ("one layer twice", Model(lambda m, x: m.conv(m.conv(x)), conv=_conv(3, 3)), [(1, 3, 8, 8)], 0),
    ("sum of three", Model(lambda m, x: m.conv(x) + m.conv(x) + m.conv(x), conv=_conv()), [(1, 3, 8, 8)], 0),
    (
        "concat pixels",
        Model(lambda m, x: torch.cat([_pooled(m.conv(x)), _pooled(x)], 1), conv=_conv()),
        [(1, 3, 8, 8)],
        0,
    ),
    ("one dimension", nn.Sequential(*ONE_DIMENSION, nn.Flatten(), nn.Linear(32, 3)), [(2, 2, 20)], 1),
    (
        "residual of a pointwise op",
        Model(lambda m, x: F.gelu(m.conv(x)) + torch.tanh(x), conv=_conv(3, 3)),
        [(1, 3, 8, 8)],
        0,
    ),
]


@pytest.mark.parametrize(("model", "shapes", "copies"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_equals_pytorch(model: nn.Module, shapes: list[tuple[int, ...]], copies: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_mean.normal_(generator=generator)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2.0, generator=generator)  # type: ignore[union-attr]
    inputs = tuple(torch.randn(shape, generator=generator) for shape in shapes)
    network = prepare(model.eval(), inputs, Lowering())
    assert sum(isinstance(node.op, Relayout) for node in network.graph.nodes) == copies
    with torch.no_grad():
        expected = model(*inputs)
    program = Program(network, Lowering())
    for _ in range(2):  # the second run finds the arena as the first has left it
        # Sums of at most 400 products of numbers near 1, in another order than PyTorch's: 400 x 2^-24 and no more.
        torch.testing.assert_close(program(*inputs), expected, rtol=2.4e-5, atol=2.4e-5)


def test_inexact_convolutions_are_close_to_exact_ones(tmp_path: Path) -> None:
    """Of the three convolutions, the strided one stays direct; a file holds what was chosen."""
    model = nn.Sequential(
        *(nn.Conv2d(3, 48, 3, 2, 1), nn.BatchNorm2d(48), nn.ReLU()),
        *(
            nn.Conv2d(48, 48, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(48, 32, 3, padding=1),
            nn.Flatten(),
            nn.Linear(5184, 5),
        ),
    ).eval()
    x = torch.randn(2, 3, 35, 17, generator=torch.Generator().manual_seed(0))
    network = prepare(model, x, Lowering(exact=False))
    assert [node.op.name for node in network.graph.nodes if "2d" in node.op.name] == [
        "conv2d",
        "winograd2d",
        "winograd2d",
    ]
    program, exact = netopt.lower(model, x, exact=False), netopt.lower(model, x)
    (bounded,) = judge(network.graph, [x])
    assert_within(program(x), bounded)
    # Far below the bound: ten times what rounding does to a direct convolution, which is at most 1e-6 of the largest.
    torch.testing.assert_close(program(x), exact(x), rtol=0, atol=1e-5 * float(exact(x).abs().max()))
    program.save(tmp_path / "net.nopt")
    assert torch.equal(netopt.load(tmp_path / "net.nopt")(x), program(x))
    assert program.arena_bytes > exact.arena_bytes, "scratch memory is in the arena"
    assert "winograd2d + relu" in program.summary()


needs_bfloat16 = pytest.mark.skipif(not host_cpu().has_bfloat16, reason="this CPU has no bfloat16 instructions")


@needs_bfloat16
def test_bfloat16_program_interpreter_and_file_agree(tmp_path: Path) -> None:
    model = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1, groups=32)),
        *(nn.Conv2d(32, 17, 1), nn.ReLU(), nn.Conv2d(17, 32, 3, padding=1), nn.MaxPool2d(2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)),
    ).eval()
    x = torch.randn(2, 3, 17, 20, generator=torch.Generator().manual_seed(0))
    network, program = prepare(model, x, Lowering(precision="bf16")), netopt.lower(model, x, precision="bf16")
    (bounded,) = judge(network.graph, [x])
    assert_within(program(x), bounded)
    # Both round to the same 8 bits, but where sums in another order meet a tie: far below the bound.
    (golden,) = interpret(network.graph, [x])
    torch.testing.assert_close(program(x), golden, rtol=0, atol=4e-3 * float(golden.abs().max()))
    exact = netopt.lower(model, x)
    assert program.arena_bytes < exact.arena_bytes
    assert program.weight_bytes < 0.7 * exact.weight_bytes
    assert program(x).dtype == torch.float32
    program.save(tmp_path / "net.nopt")
    assert torch.equal(netopt.load(tmp_path / "net.nopt")(x), program(x))


@needs_bfloat16
def test_bfloat16_beside_what_is_float32_alone() -> None:
    """Attention and softmax stay in float32 between layers in bfloat16."""
    model = zoo.vit_tiny(10, image=32, depth=1).eval()
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(x)
    result = netopt.lower(model, x, precision="bf16")(x)
    assert 0 < float((result - expected).abs().max()) < 0.05 * float(expected.abs().max())
