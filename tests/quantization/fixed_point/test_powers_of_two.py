"""Powers of two against their definitions, as codes of their formats, and as they are trained."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

from netopt.errors import InvalidArgument, InvalidType
from netopt.numerics import FixedPoint
from netopt.quantization.fixed_point.powers_of_two import INQ, PowersOfTwo
from netopt.quantization.fixed_point.quantizer import Quantizer


def numbers() -> torch.Tensor:
    torch.manual_seed(0)
    ends = torch.tensor([0.0, -0.0, 1e-40, math.inf, -math.inf, 3e38, math.nan])
    return torch.cat([torch.randn(2000) * torch.randn(2000).mul(3).exp2(), ends])


def check_is_exact(quantizer: Quantizer, y: torch.Tensor) -> None:
    """All that it gives are numbers of its format."""
    format_ = quantizer.format
    assert torch.equal(format_.decode(format_.encode(y), y.dtype), y)


# --- powers of two


@pytest.mark.parametrize("largest", [-3, 0, 2])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("with_zero", [True, False])
@pytest.mark.parametrize("numbering", [1, 2, 3])
def test_every_number_is_one_of_the_powers(largest: int, signed: bool, with_zero: bool, numbering: int) -> None:
    quantizer = PowersOfTwo(numbering + signed + with_zero, largest, signed=signed, with_zero=with_zero)
    smallest = largest - 2**numbering + 1
    powers = [2.0**e for e in range(smallest, largest + 1)]
    x = numbers()
    y = quantizer(x)
    check_is_exact(quantizer, y)
    allowed = powers + ([-p for p in powers] if signed else []) + [0.0]
    assert set(y.tolist()) == set(allowed) if with_zero else set(y[:-1].tolist()) == set(allowed[:-1])
    assert y[-1] == 0  # of NaN, as every code has it
    assert (y[-4], y[-3]) == (powers[-1], -powers[-1] if signed else (0 if with_zero else powers[0]))
    # The nearest in the logarithm, of those that are not cut off.
    inside = (x.abs() > powers[0]) & (x.abs() < powers[-1]) & ((x > 0) | signed)
    distance = (y[inside].abs().log2() - x[inside].abs().log2()).abs()
    assert distance.max() <= 0.5 + 1e-6
    assert bool((y[inside].sign() == x[inside].sign()).all())
    small = (x.abs() < 2.0 ** (smallest - 0.5)) & (x >= 0)
    assert set(y[small].tolist()) == {0.0 if with_zero else powers[0]}


def test_formats_have_the_fewest_bits() -> None:
    assert PowersOfTwo(3, 2).format == FixedPoint(5, 1)  # 2^-1 to 2^2
    assert PowersOfTwo(2, 0, with_zero=False).format == FixedPoint(3, 1)
    assert PowersOfTwo(3, 0, signed=False).format == FixedPoint(8, 7, False)
    assert PowersOfTwo(4, 0).format == FixedPoint(16, 7)  # 2^0 is code 128
    assert PowersOfTwo(4, 0, with_zero=True).format == FixedPoint(5, 3)
    assert isinstance(PowersOfTwo(3, 2), Quantizer)
    assert PowersOfTwo(3, 2).step.item() == 0.5


def test_gradients() -> None:
    grad = torch.tensor([1.0, 2, 3, 4, 5])
    for signed, clips, expected in (
        (True, True, [1, 2, 3, 0, 0]),
        (False, True, [0, 2, 3, 0, 0]),
        (True, False, [1, 2, 3, 4, 5]),
    ):
        x = torch.tensor([-0.3, 0.001, 1.4, 1.5, -1.5 if signed else 99.0], requires_grad=True)
        PowersOfTwo(3, 0, signed=signed, clips=clips)(x).backward(grad)
        assert x.grad is not None and x.grad.tolist() == expected


def test_in_float64_and_switched_off() -> None:
    quantizer = PowersOfTwo(3, 0)
    assert quantizer(numbers().double()).dtype == torch.float64
    assert torch.equal(quantizer(numbers().double()).float(), quantizer(numbers()))
    quantizer.enabled = False
    x = numbers()
    assert quantizer(x) is x
    assert repr(quantizer) == "PowersOfTwo(2^-3 to 2^0, 5 bits, signed, powers of two, off)"


def test_powers_that_cannot_be() -> None:
    with pytest.raises(InvalidArgument, match="found 2\\^-125 to 2\\^2; take fewer bits"):
        PowersOfTwo(8, 2)
    with pytest.raises(InvalidArgument, match="beside those of the sign"):
        PowersOfTwo(2, 2, with_zero=True)
    with pytest.raises(InvalidArgument, match="largest exponent"):
        PowersOfTwo(3, 2.0)  # type: ignore[arg-type]
    with pytest.raises(InvalidType, match="with_zero"):
        PowersOfTwo(3, 2, with_zero=1)  # type: ignore[arg-type]


# --- INQ


def weights() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(20, 30) * 0.2


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_levels_are_those_of_the_paper(bits: int) -> None:
    weight = weights()
    quantizer = INQ(weight, bits).eval()
    n1 = math.floor(math.log2(4 * weight.abs().max().item() / 3))
    n2 = n1 + 1 - 2 ** (bits - 1) // 2
    assert (quantizer.largest, quantizer.smallest) == (n1, n2)
    levels = torch.tensor([0.0] + [s * 2.0**e for e in range(n2, n1 + 1) for s in (1, -1)])
    # The nearest level: equation 4 puts the bounds in the middle.
    nearest = levels[(weight.reshape(-1, 1) - levels).abs().argmin(1)].reshape(weight.shape)
    y = quantizer(weight)
    assert torch.equal(y, nearest)
    check_is_exact(quantizer, y)
    assert quantizer.format.bits == {2: 2, 3: 3, 4: 5, 5: 16}[bits]


@pytest.mark.parametrize("selection", ["largest_abs", "random"])
def test_weights_are_fixed_half_by_half(selection: Any) -> None:
    weight = weights()
    quantizer = INQ(weight, 4, iterations=(0, 2, 5), selection=selection, seed=4)
    shares = []
    for step in range(7):
        # What training, momentum and weight decay do to the weights given.
        current = (weight * (1 + 0.1 * step)).requires_grad_()
        before, fixed = quantizer.is_fixed.clone(), quantizer.fixed.clone()
        y = quantizer(current)
        y.sum().backward()
        assert torch.equal(y[before], fixed[before])
        free = ~quantizer.is_fixed
        assert torch.equal(y[free], current[free])
        assert current.grad is not None and torch.equal(current.grad, free.float())
        new = quantizer.is_fixed & ~before
        assert torch.equal(y[new], quantizer.nearest(current)[new])
        if selection == "largest_abs" and bool(new.any()) and bool(free.any()):
            assert current[new].abs().min() >= current[free].abs().max()
        shares.append(quantizer.is_fixed.double().mean().item())
    assert shares == [0.5, 0.5, 0.75, 0.75, 0.75, 1.0, 1.0]
    assert quantizer.is_done
    check_is_exact(quantizer, quantizer(weight))
    assert "600 of 600 fixed" in repr(quantizer)


def test_random_selection_depends_on_the_seed_alone() -> None:
    weight = weights()
    masks = []
    for seed in (0, 0, 1):
        quantizer = INQ(weight, 4, iterations=(0, 1), selection="random", seed=seed)
        quantizer(weight)
        masks.append(quantizer.is_fixed)
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])
    # No larger ones than those left: the selection is another.
    assert weight[masks[0]].abs().min() < weight[~masks[0]].abs().max()


def test_a_training_that_goes_on_is_where_it_was() -> None:
    weight = weights()
    quantizer = INQ(weight, 4, iterations=(1, 3), selection="random")
    quantizer(weight), quantizer(weight)
    other = INQ(weight * 0.01, 4, iterations=(1, 3), selection="random")
    other.load_state_dict(quantizer.state_dict())
    assert torch.equal(other.is_fixed, quantizer.is_fixed) and int(other.iteration) == 2
    copied = copy.deepcopy(quantizer)
    for _ in range(2):
        quantizer(weight * 1.1), copied(weight * 1.1)
    assert torch.equal(copied.fixed, quantizer.fixed) and quantizer.is_done


def test_evaluating_changes_nothing_and_gives_what_is_lowered() -> None:
    weight = weights().requires_grad_()
    quantizer = INQ(weight, 4, iterations=(0, 9))
    quantizer(weight)
    mask = quantizer.is_fixed.clone()
    y = quantizer.eval()(weight)
    check_is_exact(quantizer, y.detach())
    assert torch.equal(quantizer.is_fixed, mask) and int(quantizer.iteration) == 1
    y.sum().backward()
    assert weight.grad is not None and torch.equal(weight.grad, (~mask).float())
    quantizer.enabled = False
    assert quantizer(weight) is weight


def test_of_zeros_and_tiny_weights() -> None:
    zeros = INQ(torch.zeros(3, 2), 4)
    assert (zeros.largest, zeros.eval()(torch.zeros(3, 2)).abs().sum()) == (0, 0)
    tiny = INQ(torch.full((3, 2), 1e-38), 4).eval()
    check_is_exact(tiny, tiny(torch.full((3, 2), 1e-38)))


def test_inq_that_cannot_be() -> None:
    weight = weights()
    for options, message in (
        ({"bits": 8}, "bits of INQ"),
        ({"selection": "first"}, "selection of INQ"),
        ({"iterations": (3, 1)}, "iterations of INQ"),
        ({"iterations": (-1,)}, "iterations of INQ"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            INQ(weight, **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="finite numbers"):
        INQ(weight / 0)
    with pytest.raises(InvalidArgument, match=r"expected \(20, 30\), found \(30, 20\)"):
        INQ(weight)(weight.t())
