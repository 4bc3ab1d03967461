"""CIFAR-10's binary files; the real ones where ../shared/data has them."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from netopt import InvalidArgument
from netopt.datasets import cifar10
from netopt.datasets.cifar10 import MEAN, STD, _read

UNPACK = Path(__file__).parents[3] / "shared" / "data" / "unpack.py"
NUMBER, RECORD = 10_000, 3073


def random_records() -> np.ndarray:
    """As many as a file has, each with a label."""
    records = np.random.default_rng(0).integers(0, 256, (NUMBER, RECORD), np.uint8)
    records[:, 0] %= 10
    return records


def test_pixels_and_labels_are_those_of_the_file(tmp_path: Path) -> None:
    records = random_records()
    records.tofile(tmp_path / "data.bin")
    split = _read([tmp_path / "data.bin"])
    assert split.images.shape == (NUMBER, 3, 32, 32)
    assert (split.images.dtype, split.labels.dtype) == (torch.float32, torch.int64)
    assert split.images.is_contiguous(memory_format=torch.channels_last)
    assert split.labels.tolist() == records[:, 0].tolist()
    for image, channel, y, x in [(0, 0, 0, 0), (7, 1, 3, 30), (9_999, 2, 31, 31)]:
        pixel = records[image, 1 + 1024 * channel + 32 * y + x] / 255
        wanted = (pixel - MEAN[channel]) / STD[channel]
        # Four roundings to float32 of numbers below 3.
        assert float(split.images[image, channel, y, x]) == pytest.approx(wanted, abs=4 * 3 * 2**-24)


def test_several_files_one_after_the_other(tmp_path: Path) -> None:
    records = np.zeros((NUMBER, RECORD), np.uint8)
    for label in (3, 1):
        records[:, 0] = label
        records.tofile(tmp_path / str(label))
    labels = _read([tmp_path / "3", tmp_path / "1"]).labels
    assert labels.tolist() == [3] * NUMBER + [1] * NUMBER


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"data_batch_1.bin': expected a file of .*, found none; give the folder"):
        cifar10(tmp_path)


def test_the_inner_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-bin").mkdir()
    with pytest.raises(InvalidArgument, match="cifar-10-batches-bin/data_batch_1.bin"):
        cifar10(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "0 bytes"),
        (bytes(NUMBER * RECORD - 1), "30729999 bytes"),
        (bytes(NUMBER * RECORD + 1), "30730001 bytes"),
        (gzip.compress(bytes(NUMBER * RECORD)), r"\d+ bytes"),
        (bytes((NUMBER - 1) * RECORD) + b"\x0a" + bytes(RECORD - 1), "the label 10"),
    ],
    ids=["empty", "truncated", "too long", "gzip", "label"],
)
def test_a_file_that_is_no_batch(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "data_batch_1.bin").write_bytes(content)
    with pytest.raises(InvalidArgument, match=f"data_batch_1.bin': expected 10,000 records .*, found {found}; get"):
        cifar10(tmp_path)


@pytest.mark.realdata
@pytest.mark.skipif(not UNPACK.exists(), reason="../shared/data is absent")
def test_the_real_files(tmp_path: Path) -> None:
    subprocess.run([sys.executable, UNPACK, tmp_path, "cifar10"], check=True, capture_output=True)
    training, test = cifar10(tmp_path)
    assert torch.bincount(training.labels).tolist() == [5_000] * 10
    assert torch.bincount(test.labels).tolist() == [1_000] * 10
    # The constants have four digits.
    assert training.images.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=5e-4)
    deviation = training.images.double().square().mean((0, 2, 3)).sqrt()
    assert deviation.tolist() == pytest.approx([1, 1, 1], abs=5e-4)
