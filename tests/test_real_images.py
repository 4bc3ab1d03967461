"""Networks on real images: MNIST and CIFAR-10, where ../shared/data has them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import netopt
from netopt import zoo
from netopt.datasets import cifar10, mnist
from netopt.graph.capture import capture
from netopt.kernels.machine.cpu import host_cpu
from tests.pipelines import run_passes
from tests.test_zoo import randomized
from tests.tolerance import assert_within, judge

UNPACK = Path(__file__).parents[2] / "shared" / "data" / "unpack.py"
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not UNPACK.exists(), reason="../shared/data is absent: no real images to test with"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    subprocess.run([sys.executable, UNPACK, folder, "cifar10", "mnist"], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def digits(folder: Path) -> torch.Tensor:
    """32 digits (1, 28, 28), normalized."""
    pixels = np.fromfile(folder / "MNIST" / "raw" / "t10k-images-idx3-ubyte", np.uint8, 32 * 784, offset=16)
    return (torch.from_numpy(pixels).float().reshape(32, 1, 28, 28) / 255 - 0.1307) / 0.3081


@pytest.fixture(scope="module")
def photographs(folder: Path) -> torch.Tensor:
    """4 photographs (3, 32, 32), normalized."""
    records = np.fromfile(folder / "cifar-10-batches-bin" / "test_batch.bin", np.uint8, 4 * 3073).reshape(4, 3073)
    return (torch.from_numpy(records[:, 1:].copy()).float().reshape(4, 3, 32, 32) / 255 - 0.47) / 0.25


def test_pretrained_networks_reach_their_accuracy(folder: Path) -> None:
    """On all test images: at least 99.2 % for LeNet-5 and 86 % for ResNet23; and the programs agree with the models."""
    for model, split, least in (
        (zoo.lenet5(pretrained=True), mnist(folder)[1], 0.992),
        (zoo.resnet23(pretrained=True), cifar10(folder)[1], 0.86),
    ):
        with torch.inference_mode():
            classes = torch.cat([model(images).argmax(1) for images in split.images.split(500)])
        assert float((classes == split.labels).float().mean()) >= least
        program = netopt.lower(model, split.images[:500])
        # Rounding may decide between two classes that are equally likely.
        assert int((program(split.images[:500]).argmax(1) != classes[:500]).sum()) <= 1


def assert_agrees(model: nn.Module, images: torch.Tensor) -> None:
    """The program is within its bound of the exact result, and where it is inexact or narrow, as near as that is."""
    model = randomized(model)
    program = netopt.lower(model, images)
    (bounded,) = judge(run_passes(capture(model, images)[0]), [images])
    assert_within(program(images), bounded)
    with torch.no_grad():
        expected = model(images)
    largest = float(expected.abs().max())
    torch.testing.assert_close(program(images), expected, rtol=0, atol=1e-4 * largest)
    torch.testing.assert_close(netopt.lower(model, images, exact=False)(images), expected, rtol=0, atol=1e-4 * largest)
    if host_cpu().has_bfloat16:
        narrow = netopt.lower(model, images, precision="bf16")(images)
        # 8 bits: roundings of 0.4 % that add up over the layers.
        torch.testing.assert_close(narrow, expected, rtol=0, atol=3e-2 * largest)


@pytest.mark.parametrize("make", [zoo.lenet5, zoo.lenet_300_100])
def test_digits(make: object, digits: torch.Tensor) -> None:
    assert_agrees(make(), digits)  # type: ignore[operator]


def test_photographs(photographs: torch.Tensor) -> None:
    assert_agrees(zoo.resnet23(), photographs)
    assert photographs.min() < -1.5
    assert photographs.max() > 1.5
