"""What a type checker knows of the results of the verbs. mypy checks this file with the sources; nothing runs it."""

from __future__ import annotations

from typing import assert_type

import torch
from torch import nn

import netopt
from netopt import Optimized, Program
from netopt.factorization import SVD, decompose
from netopt.quantization import binarize, binarize_convolution, convert_to_native_binary_convolution


def optimize(model: nn.Module, x: torch.Tensor, flag: bool) -> None:
    technique = SVD(rank=2)
    assert_type(netopt.optimize(model, technique), Optimized[None])
    assert_type(netopt.optimize(model, [technique], lower=False, example=x).program, None)
    assert_type(netopt.optimize(model, technique, lower=True, example=x), Optimized[Program])
    assert_type(netopt.optimize(model, technique, lower=flag, example=x).program, Program | None)
    either: Optimized[Program | None] = netopt.optimize(model, technique, lower=True, example=x, precision="bf16")
    print(either.model, either.report)
    netopt.optimize(model, technique, lower=True, example=x).program.summary()
    netopt.optimize(model, technique).program.summary()  # type: ignore[attr-defined]
    netopt.optimize(model, technique, precision="fp8")  # type: ignore[call-overload]
    netopt.optimize(model, technique, keep_if="quicker")  # type: ignore[call-overload]
    netopt.optimize(model, technique, thread=2)  # type: ignore[call-overload]


def decomposed(model: nn.Module, x: torch.Tensor, flag: bool) -> None:
    assert_type(decompose(model, 0.5).program, None)
    assert_type(decompose(model, 0.5, lower=True, example=x).program, Program)
    assert_type(decompose(model, 0.5, lower=flag, example=x).program, Program | None)
    decompose(model, 0.5, margins=0.1)  # type: ignore[call-overload]


def binarized(model: nn.Module, x: torch.Tensor) -> None:
    def train(model: nn.Module) -> None:
        model.train()

    assert_type(binarize(model, train, example=x).program, Program)
    assert_type(binarize_convolution(model, train, example=x, target="arm-64-linux").program, Program)
    assert_type(convert_to_native_binary_convolution(model, x, exact=False), Program)


def options(model: nn.Module, x: torch.Tensor) -> None:
    assert_type(netopt.lower(model, x, precision="bf16"), Program)
    netopt.lower(model, x, precision="fp16")  # type: ignore[arg-type]
    netopt.Lowering(precision="fp16")  # type: ignore[arg-type]
    netopt.Lowering(2)  # type: ignore[call-arg]
    training = netopt.Training(epochs=1)
    netopt.optimize(model, SVD(rank=2), train=training.on([(x, x)]), recover=training.on([(x, x)], teacher=model))
    netopt.Training(lr=0.1)  # type: ignore[call-arg]
