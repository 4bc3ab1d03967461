"""Techniques that put low-bit layers in the place of dense layers and convolutions, with their trained weights."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from netopt.errors import InvalidType
from netopt.quantization.signs.block import BinaryBlock, low_bit_layers
from netopt.quantization.signs.estimators import STE, Estimator
from netopt.quantization.signs.forms import (
    FloatWeights,
    InputForm,
    ResidualInputs,
    ResidualWeights,
    SignInputs,
    SignWeights,
    TernaryWeights,
    WeightForm,
)
from netopt.quantization.signs.layers import LowBitConv1d, LowBitConv2d, LowBitLinear
from netopt.quantization.signs.training import binarize_weights
from netopt.transform.finite import check_finite_weight
from netopt.transform.select import Layer
from netopt.transform.technique import Keep, Technique


@dataclass(frozen=True, kw_only=True)
class LowBitTechnique(Technique):
    """What the techniques share.

    The trained weights are taken over: they are the latent weights that training goes on with. Without `select`, the
    network's first and last layer are left as they are, for they have few weights and their error costs the most
    accuracy; with it, exactly what it selects is replaced.
    """

    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear, nn.Conv1d, nn.Conv2d)

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.weight_form, self.input_form  # whose options are checked

    @property
    @abstractmethod
    def weight_form(self) -> WeightForm:
        """The form of the weights."""

    @property
    def input_form(self) -> InputForm | None:
        """The form of the inputs; None: as they are."""
        return None

    def replace(self, layer: Layer) -> nn.Module | Keep:
        if self.select is None and (layer.is_first or layer.is_last):
            place = "first" if layer.is_first else "last"
            return Keep(f"is the {place} layer, which is left as it is unless it is selected")
        check_finite_weight(layer.module, layer.name)
        return self.around(self.layer(layer.module), layer)

    def layer(self, original: nn.Module, final_form: WeightForm | None = None) -> nn.Module:
        """The low-bit layer, with the original's weights."""
        form = self.weight_form if final_form is None else FloatWeights()
        new: nn.Module
        if isinstance(original, nn.Linear):
            new = LowBitLinear.of(original, form, self.input_form, final_form)
        elif isinstance(original, nn.Conv1d):
            new = LowBitConv1d.of(original, form, self.input_form, final_form, pad_one=self.pads_with_one)
        else:
            assert isinstance(original, nn.Conv2d)
            new = LowBitConv2d.of(original, form, self.input_form, final_form, pad_one=self.pads_with_one)
        return new.train(original.training)

    def around(self, new: nn.Module, layer: Layer) -> nn.Module:
        """The layer and what stands around it."""
        return new

    def deployed(self, module: nn.Module) -> nn.Module:
        waits = any(layer.final_form is not None for layer in low_bit_layers(module))
        return binarize_weights(module) if waits else module

    @property
    def pads_with_one(self) -> bool:
        """Whether binary inputs are padded with +1."""
        return False


@dataclass(frozen=True, kw_only=True)
class Binary(LowBitTechnique):
    """One bit for weights and inputs: sign(W), sign(x).

    y = sign(norm(x)) * sign(W) + bias, in a `BinaryBlock`. After a ReLU all signs would be +1, so a batch normalization
    comes before the sign. Its statistics, and the weights, want training.

    Source: Courbariaux et al., 1609.07061.

    Attributes:
        estimator: the gradient of sign(x): `STE()`, `ApproxSign()`, `SwishSign()`.
        normalize: batch normalization before the sign.
        thresholds: a threshold for each channel, trained (RSign of ReActNet).
        shortcut: add a layer's input to its output where they have one shape (Bi-Real Net).
        rprelu: a shifted PReLU after it (ReActNet).
        pad_one: pad with +1 in place of 0.
        two_stages: inputs are binary at first, and weights only after `binarize_weights` (Bulat and Tzimiropoulos,
            1909.13863; Martinez et al., 2003.11535).
        select: which layers; None for all but the first and the last of the network.
    """

    estimator: Estimator = field(default_factory=STE)
    normalize: bool = True
    thresholds: bool = False
    shortcut: bool = False
    rprelu: bool = False
    pad_one: bool = False
    two_stages: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("normalize", "thresholds", "shortcut", "rprelu", "pad_one", "two_stages"):
            if type(getattr(self, name)) is not bool:
                raise InvalidType(name, expected="True or False", found=repr(getattr(self, name)))

    @property
    def weight_form(self) -> WeightForm:
        return SignWeights(scaled=False)

    @property
    def input_form(self) -> InputForm:
        return SignInputs(estimator=self.estimator)

    @property
    def pads_with_one(self) -> bool:
        return self.pad_one

    def layer(self, original: nn.Module, final_form: WeightForm | None = None) -> nn.Module:
        return super().layer(original, self.weight_form if self.two_stages else final_form)

    def around(self, new: nn.Module, layer: Layer) -> nn.Module:
        assert isinstance(new, LowBitLinear | LowBitConv1d | LowBitConv2d)
        block = BinaryBlock(
            new,
            normalize=self.normalize,
            thresholds=self.thresholds,
            shortcut=self.shortcut and _keeps_shape(layer.module),
            rprelu=self.rprelu,
        )
        block.initialize()
        return block.train(new.training)


@dataclass(frozen=True, kw_only=True)
class XNOR(Binary):
    """`Binary`, with a scale for each output: y = alpha (sign(norm(x)) * sign(W)) + bias, alpha = mean |W|.

    Source: Rastegari et al., 1603.05279, equation 6; the scales of the inputs are left out, as in Bulat and
    Tzimiropoulos, 1909.13863, and most networks since.
    """

    @property
    def weight_form(self) -> WeightForm:
        return SignWeights(scaled=True)


@dataclass(frozen=True, kw_only=True)
class BinaryWeight(LowBitTechnique):
    """One bit for weights, with a scale for each output: y = alpha (x * sign(W)) + bias, alpha = mean |W|.

    Source: Rastegari et al. (Binary-Weight-Networks), 1603.05279, section 3.1.

    Attributes:
        estimator: the gradient of sign(W).
        select: which layers; None for all but the first and the last of the network.
    """

    estimator: Estimator = field(default_factory=STE)

    @property
    def weight_form(self) -> WeightForm:
        return SignWeights(scaled=True, estimator=self.estimator)


@dataclass(frozen=True, kw_only=True)
class BinaryConnect(LowBitTechnique):
    """One bit for weights, without scales: y = x * sign(W) + bias.

    Latent weights are clipped to [-1, 1] after each step: `netopt.retrain` does it, and `constrain` for other trainers.

    Source: Courbariaux et al., 1511.00363.

    Attributes:
        stochastic: in training, +1 with probability clip((W + 1) / 2, 0, 1).
        estimator: the gradient of sign(W).
        select: which layers; None for all but the first and the last of the network.
    """

    stochastic: bool = False
    estimator: Estimator = field(default_factory=STE)

    @property
    def weight_form(self) -> WeightForm:
        return SignWeights(scaled=False, stochastic=self.stochastic, estimator=self.estimator)


@dataclass(frozen=True, kw_only=True)
class Ternary(LowBitTechnique):
    """Weights -alpha, 0 and alpha, with alpha for each output. Source: Li et al. (TWN), 1605.04711."""

    @property
    def weight_form(self) -> WeightForm:
        return TernaryWeights()


@dataclass(frozen=True, kw_only=True)
class Residual(LowBitTechnique):
    """Weights, and inputs if asked, as sums of a few signs with scales.

    Source: Li et al. (HORQ), ICCV 2017; CNTK's CustomMultibit.

    Attributes:
        weight_terms: signs of a weight.
        input_terms: signs of an input; 0 leaves inputs as they are.
        select: which layers; None for all but the first and the last of the network.
    """

    weight_terms: int = 2
    input_terms: int = 0

    @property
    def weight_form(self) -> WeightForm:
        return ResidualWeights(number=self.weight_terms)

    @property
    def input_form(self) -> InputForm | None:
        return None if self.input_terms == 0 else ResidualInputs(number=self.input_terms)


def _keeps_shape(layer: nn.Module) -> bool:
    """Whether a layer's output has the shape of its input."""
    if isinstance(layer, nn.Linear):
        return layer.in_features == layer.out_features
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    if layer.in_channels != layer.out_channels or any(step != 1 for step in layer.stride):
        return False
    spans = [step * (extent - 1) for step, extent in zip(layer.dilation, layer.kernel_size, strict=True)]
    if isinstance(layer.padding, str):
        return layer.padding == "same" or not any(spans)
    return spans == [2 * border for border in layer.padding]
