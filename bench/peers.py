"""The engines that netopt is measured against: each a function from a model and an input to a call, on one thread."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import os
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import netopt
from netopt.timing import SelfTimed

Call = Callable[[], object] | SelfTimed
Engine = Callable[[nn.Module, torch.Tensor], Call]


def eager(model: nn.Module, x: torch.Tensor) -> Call:
    """PyTorch as it is."""
    return lambda: model(x)


def channels_last(model: nn.Module, x: torch.Tensor) -> Call:
    """PyTorch with weights and images in the layout that oneDNN prefers; there is none for other inputs."""
    if x.dim() != 4:
        raise ValueError("the input is no image")
    model = copy.deepcopy(model).to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
    return lambda: model(x)


def compiled(model: nn.Module, x: torch.Tensor) -> Call:
    """torch.compile with its default backend, which needs a C++ compiler."""
    torch.compiler.reset()
    function = torch.compile(model)
    function(x)
    return lambda: function(x)


def onnxruntime(model: nn.Module, x: torch.Tensor) -> Call:
    """ONNX Runtime on its CPU provider."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with _exported(model, x) as path:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    array = x.numpy()
    return lambda: session.run(None, {source.name: array})


def openvino_f32(model: nn.Module, x: torch.Tensor) -> Call:
    """OpenVINO in float32: without the hint it computes in bfloat16 where the CPU can."""
    return _openvino(model, x, "f32")


def openvino_bf16(model: nn.Module, x: torch.Tensor) -> Call:
    """OpenVINO in bfloat16."""
    return _openvino(model, x, "bf16")


def _openvino(model: nn.Module, x: torch.Tensor, precision: str) -> Call:
    import openvino

    hints = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    with _exported(model, x) as path:
        compiled = openvino.Core().compile_model(path, "CPU", hints)
    found = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if found != precision:
        raise RuntimeError(f"OpenVINO computes in {found} here")
    request, array = compiled.create_infer_request(), x.numpy()
    return lambda: request.infer([array], share_inputs=True)


class DeepSparse(SelfTimed):
    """DeepSparse in a process of its own; it may use Winograd's algorithm."""

    def __init__(self, model: nn.Module, x: torch.Tensor) -> None:
        python = Path(__file__).parent.parent / ".venv-deepsparse" / "bin" / "python"
        if not python.exists():
            raise FileNotFoundError("no .venv-deepsparse; make bench-peers installs it")
        worker = Path(__file__).parent / "deepsparse_worker.py"
        # The old exporter: DeepSparse, which ended in 2025, reads the opsets of its time.
        with _exported(model, x, dynamo=False) as path:
            self._process = subprocess.Popen(
                [python, worker, path, str(x.shape[0])], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            self._read()

    def times(self, count: int) -> list[float]:
        """See `SelfTimed`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        times: list[float] = self._read()
        return times

    def __del__(self) -> None:
        """End the process."""
        if hasattr(self, "_process"):
            self._process.kill()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(("[", '"')):  # it also prints its licence
                return json.loads(line)
        raise RuntimeError("DeepSparse ended")


def _netopt(**options: Any) -> Engine:
    """netopt with these options of `netopt.lower`."""

    def engine(model: nn.Module, x: torch.Tensor) -> Call:
        program = netopt.lower(model, x, **options)
        return lambda: program(x)

    return engine


ENGINES: dict[str, Engine] = {
    "eager": eager,
    "channels last": channels_last,
    "torch.compile": compiled,
    "onnxruntime": onnxruntime,
    "openvino f32": openvino_f32,
    "deepsparse": DeepSparse,
    "openvino bf16": openvino_bf16,
    "netopt": _netopt(),
    "netopt tuned": _netopt(tune=True),
    "netopt inexact": _netopt(exact=False),
    "netopt inexact tuned": _netopt(exact=False, tune=True),
    "netopt bf16": _netopt(precision="bf16"),
    "netopt bf16 tuned": _netopt(precision="bf16", tune=True),
}


def prepare(model: nn.Module, x: torch.Tensor, without: Sequence[str] = ()) -> tuple[dict[str, Call], dict[str, str]]:
    """The call of each engine that works here, and the reason for each that does not.

    Args:
        model: the network.
        x: its input.
        without: engines that are not wanted.
    """
    calls, absent = {}, {}
    for name, engine in ENGINES.items():
        if name in without:
            continue
        try:
            calls[name] = engine(model, x)
        except Exception as error:  # noqa: BLE001  # engines fail in their own ways; the table says which did and why
            absent[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return calls, absent


@contextlib.contextmanager
def _exported(model: nn.Module, x: torch.Tensor, *, dynamo: bool = True):  # type: ignore[no-untyped-def]
    """The path of the model as an ONNX file, without the exporter's chatter."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        path = os.fspath(Path(folder) / "model.onnx")
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (x,), path, dynamo=dynamo, verbose=False, opset_version=None if dynamo else 14)
        yield path
