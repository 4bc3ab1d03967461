"""The engines that netopt is measured against: each a function from a model and an input to a call, on one thread."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import openvino_calls
import torch
from torch import nn
from worker import HERE, Worker, python_of

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
    with exported(model, x) as path:
        session = onnxruntime_session(path)
    (source,) = session.get_inputs()
    array = x.numpy()
    return lambda: session.run(None, {source.name: array})


def onnxruntime_session(path: str | Path) -> Any:
    """A session of ONNX Runtime for the network of a file."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def openvino_f32(model: nn.Module, x: torch.Tensor) -> Call:
    """OpenVINO in float32: without the hint it computes in bfloat16 where the CPU can."""
    return _openvino(model, x, "f32")


def openvino_bf16(model: nn.Module, x: torch.Tensor) -> Call:
    """OpenVINO in bfloat16."""
    return _openvino(model, x, "bf16")


def openvino_int8(model: nn.Module, x: torch.Tensor) -> Call:
    """OpenVINO with weights and activations of 8 bits, floats in and out."""
    with exported(model, x) as path:
        network = openvino_calls.quantized(path, openvino_calls.random_samples(x.shape))
    return openvino_calls.call_of(openvino_calls.compiled(network, "f32"), x.numpy())


def _openvino(model: nn.Module, x: torch.Tensor, precision: str) -> Call:
    with exported(model, x) as path:
        return openvino_calls.call_of(openvino_calls.compiled(path, precision), x.numpy())


class OpenVinoInt8(Worker):
    """`openvino_int8` in a process of its own, whose instructions can be limited before it starts."""

    def __init__(self, model: nn.Module, x: torch.Tensor, isa: str = "") -> None:
        """Quantize and start; isa: what oneDNN may use at most, such as "AVX512_CORE_VNNI", without AMX."""
        import openvino

        with exported(model, x) as path:
            quantized = Path(path).with_suffix(".xml")
            network = openvino_calls.quantized(path, openvino_calls.random_samples(x.shape))
            openvino.save_model(network, quantized, compress_to_fp16=False)
            environment = {"ONEDNN_MAX_CPU_ISA": isa} if isa else {}
            super().__init__([sys.executable, HERE / "openvino_worker.py", quantized], environment)


class DeepSparse(Worker):
    """DeepSparse in a process of its own; it may use Winograd's algorithm."""

    def __init__(self, model: nn.Module, x: torch.Tensor) -> None:
        python = python_of(".venv-deepsparse")
        # The old exporter: DeepSparse, which ended in 2025, reads the opsets of its time.
        with exported(model, x, dynamo=False) as path:
            super().__init__([python, HERE / "deepsparse_worker.py", path, str(x.shape[0])])


class Larq(Worker):
    """A binary 3 x 3 convolution of `channels` on `size` x `size` pixels in Larq Compute Engine; see its worker."""

    def __init__(self, channels: int, size: int) -> None:
        environment = {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        super().__init__([python_of(".venv-larq"), HERE / "larq_worker.py", str(channels), str(size)], environment)


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


def prepare(
    model: nn.Module, x: torch.Tensor, without: Sequence[str] = (), engines: Mapping[str, Engine] = ENGINES
) -> tuple[dict[str, Call], dict[str, str]]:
    """The call of each engine that works here, and the reason for each that does not.

    Args:
        model: the network.
        x: its input.
        without: engines that are not wanted.
        engines: of which to choose.
    """
    calls, absent = {}, {}
    for name, engine in engines.items():
        if name in without:
            continue
        try:
            calls[name] = engine(model, x)
        except Exception as error:  # noqa: BLE001  # engines fail in their own ways; the table says which did and why
            absent[name] = reason(error)
    return calls, absent


def reason(error: Exception) -> str:
    """One line of what an engine failed with."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


@contextlib.contextmanager
def exported(model: nn.Module, x: torch.Tensor, *, dynamo: bool = True):  # type: ignore[no-untyped-def]
    """The path of the model as an ONNX file, without the exporter's chatter."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        path = os.fspath(Path(folder) / "model.onnx")
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (x,), path, dynamo=dynamo, verbose=False, opset_version=None if dynamo else 14)
        yield path
