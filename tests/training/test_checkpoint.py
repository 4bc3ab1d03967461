"""A training's file: what it holds, and what is refused."""

from __future__ import annotations

import pickletools
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import netopt
from netopt import InvalidArgument

TRAINING = "2 epochs of 2 batches, lr 0.1, seed 0"


def network(width: int = 4, depth: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2), *[nn.Identity()] * (depth - 2))


def data(batches: int = 2) -> list[tuple[torch.Tensor, torch.Tensor]]:
    random = torch.Generator().manual_seed(1)
    return [(torch.randn(4, 3, generator=random), torch.tensor([0, 1, 1, 0])) for _ in range(batches)]


def train(path: Path, model: nn.Module | None = None, batches: int = 2, **options: Any) -> nn.Module:
    arguments = {"epochs": 2, "lr": 0.1, "checkpoint": path, **options}
    return netopt.retrain(model or network(), data(batches), **arguments)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a finished training."""
    train(tmp_path / "net.checkpoint")
    return tmp_path / "net.checkpoint"


def test_it_holds_what_it_should_and_no_code(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    assert sorted(state) == ["data", "epochs", "model", "optimizer", "training"]
    assert (state["training"], state["epochs"]) == (TRAINING, 2)
    assert list(state["model"]) == list(network().state_dict())
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        named = {argument for op, argument, _ in pickletools.genops(archive.read(name)) if op.name == "GLOBAL"}
    assert named == {"torch._utils _rebuild_tensor_v2", "torch FloatStorage", "collections OrderedDict"}


def test_what_it_keeps_of_the_data(path: Path) -> None:
    """Nothing but a checksum of the batches, where they have no state; the same in each epoch."""
    kept = torch.load(path, weights_only=True)["data"]
    digest = 0
    for x, labels in data():
        for tensor in (x, labels):
            said = zlib.crc32(f"{tuple(tensor.shape)} {tensor.dtype}".encode(), digest)
            digest = zlib.crc32(tensor.numpy().tobytes(), said)
    assert kept == {"before": {}, "after": {}, "digest": digest, "changed": {}}


def test_every_flipped_bit_is_refused(path: Path) -> None:
    """Of 400 places, with the first and the last 100 bytes; torch.load takes most of them."""
    whole = path.read_bytes()
    places = {*range(100), *range(len(whole) - 100, len(whole)), *range(0, len(whole), len(whole) // 200)}
    for place in sorted(places):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(InvalidArgument, match="expected one written by retrain, found Damaged: "):
            train(path)
    path.write_bytes(whole)
    train(path)


def as_older(path: Path) -> None:
    """Make a file as netopt wrote it before it kept anything of the data."""
    state = torch.load(path, weights_only=True)
    del state["data"]
    torch.save(state, path)


def test_files_of_an_older_netopt_are_gone_on_from(path: Path, tmp_path: Path) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    older = tmp_path / "older"
    with pytest.raises(KeyboardInterrupt):
        train(older, on_epoch=interrupt)
    as_older(older)
    wanted, got = train(path), train(older)
    assert all(torch.equal(a, b) for a, b in zip(wanted.parameters(), got.parameters(), strict=True))
    as_older(path)
    again = train(path)
    assert all(torch.equal(a, b) for a, b in zip(wanted.parameters(), again.parameters(), strict=True))


def test_damaged_contents_of_an_older_file_are_refused(path: Path) -> None:
    as_older(path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        (entry,) = [entry for entry in archive.infolist() if entry.filename.endswith("data/0")]
    # The local header: 30 bytes, then name and padding, whose length stands at its end.
    padding = int.from_bytes(whole[entry.header_offset + 28 : entry.header_offset + 30], "little")
    start = entry.header_offset + 30 + len(entry.filename) + padding
    for number in range(0, entry.file_size, 5):
        damaged = bytearray(whole)
        damaged[start + number] ^= 4
        path.write_bytes(damaged)
        assert "the checksum of its part" in refusal(path)


def test_two_trainings_on_one_file_are_refused(tmp_path: Path) -> None:
    path, messages = tmp_path / "net.checkpoint", []

    def another(_: object) -> None:
        with pytest.raises(InvalidArgument) as caught:
            train(path)
        messages.append(str(caught.value))
        train(tmp_path / "another")

    train(path, on_epoch=another)
    assert messages == 2 * [
        f"checkpoint '{path}': expected one that no other training writes, found one that a running training holds; "
        "wait for it or end it, or give another checkpoint=..."
    ]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["another", "net.checkpoint"]


def test_folders_are_made(tmp_path: Path) -> None:
    train(tmp_path / "a" / "b" / "net.checkpoint")
    assert [file.name for file in (tmp_path / "a" / "b").iterdir()] == ["net.checkpoint"]


def test_a_path_as_text(tmp_path: Path) -> None:
    train(str(tmp_path / "net.checkpoint"))  # type: ignore[arg-type]
    assert (tmp_path / "net.checkpoint").is_file()


def refusal(path: Path, **arguments: Any) -> str:
    """The message of the error, after which the file is as it was."""
    before = path.read_bytes()
    with pytest.raises(InvalidArgument) as caught:
        train(path, **arguments)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    message = str(caught.value)
    assert message.startswith(f"checkpoint '{path}': expected one ")
    assert message.endswith(
        "; each training needs a file of its own: give another checkpoint=..., or remove the file to train anew"
    )
    return message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"epochs": 3}, "3 epochs of 2 batches, lr 0.1, seed 0"),
        ({"batches": 3}, "2 epochs of 3 batches, lr 0.1, seed 0"),
        ({"lr": 0.2}, "2 epochs of 2 batches, lr 0.2, seed 0"),
        ({"seed": 1}, "2 epochs of 2 batches, lr 0.1, seed 1"),
        ({"warmup": 0.0}, f"{TRAINING}, warmup 0.0"),
        ({"label_smoothing": 0.1}, f"{TRAINING}, label_smoothing 0.1"),
        ({"clip_norm": 1.0}, f"{TRAINING}, clip_norm 1.0"),
        ({"bfloat16": True}, f"{TRAINING}, bfloat16 True"),
        ({"teacher": network()}, f"{TRAINING}, Distillation(temperature=4.0, weight=0.7, features=0.0)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_training(path: Path, arguments: dict[str, Any], expected: str) -> None:
    assert f": expected one of {expected}, found {TRAINING}; " in refusal(path, **arguments)


@pytest.mark.parametrize(
    "optimizer",
    [torch.optim.SGD, torch.optim.RMSprop, partial(torch.optim.AdamW, weight_decay=0.5)],
    ids=["SGD", "RMSprop", "other weight decay"],
)
def test_another_optimizer(path: Path, optimizer: Any) -> None:
    name = getattr(optimizer, "func", optimizer).__name__
    assert f"expected one of this {name}, found another optimizer, or other options;" in refusal(
        path, optimizer=optimizer
    )


def test_another_model(path: Path) -> None:
    assert "expected one of this model, found RuntimeError: " in (message := refusal(path, model=network(width=5)))
    assert "size mismatch for 0.weight" in message
    assert 'Missing key(s) in state_dict: "0.0.weight"' in refusal(path, model=nn.Sequential(network()))


def test_another_number_of_trained_parameters(path: Path) -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    assert "expected one of this model, found ValueError: " in refusal(path, model=model)


@pytest.mark.parametrize("size", [0, 1, 100, 1000, -200, -1])
def test_a_truncated_file(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    assert "expected one written by retrain, found " in refusal(path)


def test_damaged_and_other_files(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(b"\xff" * 200 + whole[200:])
    refusal(path)
    path.write_bytes(b"what else")
    refusal(path)
    for other in ([1, 2], {"training": TRAINING}, {"training": TRAINING, "epochs": 1, "model": {}, "optimizer": {}}):
        torch.save(other, path)
        assert "expected one written by retrain, found " in refusal(path)


class Surprise:
    """Unpickled, it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.mkdir, (self.path,)


def test_code_in_a_file_does_not_run(path: Path, tmp_path: Path) -> None:
    torch.save({"training": TRAINING, "epochs": Surprise(tmp_path / "made")}, path)
    assert "expected one written by retrain, found UnpicklingError: " in refusal(path)
    assert not (tmp_path / "made").exists()


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"expected one written by retrain, found IsADirectoryError"):
        train(tmp_path)
