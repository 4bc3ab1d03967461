"""netopt: make trained PyTorch networks smaller and faster on CPUs, and prove it."""

from netopt import factorization, quantization
from netopt.cost import Cost
from netopt.distillation import Distillation
from netopt.errors import FileFormatError, InvalidArgument, InvalidType, NetoptError, UnsupportedModel
from netopt.layer_report import Report
from netopt.lower import lower
from netopt.optimize import Optimized, optimize
from netopt.program import Program, load
from netopt.retrain import retrain
from netopt.select import Layer
from netopt.structure import load_weights, restore_structure, save_weights, structure_of
from netopt.technique import Keep, Proposal, Technique

__version__ = "0.1.0"

__all__ = [
    "Cost",
    "Distillation",
    "FileFormatError",
    "InvalidArgument",
    "InvalidType",
    "Keep",
    "Layer",
    "NetoptError",
    "Optimized",
    "Program",
    "Proposal",
    "Report",
    "Technique",
    "UnsupportedModel",
    "factorization",
    "load",
    "load_weights",
    "lower",
    "optimize",
    "quantization",
    "restore_structure",
    "retrain",
    "save_weights",
    "structure_of",
]
