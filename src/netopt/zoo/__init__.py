"""The reference networks that netopt's results are made with, with random weights, or for some with trained ones."""

from netopt.zoo.bireal import bireal18
from netopt.zoo.densenet import densenet121
from netopt.zoo.efficientnet import efficientnet_b0
from netopt.zoo.friedman import friedman_net
from netopt.zoo.lenet import lenet5, lenet_300_100
from netopt.zoo.mlp import mlp
from netopt.zoo.mobilenet_v2 import mobilenet_v2, mobilenet_v2_cifar
from netopt.zoo.resnet import resnet18, resnet23, resnet50
from netopt.zoo.shufflenet_v2 import shufflenet_v2
from netopt.zoo.squeezenet import squeezenet1_1
from netopt.zoo.vgg import vgg11_half, vgg19
from netopt.zoo.vgg_small import dense_with_norm, vgg_small
from netopt.zoo.vit import vit_tiny

__all__ = [
    "bireal18",
    "dense_with_norm",
    "densenet121",
    "efficientnet_b0",
    "friedman_net",
    "lenet5",
    "lenet_300_100",
    "mlp",
    "mobilenet_v2",
    "mobilenet_v2_cifar",
    "resnet18",
    "resnet23",
    "resnet50",
    "shufflenet_v2",
    "squeezenet1_1",
    "vgg11_half",
    "vgg19",
    "vgg_small",
    "vit_tiny",
]
