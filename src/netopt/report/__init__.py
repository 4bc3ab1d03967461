"""What was gained and what it cost, in figures."""

from netopt.report.accuracy import Accuracy
from netopt.report.compare import Comparison, Measured, compare
from netopt.report.profile import Profile, StepTime, profile

__all__ = ["Accuracy", "Comparison", "Measured", "Profile", "StepTime", "compare", "profile"]
