"""What torch.export says on pages, in a line: where in the user's code, why, and what to change."""

from __future__ import annotations

import inspect
import io
import linecache
import logging
import re
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from types import FrameType, TracebackType

import torch
from torch import nn

from netopt.errors import UnsupportedModel

# Whose frames say nothing about the model: torch, this package, and what runs both.
_TORCH, _GRAPH = str(Path(torch.__file__).parent), str(Path(__file__).parent)
_STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]
# They print on stderr, over pages, what then is raised.
_LOGGERS = ("torch.export._trace", "torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes")
_CONTROL_FLOW = ("if ", "elif ", "while ", "for ", "assert ")
_LONGEST = 160  # characters of a reason or of a line of code


def explain(error: Exception, model: nn.Module) -> UnsupportedModel:
    """The error to raise in place of what torch.export has raised while it traced `model`."""
    # Half a second of sympy, which torch.export has loaded by now.
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode  # noqa: PLC0415

    layer, place = _where(error, model)
    code = place.partition("`")[2]
    if isinstance(error, GuardOnDataDependentSymNode):
        if code.startswith(_CONTROL_FLOW) or " if " in code:
            what, fix = (
                "control flow depends on the value of a tensor",
                "compute both ways and choose by arithmetic, or take the choice out of forward",
            )
        else:
            what, fix = (
                "a shape or a Python number depends on the value of a tensor",
                "make it a number that is known when lowering, or take this out of forward",
            )
    elif isinstance(error, TypeError) and not place and layer is None:
        what = f"the example does not fit forward{_signature(model)}: {_first_line(error)}"
        fix = "give the example as a tensor, a tuple of positional arguments or a dict of keyword arguments"
    else:
        what = f"forward fails: {type(error).__name__}: {_first_line(error)}"
        fix = "the example must fit forward, and forward must consist of functions of PyTorch"
    return UnsupportedModel(f"{place}: {what}" if place else what, layer=layer, fix=fix)


@contextmanager
def quiet_torch() -> Iterator[None]:
    """Keep torch.export from printing what it raises. What forward writes to stderr appears after the block."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(_drop)
    printed, graph = io.StringIO(), ""
    try:
        with redirect_stderr(printed):
            yield
    except Exception as error:
        graph = str(getattr(error.__cause__ or error, "partial_fx_graph", ""))
        raise
    finally:
        for logger in loggers:
            logger.removeFilter(_drop)
        rest = printed.getvalue().replace(f"{graph}\n", "") if graph else printed.getvalue()
        sys.stderr.write(rest)


def _drop(record: logging.LogRecord) -> bool:
    return False


def place_in_trace(stack_trace: str | None) -> str:
    """The user's line in the stack trace of a traced node, as "file.py:12 `code`"; empty where none is known."""
    entries = re.findall(r'File "([^"]+)", line (\d+), in .*\n\s+(.*)', stack_trace or "")
    for file, line, code in reversed(entries):
        if _is_users(file):
            return _place(file, int(line), code)
    return ""


def _where(error: Exception, model: nn.Module) -> tuple[str | None, str]:
    """The innermost layer that was running, and the user's line."""
    names = {id(module): name for name, module in model.named_modules()}
    layer, place = None, ""
    for frame, line in _frames(error.__traceback__):
        module = frame.f_locals.get("self")
        if id(module) in names and isinstance(module, nn.Module):
            layer = names[id(module)]
        file = frame.f_code.co_filename
        if _is_users(file):
            place = _place(file, line, linecache.getline(file, line))
    return layer, place


def _frames(traceback: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def _is_users(file: str) -> bool:
    is_library = file.startswith(_STANDARD_LIBRARY) and "site-packages" not in file
    return not (is_library or file.startswith((_TORCH, _GRAPH, "<")))


def _place(file: str, line: int, code: str) -> str:
    text = _shortened(code.strip())
    return f"{Path(file).name}:{line} `{text}`" if text else f"{Path(file).name}:{line}"


def _signature(model: nn.Module) -> str:
    try:
        return str(inspect.signature(model.forward, eval_str=False).replace(return_annotation=inspect.Signature.empty))
    except (TypeError, ValueError):
        return ""


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return _shortened(lines[0].strip().removesuffix(".")) if lines else "no reason given"


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 4] + " ..."
