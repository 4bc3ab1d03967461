"""Loaders of real data."""

from netopt.datasets.digits import Split, digits

__all__ = ["Split", "digits"]
