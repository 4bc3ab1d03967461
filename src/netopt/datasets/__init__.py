"""Loaders of the data that netopt's results are made with."""

from netopt.datasets.batches import Batches
from netopt.datasets.cifar10 import cifar10
from netopt.datasets.digits import digits
from netopt.datasets.mnist import mnist
from netopt.datasets.split import Split

__all__ = ["Batches", "Split", "cifar10", "digits", "mnist"]
