"""The handwritten digits that scikit-learn ships: 1,797 images of 8 x 8 pixels, no download."""

from __future__ import annotations

import torch

from netopt.datasets.split import Split
from netopt.errors import NetoptError


def digits(*, held_out: float = 0.3, seed: int = 0) -> tuple[Split, Split]:
    """The digits as (training, held-out) parts, shuffled, with every digit in proportion in both.

    Images are (number, 64), from 0 to 1.

    Args:
        held_out: share of the images in the second part.
        seed: of the shuffle.

    Raises:
        NetoptError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415  # an extra
        from sklearn.model_selection import train_test_split  # noqa: PLC0415
    except ImportError:
        raise NetoptError("scikit-learn is not installed", fix="pip install 'netopt[demo]'") from None
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images, labels, test_size=held_out, random_state=seed, stratify=labels)
    train_images, test_images = (torch.tensor(part / 16.0, dtype=torch.float32) for part in parts[:2])
    train_labels, test_labels = (torch.tensor(part, dtype=torch.int64) for part in parts[2:])
    return Split(train_images, train_labels), Split(test_images, test_labels)
