"""What the layers of a network are given when it runs: shapes on an example, values on calibration inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn

from netopt.errors import InvalidArgument, InvalidType
from netopt.example import Example, call
from netopt.transform.reparametrized import copied

# Inputs for calibration: a tensor (number, ...), or batches, each an example or a pair (inputs, labels).
Calibration = torch.Tensor | Sequence[Any]


Note = Callable[[str, list[Any]], None]


class _Enough(Exception):
    """Ends a run early: the layer that was waited for has been called."""


def input_shapes(model: nn.Module, example: Example) -> dict[str, tuple[torch.Size, ...]]:
    """For each module, by name, the shape of its input in each call of one run in eval mode.

    A module that is not called has none, nor has one that takes anything but one tensor of floating-point numbers. The
    model is not changed.

    Raises:
        InvalidArgument: the model fails for the example.
    """
    shapes: dict[str, list[torch.Size]] = {name: [] for name, _ in model.named_modules()}
    others: set[str] = set()

    def note(name: str, given: list[Any]) -> None:
        if len(given) == 1 and isinstance(given[0], torch.Tensor) and given[0].is_floating_point():
            shapes[name].append(given[0].shape)
        else:
            others.add(name)

    with watched(copied(model).eval(), list(shapes), note) as shadow, torch.no_grad():
        try:
            call(shadow, example)
        except Exception as error:  # whatever the model's own code raises
            raise InvalidArgument(
                "example", expected="an input that the model takes", found=f"{type(error).__name__}: {error}"
            ) from error
    return {name: () if name in others else tuple(seen) for name, seen in shapes.items()}


class Observer:
    """Runs a network on calibration inputs, again for each question, so that no layer's inputs need to be kept."""

    def __init__(self, model: nn.Module, calibration: Calibration, batch: int = 64) -> None:
        """Take a copy of the model, in eval mode.

        Args:
            model: the network as it is.
            calibration: inputs.
            batch: rows of a tensor that are run together.

        Raises:
            InvalidType: `calibration` is neither a tensor nor a list of batches.
            InvalidArgument: it is empty, or the model fails for it.
        """
        if isinstance(calibration, torch.Tensor):
            some = calibration.dim() > 0 and len(calibration) > 0
            self._batches: Sequence[Any] = torch.split(calibration, batch) if some else ()
        elif isinstance(calibration, Sequence) and not isinstance(calibration, str):
            self._batches = [inputs_of(item) for item in calibration]
        else:
            raise InvalidType(
                "calibration",
                expected="a tensor, or a list of batches",
                found=type(calibration).__name__,
                fix="of a data loader, give list(loader)",
            )
        if not self._batches:
            raise InvalidArgument("calibration", expected="at least one input", found="none")
        self._model = copied(model).eval()
        self._names = list(dict(model.named_modules()))
        # By batch, how often each layer is called: it may depend on the batch. Known after its first whole run.
        self._calls: dict[int, Counter[str]] = {}
        self._inputs_in(0, None)

    def inputs(self, layer: str) -> Iterator[torch.Tensor]:
        """What the layer of this name is given first, call by call.

        A batch is run as a whole once; after that, nothing runs after the layer's last call in it.

        Raises:
            InvalidArgument: the model fails for a batch, or the layer is given something other than a tensor.
        """
        for index in range(len(self._batches)):
            yield from self._inputs_in(index, layer)

    def _inputs_in(self, index: int, layer: str | None) -> list[torch.Tensor]:
        """In one batch, what the layer is given; and how often each layer is called, if that is not known yet."""
        known = self._calls.get(index)
        if known is not None and layer is not None and not known[layer]:
            return []
        counted: Counter[str] = Counter()
        seen: list[torch.Tensor] = []
        others: list[str] = []  # what was given that is no tensor

        def note(name: str, given: list[Any]) -> None:
            counted[name] += 1
            if name != layer:
                return
            if not given or not isinstance(given[0], torch.Tensor):
                others.append(type(given[0]).__name__ if given else "no argument")
                return
            # A copy: until its last call, the network may change what the layer was given.
            seen.append(given[0].detach().clone())
            if known is not None and len(seen) == known[layer]:
                raise _Enough

        self._run(self._batches[index], self._names if known is None or layer is None else [layer], note)
        self._calls.setdefault(index, counted)
        if others:
            raise InvalidArgument("calibration", expected="a tensor for the layer", found=others[0], layer=layer)
        return seen

    def _run(self, batch: Any, names: Sequence[str], note: Note) -> None:
        with watched(self._model, names, note) as model, torch.no_grad():
            try:
                with suppress(_Enough):
                    call(model, batch)
            except Exception as error:  # whatever the model's own code raises
                raise InvalidArgument(
                    "calibration", expected="inputs that the model takes", found=f"{type(error).__name__}: {error}"
                ) from error


@contextmanager
def watched(model: nn.Module, names: Sequence[str], note: Note) -> Iterator[nn.Module]:
    """The model, whose layers of these names tell `note` their name and arguments before each call."""
    modules = dict(model.named_modules())
    handles = [
        modules[name].register_forward_pre_hook(
            lambda _module, args, kwargs, name=name: note(name, [*args, *kwargs.values()]), with_kwargs=True
        )
        for name in names
    ]
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()


def inputs_of(batch: Any) -> Any:
    """The inputs of a batch: of a pair with a tensor of labels, the first."""
    is_pair = isinstance(batch, tuple | list) and len(batch) == 2
    if is_pair and isinstance(batch[1], torch.Tensor) and not batch[1].is_floating_point():
        return batch[0]
    return batch
