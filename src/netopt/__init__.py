"""netopt: make trained PyTorch networks smaller and faster on CPUs, and prove it."""

from netopt import factorization
from netopt.errors import FileFormatError, InvalidArgument, InvalidType, NetoptError, UnsupportedModel
from netopt.lower import lower
from netopt.optimize import Optimized, optimize
from netopt.program import Program, load
from netopt.select import Layer
from netopt.technique import Cost, Keep, Report, Technique

__version__ = "0.1.0"

__all__ = [
    "Cost",
    "FileFormatError",
    "InvalidArgument",
    "InvalidType",
    "Keep",
    "Layer",
    "NetoptError",
    "Optimized",
    "Program",
    "Report",
    "Technique",
    "UnsupportedModel",
    "factorization",
    "load",
    "lower",
    "optimize",
]
