"""netopt: make trained PyTorch networks smaller and faster on CPUs, and prove it."""

from typing import TYPE_CHECKING

from netopt.lazy import lazy_names

if TYPE_CHECKING:
    from netopt import datasets, factorization, quantization, report, zoo
    from netopt.errors import FileFormatError, InvalidArgument, InvalidType, NetoptError, UnsupportedModel
    from netopt.program.lower import lower
    from netopt.program.options import Lowering
    from netopt.program.program import Program, load
    from netopt.training.distillation import Distillation
    from netopt.training.options import Training
    from netopt.training.retrain import retrain
    from netopt.transform.cost import Cost
    from netopt.transform.group import Group
    from netopt.transform.layer_report import Report
    from netopt.transform.policy import Decision, Policy
    from netopt.transform.select import Layer
    from netopt.transform.structure_file import load_weights, restore_structure, save_weights, structure_of
    from netopt.transform.technique import Keep, Proposal, Technique
    from netopt.verbs.optimize import Optimized, optimize
    from netopt.verbs.quantize import Quantized, quantize

__version__ = "0.1.0"

__all__ = [
    "Cost",
    "Decision",
    "Distillation",
    "FileFormatError",
    "Group",
    "InvalidArgument",
    "InvalidType",
    "Keep",
    "Layer",
    "Lowering",
    "NetoptError",
    "Optimized",
    "Policy",
    "Program",
    "Proposal",
    "Quantized",
    "Report",
    "Technique",
    "Training",
    "UnsupportedModel",
    "datasets",
    "factorization",
    "load",
    "load_weights",
    "lower",
    "optimize",
    "quantization",
    "quantize",
    "report",
    "restore_structure",
    "retrain",
    "save_weights",
    "structure_of",
    "zoo",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "netopt.datasets": (),
        "netopt.errors": ("FileFormatError", "InvalidArgument", "InvalidType", "NetoptError", "UnsupportedModel"),
        "netopt.factorization": (),
        "netopt.program.lower": ("lower",),
        "netopt.program.options": ("Lowering",),
        "netopt.program.program": ("Program", "load"),
        "netopt.quantization": (),
        "netopt.report": (),
        "netopt.training.distillation": ("Distillation",),
        "netopt.training.options": ("Training",),
        "netopt.training.retrain": ("retrain",),
        "netopt.transform.cost": ("Cost",),
        "netopt.transform.group": ("Group",),
        "netopt.transform.layer_report": ("Report",),
        "netopt.transform.policy": ("Decision", "Policy"),
        "netopt.transform.select": ("Layer",),
        "netopt.transform.structure_file": ("load_weights", "restore_structure", "save_weights", "structure_of"),
        "netopt.transform.technique": ("Keep", "Proposal", "Technique"),
        "netopt.verbs.optimize": ("Optimized", "optimize"),
        "netopt.verbs.quantize": ("Quantized", "quantize"),
        "netopt.zoo": (),
    },
)
