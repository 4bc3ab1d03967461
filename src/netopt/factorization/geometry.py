"""The geometry of a convolution, and of parts of it that do its work along some axes of the image only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn

from netopt.factorization.stages import ConvSpec, Stage
from netopt.transform.finite import finite_weight

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d)


@dataclass(frozen=True, kw_only=True)
class Geometry(ConvSpec):
    """That of a whole layer."""

    @classmethod
    def of(cls, module: nn.Module) -> Geometry:
        """That of a layer."""
        assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d)
        padding: tuple[int, ...] | str = module.padding
        return cls(
            inputs=module.in_channels,
            outputs=module.out_channels,
            kernel=tuple(module.kernel_size),
            stride=tuple(module.stride),
            padding=(0,) * len(module.kernel_size) if padding == "valid" else padding,
            dilation=tuple(module.dilation),
            groups=module.groups,
            padding_mode=module.padding_mode,
            output_padding=tuple(module.output_padding),
            transposed=isinstance(module, _TRANSPOSED),
            bias=module.bias is not None,
        )

    @property
    def axes(self) -> tuple[int, ...]:
        """All axes."""
        return tuple(range(len(self.kernel)))

    @property
    def free(self) -> tuple[int, ...]:
        """The axes along which a 1 x 1 convolution does all the work: it may take strides, and no more."""
        return tuple(axis for axis in self.axes if self._is_free(axis))

    def _is_free(self, axis: int) -> bool:
        if self.kernel[axis] > 1 or self.output_padding[axis] or (self.transposed and self.stride[axis] > 1):
            return False
        return isinstance(self.padding, str) or self.padding[axis] == 0

    @property
    def bound(self) -> tuple[int, ...]:
        """The other axes."""
        return tuple(axis for axis in self.axes if not self._is_free(axis))

    def stage(
        self, name: str, inputs: int, outputs: int, *, axes: Collection[int], groups: int = 1, is_last: bool = False
    ) -> Stage:
        """A convolution that does what this one does along `axes`, and has extent 1 along the others."""
        works = any(axis in axes for axis in self.bound)
        padding: tuple[int, ...] | str = "same"
        if not isinstance(self.padding, str) or not works:
            padding = self._along(axes, 0 if isinstance(self.padding, str) else self.padding, 0)
        return Stage(
            name=name,
            inputs=inputs,
            outputs=outputs,
            kernel=self._along(axes, self.kernel, 1),
            stride=self._along(axes, self.stride, 1),
            padding=padding,
            dilation=self._along(axes, self.dilation, 1),
            groups=groups,
            padding_mode=self.padding_mode if works else "zeros",
            output_padding=self._along(axes, self.output_padding, 0),
            transposed=self.transposed and works,
            bias=self.bias and is_last,
        )

    def _along(self, axes: Collection[int], values: tuple[int, ...] | int, otherwise: int) -> tuple[int, ...]:
        each = (values,) * len(self.kernel) if isinstance(values, int) else values
        return tuple(value if axis in axes else otherwise for axis, value in enumerate(each))


def blocks_of(module: nn.Module, layer: str) -> list[torch.Tensor]:
    """For each group a copy of its kernel, (out, in, ...), in float64.

    Raises:
        InvalidArgument: the weight has no values, or some that are not finite.
    """
    weight = finite_weight(module, layer).double()
    assert isinstance(module.groups, int)
    chunks = weight.chunk(module.groups)
    return [chunk.transpose(0, 1).contiguous() if isinstance(module, _TRANSPOSED) else chunk for chunk in chunks]
