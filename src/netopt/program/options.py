"""How a model is lowered: one object, checked when it is built, that all of lowering gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import halide as hl

from netopt.errors import InvalidArgument, InvalidType
from netopt.kernels.machine.cpu import Cpu, host_cpu

Precision = Literal["float32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Lowering:
    """The options of `netopt.lower`, which says more of them.

    Attributes:
        threads: the most threads that a kernel uses.
        tune: measure what has not been measured on this machine yet.
        exact: compute every convolution directly.
        precision: in which weights and activations are stored.
        fallback: let PyTorch run the parts that cannot be lowered.
        target: the CPU, as Halide describes it, such as "x86-64-linux-avx2-f16c-fma-sse41" or "arm-64-linux"; None for
            that of this machine.

    Raises:
        InvalidArgument: a value is out of range, the target is none that Halide knows, has no instructions for the
            precision, or cannot be measured here.
        InvalidType: a value is of another type.
    """

    threads: int = 1
    tune: bool = False
    exact: bool = True
    precision: Precision = "float32"
    fallback: bool = False
    target: str | None = None

    def __post_init__(self) -> None:
        check_threads(self.threads)
        for name in ("tune", "exact", "fallback"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidType(name, expected="True or False", found=repr(getattr(self, name)))
        if self.precision not in get_args(Precision):
            raise InvalidArgument("precision", expected='"float32" or "bf16"', found=repr(self.precision))
        _check_target(self.target)
        if self.precision == "bf16" and not self.cpu.has_bfloat16:
            where = "on this CPU" if self.target is None else f"for {self.target}"
            raise InvalidArgument(
                "precision",
                expected=f'"float32" {where}, which has no bfloat16 instructions',
                found='"bf16"',
                fix="lower for float32",
            )
        if self.tune and not self.runs_here:
            raise InvalidArgument(
                "tune",
                expected=f"False for {self.target}, whose code cannot be measured on this CPU ({host_cpu().target})",
                found=True,
                fix="lower without tune here, and load the file there with tune=True",
            )

    @property
    def cpu(self) -> Cpu:
        """The CPU that the program is for."""
        return host_cpu() if self.target is None else Cpu.of(hl.Target(self.target))

    @property
    def runs_here(self) -> bool:
        """Whether this machine's CPU runs the program."""
        return self.target is None or host_cpu().runs_code_for(self.cpu)

    def check_runs_here(self) -> None:
        """Raise InvalidArgument unless this machine's CPU runs the program."""
        if not self.runs_here:
            raise InvalidArgument(
                f"program for {self.target}",
                expected="to be called on such a CPU",
                found=f"this one, {host_cpu().target}",
                fix="write it with save(path) here, and read it there with netopt.load(path)",
            )


def check_threads(threads: object) -> None:
    """Raise InvalidArgument unless `threads` is an integer of at least 1."""
    if type(threads) is not int or threads < 1:
        raise InvalidArgument("threads", expected="an integer of at least 1", found=threads)


def _check_target(target: object) -> None:
    if target is None:
        return
    expected = (
        'None for this CPU, or one that Halide knows, such as "x86-64-linux-avx2-f16c-fma-sse41" or "arm-64-linux"'
    )
    if not isinstance(target, str):
        raise InvalidType("target", expected=expected, found=repr(target))
    if not target or not hl.Target.validate_target_string(target):
        fix = "name architecture, bits and system, then features, as halide.get_host_target() does for this machine"
        raise InvalidArgument("target", expected=expected, found=repr(target), fix=fix)
