"""What holds for every method and every convolution. Most of it fails in a published implementation.

A method is right if what it builds computes exactly what a convolution with the composed kernel computes, and if that
kernel is at the distance from the original one that the report tells.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import netopt
from netopt import Cost, InvalidArgument, NetoptError, optimize
from netopt.factorization import CP, ChannelSVD, Energy, FactoredConv, SpatialSVD, Tucker, cp, cp_als
from netopt.graph.capture import capture
from netopt.program.options import Lowering
from tests.factorization.methods import (
    CONV1D,
    LAYERS,
    METHODS,
    PAIRS,
    correlated,
    factored,
    handle,
    inputs_of,
    proposal,
    relative,
    with_weight,
)
from tests.pipelines import run_passes
from tests.tolerance import assert_within, judge

# In float64 what is exact is so to some hundred times 2^-53; the components of CP are orders larger than their sum.
EXACT = 1e-11

# torch says so of the layers themselves.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


@pytest.fixture(autouse=True)
def _quick_cp(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here does not depend on how good the factors of CP are."""
    monkeypatch.setattr(cp, "cp_factors", partial(cp_als.cp_factors, starts=1, iterations=20))
    monkeypatch.setattr(cp_als, "_CORRECTION_SWEEPS", 3)


def check_composed(built: FactoredConv, layer: nn.Module, x: torch.Tensor) -> None:
    """The stages compute what the layer would with their composed kernel."""
    with torch.no_grad():
        expected = with_weight(layer, built.weight)(x)
        assert built(x).shape == expected.shape
        assert relative(built(x), expected) < EXACT


# --- geometry


@pytest.mark.parametrize(("method", "name"), PAIRS)
def test_the_stages_are_the_composed_convolution_at_any_rank(method: str, name: str) -> None:
    layer = LAYERS[name]().double()
    for rank in (0.3, 0.8):
        found = proposal(METHODS[method](rank=rank, multiple=1), handle(layer))
        assert found is not None and found.error is not None
        built = found.build()
        assert isinstance(built, FactoredConv)
        check_composed(built, layer, inputs_of(layer))
        assert found.error(built) == pytest.approx(relative(built.weight, layer.weight), abs=EXACT)


@pytest.mark.parametrize(("method", "name"), PAIRS)
def test_full_rank_is_exact(method: str, name: str) -> None:
    layer = LAYERS[name]().double()
    built = factored(METHODS[method](rank=1.0), layer)
    assert built is not None
    x = inputs_of(layer)
    with torch.no_grad():
        assert relative(built.weight, layer.weight) < EXACT
        assert relative(built(x), layer(x)) < EXACT


@pytest.mark.parametrize("method", METHODS)
def test_full_rank_in_float32(method: str) -> None:
    layer = nn.Conv2d(12, 20, 3, padding=1)
    built = factored(METHODS[method](rank=1.0), layer)
    assert built is not None
    x = inputs_of(layer)
    # Each of up to four stages rounds to 2^-24 relative, with sums of up to 180 terms.
    assert relative(built(x), layer(x)) < 1e-5


@pytest.mark.parametrize(("method", "name"), PAIRS)
def test_costs_are_known_before_the_replacement_is_built(method: str, name: str) -> None:
    layer = LAYERS[name]()
    shapes = (inputs_of(layer).shape, inputs_of(layer, batch=1).shape, inputs_of(layer)[0].shape)
    for given_shapes in ((), shapes):
        found = METHODS[method](rank=0.4, multiple=1).decomposition(handle(layer, input_shapes=given_shapes))
        ranks = found.at_number(2) if method == "Tucker" else (1,)
        cost, built = found.cost(ranks), found.build(ranks)
        bias = 0 if layer.bias is None else layer.bias.numel()
        assert Cost(cost.parameters + bias, cost.multiply_adds) == Cost.of(built, given_shapes)


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Module:
    axes = draw(st.sampled_from([1, 2, 2, 2]))
    transposed = draw(st.booleans())
    groups = draw(st.integers(1, 3))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(axes))
    kernel, stride, dilation, padding = each(1, 4), each(1, 3), each(1, 2), each(0, 2)
    options: dict[str, Any] = {"stride": stride, "dilation": dilation, "padding": padding}
    if transposed:
        options["output_padding"] = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation))  # noqa: B905
    else:
        options["padding_mode"] = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
        if draw(st.booleans()):
            options |= {"padding": "same", "stride": 1}
    kinds = {(1, False): nn.Conv1d, (2, False): nn.Conv2d, (1, True): nn.ConvTranspose1d, (2, True): nn.ConvTranspose2d}
    channels = [groups * draw(st.integers(1, 4)) for _ in range(2)]
    return kinds[axes, transposed](*channels, kernel, groups=groups, bias=draw(st.booleans()), **options).double()


@settings(max_examples=150, derandomize=True, deadline=None)
@given(layer=convolutions(), method=st.sampled_from(sorted(METHODS)), share=st.floats(0.05, 1), batch=st.integers(1, 2))
def test_any_convolution(layer: nn.Module, method: str, share: float, batch: int) -> None:
    technique = METHODS[method](rank=share, multiple=1)
    assume(type(layer) in technique.handles)
    x = inputs_of(layer, batch)
    found = proposal(technique, handle(layer, input_shapes=(x.shape,)))
    assume(found is not None)
    assert found is not None
    built = found.build()
    assert isinstance(built, FactoredConv)
    assert found.parameters == sum(parameter.numel() for parameter in built.parameters())
    check_composed(built, layer, x)


def outputs_of(stages: FactoredConv) -> list[tuple[int, ...]]:
    sizes, x = [], torch.zeros(1, stages.stages[0].inputs, 12, 12)
    for stage in stages:
        x = stage(x)
        sizes.append(tuple(x.shape[2:]))
    return sizes


def test_strides_are_taken_as_early_as_they_can_be() -> None:
    """A published CP strides in the last of its depthwise convolutions alone: right, and as slow as without a stride.

    A 1 x 1 convolution can stride along an axis along which the kernel has extent 1 and no padding, and no other.
    """
    square = nn.Conv2d(4, 6, 3, stride=2, padding=1)
    assert outputs_of(factored(Tucker(rank=2), square)) == [(12, 12), (6, 6), (6, 6)]
    assert outputs_of(factored(CP(rank=2), square)) == [(12, 12), (6, 12), (6, 6), (6, 6)]
    assert outputs_of(factored(SpatialSVD(rank=2), square)) == [(6, 12), (6, 6)]
    assert outputs_of(factored(ChannelSVD(rank=2), square)) == [(6, 6), (6, 6)]
    horizontal = nn.Conv2d(4, 6, (1, 3), stride=(3, 2), padding=(0, 1))
    assert outputs_of(factored(Tucker(rank=2), horizontal)) == [(4, 12), (4, 6), (4, 6)]
    assert outputs_of(factored(CP(rank=2), horizontal)) == [(4, 12), (4, 6), (4, 6)]
    assert outputs_of(factored(SpatialSVD(rank=2), horizontal)) == [(4, 12), (4, 6)]
    point = nn.Conv2d(4, 6, 1, stride=2)
    for technique in (Tucker(rank=2), CP(rank=2), CP(rank=2, ways=3), SpatialSVD(rank=2), ChannelSVD(rank=2)):
        assert outputs_of(factored(technique, point)) == [(6, 6), (6, 6)]


def test_transposed_convolutions_stay_small_as_long_as_they_can() -> None:
    layer = nn.ConvTranspose2d(4, 6, 3, stride=2)
    assert outputs_of(factored(ChannelSVD(rank=2), layer)) == [(12, 12), (25, 25)]
    assert outputs_of(factored(Tucker(rank=2), layer)) == [(12, 12), (25, 25), (25, 25)]
    assert outputs_of(factored(SpatialSVD(rank=2), layer)) == [(25, 12), (25, 25)]


@pytest.mark.parametrize("method", METHODS)
def test_each_group_is_decomposed_on_its_own(method: str) -> None:
    layer = nn.Conv2d(6, 8, 3, groups=2, padding=1).double()
    technique = METHODS[method](rank=2)
    whole = factored(technique, layer)
    assert whole is not None
    for group in range(2):
        part = nn.Conv2d(3, 4, 3, padding=1).double()
        part.weight.data = layer.weight.data[group * 4 :][:4]
        alone = factored(technique, part)
        assert alone is not None
        # The signs of singular vectors may differ, their products may not.
        assert relative(whole.weight[group * 4 :][:4], alone.weight) < EXACT


@pytest.mark.parametrize("method", METHODS)
def test_unbatched_images(method: str) -> None:
    layer = nn.Conv2d(4, 6, 3)
    built = factored(METHODS[method](rank=2), layer)
    x = inputs_of(layer)
    torch.testing.assert_close(built(x[0]), built(x)[0])


# --- ranks


def test_ranks_above_the_maximum_name_layer_and_maximum() -> None:
    layer = nn.Sequential(nn.ReLU(), nn.Conv2d(6, 8, 3))
    for technique, full in (
        (Tucker(rank=9), 8),
        (Tucker(rank=(8, 7)), 6),
        (Tucker(rank=(9, 6)), 8),
        (CP(rank=55), 54),
        (CP(rank=55, ways=3), 48),
        (SpatialSVD(rank=19), 18),
        (ChannelSVD(rank=9), 8),
        (METHODS["DepthwiseSVD"](rank=9), 8),
    ):
        message = f"layer '1': rank: expected an integer from 1 to the full rank {full}, found"
        with pytest.raises(InvalidArgument, match=message):
            optimize(layer, technique, keep_if="always")


def test_a_rule_that_finds_no_rank_gives_one_and_says_so() -> None:
    """EVBMF of noise is 0; a published implementation needs matrices with more columns than rows, and crashes on both.

    64 x 27 is the unfolding of the first convolution of most networks.
    """
    layer = nn.Conv2d(3, 64, 3)
    torch.manual_seed(3)
    nn.init.normal_(layer.weight)
    report = optimize(layer, Tucker(rank=netopt.factorization.EVBMF(), multiple=1), keep_if="always").report
    assert report.rows[0].reason == "Tucker(3 -> 1 [3 x 3] 1 -> 64); EVBMF rank 0 x 0 -> 1 x 1"
    report = optimize(layer, ChannelSVD(rank=netopt.factorization.EVBMF(), multiple=16), keep_if="always").report
    assert report.rows[0].reason.endswith("EVBMF rank 0 -> 16")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("dtype", "was_bfloat16"), [(torch.float32, False), (torch.float32, True), (torch.float64, False)]
)
def test_evbmf_finds_the_rank_of_a_kernel_without_noise(method: str, dtype: torch.dtype, was_bfloat16: bool) -> None:
    """In the numbers that the layer has, or had once: its weight is decomposed in float64."""
    layer = nn.Conv2d(24, 32, 3).to(dtype)
    kernel = torch.einsum("t,s,a,b->tsab", *(torch.randn(n) for n in layer.weight.shape))
    layer.weight.data = (kernel.bfloat16() if was_bfloat16 else kernel).to(dtype)
    technique = METHODS[method](rank=netopt.factorization.EVBMF(), multiple=1)
    row = optimize(layer, technique, keep_if="always").report.rows[0]
    assert "EVBMF rank 1 x 1" in row.reason if method == "Tucker" else "EVBMF rank 1" in row.reason


@pytest.mark.parametrize("method", METHODS)
def test_evbmf_finds_the_rank_of_a_kernel_with_noise(method: str) -> None:
    layer = nn.Conv2d(24, 32, 3)
    kernel = torch.einsum("t,s,a,b->tsab", *(torch.randn(n) for n in layer.weight.shape))
    layer.weight.data = kernel + 0.01 * torch.randn(kernel.shape)
    row = optimize(layer, METHODS[method](rank=netopt.factorization.EVBMF(), multiple=1)).report.rows[0]
    assert "EVBMF rank 1 x 1" in row.reason if method == "Tucker" else "EVBMF rank 1" in row.reason


@pytest.mark.parametrize(
    ("target", "rank"),
    [
        ("x86-64-linux-avx-avx2-avx512-avx512_skylake-f16c-fma-sse41", 48),
        ("x86-64-linux-avx-avx2-f16c-fma-sse41", 40),
        ("arm-64-linux", 44),
        (None, {16: 48, 8: 40, 4: 44}[Lowering().cpu.lanes]),
    ],
)
def test_ranks_are_multiples_of_the_vectors_of_the_cpu(target: str | None, rank: int) -> None:
    """42 of 96 channels: the CPU is that of this machine, or the one that is asked for."""
    layer = nn.Conv2d(96, 96, 3)
    technique = ChannelSVD(rank=0.4375)
    row = optimize(layer, technique, keep_if="always", target=target).report.rows[0]
    assert row.reason == f"ChannelSVD(96 [3 x 3] {rank} -> 96); rank 42 -> {rank}"
    assert technique.multiple is None


def test_a_budget_chooses_among_multiples_of_the_vectors() -> None:
    layer = handle(nn.Conv2d(96, 96, 3))
    ranks = lambda lanes: [choice.ranks[0] for choice in ChannelSVD(rank=1).choices(replace(layer, lanes=lanes))]
    assert ranks(8) == list(range(8, 84, 8))
    assert ranks(16) == list(range(16, 84, 16))


def test_ranks_that_rules_find_are_rounded_for_the_kernels_and_numbers_are_not() -> None:
    layer = nn.Conv2d(64, 96, 3)
    reason = lambda technique: optimize(layer, technique).report.rows[0].reason
    assert reason(Tucker(rank=0.3, multiple=16)) == "Tucker(64 -> 16 [3 x 3] 32 -> 96); rank 29 x 19 -> 32 x 16"
    assert reason(Tucker(rank=0.3, multiple=8)) == "Tucker(64 -> 16 [3 x 3] 32 -> 96); rank 29 x 19 -> 32 x 16"
    assert reason(Tucker(rank=0.3, multiple=1)) == "Tucker(64 -> 19 [3 x 3] 29 -> 96)"
    assert reason(Tucker(rank=0.25, multiple=16)) == "Tucker(64 -> 16 [3 x 3] 32 -> 96); rank 24 x 16 -> 32 x 16"
    assert reason(ChannelSVD(rank=0.3, multiple=16)) == "ChannelSVD(64 [3 x 3] 32 -> 96); rank 29 -> 32"
    assert reason(ChannelSVD(rank=29)) == "ChannelSVD(64 [3 x 3] 29 -> 96)"
    assert reason(ChannelSVD(rank=lambda w: w.shape[0] // 5)) == "ChannelSVD(64 [3 x 3] 19 -> 96)"
    assert reason(METHODS["DepthwiseSVD"](rank=0.3)) == "DepthwiseSVD(64 [3 x 3] 192 -> 96)"


@pytest.mark.parametrize("method", METHODS)
def test_energy_keeps_its_share_with_the_least_rank(method: str) -> None:
    layer = nn.Conv2d(8, 10, 3).double()
    technique = METHODS[method](rank=Energy(0.6), multiple=1)
    built = factored(technique, layer)
    assert built is not None
    lost = relative(built.weight, layer.weight) ** 2
    # Two modes cut, each to 0.6, keep at least 0.2. The rank of CP is sought with fewer steps than its factors.
    assert lost <= {"Tucker": 0.8}.get(method, 0.4) + 1e-9
    if method in ("SpatialSVD", "ChannelSVD", "DepthwiseSVD"):
        found = technique.decomposition(handle(layer))
        (rank,) = found.at_energy(0.6)
        assert rank > 1
        assert relative(found.build((rank - 1,)).weight, layer.weight) ** 2 > 0.4
        assert found.loss((rank,)) == pytest.approx(lost)


@pytest.mark.parametrize("method", METHODS)
def test_the_error_falls_as_the_rank_grows(method: str) -> None:
    layer = nn.Conv2d(6, 8, 3).double()
    found = METHODS[method](rank=1).decomposition(handle(layer))
    most = min(found.full)
    errors = [found.error(found.build(found.at_number(rank))) for rank in range(1, most + 1, max(1, most // 5))]
    # Alternating least squares ends in one of many minima.
    slack = 0.02 if method.startswith("CP") else 0.0
    assert all(before + slack >= after for before, after in pairwise(errors))
    assert errors[0] > errors[-1]


# --- what is preserved


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dtypes(method: str, dtype: torch.dtype) -> None:
    """Half precision is decomposed in float64, and rounded once."""
    layer = nn.Conv2d(8, 10, 3, padding=1).to(dtype)
    built = factored(METHODS[method](rank=0.5, multiple=1), layer)
    exact = factored(METHODS[method](rank=0.5, multiple=1), copy.deepcopy(layer).double())
    assert built is not None and exact is not None
    assert {parameter.dtype for parameter in built.parameters()} == {dtype}
    assert built(inputs_of(layer)).dtype is dtype
    for low, high in zip(built.parameters(), exact.parameters(), strict=True):
        # 2^-11 for float16, 2^-8 for bfloat16; singular vectors keep their signs, as both are computed in float64.
        torch.testing.assert_close(low, high.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_the_error_in_half_precision_is_that_of_the_rounded_factors(method: str) -> None:
    """And not that of multiplying them in half precision, which the network does not do."""
    layer = nn.Conv2d(8, 10, 3).half()
    result = optimize(layer, METHODS[method](rank=1.0), keep_if="always")
    exact = copy.deepcopy(result.model).double()
    assert result.report.rows[0].error == pytest.approx(relative(exact.weight, layer.weight), rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_mode_gradients_and_bias_survive(method: str) -> None:
    for weight_trains in (True, False):
        for bias_trains in (True, False):
            layer = nn.Conv2d(6, 8, 3).train(weight_trains)
            layer.weight.requires_grad_(weight_trains)
            layer.bias.requires_grad_(bias_trains)
            built = METHODS[method](rank=2).replace(handle(layer)).build()
            last = built[-1]
            assert last.bias is layer.bias
            assert last.bias.requires_grad is bias_trains
            assert all(stage.weight.requires_grad is weight_trains for stage in built)
            assert all(stage.bias is None for stage in list(built)[:-1])
            assert {module.training for module in built.modules()} == {weight_trains}
            assert {parameter.device for parameter in built.parameters()} == {layer.weight.device}


@pytest.mark.parametrize("method", METHODS)
def test_the_callers_model_and_random_states_are_left_alone(method: str) -> None:
    model = nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    before = copy.deepcopy(model.state_dict())
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002  # it must not change
    x = torch.randn(4, 6, 9, 9, generator=torch.Generator().manual_seed(0))
    kept = x.clone()
    new = optimize(model, METHODS[method](rank=0.4, multiple=1), keep_if="always", calibration=x).model
    assert torch.equal(torch.get_rng_state(), torch_state)
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(numpy_state, after, strict=True))
    assert torch.equal(x, kept)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_a_function_may_do_what_it_likes_with_its_copy_of_the_weight(method: str) -> None:
    layer = nn.Conv2d(6, 8, 3)
    seen: list[torch.Size] = []

    def vandal(weight: torch.Tensor) -> int:
        seen.append(weight.shape)
        weight.zero_()
        return 2

    new = optimize(layer, METHODS[method](rank=vandal), keep_if="always").model
    assert seen == [layer.weight.shape]
    assert new.weight.abs().sum() > 0


class ByName(nn.Module):
    """Convolutions deep inside, called by their names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleDict({"a": nn.Sequential(nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1)])[0])})
        self.blocks["a"].inner = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2), nn.ReLU())
        self.head = nn.Conv2d(12, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        block = self.blocks["a"]
        return self.head(block.inner(block[0](x) + x))


@pytest.mark.parametrize("method", METHODS)
def test_layers_at_any_depth_and_layers_called_by_name(method: str) -> None:
    """A published implementation looks at the children of `model.features` alone."""
    model, x = ByName(), torch.randn(2, 3, 9, 9)
    result = optimize(model, METHODS[method](rank=1), keep_if="always")
    names = [name for name, module in result.model.named_modules() if isinstance(module, FactoredConv)]
    expected = ["stem", "blocks.a.0", "blocks.a.inner.0", "head"]
    assert names == (expected[:3] if method == "DepthwiseSVD" else expected)
    composed = copy.deepcopy(model)
    for name in names:
        composed.get_submodule(name).weight.data = result.model.get_submodule(name).weight.detach()
    # Sums in float32 in another order.
    torch.testing.assert_close(result.model(x), composed(x), rtol=1e-4, atol=1e-5)


def test_a_convolution_used_twice_is_replaced_in_both_places() -> None:
    shared = nn.Conv2d(6, 6, 3, padding=1)
    new = optimize(nn.Sequential(shared, nn.ReLU(), shared), Tucker(rank=2)).model
    assert new[0] is new[2]
    assert isinstance(new[0], FactoredConv)


@pytest.mark.parametrize("method", METHODS)
def test_all_stages_train(method: str) -> None:
    layer = nn.Conv2d(6, 8, 3)
    built = factored(METHODS[method](rank=2), layer)
    assert built is not None
    built(inputs_of(layer)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in built.parameters())


# --- what cannot be done


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_weights_that_are_not_finite(method: str, poison: float) -> None:
    model = nn.Sequential(nn.Conv2d(6, 8, 3))
    with torch.no_grad():
        model[0].weight[3, 2, 1, 0] = poison
    with pytest.raises(InvalidArgument, match="layer '0': weight: expected finite numbers, found NaN or infinity"):
        optimize(model, METHODS[method](rank=1))


@pytest.mark.parametrize("method", METHODS)
def test_weights_without_values(method: str) -> None:
    with pytest.raises(NetoptError, match="layer '0': weight: expected values, found a tensor on the meta device"):
        optimize(nn.Sequential(nn.Conv2d(6, 8, 3, device="meta")), METHODS[method](rank=1))


@pytest.mark.parametrize("method", METHODS)
def test_weights_of_zeros(method: str) -> None:
    layer = nn.Conv2d(6, 8, 3, padding=1)
    nn.init.zeros_(layer.weight)
    for rank in (2, 0.5, Energy(0.9), netopt.factorization.EVBMF()):
        result = optimize(layer, METHODS[method](rank=rank, multiple=1), keep_if="always", calibration=inputs_of(layer))
        assert torch.equal(result.model.weight, layer.weight)
        assert result.report.rows[0].error == 0


def test_a_replacement_that_saves_nothing() -> None:
    """8 channels to 8: 1 x 1 kernels of rank 4 have 64 weights, as the layer has."""
    result = optimize(nn.Conv2d(8, 8, 1), ChannelSVD(rank=4))
    assert result.report.rows[0].reason == "saves nothing: 72 parameters, not fewer than 72"
    result = optimize(nn.Conv2d(8, 8, 1), ChannelSVD(rank=0.45, multiple=4))
    assert result.report.rows[0].reason == "saves nothing: 72 parameters, not fewer than 72"
    result = optimize(nn.Conv2d(24, 24, 1), ChannelSVD(rank=0.3))
    assert result.report.rows[0].reason == "rank 7 -> 16 saves nothing: 792 parameters, not fewer than 600"


def test_types_that_are_not_exactly_a_convolution() -> None:
    class Other(nn.Conv2d):
        pass

    for layer in (Other(6, 8, 3), nn.Conv3d(6, 8, 3), nn.ConvTranspose3d(6, 8, 3)):
        result = optimize(layer, Tucker(rank=2))
        assert type(result.model) is type(layer)
        assert not result.report.rows
    for name in (*CONV1D, "transposed 1d"):
        assert not optimize(LAYERS[name](), SpatialSVD(rank=1)).report.rows


# --- calibration


def error_on(built: nn.Module, layer: nn.Module, x: torch.Tensor) -> float:
    """Of the outputs without the bias, which both have."""
    with torch.no_grad():
        bias = 0.0 if layer.bias is None else layer.bias.view(-1, *(1,) * len(layer.kernel_size))
        return relative(built(x) - bias, layer(x) - bias)


@pytest.mark.parametrize(("method", "name"), [(m, n) for m, n in PAIRS if not n.startswith("transposed")])
def test_calibration_lowers_the_error_of_the_output_and_the_report_tells_it(method: str, name: str) -> None:
    layer = LAYERS[name]().double()
    x = correlated(layer)
    technique = METHODS[method](rank=lambda weight: 2 if weight.flatten(2).shape[2] > 1 else 1)
    plain = optimize(layer, technique, keep_if="always")
    aware = optimize(layer, technique, keep_if="always", calibration=x)
    row = aware.report.rows[0]
    # The moments are summed in float32: 8 images x 143 places, of up to 50 terms.
    assert row.error == pytest.approx(error_on(aware.model, layer, x), rel=1e-3)
    assert row.error < 0.99 * error_on(plain.model, layer, x)
    assert row.reason == plain.report.rows[0].reason
    check_composed(aware.model, layer, inputs_of(layer))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["padding by axis", "groups", "transposed, groups"])
def test_the_error_in_the_report_is_that_of_the_weights(method: str, name: str) -> None:
    if (method, name) not in PAIRS:
        return
    layer = LAYERS[name]()
    result = optimize(layer, METHODS[method](rank=0.4, multiple=1), keep_if="always")
    # The composed kernel is computed in float32 here and in float64 there.
    assert result.report.rows[0].error == pytest.approx(relative(result.model.weight, layer.weight), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_full_rank_on_calibration_inputs_that_leave_directions_out(method: str) -> None:
    """Channels that are always 0, as after ReLU they may be, and fewer inputs than weights."""
    layer = nn.Conv2d(6, 8, 3).double()
    x = inputs_of(layer, batch=1)[..., :4, :4].clone()
    x[:, 3:] = 0
    result = optimize(layer, METHODS[method](rank=1.0), keep_if="always", calibration=x)
    assert result.report.rows[0].error < 1e-3
    assert torch.isfinite(result.model.weight).all()
    assert error_on(result.model, layer, x) < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_calibration_of_a_layer_inside_a_network(method: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3)).double()
    x = correlated(model[0])
    technique = METHODS[method](rank=2, select="2")
    errors = []
    for calibration in (None, x, [x[:3], x[3:]], [(x, torch.zeros(8, dtype=torch.long))]):
        result = optimize(model, technique, keep_if="always", calibration=calibration)
        assert isinstance(result.model[2], FactoredConv)
        with torch.no_grad():
            errors.append(error_on(result.model[2], model[2], model[:2](x)))
    assert errors[1] < errors[0]
    assert errors[2:] == [pytest.approx(errors[1], rel=1e-3)] * 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_calibration_in_half_precision(dtype: torch.dtype) -> None:
    layer = nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect").to(dtype)
    x = correlated(layer)
    for method in METHODS.values():
        plain, aware = (optimize(layer, method(rank=2), keep_if="always", calibration=c) for c in (None, x))
        full = copy.deepcopy(layer).double()
        errors = [error_on(copy.deepcopy(r.model).double(), full, x.double()) for r in (plain, aware)]
        assert errors[1] < errors[0]
        assert aware.report.rows[0].error == pytest.approx(errors[1], rel=1e-3)


def test_calibration_of_a_layer_that_is_not_called() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.auxiliary = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    x = torch.randn(2, 3, 8, 8)
    with pytest.raises(InvalidArgument, match="layer 'auxiliary': calibration: expected inputs for which"):
        optimize(Unused(), Tucker(rank=2), calibration=x)
    assert optimize(Unused(), Tucker(rank=2, select="used"), calibration=x).report.rows[0].replaced


def test_calibration_inputs_that_are_not_finite() -> None:
    x = torch.randn(2, 6, 8, 8)
    x[0, 0, 0, 0] = math.nan
    with pytest.raises(InvalidArgument, match="the model itself: calibration: expected finite inputs"):
        optimize(nn.Conv2d(6, 8, 3), Tucker(rank=2), calibration=x)


# --- lowering


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("Tucker", "stride, dilation, padding"),
        ("CP", "groups"),
        ("CP of 3 ways", "padding by axis"),
        ("SpatialSVD", "same"),
        ("ChannelSVD", "1 x 1, strided"),
        ("DepthwiseSVD", "padding by axis"),
        ("ChannelSVD", "transposed, stride"),
    ],
)
def test_lowered_replacements(method: str, name: str) -> None:
    layer = LAYERS[name]()
    built = factored(METHODS[method](rank=0.5, multiple=1), layer)
    assert built is not None
    x = inputs_of(layer, batch=1)
    program = netopt.lower(built.eval(), x)
    (bounded,) = judge(run_passes(capture(built, x)[0]), [x])
    assert_within(program(x), bounded)
    assert program.multiply_adds == Cost.of(built, [x.shape]).multiply_adds
