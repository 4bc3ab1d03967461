"""What stands around a binary layer so that it can be trained: normalization, thresholds, a shortcut, an activation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from netopt.errors import FileFormatError, InvalidArgument
from netopt.quantization.signs.layers import LowBit, LowBitConv1d, LowBitConv2d, LowBitLinear
from netopt.transform.structure_file import Structured

LAYERS: dict[str, type[LowBitLinear] | type[LowBitConv1d] | type[LowBitConv2d]] = {
    layer.kind: layer for layer in (LowBitLinear, LowBitConv1d, LowBitConv2d)
}


class Shift(nn.Module):
    """y = x + b, with b for each channel, 0 at first: before a sign, a threshold that is trained.

    Source: RSign of Liu et al. (ReActNet), 2003.03488, equation 3, with b = -alpha.
    """

    def __init__(self, channels: int, device: str | None = None) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels, device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of the shape of x, (batch, channels, ...)."""
        return x + self.bias.reshape(-1, *[1] * (x.dim() - 2))


class RPReLU(nn.Module):
    """y = prelu(x - gamma) + zeta, with slope, gamma and zeta for each channel; slope 0.25 at first, the others 0.

    Source: Liu et al. (ReActNet), 2003.03488, equation 4.
    """

    def __init__(self, channels: int, device: str | None = None) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full((channels,), 0.25, device=device))
        self.before, self.after = Shift(channels, device), Shift(channels, device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of the shape of x, (batch, channels, ...)."""
        y: torch.Tensor = self.after(F.prelu(self.before(x), self.slope))
        return y


class BinaryBlock(nn.Module, Structured):
    """activation(layer(norm(x)) + x): a layer of binary inputs, and what makes it accurate.

    Attributes:
        norm: `nn.BatchNorm1d` or `nn.BatchNorm2d`, which centres what the sign is taken of; then, or in its place, a
            `Shift`; may be empty.
        layer: the layer.
        shortcut: whether x is added to the layer's output, which has its shape (Bi-Real Net, 1808.00278, section 3.2).
        activation: an `RPReLU`, or nothing.
    """

    kind: ClassVar[str] = "binary block"

    def __init__(
        self,
        layer: LowBitLinear | LowBitConv1d | LowBitConv2d,
        *,
        normalize: bool,
        thresholds: bool,
        shortcut: bool,
        rprelu: bool,
    ) -> None:
        """Build what is asked for around `layer`, on the meta device."""
        super().__init__()
        inputs, outputs = _ends(layer)
        if shortcut and inputs != outputs:
            raise InvalidArgument(
                "shortcut of a binary block", expected="as many outputs as inputs", found=f"{inputs} and {outputs}"
            )
        norm = nn.BatchNorm2d if isinstance(layer, LowBitConv2d) else nn.BatchNorm1d
        parts: list[nn.Module] = [norm(inputs, device="meta")] * normalize + [Shift(inputs, "meta")] * thresholds
        self.norm = nn.Sequential(*parts)
        self.layer = layer
        self.shortcut = shortcut
        self.activation: nn.Module = RPReLU(outputs, "meta") if rprelu else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output."""
        axes = 0 if isinstance(self.layer, LowBitLinear) else self.layer.axes
        leading = x.dim() - 1 - axes
        if leading != 1 and (axes == 0 or leading == 0):
            # The other shapes that such layers take; normalization takes (batch, channels, ...) alone.
            y = self.forward(x.reshape(-1, *x.shape[leading:]))
            return y.reshape(*x.shape[:leading], *y.shape[1:])
        y = self.layer(self.norm(x))
        return self.activation(y + x if self.shortcut else y)  # type: ignore[no-any-return]

    @property
    def weight(self) -> torch.Tensor:
        """The layer's latent weight: for code that reads the weight of the layer that stood here."""
        return self.layer.weight

    @property
    def bias(self) -> torch.Tensor | None:
        """The layer's bias, or None."""
        return self.layer.bias

    def describe(self) -> dict[str, Any]:
        """Parts, for a file; the layer describes itself."""
        parts = [type(part) for part in self.norm]
        return {
            "layer": {"kind": self.layer.kind, **self.layer.describe()},
            "normalize": any(part is not Shift for part in parts),
            "thresholds": Shift in parts,
            "shortcut": self.shortcut,
            "rprelu": isinstance(self.activation, RPReLU),
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> BinaryBlock:
        """What `describe` described, without values.

        Raises:
            FileFormatError: it describes none.
        """
        options = {key: description.get(key) for key in ("normalize", "thresholds", "shortcut", "rprelu")}
        layer = description.get("layer")
        if not all(type(value) is bool for value in options.values()) or not isinstance(layer, Mapping):
            raise FileFormatError("structure", expected="parts of a binary block", found=repr(dict(description)))
        name = str(layer.get("kind"))
        kind = LAYERS.get(name)
        if kind is None:
            raise FileFormatError("structure", expected=f"a layer of {', '.join(LAYERS)}", found=repr(name))
        return cls(kind.from_description(layer), **options)  # type: ignore[arg-type]

    def initialize(self) -> None:
        """Give all but the layer its first values, where the layer's weight is, and trained as it is."""
        weight = self.layer.weight
        for part in (self.norm, self.activation):
            part.to_empty(device=weight.device)
            for module in part.modules():
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                    module.reset_parameters()
                elif isinstance(module, Shift):
                    nn.init.zeros_(module.bias)
                elif isinstance(module, RPReLU):
                    nn.init.constant_(module.slope, 0.25)
            part.to(dtype=weight.dtype).requires_grad_(weight.requires_grad)


def _ends(layer: nn.Module) -> tuple[int, int]:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    return layer.in_channels, layer.out_channels


def low_bit_layers(model: nn.Module) -> list[LowBit]:
    """The low-bit layers in a model."""
    return [module for module in model.modules() if isinstance(module, LowBit)]
