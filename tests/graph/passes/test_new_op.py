"""An op that no pass has heard of: what it tells about itself is enough for the passes and checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch.nn import functional as F

from netopt.errors import InvalidArgument, UnsupportedModel
from netopt.graph import Graph, interpret
from netopt.graph.check_layouts import check_layouts
from netopt.graph.graph import GraphBuilder
from netopt.graph.passes import run_passes
from netopt.graph.passes.use_bfloat16 import use_bfloat16
from netopt.kernels.registry import KERNELS
from netopt.numerics import BFLOAT16, FLOAT32, FLOATS
from netopt.ops import (
    ROW_MAJOR,
    Affine,
    Arithmetic,
    BatchNorm,
    Concat,
    Conv2d,
    Layout,
    Layouts,
    Op,
    Pointwise,
    Relayout,
    Slice,
    Softmax,
    TensorType,
)
from netopt.ops.epilogue import EpilogueOp, scale_rows
from netopt.ops.op import expect_inputs
from netopt.ops.spatial import Sides
from netopt.program.checks import check_kernels
from tests.pipelines import PASSES


@dataclass(frozen=True)
class Halve(Op):
    """y = x / 2: pointwise, in any layout, and in any floating format."""

    name: ClassVar[str] = "halve"
    layouts = Layouts.ANY
    formats = FLOATS
    elementwise = True

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 1)
        return inputs[0].logical

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0] / 2


@dataclass(frozen=True)
class Blur(EpilogueOp):
    """y = activation(x * W + bias + residual): a kernel (height, 1) for each channel, and zeros around x."""

    has_bias: bool = False
    has_residual: bool = False
    activation: Pointwise | None = None
    name: ClassVar[str] = "blur"
    layouts = Layouts.IMAGES
    formats = FLOATS

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 2 + self.has_bias + self.has_residual)
        self.expect_epilogue(inputs, inputs[1].shape[0], inputs[0].shape)
        return inputs[0].logical

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x, weight = inputs[:2]
        y = F.conv2d(x, weight, padding=(weight.shape[2] // 2, 0), groups=len(weight))
        return self.apply_epilogue(y, inputs, (-1, 1, 1))

    def halo_read(self, inputs: Sequence[TensorType]) -> Sides:
        rows = inputs[1].shape[2] // 2
        return rows, rows, 0, 0

    def sums_products(self, inputs: Sequence[TensorType]) -> bool:
        return inputs[1].shape[2] > 1

    def fold_after(
        self, affine: Affine, weight: torch.Tensor, bias: torch.Tensor, inputs: Sequence[TensorType]
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        return scale_rows(affine, weight, bias) if self.is_bare else None


@dataclass(frozen=True)
class Plain(Op):
    """y = x, and nothing told of it."""

    name: ClassVar[str] = "plain"

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 1)
        return inputs[0].logical

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0]


@pytest.fixture(autouse=True)
def _kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry has rows for the ops."""
    for op in (Halve, Blur, Plain):
        monkeypatch.setitem(KERNELS, op, KERNELS[Softmax])


class Builder(GraphBuilder):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.inputs, self.types = ("x",), {"x": TensorType(shape)}
        self.generator = torch.Generator().manual_seed(0)

    def constant(self, *shape: int) -> str:
        return self.add_constant("c", torch.randn(shape, generator=self.generator))

    def blur(self, x: str, rows: int = 3) -> str:
        return self.add_node(Blur(), (x, self.constant(4, 1, rows, 1)), "blur", "blur")

    def halve(self, x: str) -> str:
        return self.add_node(Halve(), (x,), "halve", "halve")

    def conv(self, x: str, width: int = 3) -> str:
        padding = width // 2
        weight = self.constant(4, self.types[x].shape[1], width, width)
        return self.add_node(Conv2d(padding=(padding,) * 4), (x, weight), "conv", "conv")

    def norm(self, x: str) -> str:
        variance = self.add_constant("variance", torch.rand(4, generator=self.generator) + 0.5)
        return self.add_node(BatchNorm(1e-3), (x, *(self.constant(4) for _ in range(3)), variance), "norm", "norm")

    def relu(self, x: str) -> str:
        return self.add_node(Pointwise("relu"), (x,), "relu", "relu")

    def passed(self, *outputs: str, narrow: bool = False) -> Graph:
        """The graph after the passes, which computes the same and can be run."""
        self.outputs = outputs
        before = self.finish()
        graph = run_passes(before, (*PASSES[:-2], *[use_bfloat16] * narrow, *PASSES[-2:]))
        x = torch.randn(self.types["x"].shape, generator=self.generator)
        if not narrow:
            for right, result in zip(interpret(before, [x]), interpret(graph, [x]), strict=True):
                torch.testing.assert_close(result, right)
        check_kernels(graph)
        check_layouts(graph)
        return graph


def _labels(graph: Graph) -> list[str]:
    return [node.op.label for node in graph.nodes]


def test_its_epilogue_is_fused_and_batch_norm_folded_into_it() -> None:
    b = Builder(2, 4, 6, 6)
    graph = b.passed(b.relu(b.add_node(Arithmetic("add"), ("x", b.norm(b.blur("x"))), "sum", "")))
    assert _labels(graph) == ["blur + add + relu"]
    (node,) = graph.nodes
    assert node.op == Blur(has_bias=True, has_residual=True, activation=Pointwise("relu"))


def test_it_lies_as_images_do_with_the_halo_that_it_reads() -> None:
    b = Builder(2, 3, 6, 6)
    graph = b.passed(b.conv(b.halve(b.blur(b.halve(b.conv("x", 1)), rows=5)), 3))
    assert _labels(graph) == ["conv2d", "halve", "blur", "halve", "conv2d"], "no copy between layouts"
    halos = [graph.types[node.output].layout for node in graph.nodes]
    images = [(0,) * 4, (2, 2, 0, 0), (0,) * 4, (1,) * 4, (0,) * 4]
    assert halos == [Layout(True, halo) for halo in images]


def test_layouts_that_it_cannot_read_are_copied_for_it_and_refused_in_files() -> None:
    b = Builder(2, 4, 6, 6)
    graph = b.passed(b.blur(b.add_node(Plain(), (b.conv("x"),), "plain", "")))
    assert _labels(graph) == ["conv2d", "relayout", "plain", "relayout", "blur"]
    (copy,) = (node for node in graph.nodes[2:] if isinstance(node.op, Relayout))
    wrong = {**graph.types, copy.output: TensorType(graph.types[copy.output].shape, layout=ROW_MAJOR)}
    with pytest.raises(InvalidArgument, match="layer 'blur': graph: layout of .*, read by 'blur': expected .*=True"):
        check_layouts(Graph(graph.inputs, graph.outputs, graph.nodes, wrong, graph.constants))


def test_parts_of_a_concatenation_are_written_in_place() -> None:
    b = Builder(1, 4, 6, 6)
    parts = (b.blur("x"), b.halve(b.conv("x")))
    graph = b.passed(b.conv(b.add_node(Concat(1), parts, "cat", "")))
    assert "concat in place" in _labels(graph)
    assert [graph.types[name].layout.pitch for name in parts] == [8, 8]


def test_values_and_weights_that_it_can_read_so_are_bfloat16() -> None:
    b = Builder(2, 4, 6, 6)
    first = b.blur(b.halve("x"))
    last = b.blur(b.add_node(Plain(), (b.blur(first, rows=1),), "plain", ""))
    graph = b.passed(last, narrow=True)
    formats = {name: graph.types[name].format for name in ("halve", "blur", "blur_2", "plain")}
    assert formats == {"halve": BFLOAT16, "blur": BFLOAT16, "blur_2": FLOAT32, "plain": FLOAT32}
    weights = [graph.types[node.inputs[1]].format for node in graph.nodes if isinstance(node.op, Blur)]
    # One product is no sum; and the last reads float32.
    assert weights == [BFLOAT16, FLOAT32, FLOAT32]


def test_a_format_that_it_does_not_read_is_refused() -> None:
    b = Builder(2, 4)
    b.outputs = (b.add_node(Plain(), ("x",), "y", "last"),)
    b.types["x"] = TensorType((2, 4), BFLOAT16)
    with pytest.raises(UnsupportedModel, match="layer 'last': value 'x': expected float32, found bfloat16"):
        check_kernels(b.finish())


def test_its_weights_must_be_known() -> None:
    b = Builder(4, 1, 3, 1)
    b.outputs = (b.add_node(Blur(), (b.add_constant("i", torch.ones(1, 4, 5, 5)), b.halve("x")), "y", "last"),)
    with pytest.raises(UnsupportedModel, match=r"layer 'last': .*computed from the input.*fallback=True"):
        check_kernels(b.finish())


def test_a_slice_moves_before_a_pointwise_op() -> None:
    b = Builder(4, 6)
    graph = b.passed(b.add_node(Slice(0, 1, 3), (b.halve(b.halve("x")),), "cut", ""))
    assert _labels(graph) == ["slice", "halve", "halve"]
