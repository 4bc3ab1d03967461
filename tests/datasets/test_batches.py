"""Batches: their order, and each augmentation against a slow reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from netopt import InvalidArgument, InvalidType
from netopt.datasets import Batches, Split

HEIGHT, WIDTH = 5, 7


def images(number: int, channels: int = 2) -> Split:
    """Images whose pixels are all different and not zero, with the number of the image as label."""
    count = number * channels * HEIGHT * WIDTH
    return Split(torch.arange(1.0, count + 1).reshape(number, channels, HEIGHT, WIDTH), torch.arange(number))


def moved(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Pixel for pixel; zeros come in."""
    result = torch.zeros_like(image)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            if 0 <= y - down < HEIGHT and 0 <= x - right < WIDTH:
                result[:, y, x] = image[:, y - down, x - right]
    return result


def erased(image: torch.Tensor, top: int, left: int, side: int) -> torch.Tensor:
    """With a square of zeros, as far as it lies in the image."""
    result = image.clone()
    for y in range(HEIGHT):
        for x in range(WIDTH):
            if top <= y < top + side and left <= x < left + side:
                result[:, y, x] = 0
    return result


def draws(split: Split, batches: Batches, candidates: Callable[[torch.Tensor], dict[object, torch.Tensor]]) -> list:
    """Which of its candidates each image of an epoch became; it is exactly one of them."""
    chosen = []
    for batch, labels in batches:
        for image, label in zip(batch, labels, strict=True):
            fits = [key for key, wanted in candidates(split.images[label]).items() if torch.equal(image, wanted)]
            assert len(fits) == 1
            chosen += fits
    return chosen


def test_each_image_once_with_its_label() -> None:
    split = images(12)
    epoch = list(Batches(split, 4))
    assert [len(labels) for _, labels in epoch] == [4, 4, 4]
    assert sorted(torch.cat([labels for _, labels in epoch]).tolist()) == list(range(12))
    assert all(torch.equal(batch, split.images[labels]) for batch, labels in epoch)


def test_a_smaller_last_batch_is_left_out() -> None:
    batches = Batches(images(11), 4)
    epoch = [labels.tolist() for _, labels in batches]
    assert len(batches) == len(epoch) == 2
    assert len({label for labels in epoch for label in labels}) == 8


def test_order_is_another_in_each_epoch_and_follows_the_seed() -> None:
    batches = Batches(images(64), 64, flip=True, shift=2, cutout=3)
    torch.manual_seed(5)
    (images_1, labels_1), (images_2, labels_2) = (next(iter(batches)) for _ in range(2))
    assert not torch.equal(labels_1, labels_2)
    torch.manual_seed(5)
    for images_0, labels_0 in ((images_1, labels_1), (images_2, labels_2)):
        again, labels_again = next(iter(batches))
        assert torch.equal(again, images_0)
        assert torch.equal(labels_again, labels_0)


def test_flip_mirrors_about_half_of_the_images() -> None:
    split = images(200)
    chosen = draws(split, Batches(split, 50, flip=True), lambda image: {False: image, True: image.flip(2)})
    # Half of 200, give or take four standard deviations.
    assert 72 <= chosen.count(True) <= 128


def test_shift_moves_each_image_by_its_own_draw() -> None:
    split = images(300)
    places = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    chosen = draws(split, Batches(split, 300, shift=1), lambda image: {place: moved(image, *place) for place in places})
    # A ninth of 300, give or take four standard deviations.
    assert all(12 <= chosen.count(place) <= 55 for place in places)


def test_shift_beyond_the_image_leaves_zeros() -> None:
    split = images(60, channels=1)
    for batch, labels in Batches(split, 60, shift=9):
        for image, label in zip(batch, labels, strict=True):
            fits = [
                torch.equal(image, moved(split.images[label], down, right))
                for down in range(-9, 10)
                for right in range(-9, 10)
            ]
            assert any(fits)
    assert any(not image.any() for image in batch)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_cutout_erases_a_square_with_its_centre_anywhere(side: int) -> None:
    split = images(400, channels=1)
    squares = [(y - side // 2, x - side // 2) for y in range(HEIGHT) for x in range(WIDTH)]
    chosen = draws(
        split, Batches(split, 100, cutout=side), lambda image: {place: erased(image, *place, side) for place in squares}
    )
    # Each of 35 places is missed by 400 draws with a probability of 1e-5.
    assert set(chosen) == set(squares)


def test_all_together() -> None:
    split = images(20, channels=1)
    for batch, labels in Batches(split, 10, flip=True, shift=1, cutout=2):
        for image, label in zip(batch, labels, strict=True):
            original = split.images[label]
            assert any(
                torch.equal(image, erased(moved(mirrored, down, right), y, x, 2))
                for mirrored in (original, original.flip(2))
                for down in (-1, 0, 1)
                for right in (-1, 0, 1)
                for y in range(-1, HEIGHT - 1)
                for x in range(-1, WIDTH - 1)
            )


def test_the_split_is_not_changed() -> None:
    split = images(8)
    before = split.images.clone()
    for batch, _ in Batches(split, 4, flip=True, shift=1, cutout=2):
        batch.zero_()
    assert torch.equal(split.images, before)


@pytest.mark.parametrize("options", [{}, {"shift": 1}])
def test_channels_last_stays(options: dict[str, int]) -> None:
    split = images(8)
    split = Split(split.images.contiguous(memory_format=torch.channels_last), split.labels)
    for batch, _ in Batches(split, 4, **options):
        assert batch.is_contiguous(memory_format=torch.channels_last)


def test_rows_of_features() -> None:
    split = Split(torch.arange(12.0).reshape(6, 2), torch.arange(6))
    assert all(torch.equal(batch, split.images[labels]) for batch, labels in Batches(split, 3))
    for options in ({"flip": True}, {"shift": 1}, {"cutout": 1}):
        with pytest.raises(InvalidArgument, match=r"images: expected \(number, channels, .* found \(6, 2\)"):
            Batches(split, 3, **options)


@pytest.mark.parametrize("size", [0, 9, 2.0, True])
def test_sizes_that_are_none(size: int) -> None:
    with pytest.raises(InvalidArgument, match="size of a batch: expected an integer from 1 to 8, found"):
        Batches(images(8), size)


@pytest.mark.parametrize("name", ["shift", "cutout"])
@pytest.mark.parametrize("pixels", [-1, 0.5])
def test_pixels_that_are_none(name: str, pixels: int) -> None:
    with pytest.raises(InvalidArgument, match=f"{name}: expected a number of pixels, .* found {pixels}"):
        Batches(images(8), 4, **{name: pixels})


@pytest.mark.parametrize("flip", [1, None, "yes", 0.5])
def test_flip_is_true_or_false(flip: Any) -> None:
    with pytest.raises(InvalidType, match="flip: expected True or False, found "):
        Batches(images(4), 2, flip=flip)
