"""What a command line names: models, weights, tensors; and each way in which it can be wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import netopt
from netopt.errors import FileFormatError, InvalidArgument, InvalidType
from netopt.given import example_of, load_model, read_tensor, tensor_of, write_npy
from netopt.zoo import lenet5

_MODULE = """
import torch
model = torch.nn.Linear(2, 1)
number = 3
def factory(): return torch.nn.Linear(3, 1)
def wrong(): return 3
def needs(argument): return torch.nn.Linear(3, 1)
"""


@pytest.fixture
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current folder with a module of a user's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "module_of_user.py").write_text(_MODULE)
    (tmp_path / "broken_of_user.py").write_text("import nothing_of_that_name")
    for name in ("module_of_user", "broken_of_user"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.usefixtures("_folder")
def test_models_of_the_current_folder() -> None:
    before = list(sys.path)
    made, there = load_model("module_of_user:factory"), load_model("module_of_user:model")
    assert isinstance(made, nn.Linear) and made.in_features == 3
    assert isinstance(there, nn.Linear) and there.in_features == 2
    assert sys.path == before


def test_a_model_with_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = lenet5()
    netopt.save_weights(model, tmp_path / "own.safetensors")
    safetensors.torch.save_file(model.state_dict(), tmp_path / "plain.safetensors")
    for name in ("own", "plain"):
        loaded = load_model("netopt.zoo:lenet5", tmp_path / f"{name}.safetensors")
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("netopt.zoo", "model: expected package.module:factory, found 'netopt.zoo'; name a function"),
        (":lenet5", "expected package.module:factory"),
        ("netopt.zoo:", "expected package.module:factory"),
        ("json.zooo:lenet5", "model: there is no module 'json.zooo'; run in the folder that has it"),
        ("nothing_of_that_name.part:f", "there is no module 'nothing_of_that_name'"),
        ("netopt.zoo:lenet55", "model: netopt.zoo has no 'lenet55'; did you mean lenet5"),
        ("module_of_user:qqqqq", "model: module_of_user has no 'qqqqq'"),
    ],
)
def test_names_that_are_wrong(name: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        load_model(name)
    assert message in str(caught.value)


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize(("name", "found"), [("module_of_user:number", "int"), ("module_of_user:wrong", "int")])
def test_what_is_no_model(name: str, found: str) -> None:
    with pytest.raises(InvalidType, match=f"expected a torch.nn.Module, or a function that returns one, found {found}"):
        load_model(name)


@pytest.mark.usefixtures("_folder")
def test_errors_of_the_users_module_are_left_as_they_are() -> None:
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        load_model("broken_of_user:model")
    with pytest.raises(TypeError, match="argument"):
        load_model("module_of_user:needs")


def test_shapes() -> None:
    assert tensor_of("1,3,8").shape == (1, 3, 8)
    assert tensor_of("7").shape == (7,)
    assert not tensor_of("2,2").any()


def test_an_example_of_one_or_more_arguments(tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", np.array([[4, 5]]))
    one = example_of(["1,2"])
    assert isinstance(one, torch.Tensor) and one.shape == (1, 2)
    first, second = example_of(["1,2", str(tmp_path / "b.npy")])
    assert first.shape == (1, 2)
    assert second.tolist() == [[4, 5]] and second.dtype == torch.int64


NUMBERS = torch.tensor([[1.5, -2.0], [0.0, 3.0]])


def test_files(tmp_path: Path) -> None:
    write_npy(tmp_path / "x.npy", NUMBERS.requires_grad_(requires_grad=False).T)
    np.save(tmp_path / "double.npy", NUMBERS.T.double().numpy())
    torch.save(NUMBERS.T, tmp_path / "x.pt")
    torch.save({"images": NUMBERS.T}, tmp_path / "named.pt")
    safetensors.torch.save_file({"x": NUMBERS.T.contiguous()}, tmp_path / "x.safetensors")
    for name in ("x.npy", "double.npy", "x.pt", "named.pt", "x.safetensors"):
        tensor = read_tensor(tmp_path / name)
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, NUMBERS.T)


def test_what_is_written_is_numpys(tmp_path: Path) -> None:
    write_npy(tmp_path / "x.npy", NUMBERS.T)
    assert np.array_equal(np.load(tmp_path / "x.npy"), NUMBERS.T.numpy())


@pytest.mark.parametrize("suffix", [".npy", ".pt", ".safetensors"])
@pytest.mark.parametrize("data", [b"", b"nothing of the kind", b"\x93NUMPY", b"PK\x03\x04"])
def test_damaged_files(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=f"expected a {suffix} file of a tensor") as caught:
        read_tensor(path)
    assert "\n" not in str(caught.value)


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "texts.npy", np.array(["a"]))
    torch.save(nn.Linear(1, 1), tmp_path / "module.pt")
    torch.save([NUMBERS], tmp_path / "list.pt")
    safetensors.torch.save_file({"a": NUMBERS, "b": NUMBERS.clone()}, tmp_path / "two.safetensors")
    for name in ("objects.npy", "texts.npy", "module.pt", "list.pt", "two.safetensors"):
        with pytest.raises(FileFormatError, match=name):
            read_tensor(tmp_path / name)


def test_other_names_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"expected a shape such as 1,3,32,32, or a file that ends in .npy, .pt"):
        tensor_of("x.txt")
    with pytest.raises(InvalidArgument, match="found '1,-3'"):
        tensor_of("1,-3")
    for suffix in (".npy", ".pt", ".safetensors"):
        with pytest.raises(FileNotFoundError):
            read_tensor(tmp_path / f"x{suffix}")
