"""Which layers a technique is to work on."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from netopt.errors import InvalidArgument, InvalidType, name_of_layer

# Layers with a weight that a network's first and last are counted among.
WEIGHTED = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)

# Of AVX-512, where the CPU is not known: narrower vectors divide it.
WIDEST_LANES = 16


@dataclass(frozen=True)
class Layer:
    """A handle on one layer of a network: what predicates, and techniques, get.

    The module's own attributes are there too: `layer.weight`, `layer.in_features`, `layer.kernel_size` ...

    Attributes:
        name: qualified name, such as "features.0"; empty if the model itself is the layer.
        module: the layer.
        is_first: no dense or convolution layer was registered before it in the network.
        is_last: none was registered after it.
        input_shapes: the shape of its input in each call of a run on the example; empty without an example.
        calibration: gives the layer's inputs when the network runs on calibration inputs; None without such.
        lanes: float32 numbers in a vector register of the CPU that the network is for: channels cost as whole vectors.
    """

    name: str
    module: nn.Module
    is_first: bool
    is_last: bool
    input_shapes: tuple[torch.Size, ...] = ()
    calibration: Callable[[], Iterator[torch.Tensor]] | None = None
    lanes: int = WIDEST_LANES

    def __getattr__(self, attribute: str) -> Any:
        # Python asks only for what a Layer does not have itself. Dunder names are the interpreter's own questions.
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        try:
            return getattr(self.module, attribute)
        except AttributeError:
            kind = type(self.module).__name__
            raise AttributeError(f"{name_of_layer(self.name)} ({kind}) has no attribute '{attribute}'") from None


Predicate = Callable[[Layer], bool]
# A predicate; a pattern for the qualified name ("encoder.*.fc?", as fnmatch reads it); a type of layer; or several
# patterns and types, of which one must fit.
Selection = Predicate | str | type[nn.Module] | Sequence[str | type[nn.Module]]


def layers_of(model: nn.Module) -> Iterator[Layer]:
    """A handle on each module of the model, in the order of registration; a module used twice comes once."""
    modules = list(model.named_modules())
    weighted = [module for _, module in modules if isinstance(module, WEIGHTED)]
    for name, module in modules:
        is_first = bool(weighted) and module is weighted[0]
        is_last = bool(weighted) and module is weighted[-1]
        yield Layer(name, module, is_first, is_last)


def check_selection(selection: object) -> None:
    """Raise InvalidType unless `selection` is a `Selection` or None."""
    if selection is None or isinstance(selection, str) or _is_layer_type(selection):
        return
    if isinstance(selection, list | tuple) and selection:
        if all(isinstance(item, str) or _is_layer_type(item) for item in selection):
            return
    elif callable(selection) and not isinstance(selection, type):
        return
    raise InvalidType(
        "selection of layers",
        expected="a function of a layer, a name pattern, a type of layer, or a list of patterns and types",
        found=repr(selection),
    )


def select(candidates: Sequence[Layer], selection: Selection | None) -> list[bool]:
    """For each candidate, whether it is selected; None selects all.

    Raises:
        InvalidArgument: a name pattern fits no candidate.
        InvalidType: a predicate returns something other than a truth value.
    """
    if selection is None:
        return [True] * len(candidates)
    if callable(selection) and not isinstance(selection, type):
        return [_ask(selection, layer) for layer in candidates]
    items = [selection] if isinstance(selection, str | type) else list(selection)
    fits = [[_fits(layer, item) for layer in candidates] for item in items]
    for item, row in zip(items, fits, strict=True):
        if isinstance(item, str) and not any(row):
            names = ", ".join(repr(layer.name) for layer in candidates) or "none"
            raise InvalidArgument(f"pattern '{item}'", expected="one that fits a layer", found=f"these layers: {names}")
    return [any(column) for column in zip(*fits, strict=True)]


def _fits(layer: Layer, item: str | type[nn.Module]) -> bool:
    return fnmatch.fnmatchcase(layer.name, item) if isinstance(item, str) else isinstance(layer.module, item)


def _is_layer_type(item: object) -> bool:
    return isinstance(item, type) and issubclass(item, nn.Module)


def _ask(predicate: Predicate, layer: Layer) -> bool:
    answer: object = predicate(layer)
    if isinstance(answer, bool):
        return answer
    # NumPy's and torch's truth values: the result of comparing numbers of theirs.
    if getattr(answer, "shape", None) == () and str(getattr(answer, "dtype", "")) in ("bool", "torch.bool"):
        return bool(answer)
    raise InvalidType("answer of the filter", expected="True or False", found=repr(answer), layer=layer.name)
