"""What of a CPU decides a schedule."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import halide as hl

# Halide's names of CPUs, each of which includes AVX512-BF16, AVX512-VPOPCNTDQ and AVX512-VNNI.
_RECENT = ("avx512_zen4", "avx512_zen5", "avx512_sapphirerapids")


@dataclass(frozen=True)
class Cpu:
    """A compilation target.

    Attributes:
        target: Halide's description, such as "x86-64-linux-avx2-fma-...".
        lanes: float32 numbers in a vector register.
        registers: vector registers.
        has_bfloat16: it has instructions that multiply bfloat16 numbers.
        has_popcount: it has instructions that count the bits of 32-bit words in vectors.
        has_vnni: it has instructions that multiply four pairs of bytes and add them to a sum, in vectors of AVX-512.
        is_x86: it has the instructions of x86-64.
        has_dot_products: it has Arm's instructions that multiply four pairs of bytes and add them to a sum.
    """

    target: str
    lanes: int
    registers: int
    has_bfloat16: bool = False
    has_popcount: bool = False
    has_vnni: bool = False
    is_x86: bool = False
    has_dot_products: bool = False

    @property
    def has_pairs_of_bytes(self) -> bool:
        """Whether it has an instruction that adds two products of bytes in 16 bits, in its widest vectors."""
        return self.is_x86 and self.lanes == 8

    def runs_code_for(self, other: Cpu) -> bool:
        """Whether this CPU runs what is compiled for another: it has all that the other's target names."""
        # For which model of CPU instructions are ordered does not matter.
        wanted = {part for part in other.target.split("-") if not part.startswith("tune_")}
        return wanted <= set(self.target.split("-"))

    @classmethod
    def of(cls, target: hl.Target) -> Cpu:
        """What Halide's target says of the CPU."""
        name = target.to_string()
        if "avx512" in name:
            recent = any(feature in name for feature in _RECENT)
            return cls(name, 16, 32, recent, recent, recent, is_x86=True)
        if "avx" in name:
            return cls(name, 8, 16, is_x86=True)
        registers = 32 if name.startswith("arm-64") else 16
        return cls(name, 4, registers, is_x86=name.startswith("x86"), has_dot_products="arm_dot_prod" in name)


@cache
def host_cpu() -> Cpu:
    """The CPU that this process runs on."""
    return Cpu.of(hl.get_host_target())
