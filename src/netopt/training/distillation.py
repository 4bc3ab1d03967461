"""What a network can learn from another one that does the same better: the original that it was made from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from netopt.errors import InvalidArgument
from netopt.transform.select import WEIGHTED


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """How much of the loss comes from the teacher.

    With student logits s, teacher logits t and labels c, the loss is
    (1 - weight) cross_entropy(s, c) + weight T^2 KL(softmax(t / T) || softmax(s / T)) + features * match,
    where match is the mean over the replaced layers of |student's output - teacher's|^2 / |teacher's output|^2.

    Attributes:
        temperature: T; above 1 it shows the student the teacher's small probabilities, too.
        weight: from 0, the labels alone, to 1, the teacher alone.
        features: weight of the match of layers; 0 for none.

    Source: Hinton et al., 1503.02531, section 2; matching of layers as Romero et al., 1412.6550, equation 3, without
    a regressor, since a replaced layer's output has the shape of the original's.
    """

    temperature: float = 4.0
    weight: float = 0.7
    features: float = 0.0

    def __post_init__(self) -> None:
        for name, value, high, expected in (
            ("temperature", self.temperature, math.inf, "a number above 0"),
            ("weight of the teacher", self.weight, 1.0, "a number from 0 to 1"),
            ("weight of features", self.features, math.inf, "a number of at least 0"),
        ):
            number = isinstance(value, float | int) and not isinstance(value, bool)
            if not number or not 0 <= value <= high or value == math.inf or (name == "temperature" and value == 0):
                raise InvalidArgument(name, expected=expected, found=repr(value))


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Losses of bfloat16 outputs are computed in float32; float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def kl_divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over the batch; logits are (batch, classes).

    The factor keeps the gradients' size when T changes (Hinton et al., 1503.02531, section 2.1).

    Raises:
        InvalidArgument: the logits are not of one shape.
    """
    if student.shape != teacher.shape:
        raise InvalidArgument(
            "output of the teacher", expected=f"the model's {tuple(student.shape)}", found=tuple(teacher.shape)
        )
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(log_student, log_teacher, log_target=True, reduction="batchmean")


def replaced_layers(student: nn.Module, teacher: nn.Module) -> list[str]:
    """Names of the dense and convolution layers of the teacher where the student has a module of another type.

    Raises:
        InvalidArgument: there are none.
    """
    originals = dict(teacher.named_modules())
    names = [
        name
        for name, module in student.named_modules()
        if isinstance(originals.get(name), WEIGHTED) and type(originals[name]) is not type(module)
    ]
    if not names:
        raise InvalidArgument(
            "features",
            expected="a replaced layer to match with the teacher's",
            found="none: model and teacher have the same types of layers",
            fix="give the original as teacher, or features=0",
        )
    return names


class Outputs:
    """The outputs of some layers of a network in its last pass under `recording`; the last, if called twice."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        modules = dict(model.named_modules())
        self._modules: Mapping[str, nn.Module] = {name: modules[name] for name in names}
        self.of: dict[str, torch.Tensor] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Fill `of`, by layer.

        Raises:
            InvalidArgument: a layer was not called.
        """
        self.of.clear()

        def record(name: str, output: torch.Tensor) -> None:
            # A copy: an activation may change the layer's output in place.
            self.of[name] = output.clone()

        handles = [
            module.register_forward_hook(lambda _module, _inputs, output, name=name: record(name, output))
            for name, module in self._modules.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        for name in self._modules.keys() - self.of.keys():
            raise InvalidArgument(
                "output to match", expected="a call of the layer", found="none", layer=name, fix="give features=0"
            )


def match(student: Mapping[str, torch.Tensor], teacher: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Mean over the layers, at least one, of |student - teacher|^2 / |teacher|^2.

    Raises:
        InvalidArgument: outputs of a layer are not of one shape.
    """
    errors = []
    for name, output in teacher.items():
        if student[name].shape != output.shape:
            found = tuple(student[name].shape)
            raise InvalidArgument("output", expected=f"the teacher's {tuple(output.shape)}", found=found, layer=name)
        wanted = at_least_float32(output)
        error = (at_least_float32(student[name]) - wanted).square().mean()
        errors.append(error / wanted.square().mean().clamp_min(1e-12))
    return torch.stack(errors).mean()
