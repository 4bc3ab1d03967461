"""What a model's forward changes in the model: tracing would run it once, and the lowered network never.

A model may keep what it computes, such as its last activation or the weight that a hook makes for it, as long as no
call depends on what an earlier one has left. Whether one does is found by tracing twice: the second trace begins with
what the first has left, and with other numbers in its tensors. Both must be the same. Where they are not, a model may
keep what is the same for all inputs, such as a table that it computes when it is first called: that is found by two
calls with different inputs, and the traces begin with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from netopt.errors import UnsupportedModel

Attributes = dict[str, dict[str, Any]]
# What a module has by itself: its tensors are compared by torch.export, and the rest is not the model's.
_OWN = frozenset(vars(nn.Module()))


@dataclass
class _Trace:
    """The attributes that forward has changed: by layer and name, what it found and what it left."""

    before: Attributes = field(default_factory=dict)
    after: Attributes = field(default_factory=dict)


def trace_without_effects(
    model: nn.Module, trace: Callable[[], ExportedProgram], calls: Sequence[Callable[[], object]]
) -> ExportedProgram:
    """What `trace` gives, which runs the model's forward; the model's attributes are left as they were.

    Args:
        model: whose forward is traced.
        trace: traces it.
        calls: two, which call the model as it is with different inputs.

    Raises:
        UnsupportedModel: a call depends on what an earlier one has left in an attribute, or it may, since the attribute
            is another after each call; names it.
    """
    result = _trace_twice(model, trace, {})
    if isinstance(result, UnsupportedModel):
        same = _left_by_all(model, calls)
        result = _trace_twice(model, trace, same) if same else result
    if isinstance(result, UnsupportedModel):
        raise result
    return result


def _left_by_all(model: nn.Module, calls: Sequence[Callable[[], object]]) -> Attributes:
    """The attributes that each of the calls leaves, the same to the bit."""
    left = []
    for call in calls:
        with _kept_attributes(model, {}) as trace:
            call()
        left.append(trace.after)
    first, second = left
    same = {
        layer: {k: v for k, v in keys.items() if k in second.get(layer, {}) and _is_equal(v, second[layer][k])}
        for layer, keys in first.items()
    }
    return {layer: keys for layer, keys in same.items() if keys}


def _trace_twice(
    model: nn.Module, trace: Callable[[], ExportedProgram], begin: Attributes
) -> ExportedProgram | UnsupportedModel:
    """The trace of a forward that finds the attributes `begin`; why not, where a call may depend on an earlier one."""
    with _kept_attributes(model, begin) as first:
        exported = trace()
    if not first.after:
        return exported
    left = {layer: dict(attributes) for layer, attributes in begin.items()}
    for layer, attributes in first.after.items():
        left.setdefault(layer, {}).update({key: _stand_in(value) for key, value in attributes.items()})
    with _kept_attributes(model, left) as second:
        try:
            again = trace()
        except UnsupportedModel:
            return _remembers(first.after)
    for layer, attributes in first.after.items():
        for key, value in attributes.items():
            now = second.after.get(layer, {}).get(key, left[layer][key])
            if not _is_alike(value, now):
                return UnsupportedModel(
                    f"forward changes 'self.{key}' with each call, and a lowered network keeps nothing between calls",
                    layer=layer,
                    fix="take it out of forward, or give it as an input and return it as an output",
                )
    if not _is_same_program(exported, again):
        return _remembers(first.after)
    return exported


def _remembers(after: Attributes) -> UnsupportedModel:
    layer, attributes = next(iter(after.items()))
    return UnsupportedModel(
        f"forward changes 'self.{next(iter(attributes))}', and the next call depends on it; a lowered network keeps "
        "nothing between calls",
        layer=layer,
        fix="give it as an input and return it as an output",
    )


@contextmanager
def _kept_attributes(model: nn.Module, left: Attributes) -> Iterator[_Trace]:
    """Let forward begin with the attributes `left`, tell what it changes, and leave them all as they were."""
    modules = dict(model.named_modules())
    whole = {name: dict(vars(module)) for name, module in modules.items()}
    contents = list(_containers(_attributes(modules)))
    trace = _Trace()

    def undo() -> None:
        for name, module in modules.items():
            _restore(module, whole[name])
        for container, items in contents:
            container.clear()
            (container.extend if isinstance(container, list) else container.update)(items)

    def start(module: nn.Module, args: object) -> None:
        for name, attributes in left.items():
            modules[name].__dict__.update(_copied(attributes))
        # Taken here rather than before: torch.export puts stand-ins in the place of tensors before it calls forward.
        trace.before = _copied(_attributes(modules))

    def finish(module: nn.Module, args: object, result: object) -> None:
        trace.after = _changes(trace.before, _copied(_attributes(modules)))
        undo()

    hooks = [model.register_forward_pre_hook(start), model.register_forward_hook(finish)]
    try:
        yield trace
    finally:
        for hook in hooks:
            hook.remove()
        undo()


def _attributes(modules: Mapping[str, nn.Module]) -> Attributes:
    return {name: {k: v for k, v in vars(module).items() if k not in _OWN} for name, module in modules.items()}


def _copied(value: Any) -> Any:
    """The same values in containers of their own."""
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_copied(item) for item in value)
    return set(value) if type(value) is set else value


def _changes(before: Attributes, after: Attributes) -> Attributes:
    """The attributes that are not what they were, as they are now."""
    changed = {
        layer: {k: v for k, v in attributes.items() if k not in before[layer] or not _is_same(before[layer][k], v)}
        for layer, attributes in after.items()
    }
    return {layer: attributes for layer, attributes in changed.items() if attributes}


def _is_same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if type(a) is dict:
        return a.keys() == b.keys() and all(_is_same(a[key], b[key]) for key in a)
    if type(a) in (list, tuple):
        return len(a) == len(b) and all(map(_is_same, a, b))
    return type(a) in (int, float, bool, str, set) and bool(a == b)


def _is_alike(a: Any, b: Any) -> bool:
    """Whether two calls have left the same but for the numbers in tensors, which no later call reads."""
    return _agree(a, b, lambda x, y: x.shape == y.shape and x.dtype == y.dtype)


def _is_equal(a: Any, b: Any) -> bool:
    """Whether two calls have left the same, to the bit."""
    return _agree(a, b, lambda x, y: x.dtype == y.dtype and torch.equal(x, y))


def _agree(a: Any, b: Any, tensors: Callable[[torch.Tensor, torch.Tensor], bool]) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return tensors(a, b)
    if type(a) is dict and type(b) is dict:
        return a.keys() == b.keys() and all(_agree(a[key], b[key], tensors) for key in a)
    if type(a) in (list, tuple) and type(a) is type(b):
        return len(a) == len(b) and all(_agree(x, y, tensors) for x, y in zip(a, b, strict=True))
    plain = (int, float, bool, str, set, type(None))
    return bool(a == b) if type(a) in plain else type(a) is type(b)


def _stand_in(value: Any) -> Any:
    """What a call has left, with other numbers in its tensors than any forward computes."""
    if isinstance(value, torch.Tensor):
        if value.dtype == torch.bool:
            return torch.arange(value.numel()).reshape(value.shape) % 3 == 1
        return (torch.arange(value.numel()).reshape(value.shape) % 89).to(value.dtype) + 3
    if type(value) is dict:
        return {key: _stand_in(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_stand_in(item) for item in value)
    return value


def _is_same_program(a: ExportedProgram, b: ExportedProgram) -> bool:
    """Whether two traces have the same calls and the same constants."""
    if str(a.graph) != str(b.graph) or a.constants.keys() != b.constants.keys():
        return False
    return all(
        torch.equal(value, b.constants[name]) if isinstance(value, torch.Tensor) else True
        for name, value in a.constants.items()
    )


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
