"""What a command line names: models as `package.module:factory`, and tensors as files or shapes."""

from __future__ import annotations

import difflib
import importlib
import io
import pickle
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from netopt.errors import FileFormatError, InvalidArgument, InvalidType
from netopt.files import write_atomically
from netopt.transform.structure_file import load_weights

_SUFFIXES = (".npy", ".pt", ".safetensors")


def load_model(name: str, weights: Path | None = None) -> nn.Module:
    """The model that a name stands for.

    Args:
        name: `package.module:factory`, of a function without arguments that makes the model, or of the model itself.
            Modules of the current folder are found, too.
        weights: a file of its weights: what `netopt.save_weights` wrote, or any safetensors file of its state.

    Raises:
        InvalidArgument: there is no such module or no such name in it.
        InvalidType: it is or makes something else.
        FileFormatError, OSError: the weights cannot be read.
    """
    module_name, colon, factory_name = name.partition(":")
    if not colon or not module_name or not factory_name:
        fix = "name a function of your code that returns the model, such as netopt.zoo:lenet5"
        raise InvalidArgument("model", expected="package.module:factory", found=repr(name), fix=fix)
    with _current_folder():
        model = _named(module_name, factory_name)
        if not isinstance(model, nn.Module) and callable(model):
            model = model()
    if not isinstance(model, nn.Module):
        raise InvalidType(
            name, expected="a torch.nn.Module, or a function that returns one", found=type(model).__name__
        )
    return model if weights is None else load_weights(model, weights)


def _named(module_name: str, factory_name: str) -> Any:
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # One that the module itself asks for is another matter.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        fix = "run in the folder that has it, or install it"
        raise InvalidArgument(f"model: there is no module '{error.name}'", fix=fix) from None
    try:
        return getattr(module, factory_name)
    except AttributeError:
        close = difflib.get_close_matches(factory_name, dir(module), 3)
        hint = f"did you mean {' or '.join(close)}?" if close else None
        raise InvalidArgument(f"model: {module_name} has no '{factory_name}'", fix=hint) from None


@contextmanager
def _current_folder() -> Iterator[None]:
    """Find modules of the current folder inside, after all others."""
    folder = str(Path.cwd())
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def tensor_of(text: str) -> torch.Tensor:
    """A tensor of a file, or zeros of a shape such as 1,3,32,32.

    Raises:
        InvalidArgument: it is neither.
        FileFormatError, OSError: the file cannot be read.
    """
    if re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*", text):
        return torch.zeros([int(extent) for extent in text.split(",")])
    return read_tensor(Path(text))


def example_of(texts: Sequence[str]) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """One input of a model: a tensor, or positional arguments, each as `tensor_of` takes it."""
    tensors = tuple(tensor_of(text) for text in texts)
    return tensors[0] if len(tensors) == 1 else tensors


def read_tensor(path: Path) -> torch.Tensor:
    """The one tensor of a .npy, .pt or .safetensors file; float64 and float16 as float32.

    Raises:
        InvalidArgument: the file is of another kind.
        FileFormatError: it holds something else, or is damaged.
        OSError: it cannot be read.
    """
    if path.suffix not in _SUFFIXES:
        expected = f"a shape such as 1,3,32,32, or a file that ends in {', '.join(_SUFFIXES)}"
        raise InvalidArgument("tensor", expected=expected, found=repr(str(path)))
    value = _read(path)
    if isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    if not isinstance(value, torch.Tensor):
        found = f"{len(value)} tensors" if isinstance(value, dict) else type(value).__name__
        raise FileFormatError(str(path), expected="one tensor", found=found)
    return value.float() if value.is_floating_point() else value


def _read(path: Path) -> object:
    """What a file holds; reading it runs no code of it."""
    try:
        # Opened here, so that a file that is not there is told as such by all three.
        with path.open("rb") as file:
            if path.suffix == ".npy":
                # Not numpy.load, which reads archives and pickles, too.
                return torch.from_numpy(np.lib.format.read_array(file, allow_pickle=False))
            if path.suffix == ".pt":
                return torch.load(file, map_location="cpu", weights_only=True)
            return safetensors.torch.load(file.read())
    except (
        ValueError,
        TypeError,
        EOFError,
        RuntimeError,
        pickle.UnpicklingError,
        safetensors.SafetensorError,
    ) as error:
        found = str(error).strip().partition("\n")[0][:200]
        raise FileFormatError(str(path), expected=f"a {path.suffix} file of a tensor", found=found) from None


def write_npy(path: Path, tensor: torch.Tensor) -> None:
    """Write a tensor to a .npy file, atomically.

    Raises:
        OSError: it cannot be written.
    """
    data = io.BytesIO()
    np.save(data, tensor.detach().numpy())
    write_atomically(path, [data.getbuffer()])
