"""Low-bit dense layers and convolutions: the layers that are trained, and that are lowered to kernels on bits.

They are `nn.Linear`, `nn.Conv1d` and `nn.Conv2d` with the same parameters: `weight` is the latent weight, in float32,
whose signs are the weights of the layer. So a trained network's weights are where they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from netopt.errors import FileFormatError
from netopt.quantization.signs.forms import Form, InputForm, SignInputs, WeightForm, form_from
from netopt.transform.constraints import Latent
from netopt.transform.structure_file import Structured


class LowBit(Latent):
    """What the layers share: y = sum over terms of scale_x scale_w (signs_x * signs_w) + bias.

    Attributes:
        weight_form: of the weights; `SignWeights()`, `TernaryWeights()`, ...
        input_form: of the inputs; None: as they are.
        final_form: of the weights in the second stage of training, while `weight_form` is `FloatWeights()`; else None.
        pad_one: the border of binary inputs is padded with +1 where the layer would pad it with 0.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    training: bool

    def _set_forms(
        self, weight_form: WeightForm, input_form: InputForm | None, final_form: WeightForm | None, pad_one: bool
    ) -> None:
        self.weight_form, self.input_form, self.final_form, self.pad_one = weight_form, input_form, final_form, pad_one

    def product(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """x * weight, without bias."""
        raise NotImplementedError

    def along_outputs(self, vector: torch.Tensor) -> torch.Tensor:
        """A vector (out,) in a shape that broadcasts with the output."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output."""
        inputs = [(None, x)] if self.input_form is None else self.input_form.terms(x)
        weights = self.weight_form.terms(self.weight, self.training)
        total: torch.Tensor | None = None
        for input_scale, signs in inputs:
            for scale, weight in weights:
                y = self.product(signs, weight)
                if scale is not None:
                    y = y * self.along_outputs(scale)
                if input_scale is not None:
                    y = y * input_scale.reshape(-1, *[1] * (y.dim() - 1))
                total = y if total is None else total + y
        assert total is not None
        return total if self.bias is None else total + self.along_outputs(self.bias)

    def latent_weights(self) -> tuple[nn.Parameter, ...]:
        return (self.weight,) if self.weight_form.clips else ()

    @torch.no_grad()
    def constrain(self) -> None:
        if self.weight_form.clips:
            self.weight.clamp_(-1, 1)

    @property
    def weight_bits(self) -> int:
        """Bits of a weight in the file of the lowered network; while stage one lasts, those of stage two."""
        return (self.final_form or self.weight_form).bits

    def saved_bytes(self) -> int:
        form = self.final_form or self.weight_form
        scales = 4 * len(self.weight) * form.scales
        return 4 * self.weight.numel() - -(-self.weight.numel() * self.weight_bits // 8) - scales

    def _forms(self) -> dict[str, Any]:
        return {
            "weights": self.weight_form.describe(),
            "inputs": None if self.input_form is None else self.input_form.describe(),
            "final": None if self.final_form is None else self.final_form.describe(),
            "pad_one": self.pad_one,
        }

    def _forms_text(self) -> str:
        inputs = "" if self.input_form is None else f", inputs={self.input_form}"
        later = "" if self.final_form is None else f", later {self.final_form}"
        return f"weights={self.weight_form}{later}{inputs}{', pad_one=True' if self.pad_one else ''}"


class LowBitLinear(LowBit, nn.Linear, Structured):  # type: ignore[misc]  # torch annotates bias as never None
    """A low-bit dense layer, for x of shape (..., in)."""

    kind: ClassVar[str] = "dense layer of few bits"  # in files, and so it stays

    def product(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.linear(x, weight)

    def along_outputs(self, vector: torch.Tensor) -> torch.Tensor:
        return vector

    def describe(self) -> dict[str, Any]:
        """Sizes and forms, for a file."""
        sizes = {"inputs": self.in_features, "outputs": self.out_features, "bias": self.bias is not None}
        return {"sizes": sizes, **self._forms()}

    @classmethod
    def of(
        cls,
        layer: nn.Linear,
        weight_form: WeightForm,
        input_form: InputForm | None = None,
        final_form: WeightForm | None = None,
    ) -> LowBitLinear:
        """A layer with the weight and the bias of `layer`, which it takes over."""
        new = cls(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        new._set_forms(weight_form, input_form, final_form, False)
        new.weight, new.bias = layer.weight, layer.bias  # type: ignore[assignment]
        return new

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> LowBitLinear:
        """What `describe` described, without values.

        Raises:
            FileFormatError: it describes none.
        """
        weight_form, input_form, final_form, pad_one, sizes = _read(description, {"inputs": int, "outputs": int})
        try:
            new = cls(sizes["inputs"], sizes["outputs"], sizes["bias"], device="meta")
        except Exception as error:  # whatever huge sizes make torch raise
            raise FileFormatError("structure", expected="sizes of a dense layer", found=repr(error)) from error
        new._set_forms(weight_form, input_form, final_form, pad_one)
        return new

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self._forms_text()}"


class _LowBitConv(LowBit):
    """What convolutions share."""

    axes: ClassVar[int]
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    padding_mode: str
    _reversed_padding_repeated_twice: list[int]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output."""
        if x.dim() == self.axes + 1:  # one image, without the batch that inputs have scales along
            return super().forward(x[None])[0]
        return super().forward(x)

    def saved_bytes(self) -> int:
        # The weights of depthwise convolutions are lowered as floating numbers.
        return 0 if self.groups > 1 and self.weight.shape[1] == 1 else super().saved_bytes()

    def product(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        function = F.conv1d if self.axes == 1 else F.conv2d
        if not self.pad_one or self.padding_mode != "zeros":
            return self._conv_forward(x, weight, None)  # type: ignore[attr-defined, no-any-return]
        x = F.pad(x, self._reversed_padding_repeated_twice, value=1.0)
        return function(x, weight, None, self.stride, 0, self.dilation, self.groups)

    def along_outputs(self, vector: torch.Tensor) -> torch.Tensor:
        return vector.reshape(-1, *[1] * self.axes)

    def _sizes(self) -> dict[str, Any]:
        padding = self.padding if isinstance(self.padding, str) else list(self.padding)
        return {
            "inputs": self.in_channels,
            "outputs": self.out_channels,
            "kernel": list(self.kernel_size),
            "stride": list(self.stride),
            "padding": padding,
            "dilation": list(self.dilation),
            "groups": self.groups,
            "mode": self.padding_mode,
            "bias": self.bias is not None,
        }

    def describe(self) -> dict[str, Any]:
        """Sizes and forms, for a file."""
        return {"sizes": self._sizes(), **self._forms()}

    @classmethod
    def of(
        cls,
        layer: nn.Conv1d | nn.Conv2d,
        weight_form: WeightForm,
        input_form: InputForm | None = None,
        final_form: WeightForm | None = None,
        *,
        pad_one: bool = False,
    ) -> Any:
        """A layer with the weight and the bias of `layer`, which it takes over."""
        new = cls(  # type: ignore[call-arg]
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
            layer.bias is not None,
            layer.padding_mode,
            device="meta",
        )
        new._set_forms(weight_form, input_form, final_form, pad_one)
        new.weight, new.bias = layer.weight, layer.bias  # type: ignore[assignment]
        return new

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Any:
        """What `describe` described, without values.

        Raises:
            FileFormatError: it describes none.
        """
        kinds = {"inputs": int, "outputs": int, "kernel": list, "stride": list, "dilation": list, "groups": int}
        weight_form, input_form, final_form, pad_one, sizes = _read(description, {**kinds, "mode": str})
        padding = sizes.get("padding")
        try:
            new = cls(  # type: ignore[call-arg]
                sizes["inputs"],
                sizes["outputs"],
                _extents(sizes["kernel"], cls.axes),
                _extents(sizes["stride"], cls.axes),
                padding if isinstance(padding, str) else _extents(padding, cls.axes, least=0),
                _extents(sizes["dilation"], cls.axes),
                sizes["groups"],
                sizes["bias"],
                sizes["mode"],
                device="meta",
            )
        except Exception as error:  # whatever wrong values make torch raise
            raise FileFormatError("structure", expected="sizes of a convolution", found=repr(error)) from error
        new._set_forms(weight_form, input_form, final_form, pad_one)
        return new


class LowBitConv1d(_LowBitConv, nn.Conv1d, Structured):  # type: ignore[misc]  # as LowBitLinear
    """A low-bit convolution (batch, in, length) -> (batch, out, length)."""

    kind: ClassVar[str] = "convolution of few bits, one axis"
    axes: ClassVar[int] = 1

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self._forms_text()}"  # type: ignore[no-untyped-call]


class LowBitConv2d(_LowBitConv, nn.Conv2d, Structured):  # type: ignore[misc]  # as LowBitLinear
    """A low-bit convolution (batch, in, height, width) -> (batch, out, height, width)."""

    kind: ClassVar[str] = "convolution of few bits"
    axes: ClassVar[int] = 2

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self._forms_text()}"  # type: ignore[no-untyped-call]


def _extents(values: object, axes: int, *, least: int = 1) -> tuple[int, ...]:
    """A description's integers, one for each axis."""
    if not isinstance(values, list) or len(values) != axes or any(type(v) is not int or v < least for v in values):
        raise ValueError(f"{values!r} for {axes} integers of at least {least}")
    return tuple(values)


def _read(
    description: Mapping[str, Any], kinds: Mapping[str, type]
) -> tuple[WeightForm, InputForm | None, WeightForm | None, bool, dict[str, Any]]:
    """The forms and the sizes of a description, their types checked."""
    sizes = description.get("sizes")
    right = isinstance(sizes, dict) and all(type(sizes.get(k)) is kind for k, kind in {**kinds, "bias": bool}.items())
    if not right or type(description.get("pad_one")) is not bool:
        raise FileFormatError("structure", expected=f"sizes {', '.join(kinds)}", found=repr(dict(description)))
    assert isinstance(sizes, dict)
    if any(sizes[key] < 1 for key, kind in kinds.items() if kind is int):
        raise FileFormatError("structure", expected="sizes of at least 1", found=repr(sizes))
    forms: list[Form | None] = []
    for key, kind in (("weights", WeightForm), ("inputs", InputForm), ("final", WeightForm)):
        form = None if description.get(key) is None and key != "weights" else form_from(description.get(key))
        if form is not None and not isinstance(form, kind):
            raise FileFormatError("structure", expected=f"a form of {key}", found=form.name)
        forms.append(form)
    return forms[0], forms[1], forms[2], description["pad_one"], sizes  # type: ignore[return-value]


def is_binary(layer: nn.Module) -> bool:
    """Whether its inputs are signs."""
    return isinstance(layer, LowBit) and isinstance(layer.input_form, SignInputs)
