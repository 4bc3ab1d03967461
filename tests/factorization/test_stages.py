"""Stages: sizes, composed kernels, descriptions."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from netopt import FileFormatError, optimize
from netopt.factorization import CP, FactoredConv, Tucker
from netopt.factorization.geometry import Geometry
from netopt.transform.structure_file import load_weights, restore_structure, save_weights, structure_of
from tests.factorization.methods import LAYERS, METHODS, PAIRS, factored, inputs_of, relative

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


@pytest.mark.parametrize("name", LAYERS)
def test_a_stage_that_is_the_whole_layer(name: str) -> None:
    """Its module, the size of its output, and its kernel."""
    layer = LAYERS[name]().double()
    geometry = Geometry.of(layer)
    stage = geometry.stage(
        "all", geometry.inputs, geometry.outputs, axes=geometry.axes, groups=geometry.groups, is_last=True
    )
    assert stage.weights == layer.weight.numel()
    x = inputs_of(layer)
    assert stage.output_size(x.shape[2:]) == layer(x).shape[2:]
    module = stage.module()
    assert {parameter.device.type for parameter in module.parameters()} == {"meta"}
    whole = FactoredConv("none", [stage], transposed=geometry.transposed)
    weight = layer.weight.detach()
    if geometry.transposed and not stage.transposed:  # a 1 x 1 one is an ordinary convolution
        weight = torch.cat([block.transpose(0, 1) for block in weight.chunk(geometry.groups)])
    whole.set_weights([weight], layer.bias)
    assert relative(whole(x), layer(x)) < 1e-12
    assert torch.equal(whole.weight, layer.weight)
    assert whole.bias is layer.bias


@pytest.mark.parametrize("method", METHODS)
def test_descriptions_are_json_and_restore_the_module(method: str, tmp_path: Path) -> None:
    for name in [name for pair, name in PAIRS if pair == method][::5]:
        model = nn.Sequential(LAYERS[name](), nn.ReLU())
        new = optimize(model, METHODS[method](rank=1), keep_if="always").model
        structure = json.loads(json.dumps(structure_of(new)))
        assert structure["0"]["kind"] == "factored convolution"
        restored = restore_structure(model, structure)
        assert [dataclasses.asdict(stage) for stage in restored[0].stages] == [
            dataclasses.asdict(stage) for stage in new[0].stages
        ]
        save_weights(new, tmp_path / "weights.safetensors")
        loaded = load_weights(copy.deepcopy(model), tmp_path / "weights.safetensors")
        assert str(loaded) == str(new)
        x = inputs_of(model[0])
        assert torch.equal(loaded(x), new(x))
        assert torch.equal(loaded[0].weight, new[0].weight)


def _description() -> dict[str, Any]:
    built = factored(Tucker(rank=2), nn.Conv2d(4, 6, 3))
    assert built is not None
    return json.loads(json.dumps(built.describe()))


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("stages"),
        lambda d: d.pop("transposed"),
        lambda d: d.update(stages=[]),
        lambda d: d["stages"][1].update(outputs=5),
        lambda d: d["stages"][0].pop("kernel"),
        lambda d: d["stages"][0].update(kernel=[3, 3, 3]),
        lambda d: d["stages"][0].update(extra=1),
        lambda d: d["stages"][0].update(groups=3),
        lambda d: d["stages"][1].update(padding="around"),
        lambda d: d.update(stages=5),
    ],
)
def test_damaged_descriptions(damage: Any) -> None:
    description = _description()
    FactoredConv.from_description(description)
    damage(description)
    with pytest.raises(FileFormatError, match="structure: expected stages of a factored convolution"):
        FactoredConv.from_description(description)


def test_how_it_is_shown() -> None:
    assert repr(factored(Tucker(rank=(3, 2)), nn.Conv2d(4, 6, 3))) == "Tucker(4 -> 2 [3 x 3] 3 -> 6)"
    assert repr(factored(CP(rank=3), nn.Conv2d(4, 6, 3))) == "CP(4 -> 3 [3 x 1] 3 [1 x 3] 3 -> 6)"
    assert repr(factored(CP(rank=3), nn.Conv1d(4, 6, 3))) == "CP(4 -> 3 [3] 3 -> 6)"


def test_what_it_tells() -> None:
    layer = nn.ConvTranspose2d(4, 6, 3, groups=2)
    built = factored(CP(rank=3), layer)
    assert built is not None
    assert (built.method, built.groups, built.transposed) == ("CP", 2, True)
    assert built.bias is not None
    assert built.weight.shape == layer.weight.shape
    assert [name for name, _ in built.named_parameters()] == [
        "reduce.weight",
        "vertical.weight",
        "horizontal.weight",
        "expand.weight",
        "expand.bias",
    ]


def test_it_can_be_copied_and_exported() -> None:
    built = factored(Tucker(rank=2), nn.Conv2d(4, 6, 3))
    assert built is not None
    x = torch.randn(1, 4, 8, 8)
    other = copy.deepcopy(built)
    assert torch.equal(other(x), built(x))
    exported = torch.export.export(built.eval(), (x,))
    assert len([node for node in exported.graph.nodes if node.op == "call_function"]) == 3
