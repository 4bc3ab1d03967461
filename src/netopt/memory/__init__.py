"""One arena for everything: concatenations, order of execution, lifetimes, offsets, and the proof of the plan."""

from netopt.memory.check import check_plan
from netopt.memory.concats import copies_for_memory
from netopt.memory.lifetimes import scratch_name
from netopt.memory.order import order_for_memory
from netopt.memory.plan import MemoryPlan, plan_memory

__all__ = ["MemoryPlan", "check_plan", "copies_for_memory", "order_for_memory", "plan_memory", "scratch_name"]
