"""Shuffled batches of a data set in memory, with the usual augmentation of small images."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from netopt.datasets.split import Split
from netopt.errors import InvalidArgument, InvalidType


class Batches:
    """Batches (images, labels) of a `Split`, in another order each time it is iterated over.

    Order and augmentation draw from PyTorch's global generator. A last batch that would be smaller is left out, as it
    would disturb batch normalization.
    """

    def __init__(self, split: Split, size: int = 128, *, flip: bool = False, shift: int = 0, cutout: int = 0) -> None:
        """Say what the batches are to be.

        Args:
            split: images (number, ...); with augmentation (number, channels, height, width).
            size: images in a batch.
            flip: mirror each image left to right with probability 1/2.
            shift: move each image by up to so many pixels along each axis; zeros come in.
            cutout: side in pixels of a square of zeros at a random place (DeVries and Taylor, 1708.04552).

        Raises:
            InvalidArgument: `size` is not from 1 to the number of images, another number is negative or no integer, or
                images to be augmented have no height and width.
            InvalidType: `flip` is not True or False.
        """
        if type(size) is not int or not 1 <= size <= len(split):
            raise InvalidArgument("size of a batch", expected=f"an integer from 1 to {len(split)}", found=repr(size))
        for name, pixels in (("shift", shift), ("cutout", cutout)):
            if type(pixels) is not int or pixels < 0:
                raise InvalidArgument(name, expected="a number of pixels, an integer of at least 0", found=repr(pixels))
        if not isinstance(flip, bool):
            raise InvalidType("flip", expected="True or False", found=repr(flip))
        if (flip or shift or cutout) and split.images.dim() != 4:
            shape = tuple(split.images.shape)
            raise InvalidArgument("images", expected="(number, channels, height, width) to augment", found=shape)
        self.split, self.size = split, size
        self.flip, self.shift, self.cutout = flip, shift, cutout

    def __len__(self) -> int:
        return len(self.split) // self.size

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = torch.randperm(len(self.split))
        for chosen in torch.split(order[: len(self) * self.size], self.size):
            images = self.split.images[chosen]
            if self.flip or self.shift or self.cutout:
                images = self._augment(images)
            yield images, self.split.labels[chosen]

    def _augment(self, images: torch.Tensor) -> torch.Tensor:
        number, _, height, width = images.shape
        rows, columns = torch.arange(height).expand(number, -1), torch.arange(width).expand(number, -1)
        if self.flip:
            mirrored = torch.rand(number, 1) < 0.5
            columns = torch.where(mirrored, width - 1 - columns, columns)
        if self.shift:
            rows = rows + torch.randint(-self.shift, self.shift + 1, (number, 1))
            columns = columns + torch.randint(-self.shift, self.shift + 1, (number, 1))
        seen = _within(rows, height)[:, :, None] & _within(columns, width)[:, None, :]
        pixels = images.permute(0, 2, 3, 1)  # a view, and dense in memory if images are channels last
        moved = pixels[
            torch.arange(number)[:, None, None],
            rows.clamp(0, height - 1)[:, :, None],
            columns.clamp(0, width - 1)[:, None, :],
        ]
        if self.cutout:
            seen = seen & ~(self._square(number, height)[:, :, None] & self._square(number, width)[:, None, :])
        return (moved * seen[..., None].to(images.device)).permute(0, 3, 1, 2)

    def _square(self, number: int, extent: int) -> torch.Tensor:
        """Along one axis, which pixels lie within the square: its centre is anywhere in the image."""
        start = torch.randint(0, extent, (number, 1)) - self.cutout // 2
        places = torch.arange(extent).expand(number, -1)
        return (places >= start) & (places < start + self.cutout)


def _within(places: torch.Tensor, extent: int) -> torch.Tensor:
    return (places >= 0) & (places < extent)
