"""SVD of dense layers. A docstring that names a predecessor tells of a defect that it has."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netopt import FileFormatError, InvalidArgument, InvalidType, Layer, NetoptError, optimize
from netopt.factorization import SVD, Energy, FactoredDense, factor_dense, svd_factors

EPS = 2.0**-23


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 30), nn.GELU(), nn.Linear(30, 4))


def quarter(weight: torch.Tensor) -> int:
    return max(1, min(weight.shape) // 4)


# --- the mathematics


@settings(max_examples=40, derandomize=True, deadline=None)
@given(m=st.integers(1, 40), n=st.integers(1, 40), seed=st.integers(0, 99), data=st.data())
def test_error_is_that_of_the_discarded_singular_values(m: int, n: int, seed: int, data: st.DataObject) -> None:
    """Eckart and Young, 1936. In float64 LAPACK's backward error is a small multiple of eps x the norm."""
    weight = torch.randn(m, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rank = data.draw(st.integers(1, min(m, n)))
    u, v = svd_factors(weight, rank)
    assert (u.shape, v.shape) == ((m, rank), (rank, n))
    discarded = torch.linalg.svdvals(weight)[rank:].square().sum().sqrt()
    error = torch.linalg.norm(weight - u @ v)
    assert abs(error - discarded) <= 1e-12 * torch.linalg.norm(weight)


@settings(max_examples=30, derandomize=True, deadline=None)
@given(m=st.integers(1, 60), n=st.integers(1, 60), batch=st.integers(1, 3), bias=st.booleans())
def test_full_rank_reproduces_the_layer(m: int, n: int, batch: int, bias: bool) -> None:
    linear = nn.Linear(n, m, bias=bias)
    u, v = svd_factors(linear.weight.detach(), min(m, n))
    factored = FactoredDense(u, v, linear.bias)
    x = torch.randn(batch, n)
    # The SVD's error is of the order of eps x the norm of W; the two products add k and n roundings of their terms.
    size = torch.linalg.norm(linear.weight, 2) * torch.linalg.norm(x, dim=1, keepdim=True) + 1
    assert ((factored(x) - linear(x)).abs() <= 16 * (min(m, n) + n) ** 0.5 * EPS * size).all()


def test_singular_values_are_split_between_the_factors() -> None:
    """nnabla gives them all to one factor, CNTK to the other: badly conditioned for retraining."""
    weight = torch.randn(12, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, v = svd_factors(weight, 5)
    root = torch.linalg.svdvals(weight)[:5].sqrt()
    torch.testing.assert_close(torch.linalg.norm(u, dim=0), root)
    torch.testing.assert_close(torch.linalg.norm(v, dim=1), root)
    torch.testing.assert_close(u.T @ u, torch.diag(root.square()))


def test_rank_one_and_zero_weights() -> None:
    u, v = svd_factors(torch.outer(torch.arange(1.0, 5.0), torch.arange(3.0)), 1)
    torch.testing.assert_close(u @ v, torch.outer(torch.arange(1.0, 5.0), torch.arange(3.0)))
    u, v = svd_factors(torch.zeros(4, 3), 2)
    assert torch.equal(u @ v, torch.zeros(4, 3))


# --- factor_dense


def test_the_layers_activation_survives() -> None:
    """CNTK's factor_dense drops the activation of every layer that it factors."""
    model, x = network(), torch.randn(5, 20)
    new = factor_dense(model, projection_function=quarter)
    y = x
    for old, module in zip(model, new, strict=True):
        y = old(y) if not isinstance(module, FactoredDense) else y @ module.weight.T + old.bias
    torch.testing.assert_close(new(x), y)
    assert [type(module) for module in new] == [FactoredDense, nn.ReLU, FactoredDense, nn.GELU, FactoredDense]


def test_no_filter_means_every_dense_layer_and_only_those() -> None:
    """CNTK's predicate, by operator precedence, matches every node when there is no filter."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(72, 64), nn.LayerNorm(64), nn.Linear(64, 32))
    new = factor_dense(model, projection_function=lambda w: 2)
    assert [isinstance(module, FactoredDense) for module in new] == [False, False, True, False, True]


def test_the_filter_is_asked_for_dense_layers_alone() -> None:
    asked: list[str] = []

    def keep_last(layer: Layer) -> bool:
        asked.append(layer.name)
        return not layer.is_last

    new = factor_dense(network(), quarter, keep_last)
    assert asked == ["0", "2", "4"]
    assert [isinstance(new[i], FactoredDense) for i in (0, 2, 4)] == [True, True, False]


def test_square_layers_by_their_weight() -> None:
    new = factor_dense(network(), quarter, lambda layer: layer.weight.shape[0] == layer.weight.shape[1])
    assert [isinstance(new[i], FactoredDense) for i in (0, 2, 4)] == [False, True, False]


def test_layers_without_bias() -> None:
    """CNTK's factor_dense crashes on them."""
    model, x = nn.Sequential(nn.Linear(20, 20, bias=False)), torch.randn(3, 20)
    new = factor_dense(model, projection_function=lambda w: 3)
    assert new[0].bias is None
    assert list(new.state_dict()) == ["0.v.weight", "0.u.weight"]
    torch.testing.assert_close(new(x), x @ new[0].weight.T)


@pytest.mark.parametrize("rank", [0, -2, 21])
def test_ranks_out_of_range(rank: int) -> None:
    with pytest.raises(
        InvalidArgument, match=rf"layer '0': rank: expected an integer from 1 to the full rank 20, found {rank}"
    ):
        factor_dense(network(), projection_function=lambda w: rank)


def test_a_rank_that_saves_nothing_leaves_the_layer_alone() -> None:
    """12 x (20 + 30) = 600 = 20 x 30."""
    result = optimize(network(), SVD(rank=12, select="0"))
    assert type(result.model[0]) is nn.Linear
    assert result.report.rows[0].reason == "saves nothing: 630 parameters, not fewer than 630"
    by_rule = optimize(network(), SVD(rank=0.6, multiple=4, select="0")).report.rows[0]
    assert by_rule.reason == "saves nothing: 630 parameters, not fewer than 630"
    rounded = optimize(network(), SVD(rank=0.55, multiple=4, select="0")).report.rows[0]
    assert rounded.reason == "rank 11 -> 12 saves nothing: 630 parameters, not fewer than 630"
    assert isinstance(optimize(network(), SVD(rank=11, select="0")).model[0], FactoredDense)


@pytest.mark.parametrize("shape", [(20,), (2, 20), (2, 3, 4, 20), (0, 20)])
def test_inputs_of_any_leading_shape(shape: tuple[int, ...]) -> None:
    new = factor_dense(nn.Linear(20, 30), projection_function=lambda w: 4)
    assert isinstance(new, FactoredDense)
    x = torch.randn(shape)
    assert new(x).shape == (*shape[:-1], 30)
    torch.testing.assert_close(new(x), x @ new.weight.T + new.bias)


def test_a_linear_used_twice() -> None:
    shared = nn.Linear(16, 16)
    new = factor_dense(nn.Sequential(shared, nn.ReLU(), shared), projection_function=lambda w: 3)
    assert new[0] is new[2]
    assert isinstance(new[0], FactoredDense)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_of_the_factorization(dtype: torch.dtype) -> None:
    """W is factored in float32 or better, and the factors rounded once; users' functions get that type, too."""
    seen: list[torch.dtype] = []

    def note(weight: torch.Tensor) -> int:
        seen.append(weight.dtype)
        return 8

    linear = nn.Linear(30, 40).to(dtype)
    new = factor_dense(linear, projection_function=note)
    assert seen == [torch.float64 if dtype is torch.float64 else torch.float32]
    assert {parameter.dtype for parameter in new.parameters()} == {dtype}
    u, v = svd_factors(linear.weight.detach().to(seen[0]), 8)
    assert torch.equal(new.u.weight.detach(), u.to(dtype))
    assert torch.equal(new.v.weight.detach(), v.to(dtype))


def test_mode_gradients_and_bias_survive() -> None:
    model = network().eval()
    model[0].weight.requires_grad_(False)
    model[2].bias.requires_grad_(False)
    new = factor_dense(model, quarter)
    assert not any(module.training for module in new.modules())
    flags = {name: parameter.requires_grad for name, parameter in new.named_parameters()}
    assert (flags["0.v.weight"], flags["0.u.weight"], flags["0.u.bias"]) == (False, False, True)
    assert (flags["2.v.weight"], flags["2.u.weight"], flags["2.u.bias"]) == (True, True, False)
    assert torch.equal(new[0].bias, model[0].bias)
    assert new[0].bias.data_ptr() != model[0].bias.data_ptr()


def test_the_callers_model_and_random_state_are_left_alone() -> None:
    model = network()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()

    def vandal(weight: torch.Tensor) -> int:
        weight.zero_()
        return 3

    factor_dense(model, projection_function=vandal)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_what_the_factored_layer_tells() -> None:
    new = factor_dense(nn.Linear(20, 30), projection_function=lambda w: 4)
    assert (new.in_features, new.out_features, new.rank, new.weight.shape) == (20, 30, 4, (30, 20))
    assert repr(new) == "FactoredDense(20 -> 4 -> 30, bias=True)"


def test_code_that_reads_the_layers_weight_still_works() -> None:
    """nn.TransformerEncoderLayer passes the weights of its dense layers to a fused kernel in eval mode."""
    layer = nn.TransformerEncoderLayer(32, 4, 128, batch_first=True, dropout=0.0).eval()
    new = factor_dense(layer, lambda w: 8)
    assert isinstance(new.linear1, FactoredDense)
    x = torch.randn(2, 5, 32)
    with torch.no_grad():
        fused = new(x)
    # The fused kernel multiplies by U V in one product: the order of the additions differs.
    torch.testing.assert_close(fused, new.train()(x), rtol=1e-4, atol=1e-5)


def test_both_factors_train() -> None:
    new = factor_dense(nn.Linear(20, 30), projection_function=lambda w: 4)
    new(torch.randn(8, 20)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in new.parameters())


# --- functions of the user


def test_a_factor_function_of_the_users() -> None:
    def halves(weight: torch.Tensor, rank: int) -> tuple[Any, Any]:
        assert rank == 3
        return np.ones((weight.shape[0], rank)), np.full((rank, weight.shape[1]), 2.0)

    new = factor_dense(nn.Linear(20, 30), lambda w: 3, factor_function=halves)
    assert torch.equal(new.weight, torch.full((30, 20), 6.0))
    assert new.u.weight.dtype is torch.float32


def test_without_a_projection_the_factors_decide_the_rank() -> None:
    given: list[int] = []

    def two(weight: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        given.append(rank)
        return svd_factors(weight, 2)

    new = factor_dense(network(), factor_function=two)
    assert given == [20, 30, 4]
    assert [module.rank for module in new if isinstance(module, FactoredDense)] == [2, 2, 2]


@pytest.mark.parametrize(
    ("u", "v", "found"),
    [
        ((30, 3), (20, 3), r"U \(30, 3\) and V \(20, 3\)"),
        ((20, 3), (3, 30), r"U \(20, 3\) and V \(3, 30\)"),
        ((30, 4), (4, 20), r"U \(30, 4\) and V \(4, 20\)"),
        ((30, 3), (2, 20), r"U \(30, 3\) and V \(2, 20\)"),
        ((30,), (20,), r"U \(30,\) and V \(20,\)"),
    ],
)
def test_factors_of_the_wrong_shape_name_the_layer_and_both_shapes(
    u: tuple[int, ...], v: tuple[int, ...], found: str
) -> None:
    with pytest.raises(
        InvalidArgument, match=rf"layer '0': factors: expected U \(30, 3\) and V \(3, 20\), found {found}"
    ):
        factor_dense(network(), lambda w: 3, factor_function=lambda w, k: (torch.ones(u), torch.ones(v)))


def test_factors_that_are_none_or_not_finite() -> None:
    with pytest.raises(InvalidType, match=r"layer '0': factor_function: expected a pair \(U, V\), found Tensor"):
        factor_dense(network(), lambda w: 3, factor_function=lambda w, k: w)  # type: ignore[arg-type, return-value]
    with pytest.raises(InvalidType, match="layer '0': factor_function: expected two matrices"):
        factor_dense(network(), lambda w: 3, factor_function=lambda w, k: ("u", "v"))
    bad = lambda w, k: (torch.full((w.shape[0], k), float("nan")), torch.ones(k, w.shape[1]))
    with pytest.raises(InvalidArgument, match="layer '0': factors: expected finite numbers"):
        factor_dense(network(), lambda w: 3, factor_function=bad)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(poison: float) -> None:
    model = network()
    with torch.no_grad():
        model[2].weight[3, 4] = poison
    with pytest.raises(InvalidArgument, match="layer '2': weight: expected finite numbers, found NaN or infinity"):
        factor_dense(model, quarter)
    # A layer that is filtered out is not looked at.
    assert isinstance(factor_dense(model, quarter, lambda layer: layer.name != "2")[0], FactoredDense)


def test_arguments_that_are_missing_or_no_functions() -> None:
    with pytest.raises(
        InvalidArgument, match="expected a projection_function, a factor_function or both, found neither"
    ):
        factor_dense(network())
    with pytest.raises(InvalidType, match="projection_function: expected a function, found 3"):
        factor_dense(network(), 3)  # type: ignore[arg-type]
    with pytest.raises(InvalidType, match="filter_function: expected a function, found 'fc'"):
        factor_dense(network(), quarter, "fc")  # type: ignore[arg-type]
    with pytest.raises(NetoptError, match="meta device"):
        factor_dense(nn.Linear(9, 9, device="meta"), lambda w: 2)


# --- the technique


@pytest.mark.parametrize(("rank", "expected"), [(3, 3), (0.25, 5), (Energy(0.5), None), (lambda w: 4, 4)])
def test_rank_rules(rank: Any, expected: int | None) -> None:
    linear = nn.Linear(20, 30)
    if expected is None:
        shares = torch.linalg.svdvals(linear.weight.detach()).square()
        expected = int((shares.cumsum(0) / shares.sum() < 0.5).sum()) + 1
    model = optimize(linear, SVD(rank=rank)).model
    assert isinstance(model, FactoredDense)
    assert model.rank == expected


def test_report_of_costs() -> None:
    (row,) = optimize(nn.Linear(20, 30), SVD(rank=4)).report.rows
    assert (row.before.parameters, row.before.multiply_adds) == (630, 600)
    assert (row.after.parameters, row.after.multiply_adds) == (4 * 50 + 30, 4 * 50)


def test_options_are_checked_when_built() -> None:
    with pytest.raises(InvalidArgument, match="rank"):
        SVD(rank=0)
    with pytest.raises(InvalidType, match="selection"):
        SVD(rank=1, select=5)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        SVD(rank=1).rank = 2  # type: ignore[misc]


# --- calibration


def correlated(rows: int, columns: int, directions: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    mixture = torch.randn(directions, columns, generator=generator)
    noise = 0.1 * torch.randn(rows, columns, generator=generator)
    return torch.randn(rows, directions, generator=generator) @ mixture + noise


def error_on(new: nn.Module, old: nn.Linear, x: torch.Tensor) -> float:
    """Of the outputs without the bias, which both have."""
    with torch.no_grad():
        difference, size = new(x) - old(x), old(x) - (0 if old.bias is None else old.bias)
    return float(torch.linalg.vector_norm(difference) / torch.linalg.vector_norm(size))


@pytest.mark.parametrize("bias", [True, False])
def test_calibration_gives_the_least_error_of_the_outputs(bias: bool) -> None:
    linear, x = nn.Linear(20, 30, bias=bias), correlated(200, 20, 4)
    plain = optimize(linear, SVD(rank=4))
    aware = optimize(linear, SVD(rank=4), calibration=x)
    error = error_on(aware.model, linear, x)
    assert aware.report.rows[0].error == pytest.approx(error, rel=1e-4)
    assert error < 0.5 * error_on(plain.model, linear, x)
    # Eckart and Young, 1936, of the outputs.
    s = torch.linalg.svdvals(x @ linear.weight.detach().T)
    assert error == pytest.approx(float(s[4:].norm() / s.norm()), rel=1e-4)


def test_error_in_the_report_without_calibration() -> None:
    linear = nn.Linear(20, 30)
    s = torch.linalg.svdvals(linear.weight.detach())
    row = optimize(linear, SVD(rank=4)).report.rows[0]
    assert row.error == pytest.approx(float(s[4:].norm() / s.norm()), rel=1e-5)


def test_energy_of_the_outputs() -> None:
    linear, x = nn.Linear(20, 30), correlated(200, 20, 4)
    assert optimize(linear, SVD(rank=Energy(0.97)), calibration=x).model.rank == 4
    assert optimize(linear, SVD(rank=Energy(0.97)), keep_if="always").model.rank > 10


@pytest.mark.parametrize("rank", [3, 11, 20])
def test_calibration_inputs_that_leave_directions_out(rank: int) -> None:
    """Five inputs of twenty features, some of them always 0: outputs span five directions, ranks go beyond."""
    linear, x = nn.Linear(20, 30), torch.randn(5, 20)
    x[:, 7:] = 0
    new = optimize(linear, SVD(rank=rank), keep_if="always", calibration=x).model
    assert all(torch.isfinite(parameter).all() for parameter in new.parameters())
    # Both factors are of one size, also where the outputs are 0.
    torch.testing.assert_close(new.u.weight.norm(dim=0), new.v.weight.norm(dim=1), rtol=1e-4, atol=1e-6)
    if rank >= 5:
        assert error_on(new, linear, x) < 1e-5


@pytest.mark.parametrize("shape", [(20,), (7, 20), (2, 3, 4, 20)])
def test_calibration_inputs_of_any_leading_shape(shape: tuple[int, ...]) -> None:
    linear, x = nn.Linear(20, 30), torch.randn(shape)
    result = optimize(linear, SVD(rank=4), calibration=[x])
    assert result.report.rows[0].error == pytest.approx(error_on(result.model, linear, x), rel=1e-3, abs=1e-6)


def test_costs_of_a_budget_count_the_rows_of_the_example() -> None:
    layer = Layer("fc", nn.Linear(20, 30), True, True, input_shapes=(torch.Size((2, 5, 20)), torch.Size((20,))))
    found = SVD(rank=1).decomposition(layer)
    assert (found.cost((4,)).parameters, found.cost((4,)).multiply_adds) == (200, 11 * 200)
    assert found.loss((20,)) == 0


@pytest.mark.parametrize(
    "change",
    [{"rank": "2"}, {"rank": 2.7}, {"inputs": 0}, {"outputs": True}, {"bias": 1}, {"bias": "no"}],
    ids=lambda change: repr(next(iter(change.items()))),
)
def test_descriptions_of_other_types_are_refused(change: dict[str, Any]) -> None:
    described = FactoredDense(torch.ones(3, 2), torch.ones(2, 4), None).describe()
    assert FactoredDense.from_description(described).describe() == described
    with pytest.raises(FileFormatError, match="sizes of a factored dense layer"):
        FactoredDense.from_description({**described, **change})
