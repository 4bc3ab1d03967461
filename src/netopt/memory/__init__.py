"""One arena for everything: lifetimes, offsets, and the proof of both."""

from netopt.memory.check import check_plan
from netopt.memory.lifetimes import scratch_name
from netopt.memory.plan import MemoryPlan, plan_memory

__all__ = ["MemoryPlan", "check_plan", "plan_memory", "scratch_name"]
