"""What was gained and what it cost, in figures."""

from netopt.report.accuracy import Accuracy
from netopt.report.compare import Comparison, Measured, compare

__all__ = ["Accuracy", "Comparison", "Measured", "compare"]
