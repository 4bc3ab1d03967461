"""The type of a value: its shape, its number format, and how it lies in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from netopt.errors import InvalidArgument
from netopt.numerics import FLOAT32, NumberFormat, Shape


@dataclass(frozen=True)
class Layout:
    """The order of a tensor's elements in memory.

    Attributes:
        channels_last: (batch, channels, height, width) lies in memory as (batch, height, width, channels).
        halo: rows and columns of zeros around each image: top, bottom, left, right. A convolution with zero padding
            reads them like any other pixel. Only with `channels_last`.
        pitch: channels from one pixel to the next in memory, for a value that lies among the channels of a wider one;
            0 where its pixels lie next to each other. Only with `channels_last`.
    """

    channels_last: bool = False
    halo: tuple[int, int, int, int] = (0, 0, 0, 0)
    pitch: int = 0

    def __post_init__(self) -> None:
        if self.pitch < 0 or (self.pitch and not self.channels_last):
            raise InvalidArgument("pitch", expected="channels from 0, with channels last", found=self.pitch)
        if len(self.halo) != 4 or min(self.halo) < 0 or (any(self.halo) and not self.channels_last):
            raise InvalidArgument("halo", expected="four sizes from 0, with channels last", found=self.halo)

    def physical(self, shape: Shape) -> Shape:
        """The row-major shape in memory of a tensor of the logical shape `shape`, halo included.

        With a pitch, these elements do not follow each other without gaps: see `TensorType.span`.
        """
        if not self.channels_last:
            return shape
        if len(shape) != 4:
            raise InvalidArgument("shape with channels last", expected="four axes", found=shape)
        top, bottom, left, right = self.halo
        batch, channels, height, width = shape
        if self.pitch and self.pitch <= channels:
            raise InvalidArgument("pitch", expected=f"0, or more than the {channels} channels", found=self.pitch)
        return batch, height + top + bottom, width + left + right, channels


ROW_MAJOR = Layout()
CHANNELS_LAST = Layout(channels_last=True)


@dataclass(frozen=True)
class TensorType:
    """Static shape, number format and layout of a value. Ops know nothing of layouts; memory and kernels do."""

    shape: Shape
    format: NumberFormat = FLOAT32
    layout: Layout = ROW_MAJOR

    @property
    def bytes(self) -> int:
        """Bytes of the elements, halo included."""
        return self.format.storage_bytes(self.layout.physical(self.shape))

    @property
    def span(self) -> int:
        """Bytes from the first element in memory to the end of the last: `bytes`, and with a pitch the gaps, too."""
        shape = self.layout.physical(self.shape)
        if not self.layout.pitch or not math.prod(shape):
            return self.format.storage_bytes(shape)
        gaps = (math.prod(shape[:3]) - 1) * (self.layout.pitch - shape[3])
        return self.bytes + self.format.storage_bytes((gaps,))

    @property
    def logical(self) -> TensorType:
        """The type in row-major layout."""
        return TensorType(self.shape, self.format)

    @property
    def lies_as_image(self) -> bool:
        """Whether it lies in memory as an image: channels last, or of one pixel, which is the same in both orders."""
        return self.layout.channels_last or (len(self.shape) == 4 and self.shape[2:] == (1, 1))

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def __str__(self) -> str:
        text = f"{self.format.name}[{', '.join(map(str, self.shape))}]"
        if self.layout.channels_last:
            text += " channels last"
        if any(self.layout.halo):
            text += f" halo {self.layout.halo}"
        if self.layout.pitch:
            text += f" pitch {self.layout.pitch}"
        return text
