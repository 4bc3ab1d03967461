"""MNIST (LeCun et al., 1998) in its IDX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from netopt.datasets.split import Split
from netopt.errors import InvalidArgument

# Of the 60,000 training images; pixels from 0 to 1.
MEAN, STD = 0.1307, 0.3081


def mnist(folder: str | Path) -> tuple[Split, Split]:
    """The 60,000 training and the 10,000 test images, (number, 1, 28, 28), normalized to mean 0 and deviation 1.

    Args:
        folder: holds the four `*-ubyte` files, or a `MNIST/raw` or `raw` that does.

    Raises:
        InvalidArgument: a file is missing, or is not what it should be.
    """
    root = Path(folder)
    for inner in ("MNIST/raw", "raw"):
        if (root / inner).is_dir():
            root /= inner
            break
    return _read(root, "train", 60_000), _read(root, "t10k", 10_000)


def _read(root: Path, part: str, number: int) -> Split:
    pixels = _idx(root / f"{part}-images-idx3-ubyte", (number, 28, 28))
    path = root / f"{part}-labels-idx1-ubyte"
    labels = _idx(path, (number,))
    if labels.max() > 9:
        found = f"the label {labels.max()}"
        raise InvalidArgument(f"file '{path}'", expected="labels from 0 to 9", found=found, fix="get MNIST again")
    images = torch.from_numpy(pixels.astype(np.float32) / 255).sub_(MEAN).div_(STD).unsqueeze(1)
    return Split(images, torch.from_numpy(labels.astype(np.int64)))


def _idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """An IDX file of bytes: two zeros, the type 8, the number of axes, the axes as big-endian integers, the bytes."""
    if not path.is_file():
        raise InvalidArgument(
            f"file '{path}'",
            expected="a file of MNIST, not compressed",
            found="none",
            fix="give the folder that holds MNIST/raw",
        )
    data = path.read_bytes()
    header = bytes((0, 0, 8, len(shape))) + np.array(shape, ">u4").tobytes()
    if data[: len(header)] != header or len(data) != len(header) + int(np.prod(shape)):
        raise InvalidArgument(
            f"file '{path}'",
            expected=f"an IDX file of bytes {shape}, not compressed",
            found=f"{len(data)} bytes that begin {data[:4].hex()}",
            fix="get MNIST again, and unpack its files",
        )
    return np.frombuffer(data, np.uint8, offset=len(header)).reshape(shape)
