"""The verbs: which layers become binary, what the training function may do, and that the program computes the model.

Several of these were wrong in CNTK's netopt: it ignored the filter, drew new weights, lost the scales in its kernel,
and took networks of batch 1, square kernels and multiples of 64 alone.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import netopt
from netopt import InvalidArgument, InvalidType
from netopt.quantization import (
    XNOR,
    Binary,
    BinaryBlock,
    BinaryWeight,
    LowBitConv2d,
    LowBitLinear,
    binarize,
    binarize_convolution,
    convert_to_binary_convolution,
    convert_to_native_binary_convolution,
)
from netopt.transform.layer_report import Report


class Network(nn.Module):
    """Convolutions of awkward sizes, one of them transposed, in the order first, others, dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 7, 3, padding=1)
        self.wide = nn.Conv2d(7, 33, (3, 5), stride=(2, 1), padding=(1, 2))
        self.dilated = nn.Conv2d(33, 6, 3, padding=2, dilation=2, bias=False)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.up = nn.ConvTranspose2d(6, 4, 2)
        self.hidden = nn.Linear(4, 9)
        self.head = nn.Linear(9, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.stem, self.wide, self.dilated, self.depthwise):
            x = torch.relu(layer(x))
        return self.head(torch.relu(self.hidden(self.up(x).mean((2, 3)))))


def network() -> Network:
    torch.manual_seed(0)
    return Network().eval()


def images(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, 10, 7, generator=torch.Generator().manual_seed(1))


def binary_names(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, BinaryBlock | LowBitConv2d)]


def nothing(model: nn.Module) -> None:
    """A training function that trains nothing."""


def settle(model: nn.Module) -> None:
    """Statistics for the normalizations, as training gives them."""
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(images(8))
    model.eval()


def test_the_default_leaves_the_first_convolution_and_the_last_layer_alone() -> None:
    reports: list[Report] = []
    model = convert_to_binary_convolution(network(), on_report=reports.append)
    replaced = {row.layer: row.replaced for row in reports[0].rows}
    assert replaced == {"stem": False, "wide": True, "dilated": True, "depthwise": True, "up": False}
    assert type(model.hidden) is type(model.head) is nn.Linear
    reasons = {row.layer: row.reason for row in reports[0].rows}
    assert reasons["stem"] == "is the first convolution, which is left as it is unless it is selected"
    assert reasons["up"] == "a ConvTranspose2d has no binary form"


def test_a_first_convolution_behind_a_dense_layer_is_the_first_convolution() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 3, 1), nn.Conv2d(3, 4, 1))
    model = convert_to_binary_convolution(nn.Sequential(*model, nn.Flatten(), nn.Linear(16, 2)))
    assert type(model[2]) is nn.Conv2d
    assert type(model[3]) is BinaryBlock


@pytest.mark.parametrize("verb", ["convert", "binarize_convolution", "binarize"])
def test_the_filter_is_honoured_by_every_verb(verb: str) -> None:
    asked: list[str] = []

    def wanted(layer: netopt.Layer) -> bool:
        asked.append(layer.name)
        return layer.name in ("stem", "dilated")

    if verb == "convert":
        model = convert_to_binary_convolution(network(), wanted)
    else:
        function = binarize_convolution if verb == "binarize_convolution" else binarize
        model = function(network(), nothing, wanted, example=images(), keep_if="always").model
    blocks = [name for name, module in model.named_modules() if isinstance(module, BinaryBlock)]
    assert blocks == ["stem", "dilated"]
    assert {"wide", "depthwise"} < set(asked)


def test_trained_weights_biases_and_what_follows_are_kept() -> None:
    original = network()
    model = convert_to_binary_convolution(original, technique=BinaryWeight())
    for name in ("wide", "dilated", "depthwise"):
        assert torch.equal(model.get_submodule(name).weight, original.get_submodule(name).weight)
        assert (model.get_submodule(name).bias is None) == (original.get_submodule(name).bias is None)
    assert torch.equal(model.wide.bias, original.wide.bias)
    assert model(images()).shape == (2, 5)


@pytest.mark.parametrize("technique", [XNOR(), Binary(pad_one=True), BinaryWeight()])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_native_program_computes_what_the_trained_network_does(
    technique: Binary, batch: int, tmp_path: Path
) -> None:
    model = convert_to_binary_convolution(network(), technique=technique)
    settle(model)
    x = images(batch)
    program = convert_to_native_binary_convolution(model, x)
    with torch.no_grad():
        wanted = model(x)
    # Scales and biases are rounded once in the program: of the size of the output, a few roundings.
    assert (program(x) - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    program.save(tmp_path / "net.nopt")
    assert torch.equal(netopt.load(tmp_path / "net.nopt")(x), program(x))
    netopt.save_weights(model, tmp_path / "net.safetensors")
    assert torch.equal(netopt.load_weights(network(), tmp_path / "net.safetensors").eval()(x), wanted)


def test_what_cannot_be_lowered_yet() -> None:
    with pytest.raises(InvalidArgument, match="a binary convolution, found none; call convert_to_binary_convolution"):
        convert_to_native_binary_convolution(network(), images())
    first = convert_to_binary_convolution(network(), technique=XNOR(two_stages=True))
    with pytest.raises(InvalidArgument, match="binary weights, found the first of two stages; call binarize_weights"):
        convert_to_native_binary_convolution(first, images())
    with pytest.raises(InvalidType, match="model"):
        convert_to_native_binary_convolution("net", images())  # type: ignore[arg-type]


def test_nothing_to_convert_says_why() -> None:
    with pytest.raises(InvalidArgument, match="a convolution to binarize, found no convolution"):
        convert_to_binary_convolution(nn.Linear(3, 2))
    with pytest.raises(InvalidArgument, match="0: is the first convolution"):
        convert_to_binary_convolution(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4, 2)))


def test_the_training_function_may_train_in_place() -> None:
    def train(model: nn.Module) -> None:
        settle(model)
        with torch.no_grad():
            model.head.bias.fill_(7.0)

    result = binarize_convolution(network(), train, example=images(), keep_if="always")
    assert result.model.head.bias.tolist() == [7.0] * 5
    assert result.program is not None
    wanted = result.model(images())
    assert (result.program(images()) - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_the_training_function_may_return_another_model() -> None:
    other = nn.Sequential(nn.Flatten(), nn.Linear(210, 5))
    result = binarize_convolution(network(), lambda _: other, example=images(), keep_if="always")
    assert result.model is other


def test_two_stages_train_twice() -> None:
    seen: list[str] = []

    def train(model: nn.Module) -> None:
        seen.append(type(model.wide.layer.weight_form).__name__)

    technique = XNOR(two_stages=True)
    binarize_convolution(network(), train, example=images(), technique=technique, keep_if="always")
    assert seen == ["FloatWeights", "SignWeights"]
    # Where no layer was replaced there is no second stage.
    seen.clear()
    binarize(
        nn.Sequential(nn.Linear(3, 2)),
        lambda model: seen.append("once"),
        example=torch.randn(1, 3),
        technique=technique,
    )
    assert seen == ["once"]


def test_the_report_has_a_row_for_every_convolution_with_times() -> None:
    report = binarize_convolution(network(), nothing, example=images()).report
    assert [row.layer for row in report.rows] == ["stem", "wide", "dilated", "depthwise", "up"]
    assert all(row.reason for row in report.rows)
    measured = {row.layer for row in report.rows if row.before_ms is not None}
    assert measured == {"wide", "dilated", "depthwise"}


def test_dense_layers_too() -> None:
    result = binarize(network(), settle, example=images(), keep_if="always")
    assert isinstance(result.model.hidden, BinaryBlock)
    assert isinstance(result.model.hidden.layer, LowBitLinear)
    assert type(result.model.head) is nn.Linear
    assert type(result.model.stem) is nn.Conv2d


def test_the_callers_model_is_not_changed() -> None:
    original = network()
    before = {key: value.clone() for key, value in original.state_dict().items()}
    binarize(original, settle, example=images(), keep_if="always")
    assert binary_names(original) == []
    assert all(torch.equal(value, before[key]) for key, value in original.state_dict().items())


@pytest.mark.parametrize("verb", [binarize, binarize_convolution])
def test_wrong_arguments(verb) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidType, match="training_function: expected a function"):
        verb(network(), None, example=images())
    with pytest.raises(InvalidType, match="technique: expected one of netopt.quantization"):
        verb(network(), nothing, example=images(), technique="binary")
    with pytest.raises(InvalidType, match="model"):
        verb("net", nothing, example=images())
