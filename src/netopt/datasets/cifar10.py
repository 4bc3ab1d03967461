"""CIFAR-10 (Krizhevsky, 2009, "Learning multiple layers of features from tiny images") in its binary format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from netopt.datasets.split import Split
from netopt.errors import InvalidArgument

# Of the 50,000 training images, for each channel; pixels from 0 to 1.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)

_RECORD = 1 + 3 * 32 * 32  # label, then the red, green and blue planes


def cifar10(folder: str | Path) -> tuple[Split, Split]:
    """The 50,000 training and the 10,000 test images, (number, 3, 32, 32), normalized to mean 0 and deviation 1.

    Args:
        folder: holds `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`, or a `cifar-10-batches-bin` that
            does.

    Raises:
        InvalidArgument: a file is missing, or is not what it should be.
    """
    root = Path(folder)
    if (root / "cifar-10-batches-bin").is_dir():
        root /= "cifar-10-batches-bin"
    return _read([root / f"data_batch_{number}.bin" for number in range(1, 6)]), _read([root / "test_batch.bin"])


def _read(paths: list[Path]) -> Split:
    records = np.concatenate([_records(path) for path in paths])
    # Channels last in memory, as convolutions like it; astype would else keep the planes of the file.
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    pixels = torch.from_numpy(planes.transpose(0, 2, 3, 1).astype(np.float32, order="C") / 255)
    images = pixels.sub_(torch.tensor(MEAN)).div_(torch.tensor(STD)).permute(0, 3, 1, 2)
    return Split(images, torch.from_numpy(records[:, 0].astype(np.int64)))


def _records(path: Path) -> np.ndarray:
    if not path.is_file():
        raise InvalidArgument(
            f"file '{path}'",
            expected="a file of CIFAR-10's binary version",
            found="none",
            fix="give the folder that holds cifar-10-batches-bin",
        )
    data = np.fromfile(path, np.uint8)
    whole = data.size == 10_000 * _RECORD
    if not whole or data[::_RECORD].max() > 9:
        raise InvalidArgument(
            f"file '{path}'",
            expected=f"10,000 records of {_RECORD} bytes, each with a label from 0 to 9, not compressed",
            found=f"the label {data[::_RECORD].max()}" if whole else f"{data.size} bytes",
            fix="get the binary version of CIFAR-10 again, and unpack it",
        )
    return data.reshape(-1, _RECORD)
