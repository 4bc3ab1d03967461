"""What a number format says: how the real numbers of a tensor are stored, and what they are when they are read again.

Numbers are rounded, saturated and packed in this package and nowhere else. A constant of a graph is one tensor of its
value's shape and of the format's `tensor_dtype`; in memory and in files it lies in the format's parts, which for a
plain format (`ElementFormat`) is one.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from netopt.numerics.operations import Operations

Shape = tuple[int, ...]
Array = NDArray[Any]

# Bytes to which every value in the arena, every packed weight and every part is aligned: a cache line, and the widest
# register.
ALIGNMENT = 64


def align_up(size: int) -> int:
    """The next multiple of `ALIGNMENT` bytes."""
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Part:
    """One of the arrays that a tensor is stored in."""

    name: str
    shape: Shape
    format: NumberFormat


@dataclass(frozen=True)
class NumberFormat(ABC):
    """How the numbers of a tensor are stored.

    Attributes:
        name: in files.
        is_real: real numbers are stored in it, each rounded when it is: ops compute on such values as on float32, and
            know no more of how they are stored.
        is_whole: whole numbers or truth are stored in it: ops compute on the tensors themselves, in `tensor_dtype`.
    """

    name: ClassVar[str]
    is_real: ClassVar[bool] = False
    is_whole: ClassVar[bool] = False

    # --- what it takes

    @abstractmethod
    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """What a dense, contiguous tensor of `shape` is stored in, in the order in which the parts lie.

        Raises:
            InvalidArgument: no tensor of this shape can be stored in the format.
        """

    @abstractmethod
    def storage_bytes(self, shape: Shape) -> int:
        """Bytes that a dense, contiguous tensor of `shape` takes, all parts together."""

    @property
    def packs_channels(self) -> bool:
        """Whether elements of several channels share a word in memory, so that an image must lie channels last."""
        return False

    @property
    def is_of_constants(self) -> bool:
        """Whether constants may be stored in it."""
        return True

    @property
    def is_of_values(self) -> bool:
        """Whether what is computed may be stored in it."""
        return True

    def lies_as(self, other: NumberFormat) -> bool:
        """Whether elements take the same bytes as in another format, whatever they stand for."""
        return self == other

    # --- numbers

    @property
    @abstractmethod
    def tensor_dtype(self) -> torch.dtype:
        """The type of the tensor that holds a constant of a graph."""

    @abstractmethod
    def encode(self, numbers: torch.Tensor) -> torch.Tensor:
        """Real numbers as such a tensor, rounded and saturated."""

    @abstractmethod
    def decode(self, tensor: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The inverse: the numbers, in a floating type."""

    def numbers(self, tensor: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """What ops compute with: real numbers in a floating type, whole ones in their own."""
        return self.decode(tensor, dtype)

    # --- memory

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """What numpy, and so a kernel, takes for an element in memory: bytes, where they are not of one kind."""

    @abstractmethod
    def to_array(self, tensor: torch.Tensor) -> Array:
        """What `encode` gives as kernels pack it: the tensor's own memory where it can be."""

    @abstractmethod
    def to_tensor(self, array: Array, shape: Shape) -> torch.Tensor:
        """The inverse of `to_array`, for a tensor of `shape`."""

    @abstractmethod
    def to_bytes(self, tensor: torch.Tensor) -> NDArray[np.uint8]:
        """What `encode` gives as it lies in a file: all parts, row-major, little-endian."""

    @abstractmethod
    def from_bytes(self, data: NDArray[np.uint8], shape: Shape) -> torch.Tensor:
        """The inverse of `to_bytes`, on the same memory where it can be."""

    @abstractmethod
    def sample(self, shape: Shape) -> Array:
        """An array of `dtype` that any kernel can run on, for measurements: no denormals, no index out of range."""

    # --- kernels

    def to_stored(self, number: Any, on: Operations) -> Any:
        """An element as a kernel stores it, of what it computed: rounded and saturated."""
        return number

    def to_number(self, stored: Any, on: Operations) -> Any:
        """What a kernel computes with, of an element that it reads: float32 for real numbers, others as they are."""
        return stored

    # --- plain data

    def to_json(self) -> dict[str, object]:
        """The format as plain data; `number_format_from_json` is the inverse."""
        fields = {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return {"name": self.name, **fields}


def _plain(value: object) -> object:
    if isinstance(value, NumberFormat):
        return value.to_json()
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class ElementFormat(NumberFormat):
    """A plain format: one part, of which each element is one number."""

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        return (Part("elements", shape, self),)

    def storage_bytes(self, shape: Shape) -> int:
        return math.prod(shape) * self.dtype.itemsize

    def decode(self, tensor: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return tensor.to(dtype)

    def to_array(self, tensor: torch.Tensor) -> Array:
        return tensor.numpy()

    def to_tensor(self, array: Array, shape: Shape) -> torch.Tensor:
        return torch.from_numpy(array).reshape(shape)

    def to_bytes(self, tensor: torch.Tensor) -> NDArray[np.uint8]:
        array = np.ascontiguousarray(self.to_array(tensor)).reshape(-1)
        return array.astype(self.dtype.newbyteorder("<"), copy=False).view(np.uint8)

    def from_bytes(self, data: NDArray[np.uint8], shape: Shape) -> torch.Tensor:
        array = data.view(self.dtype.newbyteorder("<")).astype(self.dtype, copy=False)
        return self.to_tensor(array, shape)

    def sample(self, shape: Shape) -> Array:
        return np.full(shape, self.to_array(self.encode(torch.tensor(0.5))))


@dataclass(frozen=True)
class PartedFormat(NumberFormat):
    """A format of several parts, one after the other, each at a multiple of `ALIGNMENT` bytes.

    The tensor of a constant holds the numbers themselves, in float32, which `split` takes apart and `join` gives back.
    """

    is_real: ClassVar[bool] = True

    @abstractmethod
    def split(self, numbers: torch.Tensor) -> Sequence[torch.Tensor]:
        """For each part, what its format's `encode` gives.

        Raises:
            InvalidArgument: the numbers do not fit the parts.
        """

    @abstractmethod
    def join(self, parts: Sequence[torch.Tensor], shape: Shape) -> torch.Tensor:
        """The numbers of a tensor of `shape`, of the tensors that `split` gives."""

    def storage_bytes(self, shape: Shape) -> int:
        return self._places(shape)[-1][1]

    def _places(self, shape: Shape) -> list[tuple[int, int]]:
        """The first byte of each part, and the one behind its last."""
        places, end = [], 0
        for part in self.parts(shape):
            start = align_up(end)
            end = start + part.format.storage_bytes(part.shape)
            places.append((start, end))
        return places

    @property
    def tensor_dtype(self) -> torch.dtype:
        return torch.float32

    def encode(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.join(self.split(numbers), tuple(numbers.shape))

    def decode(self, tensor: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return tensor.to(dtype)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    def to_array(self, tensor: torch.Tensor) -> Array:
        return self.to_bytes(tensor)

    def to_tensor(self, array: Array, shape: Shape) -> torch.Tensor:
        return self.from_bytes(array, shape)

    def to_bytes(self, tensor: torch.Tensor) -> NDArray[np.uint8]:
        return self.joined_bytes(self.split(tensor), tuple(tensor.shape))

    def from_bytes(self, data: NDArray[np.uint8], shape: Shape) -> torch.Tensor:
        return self.join(self.parts_of_bytes(data, shape), shape)

    def joined_bytes(self, values: Sequence[torch.Tensor], shape: Shape) -> NDArray[np.uint8]:
        """What `split` gives of a tensor of `shape` as it lies in a file."""
        data = np.zeros(self.storage_bytes(shape), np.uint8)
        for part, (start, end), value in zip(self.parts(shape), self._places(shape), values, strict=True):
            data[start:end] = part.format.to_bytes(value)
        return data

    def parts_of_bytes(self, data: NDArray[np.uint8], shape: Shape) -> list[torch.Tensor]:
        """The inverse of `joined_bytes`."""
        parts = zip(self.parts(shape), self._places(shape), strict=True)
        return [part.format.from_bytes(data[start:end], part.shape) for part, (start, end) in parts]

    def sample(self, shape: Shape) -> Array:
        # Zeros are indices of something that is there, whatever the parts.
        return np.zeros(shape, self.dtype)
