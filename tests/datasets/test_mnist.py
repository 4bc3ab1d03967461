"""MNIST's IDX files; the real ones where ../shared/data has them."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from netopt import InvalidArgument
from netopt.datasets import mnist

UNPACK = Path(__file__).parents[3] / "shared" / "data" / "unpack.py"


def write(folder: Path, name: str, values: np.ndarray) -> None:
    header = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
    (folder / f"{name}-idx{values.ndim}-ubyte").write_bytes(header + values.tobytes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All four files: black training images with the label 3, and random test images."""
    write(tmp_path, "train-images", np.zeros((60_000, 28, 28), np.uint8))
    write(tmp_path, "train-labels", np.full(60_000, 3, np.uint8))
    random = np.random.default_rng(0)
    write(tmp_path, "t10k-images", random.integers(0, 256, (10_000, 28, 28), np.uint8))
    write(tmp_path, "t10k-labels", random.integers(0, 10, 10_000, np.uint8))
    return tmp_path


def test_pixels_and_labels_are_those_of_the_files(folder: Path) -> None:
    training, test = mnist(folder)
    assert (training.images.shape, test.images.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    assert (test.images.dtype, test.labels.dtype) == (torch.float32, torch.int64)
    assert training.labels.unique().tolist() == [3]
    # Few roundings to float32 of numbers below 3.
    assert float(training.images.min()) == float(training.images.max()) == pytest.approx(-0.1307 / 0.3081, abs=1e-6)
    pixels = np.fromfile(folder / "t10k-images-idx3-ubyte", np.uint8, offset=16).reshape(10_000, 28, 28)
    wanted = (pixels[[0, 9_999]] / 255 - 0.1307) / 0.3081
    assert np.allclose(test.images[[0, 9_999], 0], wanted, rtol=0, atol=1e-6)
    labels = np.fromfile(folder / "t10k-labels-idx1-ubyte", np.uint8, offset=8)
    assert test.labels.tolist() == labels.tolist()


@pytest.mark.parametrize("inner", ["MNIST/raw", "raw"])
def test_the_inner_folder_is_found(tmp_path: Path, inner: str) -> None:
    (tmp_path / inner).mkdir(parents=True)
    with pytest.raises(InvalidArgument, match=f"{inner}/train-images-idx3-ubyte': expected .*, found none"):
        mnist(tmp_path)


def test_a_missing_file(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").rename(folder / "t10k-labels-idx1-ubyte.gz")
    with pytest.raises(InvalidArgument, match=r"t10k-labels-idx1-ubyte': expected a file of MNIST, not compressed"):
        mnist(str(folder))


def test_files_that_are_not_what_they_should_be(folder: Path) -> None:
    path = folder / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    other_axes = whole[:8] + whole[12:16] + whole[8:12] + whole[16:-1] + b"\x00\x00"
    for content, found in [
        (b"", "0 bytes"),
        (whole[:-1], "47040015 bytes that begin 00000803"),
        (whole + b"\x00", "47040017 bytes"),
        (gzip.compress(whole, 1), r"\d+ bytes that begin 1f8b08"),
        (other_axes, "47040017 bytes"),
        (b"\x00\x00\x0d\x03" + whole[4:], "47040016 bytes that begin 00000d03"),
    ]:
        path.write_bytes(content)
        with pytest.raises(InvalidArgument, match=rf"{path.name}': expected an IDX file .*, found {found}.*; get"):
            mnist(folder)


def test_a_label_that_is_no_digit(folder: Path) -> None:
    labels = np.zeros(60_000, np.uint8)
    labels[-1] = 10
    write(folder, "train-labels", labels)
    with pytest.raises(InvalidArgument, match="train-labels-idx1-ubyte': expected labels .*, found the label 10"):
        mnist(folder)


@pytest.mark.realdata
@pytest.mark.skipif(not UNPACK.exists(), reason="../shared/data is absent")
def test_the_real_files(tmp_path: Path) -> None:
    subprocess.run([sys.executable, UNPACK, tmp_path, "mnist"], check=True, capture_output=True)
    training, test = mnist(tmp_path)
    # As published on the data set's page.
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(training.labels).tolist() == counts
    assert torch.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    # The constants have four digits.
    assert float(training.images.mean()) == pytest.approx(0, abs=5e-4)
    assert float(training.images.double().square().mean().sqrt()) == pytest.approx(1, abs=5e-4)
