"""What a model's forward changes in the model: tracing would run it once, and the lowered network never."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from netopt.errors import UnsupportedModel

Attributes = dict[str, dict[str, Any]]
# What a module has by itself: its tensors are compared by torch.export, and the rest is not the model's.
_OWN = frozenset(vars(nn.Module()))


@contextmanager
def unchanged_attributes(model: nn.Module) -> Iterator[None]:
    """Refuse a forward that changes attributes of the model, and leave them all as they were.

    Raises:
        UnsupportedModel: forward has set an attribute, or has changed a list, dict or set that is one; names it.
    """
    modules = dict(model.named_modules())
    whole = {name: dict(vars(module)) for name, module in modules.items()}
    contents = list(_containers(_attributes(modules)))
    started: list[Attributes] = []

    def start(module: nn.Module, args: object) -> None:
        # Taken here rather than before: torch.export puts stand-ins in the place of tensors before it calls forward.
        started.append(_copied(_attributes(modules)))

    def compare(module: nn.Module, args: object, result: object) -> None:
        _refuse_change(started[-1], _attributes(modules))

    hooks = [model.register_forward_pre_hook(start), model.register_forward_hook(compare)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for name, module in modules.items():
            _restore(module, whole[name])
        for container, items in contents:
            container.clear()
            (container.extend if isinstance(container, list) else container.update)(items)


def _attributes(modules: Mapping[str, nn.Module]) -> Attributes:
    return {name: {k: v for k, v in vars(module).items() if k not in _OWN} for name, module in modules.items()}


def _copied(value: Any) -> Any:
    """The same values in containers of their own."""
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_copied(item) for item in value)
    return set(value) if type(value) is set else value


def _refuse_change(before: Attributes, after: Attributes) -> None:
    for layer, attributes in after.items():
        for key, value in attributes.items():
            if key not in before[layer] or not _same(before[layer][key], value):
                raise UnsupportedModel(
                    f"forward changes 'self.{key}', which a lowered network has not",
                    layer=layer,
                    fix="return it as an output, or set it before lowering",
                )


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if type(a) is dict:
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if type(a) in (list, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return type(a) in (int, float, bool, str, set) and bool(a == b)


def _containers(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every list, dict and set in `value`, with a copy of it."""
    if type(value) in (list, dict, set):
        yield value, value.copy()
    if type(value) in (list, dict, tuple):
        for item in value.values() if type(value) is dict else value:
            yield from _containers(item)


def _restore(module: nn.Module, attributes: dict[str, Any]) -> None:
    for key in vars(module).keys() - attributes.keys():
        del vars(module)[key]
    vars(module).update({key: value for key, value in attributes.items() if key not in _OWN})
