"""What layers cost: numbers of weights, and multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from netopt.errors import InvalidArgument
from netopt.transform.constraints import Latent
from netopt.transform.reparametrized import copied
from netopt.transform.select import WEIGHTED


@dataclass(frozen=True)
class Cost:
    """What a layer costs.

    Attributes:
        parameters: numbers of weights and biases.
        multiply_adds: for inputs of known shapes, of one run; else for one input vector of a dense layer, or one output
            position of a convolution.
        bytes: of the parameters in the file of a lowered network: 4 for each, unless the layer needs fewer.
    """

    parameters: int
    multiply_adds: int
    bytes: int = -1

    def __post_init__(self) -> None:
        if self.bytes < 0:
            object.__setattr__(self, "bytes", 4 * self.parameters)

    @classmethod
    def of(cls, module: nn.Module, inputs: Sequence[torch.Size] = ()) -> Cost:
        """The cost of the dense and convolution layers in `module`.

        Its other parameters are counted, their arithmetic is not. A subclass of such a layer costs what the layer does.

        Args:
            module: a layer, or what replaced it.
            inputs: the shape of its input in each call of a run, if known.

        Raises:
            InvalidArgument: the shapes are known, and the module is no dense or convolution layer itself, and cannot be
                called on PyTorch's meta device.
        """
        parameters = sum(p.numel() for p in module.parameters())
        saved = sum(layer.saved_bytes() for layer in module.modules() if isinstance(layer, Latent))
        if inputs:
            return cls(parameters, _multiply_adds(module, inputs), 4 * parameters - saved)
        multiply_adds = sum(_weight(layer).numel() for layer in _weighted(module))
        return cls(parameters, multiply_adds, 4 * parameters - saved)

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.parameters + other.parameters,
            self.multiply_adds + other.multiply_adds,
            self.bytes + other.bytes,
        )


def _weighted(module: nn.Module) -> list[nn.Module]:
    return [layer for layer in module.modules() if isinstance(layer, WEIGHTED)]


def _weight(layer: nn.Module) -> torch.Tensor:
    assert isinstance(layer.weight, torch.Tensor)
    return layer.weight


def _multiply_adds(module: nn.Module, inputs: Sequence[torch.Size]) -> int:
    """Of calls with inputs of these shapes.

    What is more than one layer is called on the meta device, where nothing is computed.

    Raises:
        InvalidArgument: the module cannot be called there.
    """
    if isinstance(module, WEIGHTED):
        return sum(multiply_adds(module, shape) for shape in inputs)
    shadow = copied(module).to("meta").eval()
    total = 0

    def add(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal total
        total += multiply_adds(layer, next(iter((*args, *kwargs.values()))).shape)

    for part in shadow.modules():
        _clear_hooks(part)
    for layer in _weighted(shadow):
        layer.register_forward_pre_hook(add, with_kwargs=True)
    dtype = next((p.dtype for p in shadow.parameters()), torch.float32)
    with torch.no_grad():
        for shape in inputs:
            try:
                shadow(torch.empty(shape, device="meta", dtype=dtype))
            except Exception as error:  # whatever the module's own code raises
                raise InvalidArgument(
                    f"cost of a {type(module).__name__}",
                    expected="a module that can be called on PyTorch's meta device",
                    found=f"{type(error).__name__}: {error}",
                    fix="override Technique.cost",
                ) from error
    return total


def _clear_hooks(module: nn.Module) -> None:
    """Remove the user's own, which may look at values. Those of torch.nn.utils stay: weight_norm's make the weight."""
    module._forward_hooks.clear()
    for key, hook in list(module._forward_pre_hooks.items()):
        if not any(base.__module__.startswith("torch.nn.utils.") for base in type(hook).__mro__):
            del module._forward_pre_hooks[key]


def multiply_adds(layer: nn.Module, given: torch.Size) -> int:
    """Of one call of a dense or convolution layer, for the shape of its input; none of the layer's own code runs.

    Each weight is used once for each row of a dense layer, for each output position of a convolution, and for each
    input position of a transposed one.
    """
    weight = _weight(layer)
    if isinstance(layer, nn.Linear):
        return given.numel() // layer.in_features * weight.numel()
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return given.numel() // layer.in_channels * weight.numel()
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    return _positions(layer, given) * weight.numel()


def _positions(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, given: torch.Size) -> int:
    """How many output positions a convolution has for an input (..., in, *size), all images together."""
    axes = len(layer.kernel_size)
    positions = given[: -axes - 1].numel()
    for axis, extent in enumerate(given[-axes:]):
        reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
        if isinstance(layer.padding, str):
            padding = reach if layer.padding == "same" else 0
        else:
            padding = 2 * layer.padding[axis]
        positions *= max(0, (extent + padding - reach - 1) // layer.stride[axis] + 1)
    return positions
