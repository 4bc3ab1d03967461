"""Comparisons: the figures are those of the programs, and the models are left as they were."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import netopt
from netopt.report import Accuracy, compare
from netopt.zoo import mlp


def test_figures_are_those_of_models_and_programs() -> None:
    models = {"wide": mlp(12, 40, 3), "thin": nn.Sequential(mlp(12, 5, 3), nn.Dropout(0.9))}
    images, labels = torch.randn(23, 12), torch.arange(23) % 3
    result = compare(models, images[:4], images=images, labels=labels, rounds=3)
    assert all(model.training for model in models.values())
    for row, (name, model) in zip(result.rows, models.items(), strict=True):
        program = netopt.lower(model, images[:4])
        right = int((model.eval()(images).argmax(1) == labels).sum())
        assert row.name == name
        assert row.accuracy == Accuracy(right, 23)
        assert row.agreeing == 23
        assert row.parameters == sum(p.numel() for p in model.parameters())
        assert (row.weight_bytes, row.arena_bytes) == (program.weight_bytes, program.arena_bytes)
        assert row.multiply_adds == program.multiply_adds
        assert min(row.eager.median, row.lowered.median) > 0
        assert row.eager.samples == row.lowered.samples == 9


def test_table_has_ratios_to_the_first() -> None:
    lines = str(compare({"a": mlp(8, 16, 2), "b": mlp(8, 4, 2)}, torch.randn(1, 8), rounds=3)).splitlines()
    assert lines[0].split()[:1] == ["network"]
    assert "178 (1.00x)" in lines[2]
    assert "46 (0.26x)" in lines[3]
    assert "not measured" in lines[2]


def test_wrong_arguments() -> None:
    with pytest.raises(netopt.InvalidArgument, match="models: expected at least one"):
        compare({}, torch.randn(1, 8))
    with pytest.raises(netopt.InvalidArgument, match="images and labels"):
        compare({"a": mlp(8, 2)}, torch.randn(1, 8), images=torch.randn(3, 8))
    with pytest.raises(netopt.InvalidArgument, match="images and labels"):
        compare({"a": mlp(8, 2)}, torch.randn(1, 8), images=torch.randn(3, 8), labels=torch.zeros(2))
