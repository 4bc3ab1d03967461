"""The reference networks that netopt's results are made with."""

from netopt.zoo.mlp import mlp

__all__ = ["mlp"]
