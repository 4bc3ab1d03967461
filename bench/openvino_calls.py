"""OpenVINO on one thread: a network compiled, called and described; and quantized to 8 bits by NNCF."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
# Random inputs that the ranges of activations are taken from. Speed does not depend on the ranges.
CALIBRATION = 8


def compiled(model: Any, precision: str) -> Any:
    """A model, or the path of one, compiled; layers that are not quantized compute in `precision`, "f32" or "bf16".

    Raises:
        RuntimeError: OpenVINO chose another precision.
    """
    import openvino

    hints = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    result = openvino.Core().compile_model(model, "CPU", hints)
    found = result.get_property("INFERENCE_PRECISION_HINT").to_string()
    if found != precision:
        raise RuntimeError(f"OpenVINO computes in {found} here")
    return result


def call_of(network: Any, array: Array) -> Callable[[], object]:
    """One run of a compiled network.

    Raises:
        RuntimeError: an output is not finite.
    """
    request = network.create_infer_request()
    outputs = request.infer([array], share_inputs=True).values()
    if not all(np.isfinite(output).all() for output in outputs):
        raise RuntimeError("OpenVINO's outputs are not finite")
    return lambda: request.infer([array], share_inputs=True)


def primitives(network: Any) -> list[str]:
    """What computes its convolutions and dense layers, such as "brgconv_avx512_I8", each once."""
    infos = [op.get_rt_info() for op in network.get_runtime_model().get_ordered_ops()]
    kinds = ("Convolution", "FullyConnected", "MatMul")
    return sorted({info["primitiveType"].astype(str) for info in infos if info["layerType"].astype(str) in kinds})


def quantized(path: str, array: Array) -> Any:
    """The network of an ONNX file with weights and activations of 8 bits, by NNCF's post-training quantization.

    Calibrated with random inputs of the shape of `array`.
    """
    # Before the import: without it NNCF reports its use over the network.
    os.environ.setdefault("NNCF_CI", "1")
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    generator = np.random.default_rng(0)
    samples = [generator.standard_normal(array.shape).astype(np.float32) for _ in range(CALIBRATION)]
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(openvino.Core().read_model(path), nncf.Dataset(samples), subset_size=CALIBRATION)
