"""The op of a part in PyTorch: one value for all results, checks of its inputs, float32 in every executor."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from netopt.errors import InvalidArgument
from netopt.ops import OPS, TensorType, TorchRegion


class Sorted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Buffer(torch.tensor([1.0, 2.0]))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.sort(1).values * self.scale, x.sum(1)


REGION = TorchRegion(
    fx.symbolic_trace(Sorted()),
    (TensorType((3, 2)),),
    (TensorType((3, 2)), TensorType((3,))),
    ("aten.sort.default", "aten.sum"),
)
ONE = TorchRegion(fx.symbolic_trace(Sorted()), (TensorType((3, 2)),), (TensorType((3, 2)),), ("aten.sort.default",))


def test_several_results_are_one_value() -> None:
    x = torch.tensor([[2.0, 1.0], [3.0, 5.0], [0.5, 0.0]])
    assert REGION.infer([TensorType((3, 2))]) == TensorType((9,))
    assert REGION.reference(x).tolist() == [1, 4, 3, 10, 0, 1, 3, 8, 0.5]
    assert ONE.infer([TensorType((3, 2))]) == TensorType((3, 2))


def test_it_runs_in_float32_and_gives_what_it_got() -> None:
    x = torch.full((3, 2), 1.0 + 2.0**-40, dtype=torch.float64)
    result = REGION.reference(x)
    assert result.dtype == torch.float64
    assert result.tolist() == [1, 2, 1, 2, 1, 2, 2, 2, 2]


@pytest.mark.parametrize("types", [[], [TensorType((2, 3))], [TensorType((3, 2))] * 2])
def test_other_inputs_are_refused(types: list[TensorType]) -> None:
    with pytest.raises(InvalidArgument, match=r"inputs of a region in PyTorch: expected float32\[3, 2\], found"):
        REGION.infer(types)


def test_sizes_and_names() -> None:
    assert REGION.constant_bytes == 8
    assert REGION.label == "PyTorch: aten.sort.default, aten.sum"
    assert REGION.multiply_adds([TensorType((3, 2))]) == 0
    assert REGION.in_place_operands([TensorType((3, 2))]) == ()
    assert REGION.name not in OPS
