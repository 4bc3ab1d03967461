"""The networks of the benchmarks: how they are made, the input of one image, and rounds for one."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from netopt import zoo

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "lenet5": (zoo.lenet5, (1, 28, 28), 100),
    "resnet23": (zoo.resnet23, (3, 32, 32), 60),
    "squeezenet1_1": (zoo.squeezenet1_1, (3, 224, 224), 10),
    "shufflenet_v2": (zoo.shufflenet_v2, (3, 224, 224), 10),
    "mobilenet_v2": (zoo.mobilenet_v2, (3, 224, 224), 10),
    "efficientnet_b0": (zoo.efficientnet_b0, (3, 224, 224), 10),
    "vit_tiny": (zoo.vit_tiny, (3, 224, 224), 6),
    "resnet18": (zoo.resnet18, (3, 224, 224), 6),
    "densenet121": (zoo.densenet121, (3, 224, 224), 5),
    "resnet50": (zoo.resnet50, (3, 224, 224), 4),
    "vgg19": (zoo.vgg19, (3, 224, 224), 3),
}


def as_trained(model: nn.Module) -> nn.Module:
    """In eval mode, with statistics that folding cannot ignore."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
    return model.eval()
