"""The caller's tensor, wherever and however it lies, in the place of an input."""

from __future__ import annotations

import pytest
import torch

from netopt.kernels.load_input import loader_of
from netopt.kernels.machine.buffers import aligned_array
from netopt.kernels.machine.cpu import host_cpu
from netopt.numerics import BFLOAT16, FLOAT32, NumberFormat
from netopt.ops import Layout, TensorType
from tests.kernels.harness import from_memory
from tests.kernels.images import randn

IMAGE = (2, 3, 5, 7)


@pytest.mark.parametrize("format_", [FLOAT32, BFLOAT16])
@pytest.mark.parametrize("layout", [Layout(True), Layout(True, (1, 2, 0, 3))])
def test_any_tensor(format_: NumberFormat, layout: Layout) -> None:
    type_ = TensorType(IMAGE, format_, layout)
    place = aligned_array(layout.physical(IMAGE), format_)
    load = loader_of(type_, place, host_cpu())
    x = randn(*IMAGE)
    unaligned = torch.empty(x.numel() + 1)[1:].view(IMAGE).copy_(x)
    assert unaligned.data_ptr() % 64
    tensors = [
        x,
        unaligned,
        x.contiguous(memory_format=torch.channels_last),
        x.clone().requires_grad_(),
        x.flip(3).flip(3),
        randn(2, 3, 10, 7)[:, :, ::2],
        randn(3, 5, 7).expand(IMAGE),
    ]
    for tensor in tensors:
        place[...] = format_.to_array(format_.encode(torch.full((1,), 7.0)))
        load(tensor)
        result = from_memory(format_.to_tensor(place.copy(), place.shape), type_)
        assert torch.equal(result, tensor.detach().to(result.dtype))
