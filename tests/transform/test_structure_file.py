"""Transformed networks in files: bit for bit, without code, and safe from damaged and hostile ones."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn

import netopt
from netopt import load_weights, restore_structure, save_weights
from netopt.errors import FileFormatError, InvalidArgument, InvalidType, NetoptError
from netopt.factorization import CP, SVD, ChannelSVD, DepthwiseSVD, FactoredConv, FactoredDense, SpatialSVD, Tucker
from netopt.transform.structure_file import structure_of
from netopt.transform.technique import Technique

KEY = "netopt.structure"


def network() -> nn.Sequential:
    """Convolutions of several kinds, batch normalization, and dense layers."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(32, 32, 3, padding=1, groups=32),
        nn.Conv2d(32, 16, 1),
        nn.ConvTranspose2d(16, 16, 3, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 24),
        nn.Linear(24, 10, bias=False),
    )


X = (2, 3, 8, 8)

TECHNIQUES: dict[str, list[Technique]] = {
    "none": [],
    "SVD": [SVD(rank=3)],
    "Tucker": [Tucker(rank=4, select=["3", "6"])],
    "CP": [CP(rank=6, select="3")],
    "SpatialSVD": [SpatialSVD(rank=8, select=["0", "3"])],
    "ChannelSVD": [ChannelSVD(rank=4, select=["3", "5"])],
    "DepthwiseSVD": [DepthwiseSVD(rank=1, select="3")],
    "all": [Tucker(rank=4, select="3"), DepthwiseSVD(rank=1, select="0"), ChannelSVD(rank=4, select="5"), SVD(rank=3)],
    "parts of parts": [SVD(rank=8, select="9"), SVD(rank=2, select="9.u"), SVD(rank=1, select="9.u.v")],
    "parts of convolutions": [Tucker(rank=6, select="3"), SpatialSVD(rank=2, select="3.*")],
}


def transformed(name: str, model: nn.Module) -> nn.Module:
    result = netopt.optimize(model, TECHNIQUES[name], keep_if="always")
    assert any(row.replaced for row in result.report.rows) or not TECHNIQUES[name]
    return result.model


def same(first: nn.Module, second: nn.Module) -> bool:
    """The same modules, with the same bits, in the same modes."""
    one, other = first.state_dict(), second.state_dict()
    return (
        [(name, type(m), m.training, repr(m)) for name, m in first.named_modules()]
        == [(name, type(m), m.training, repr(m)) for name, m in second.named_modules()]
        and list(one) == list(other)
        and all(one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one)
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.safetensors"


@pytest.mark.parametrize("name", TECHNIQUES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip_bit_for_bit(name: str, dtype: torch.dtype, path: Path) -> None:
    model = network().to(dtype)
    new = transformed(name, model)
    new(torch.randn(X, dtype=dtype))  # gives batch normalization its statistics
    model.eval()
    new.eval()
    save_weights(new, path)
    original = copy.deepcopy(model)
    restored = load_weights(model, path)
    assert same(restored, new)
    assert same(model, original)
    x = torch.randn(X, dtype=dtype)
    assert torch.equal(restored(x), new(x))
    assert all(parameter.requires_grad for parameter in restored.parameters())
    pointers = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert pointers.isdisjoint(tensor.data_ptr() for tensor in restored.state_dict().values())


@pytest.mark.parametrize("name", TECHNIQUES)
def test_structure_and_state_dict(name: str) -> None:
    model = network()
    new = transformed(name, model)
    structure = json.loads(json.dumps(structure_of(new)))
    restored = restore_structure(model, structure)
    replaced = [module for module in restored.modules() if isinstance(module, FactoredDense | FactoredConv)]
    assert all(tensor.eq(0).all() for module in replaced for tensor in module.parameters())
    assert structure_of(restored) == structure_of(new)
    restored.load_state_dict(new.state_dict())
    assert same(restored, new)


def test_state_dict_loads_into_a_freshly_transformed_model() -> None:
    first, second = transformed("all", network()), transformed("all", network())
    assert not same(first, second)
    second.load_state_dict(first.state_dict())
    assert same(first, second)


def test_modes_and_gradients_are_those_of_the_model_given(path: Path) -> None:
    model = network()
    save_weights(transformed("all", model), path)
    model[9].eval().requires_grad_(False)
    restored = load_weights(model, path)
    assert not any(module.training for module in restored[9].modules())
    assert not any(parameter.requires_grad for parameter in restored[9].parameters())
    assert restored.training
    assert all(parameter.requires_grad for parameter in restored[10].parameters())


@pytest.mark.parametrize("frozen", ["weight", "bias"])
@pytest.mark.parametrize(
    ("layer", "technique"),
    [
        (nn.Linear(8, 6), SVD(rank=2)),
        (nn.Conv2d(8, 8, 3), Tucker(rank=2)),
        (nn.ConvTranspose2d(8, 8, 3), Tucker(rank=2)),
        (nn.Linear(8, 6), [SVD(rank=4), SVD(rank=1, select="0.u")]),
    ],
    ids=["dense", "convolution", "transposed convolution", "parts of parts"],
)
def test_weight_and_bias_are_frozen_apart(layer: nn.Module, technique: Any, frozen: str, path: Path) -> None:
    model = nn.Sequential(copy.deepcopy(layer))
    model[0].get_parameter(frozen).requires_grad_(False)
    new = netopt.optimize(model, technique, keep_if="always").model
    save_weights(new, path)
    restored = load_weights(model, path)
    flags = {name: parameter.requires_grad for name, parameter in restored.named_parameters()}
    assert sum(name.endswith("bias") for name in flags) == 1
    assert flags == {name: not name.endswith(frozen) for name in flags}
    assert flags == {name: parameter.requires_grad for name, parameter in new.named_parameters()}


def test_a_module_used_twice(path: Path) -> None:
    shared = nn.Linear(8, 8)
    model = nn.Sequential(shared, nn.ReLU(), nn.Sequential(shared))
    new = netopt.optimize(model, SVD(rank=2)).model
    save_weights(new, path)
    restored = load_weights(model, path)
    assert isinstance(restored[0], FactoredDense)
    assert restored[0] is restored[2][0]
    assert same(restored, new)


@pytest.mark.parametrize("model", [nn.Linear(8, 6), nn.Conv2d(8, 8, 3)])
def test_the_model_itself(model: nn.Module, path: Path) -> None:
    technique = SVD(rank=2) if isinstance(model, nn.Linear) else Tucker(rank=2)
    new = netopt.optimize(model, technique).model
    save_weights(new, path)
    assert same(load_weights(model, path), new)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head, self.free = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False), nn.Linear(9, 9)
        self.head.weight = self.embed.weight
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.free(self.head(self.embed(x)))


def test_tied_weights_and_buffers(path: Path) -> None:
    model = Tied()
    new = netopt.optimize(model, SVD(rank=2)).model
    new.steps += 3
    save_weights(new, path)
    restored = load_weights(Tied(), path)
    assert same(restored, new)
    assert restored.head.weight is restored.embed.weight
    assert restored.steps == 3


def test_tensors_that_share_memory(path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    block = torch.randn(8, 8)
    model[0].weight, model[1].weight = nn.Parameter(block[:4, :4].T), nn.Parameter(block[:4, 2:6])
    save_weights(model, path)
    assert same(load_weights(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), path), model)


def test_no_random_numbers_are_drawn(path: Path) -> None:
    model = network()
    save_weights(transformed("all", model), path)
    state = torch.get_rng_state()
    load_weights(model, path)
    assert torch.equal(torch.get_rng_state(), state)


# Files


def test_the_file_is_safetensors_and_json_and_holds_no_code(path: Path) -> None:
    save_weights(transformed("all", network()), path)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    assert json.loads(header["__metadata__"][KEY])["9"] == {
        "kind": "factored dense layer",
        "inputs": 16,
        "rank": 3,
        "outputs": 24,
        "bias": True,
    }
    with safe_open(path, framework="pt") as file:
        assert "9.u.weight" in file.keys()  # noqa: SIM118


def test_saving_is_atomic(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_weights(network(), path)
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save_weights(network(), path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_paths(path: Path, tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    save_weights(model, str(path))
    assert same(load_weights(model, str(path)), model)
    with pytest.raises(FileNotFoundError):
        load_weights(model, tmp_path / "absent")
    save_weights(model, tmp_path / "new" / "folders" / "net.safetensors")
    assert same(load_weights(model, tmp_path / "new" / "folders" / "net.safetensors"), model)
    with pytest.raises((OSError, NetoptError)):
        load_weights(model, tmp_path)


def test_wrong_types(path: Path) -> None:
    save_weights(nn.Linear(2, 2), path)
    with pytest.raises(InvalidType, match="model: expected a torch.nn.Module, found dict"):
        save_weights({}, path)  # type: ignore[arg-type]
    with pytest.raises(InvalidType, match="model: expected a torch.nn.Module, found dict"):
        load_weights({}, path)  # type: ignore[arg-type]
    with pytest.raises(InvalidType, match="model: expected a torch.nn.Module"):
        restore_structure(None, {})  # type: ignore[arg-type]
    with pytest.raises(InvalidType, match="structure: expected what structure_of returns, found list"):
        restore_structure(nn.Linear(2, 2), [])  # type: ignore[arg-type]


class WithExtraState(nn.Linear):
    def get_extra_state(self) -> object:
        return {"count": 3}

    def set_extra_state(self, state: object) -> None:
        raise NotImplementedError


def test_state_that_is_no_tensor_is_refused(path: Path) -> None:
    with pytest.raises(InvalidType, match="state '_extra_state': expected a tensor, found dict"):
        save_weights(WithExtraState(2, 2), path)
    assert not path.exists()


# Damage


def test_truncated_files(path: Path) -> None:
    model = network()
    save_weights(transformed("all", model), path)
    content, original = path.read_bytes(), copy.deepcopy(model)
    for length in (0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(FileFormatError, match="expected whole safetensors"):
            load_weights(model, path)
    assert same(model, original)


def test_damaged_files_are_clear_errors(path: Path) -> None:
    """Each byte of the header, and every third of the weights, changed in turn."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Conv2d(2, 2, 3))
    save_weights(netopt.optimize(model, [SVD(rank=1), Tucker(rank=1)]).model, path)
    content, original = path.read_bytes(), copy.deepcopy(model)
    size = 8 + int.from_bytes(content[:8], "little")
    accepted = []
    for place in (*range(size), *range(size, len(content), 3)):
        byte = (content[place] ^ 1, content[place] ^ 0x80, ord("9"), ord("]"))[place % 4]
        if byte != content[place]:
            path.write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
            try:
                load_weights(model, path)
            except NetoptError:
                continue
            accepted.append(place)
    # Where the checksum's own name is damaged there is none to check; the rest is whole.
    name = content.index(b"netopt.checksum")
    assert all(name <= place < name + len("netopt.checksum") for place in accepted)
    assert same(model, original)


def test_damaged_structures_of_the_right_shapes(path: Path) -> None:
    """A stride is no part of any tensor's shape."""
    model = nn.Sequential(nn.Conv2d(8, 8, 3))
    save_weights(netopt.optimize(model, Tucker(rank=2)).model, path)
    content = path.read_bytes()
    assert content.count(b'\\"stride\\": [1, 1]') == 3
    path.write_bytes(content.replace(b'\\"stride\\": [1, 1]', b'\\"stride\\": [2, 1]'))
    with pytest.raises(FileFormatError, match="is damaged: expected the checksum [0-9a-f]{8}, found another"):
        load_weights(model, path)


def test_foreign_files(path: Path) -> None:
    model = network()
    for content in (b"", b"PK\x03\x04" + bytes(100), b"\x80\x02}q\x00.", bytes(64), b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match="expected whole safetensors"):
            load_weights(model, path)
    torch.save(model.state_dict(), path)
    with pytest.raises(FileFormatError, match="expected whole safetensors"):
        load_weights(model, path)
    path.write_bytes(safetensors.torch.save({"x": torch.zeros(3)}))
    with pytest.raises(
        InvalidArgument, match=r"weights of this network: '0.weight' \(16, 3, 3, 3\) float32, found none"
    ):
        load_weights(model, path)


def test_weights_that_others_saved(path: Path) -> None:
    """Safetensors of the network itself, without a structure."""
    model, other = network(), network()
    path.write_bytes(safetensors.torch.save(dict(other.state_dict())))
    assert same(load_weights(model, path), other)


@pytest.mark.parametrize("structure", ["[]", "3", "null", "{", "[" * 100_000, '"x"', "\udcff", '{"9": 1e999999}'])
def test_structures_that_are_none(structure: str, path: Path) -> None:
    try:
        path.write_bytes(safetensors.torch.save(dict(network().state_dict()), {KEY: structure}))
    except UnicodeEncodeError:
        return
    with pytest.raises(FileFormatError):
        load_weights(network(), path)


def dense(**changes: Any) -> dict[str, Any]:
    return {"kind": "factored dense layer", "inputs": 16, "rank": 3, "outputs": 24, "bias": True, **changes}


def conv(**changes: Any) -> dict[str, Any]:
    fields = structure_of(transformed("Tucker", network()))["3"]
    fields["stages"][1].update(changes)
    return fields


HOSTILE: dict[str, Callable[[], dict[str, Any]]] = {
    "no mapping": lambda: {"9": ["factored dense layer"]},
    "no kind": lambda: {"9": {"inputs": 16}},
    "unknown kind": lambda: {"9": dense(kind="builtins.eval")},
    "a kind that is a list": lambda: {"9": dense(kind=["factored dense layer"])},
    "a missing size": lambda: {"9": {"kind": "factored dense layer", "inputs": 16}},
    "text for a size": lambda: {"9": dense(rank="many")},
    "null for a size": lambda: {"9": dense(rank=None)},
    "a negative size": lambda: {"9": dense(rank=-3)},
    "a size that overflows": lambda: {"9": dense(rank=2**70)},
    "a size that overflows a product": lambda: {"9": dense(rank=2**62)},
    "stages that are none": lambda: {"3": {"kind": "factored convolution", "method": "CP", "stages": 3}},
    "no stages": lambda: {"3": {"kind": "factored convolution", "method": "CP", "stages": []}},
    "a stage of other fields": lambda: {"3": conv(device="cuda")},
    "a stage's name": lambda: {"3": conv(name="forward")},
    "a stage's name with a dot": lambda: {"3": conv(name="a.b")},
    "groups that do not divide": lambda: {"3": conv(groups=3)},
    "negative groups": lambda: {"3": conv(groups=-1)},
    "a kernel of five axes": lambda: {"3": conv(kernel=[3] * 5)},
    "a kernel that is text": lambda: {"3": conv(kernel="33")},
    "a stage that is a list": lambda: {"3": {"kind": "factored convolution", "method": "CP", "stages": [[1]]}},
    "stages that do not fit": lambda: {"3": conv(inputs=5)},
    "a padding mode": lambda: {"3": conv(padding_mode="eval")},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_structures(name: str, path: Path) -> None:
    model, structure = network(), HOSTILE[name]()
    original = copy.deepcopy(model)
    with pytest.raises(FileFormatError, match="structure: expected "):
        restore_structure(model, structure)
    path.write_bytes(safetensors.torch.save(dict(model.state_dict()), {KEY: json.dumps(structure)}))
    with pytest.raises(FileFormatError, match="structure: expected "):
        load_weights(model, path)
    assert same(model, original)


@pytest.mark.parametrize(
    "structure",
    [
        {"9": dense(rank=10**12)},
        {"3": {**conv(), "stages": [{**stage, "groups": 1} for stage in conv()["stages"]]}},
    ],
    ids=["dense", "conv"],
)
def test_huge_sizes_take_no_memory(structure: dict[str, Any], path: Path) -> None:
    """Such sizes are compared with the file's tensors before memory is taken: 10^12 numbers would not fit."""
    if "3" in structure:
        first, middle, last = structure["3"]["stages"]
        first["outputs"] = middle["inputs"] = middle["outputs"] = last["inputs"] = 10**8
    path.write_bytes(safetensors.torch.save(dict(network().state_dict()), {KEY: json.dumps(structure)}))
    with pytest.raises(InvalidArgument, match="weights of this network: '.*' .*1000000.*, found none"):
        load_weights(network(), path)


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        ({"no.such": dense()}, "expected a layer 'no.such', as the transformed network had, found none"),
        ({"9.weight": dense()}, "expected a layer '9.weight', as the"),
        ({"training": dense()}, "expected a layer 'training', as the"),
        ({"__class__": dense()}, "expected a layer '__class__', as the"),
        ({"9": dense(inputs=17)}, "expected a layer '9' with 17 features -> 24, found 16 features -> 24"),
        ({"9": dense(outputs=10**15)}, "expected a layer '9' with 16 features -> 1000000000000000, found 16 features"),
        ({"3": dense(inputs=16, outputs=32)}, "expected a layer '3' with 16 features -> 32, found 16 channels -> 32"),
        ({"2": dense()}, "expected a layer '2' with 16 features -> 24, found ReLU"),
        ({"9.u": dense(), "9": dense()}, "expected a layer '9.u'"),
    ],
)
def test_another_network(structure: dict[str, Any], message: str, path: Path) -> None:
    model = network()
    original = copy.deepcopy(model)
    with pytest.raises(InvalidArgument, match=f"model: {message}.*; give the network as it was before"):
        restore_structure(model, structure)
    path.write_bytes(safetensors.torch.save(dict(model.state_dict()), {KEY: json.dumps(structure)}))
    with pytest.raises(InvalidArgument, match=message):
        load_weights(model, path)
    assert same(model, original)


def test_weights_of_another_network(path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    original = copy.deepcopy(model)
    save_weights(netopt.optimize(model, SVD(rank=1, select="0")).model, path)
    for other, message in (
        (model[:1], "'1.bias' is not one of them, found"),
        (nn.Sequential(*model, nn.Linear(3, 1)), r"'2.weight' \(1, 3\) float32, found none"),
        (nn.Sequential(model[0], nn.Linear(4, 5)), r"'1.weight' \(5, 4\) float32, found \(3, 4\) float32"),
        (copy.deepcopy(model).double(), r"'0.v.weight' \(1, 4\) float64, found \(1, 4\) float32"),
    ):
        with pytest.raises(InvalidArgument, match=f"weights of this network: {message}"):
            load_weights(other, path)
    assert same(model, original)
