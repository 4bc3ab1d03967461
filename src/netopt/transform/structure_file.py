"""Transformed networks in files: the weights as safetensors, and what the replaced layers are as JSON. No code."""

from __future__ import annotations

import json
import zlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from netopt.errors import FileFormatError, InvalidArgument, InvalidType
from netopt.files import write_atomically
from netopt.transform.reparametrized import copied
from netopt.transform.replace import put
from netopt.transform.select import WEIGHTED

_STRUCTURE, _CHECKSUM = "netopt.structure", "netopt.checksum"


class Structured:
    """A module that replaced a layer, and can be made again from a description of plain numbers and strings.

    A subclass is registered by its `kind`.
    """

    kind: ClassVar[str]
    kinds: ClassVar[dict[str, type[Structured]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Structured.kinds[cls.kind] = cls

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What `from_description` needs, as JSON can hold it."""

    @classmethod
    @abstractmethod
    def from_description(cls, description: Mapping[str, Any]) -> Structured:
        """A module of that structure on the meta device, without values."""


Structure = dict[str, dict[str, Any]]


def structure_of(model: nn.Module) -> Structure:
    """What stands where layers were replaced: by qualified name, outer modules first, kind and description."""
    return {
        name: {"kind": module.kind, **module.describe()}
        for name, module in model.named_modules()
        if isinstance(module, Structured)
    }


def restore_structure(model: nn.Module, structure: Structure) -> nn.Module:
    """A new model: a copy of `model` with layers replaced as they were in the network that `structure` is of.

    Its replaced layers hold zeros until `load_state_dict` fills them. Device, dtype, training mode and requires_grad
    are those of the layers that stood there.

    Args:
        model: the network before it was transformed, with any weights.
        structure: from `structure_of`.

    Raises:
        InvalidType: an argument is not what it should be.
        InvalidArgument: the model has no layer of a name, or one of another size.
        FileFormatError: the structure is damaged, or of a kind that this netopt does not know.
    """
    if not isinstance(structure, Mapping):
        raise InvalidType("structure", expected="what structure_of returns", found=type(structure).__name__)
    restored, homes = _without_values(model, structure)
    _fill(restored, homes)
    return restored


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write the weights of a network, transformed or not, and its structure, atomically, as safetensors.

    Folders of the path that are not there are made.

    Raises:
        InvalidType: the model is none, or its state holds something other than tensors.
        OSError: the file cannot be written.
    """
    if not isinstance(model, nn.Module):
        raise InvalidType("model", expected="a torch.nn.Module", found=type(model).__name__)
    tensors = {}
    for key, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor):
            raise InvalidType(f"state '{key}'", expected="a tensor", found=type(value).__name__)
        # A copy: safetensors refuses tensors that share memory, as tied weights do.
        tensors[key] = value.detach().cpu().contiguous().clone()
    structure = json.dumps(structure_of(model))
    metadata = {_STRUCTURE: structure, _CHECKSUM: _checksum(structure, tensors)}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, [safetensors.torch.save(tensors, metadata)])


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """The network that `save_weights` wrote, as a new model.

    Args:
        model: the network before it was transformed, with any weights; it is not changed.
        path: the file.

    Raises:
        InvalidType: `model` is none.
        FileFormatError: the file is foreign or damaged.
        InvalidArgument: it is of another network, or of one of another dtype.
        OSError: it cannot be read.
    """
    tensors, structure = _read(path)
    restored, homes = _without_values(model, structure)
    # Before memory is taken: sizes in a damaged file may be anything, those of its tensors are not.
    _check_tensors(restored, tensors, path)
    _fill(restored, homes)
    restored.load_state_dict(tensors)
    return restored


def _read(path: str | Path) -> tuple[dict[str, torch.Tensor], Structure]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # it is no mapping
        text = metadata.get(_STRUCTURE, "{}")
        structure = json.loads(text)
    except (SafetensorError, ValueError, RecursionError) as error:
        raise FileFormatError(f"file '{path}'", expected="whole safetensors", found=str(error)) from error
    wanted = metadata.get(_CHECKSUM)
    # Other programs write none.
    if wanted is not None and wanted != _checksum(text, tensors):
        raise FileFormatError(f"file '{path}' is damaged", expected=f"the checksum {wanted}", found="another")
    if not isinstance(structure, dict):
        raise FileFormatError(f"file '{path}'", expected="a structure by layer", found=type(structure).__name__)
    return tensors, structure


def _checksum(structure: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """Of the structure, and of names and bytes of the tensors: safetensors has none of its own."""
    total = zlib.crc32(structure.encode())
    for key in sorted(tensors):
        values = tensors[key].reshape(-1).view(torch.uint8).numpy().data
        total = zlib.crc32(values, zlib.crc32(f"{key} {_kind_of(tensors[key])}".encode(), total))
    return f"{total:08x}"


@dataclass(frozen=True)
class _Home:
    """What a replacement takes over from the layer that stood in its place."""

    device: torch.device
    dtype: torch.dtype
    training: bool
    weight_requires_grad: bool
    bias_requires_grad: bool

    @classmethod
    def of(cls, layer: nn.Module) -> _Home:
        bias = getattr(layer, "bias", None)
        weights = (parameter for parameter in layer.parameters() if parameter is not bias)
        values = next(weights, torch.empty(0, requires_grad=True))
        bias_trains = bias.requires_grad if isinstance(bias, torch.Tensor) else values.requires_grad
        return cls(values.device, values.dtype, layer.training, values.requires_grad, bias_trains)

    def take_in(self, new: nn.Module) -> None:
        """Give a replacement, still without values, all but the device."""
        new.to(dtype=self.dtype).train(self.training).requires_grad_(self.weight_requires_grad)
        if isinstance(bias := getattr(new, "bias", None), nn.Parameter):
            bias.requires_grad_(self.bias_requires_grad)


def _without_values(model: nn.Module, structure: Structure) -> tuple[nn.Module, dict[nn.Module, _Home]]:
    """A copy of the model whose replaced layers are on the meta device, and for each of their modules its home."""
    if not isinstance(model, nn.Module):
        raise InvalidType("model", expected="a torch.nn.Module", found=type(model).__name__)
    model = copied(model)
    homes: dict[nn.Module, _Home] = {}
    for name, description in structure.items():
        kind = description.get("kind") if isinstance(description, Mapping) else None
        if not isinstance(kind, str) or kind not in Structured.kinds:
            known = ", ".join(sorted(Structured.kinds))
            raise FileFormatError("structure", expected=f"a kind of {known}", found=repr(kind), layer=name)
        try:
            old = model.get_submodule(name)
        except AttributeError:
            raise _other_network(f"a layer '{name}', as the transformed network had", "none") from None
        new = Structured.kinds[kind].from_description(description)
        assert isinstance(new, nn.Module)
        if _ends(new) != _ends(old):
            raise _other_network(f"a layer '{name}' with {_ends(new)}", _ends(old) or type(old).__name__)
        home = homes.get(old) or _Home.of(old)  # a part of a replacement has no values of its own yet
        home.take_in(new)
        homes.update(dict.fromkeys(new.modules(), home))
        model = put(model, old, new)
    return model, homes


def _other_network(expected: str, found: str) -> InvalidArgument:
    fix = "give the network as it was before it was transformed"
    return InvalidArgument("model", expected=expected, found=found, fix=fix)


def _ends(module: nn.Module) -> str:
    """What goes in and comes out of a layer or its replacement, whose parts are in the order of their calls."""
    layers = [layer for layer in module.modules() if isinstance(layer, WEIGHTED)]
    if not layers:
        return ""
    first, last = layers[0], layers[-1]
    ins = first.in_features if isinstance(first, nn.Linear) else first.in_channels
    outs = last.out_features if isinstance(last, nn.Linear) else last.out_channels
    return f"{ins} {'features' if isinstance(first, nn.Linear) else 'channels'} -> {outs}"


def _check_tensors(model: nn.Module, tensors: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Raise InvalidArgument unless the tensors are the state of such a model."""
    state = model.state_dict()
    wanted = {key: _kind_of(value) for key, value in state.items()}
    found = {key: _kind_of(value) for key, value in tensors.items()}
    for key in (*wanted, *found):
        if wanted.get(key) != found.get(key):
            raise InvalidArgument(
                f"file '{path}'",
                expected=f"weights of this network: '{key}' {wanted.get(key, 'is not one of them')}",
                found=f"{found.get(key, 'none')}",
                fix="give the network as it was before it was transformed, of the dtype that was saved",
            )


def _kind_of(value: object) -> str:
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"


def _fill(model: nn.Module, homes: Mapping[nn.Module, _Home]) -> None:
    """Give the replaced layers memory where those were that they replace, with zeros in it."""
    for module in model.modules():
        if module in homes:
            module.to_empty(device=homes[module].device, recurse=False)
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                tensor.detach().zero_()
