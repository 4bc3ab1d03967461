"""Public names that are loaded when they are first used (PEP 562), so that importing a package costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module


def lazy_names(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__`.

    Args:
        package: its `__name__`; its `__all__` are the names that `dir` shows.
        homes: for each module the names that it has; a module of the package itself, without names, is public as it is.
    """
    modules = {name: module for module, names in homes.items() for name in names}
    modules |= {module.rpartition(".")[2]: module for module, names in homes.items() if not names}

    def get(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        home = import_module(modules[name])
        value = getattr(home, name) if homes[modules[name]] else home
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted(sys.modules[package].__all__)

    return get, names
