"""Loaders of the data that netopt's results are made with."""

from netopt.datasets.batches import Batches
from netopt.datasets.cifar10 import cifar10
from netopt.datasets.digits import digits
from netopt.datasets.friedman import friedman
from netopt.datasets.mnist import mnist
from netopt.datasets.regression_split import RegressionSplit
from netopt.datasets.split import Split

__all__ = ["Batches", "RegressionSplit", "Split", "cifar10", "digits", "friedman", "mnist"]
