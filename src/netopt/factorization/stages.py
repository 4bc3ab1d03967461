"""A convolution as several thinner ones, one after the other: what they are, and the module that holds them."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from netopt.errors import FileFormatError
from netopt.transform.structure_file import Structured

_TYPES: dict[tuple[int, bool], type[nn.modules.conv._ConvNd]] = {
    (1, False): nn.Conv1d,
    (2, False): nn.Conv2d,
    (1, True): nn.ConvTranspose1d,
    (2, True): nn.ConvTranspose2d,
}


@dataclass(frozen=True, kw_only=True)
class ConvSpec:
    """What a convolution is but for its weights; as `nn.Conv2d` and `nn.ConvTranspose2d`, a number for each axis.

    Attributes:
        inputs: channels.
        outputs: channels.
        kernel: its size.
        stride: of it.
        padding: numbers, or "same".
        dilation: of it.
        groups: of it.
        padding_mode: of it.
        output_padding: of a transposed convolution; else zeros.
        transposed: whether it is one.
        bias: whether it has one.
    """

    inputs: int
    outputs: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int
    padding_mode: str
    output_padding: tuple[int, ...]
    transposed: bool
    bias: bool

    @property
    def area(self) -> int:
        """Weights of a kernel for one input and one output channel."""
        return math.prod(self.kernel)

    @property
    def weights(self) -> int:
        """How many it has."""
        return self.inputs * self.outputs // self.groups * self.area


@dataclass(frozen=True, kw_only=True)
class Stage(ConvSpec):
    """One of the convolutions that stand in the place of another.

    Attributes:
        name: of the module.
    """

    name: str

    def module(self) -> nn.Module:
        """The convolution, on the meta device: without values, and without drawing random ones."""
        options: dict[str, Any] = {"padding_mode": self.padding_mode}
        if self.transposed:
            options["output_padding"] = self.output_padding
        module: nn.Module = _TYPES[len(self.kernel), self.transposed](
            self.inputs,
            self.outputs,
            self.kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            bias=self.bias,
            device="meta",
            **options,
        )
        return module

    def output_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Height and width, or length, of its output for an input of this size."""
        return tuple(self._extent(axis, extent) for axis, extent in enumerate(size))

    def _extent(self, axis: int, extent: int) -> int:
        reach = self.dilation[axis] * (self.kernel[axis] - 1)
        if isinstance(self.padding, str):
            return extent
        if self.transposed:
            grown = (extent - 1) * self.stride[axis] - 2 * self.padding[axis]
            return grown + reach + self.output_padding[axis] + 1
        return (extent + 2 * self.padding[axis] - reach - 1) // self.stride[axis] + 1

    def dense_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """Its weight as (outputs, inputs, ...) of a convolution without groups: zeros between the groups."""
        wide = weight.new_zeros(self.outputs, self.inputs, *self.kernel)
        ins, outs = self.inputs // self.groups, self.outputs // self.groups
        for group in range(self.groups):
            block = weight[group * ins :][:ins].transpose(0, 1) if self.transposed else weight[group * outs :][:outs]
            wide[group * outs : (group + 1) * outs, group * ins : (group + 1) * ins] = block
        return wide


class FactoredConv(nn.Sequential, Structured):
    """Convolutions that together compute, about, what one convolution did.

    Attributes:
        method: the decomposition: "Tucker", "CP" ...
        stages: what the convolutions are, in their order.
        transposed: whether a transposed convolution stood here; stages need not be, if that was a 1 x 1 one.
    """

    kind: ClassVar[str] = "factored convolution"

    def __init__(self, method: str, stages: Sequence[Stage], *, transposed: bool = False) -> None:
        """Make the convolutions without values; `set_weights` gives them some."""
        super().__init__(OrderedDict((stage.name, stage.module()) for stage in stages))
        self.method, self.stages, self.transposed = method, tuple(stages), transposed

    def set_weights(self, weights: Sequence[torch.Tensor], bias: nn.Parameter | None) -> FactoredConv:
        """Take over a weight for each stage, and the bias for the last."""
        for stage, weight in zip(self.stages, weights, strict=True):
            module = self.get_submodule(stage.name)
            assert module.weight.shape == weight.shape
            module.weight = nn.Parameter(weight.contiguous())
        if bias is not None:
            self.get_submodule(self.stages[-1].name).bias = bias
        return self

    @property
    def weight(self) -> torch.Tensor:
        """The kernel that the stages together have, shaped as that of the convolution that stood here."""
        first, *others = self.stages
        kernel = first.dense_weight(self._weight_of(first))
        for stage in others:
            kernel = composed(kernel, stage.dense_weight(self._weight_of(stage)))
        return _grouped(kernel, self.groups, self.transposed)

    def _weight_of(self, stage: Stage) -> torch.Tensor:
        weight = self.get_submodule(stage.name).weight
        assert isinstance(weight, torch.Tensor)
        return weight

    @property
    def bias(self) -> torch.Tensor | None:
        """That of the last stage."""
        bias = self.get_submodule(self.stages[-1].name).bias
        assert bias is None or isinstance(bias, torch.Tensor)
        return bias

    @property
    def groups(self) -> int:
        """Of the convolution that stood here: the most that inputs and outputs can both be divided among."""
        return min(stage.groups for stage in self.stages)

    def describe(self) -> dict[str, Any]:
        """What the initializer takes, for a file."""
        stages = [asdict(stage) for stage in self.stages]
        return {"method": self.method, "transposed": self.transposed, "stages": stages}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> FactoredConv:
        """What `describe` described, without values.

        Raises:
            FileFormatError: the description is not one of stages that fit one another.
        """
        try:
            stages = [_stage(fields) for fields in description["stages"]]
            fits = all(before.outputs == after.inputs for before, after in itertools.pairwise(stages))
            if not fits or not stages:
                raise ValueError("stages that do not fit")
            return cls(str(description["method"]), stages, transposed=bool(description["transposed"]))
        except Exception as error:  # whatever wrong values make torch and Python raise
            raise FileFormatError(
                "structure", expected="stages of a factored convolution", found=f"{type(error).__name__}: {error}"
            ) from error

    def __repr__(self) -> str:
        channels = [str(self.stages[0].inputs)]
        for stage in self.stages:
            if any(extent > 1 for extent in stage.kernel):
                channels.append(f"[{' x '.join(map(str, stage.kernel))}]")
            channels.append(str(stage.outputs))
        return f"{self.method}({' -> '.join(channels)})".replace("] -> ", "] ").replace(" -> [", " [")


def _stage(fields: Mapping[str, Any]) -> Stage:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return Stage(**values)


def composed(first: torch.Tensor, second: torch.Tensor, *, depthwise: bool = False) -> torch.Tensor:
    """The kernel (out, in, ...) of two convolutions in turn, of which along each axis one has extent 1.

    Args:
        first: (mid, in, ...).
        second: (out, mid, ...), or of a depthwise convolution (mid, 1, ...).
        depthwise: whether it is one.
    """
    if first.dim() == 3:
        return composed(first[..., None], second[..., None], depthwise=depthwise)[..., 0]
    terms = "rab,rscd->rsacbd" if depthwise else "trab,rscd->tsacbd"
    product = torch.einsum(terms, second[:, 0] if depthwise else second, first)
    t, s, a, c, b, d = product.shape
    return product.reshape(t, s, a * c, b * d)


def _grouped(kernel: torch.Tensor, groups: int, transposed: bool) -> torch.Tensor:
    """The blocks of a wide kernel (out, in, ...) as a layer with groups has them."""
    outs, ins = kernel.shape[0] // groups, kernel.shape[1] // groups
    blocks = [kernel[g * outs : (g + 1) * outs, g * ins : (g + 1) * ins] for g in range(groups)]
    return torch.cat([block.transpose(0, 1) if transposed else block for block in blocks])
