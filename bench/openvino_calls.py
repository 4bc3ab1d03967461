"""OpenVINO on one thread: a network compiled, called and described; and quantized to 8 bits by NNCF."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Callable, Sequence
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

    hints = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    hints["INFERENCE_PRECISION_HINT"] = precision
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


def random_samples(shape: Sequence[int]) -> list[Array]:
    """Inputs to calibrate with where only speed is of interest."""
    generator = np.random.default_rng(0)
    return [generator.standard_normal(shape).astype(np.float32) for _ in range(CALIBRATION)]


def quantized(path: str, samples: Sequence[Array], *, preset: str | None = None, min_max: bool = False) -> Any:
    """The network of an ONNX file with weights and activations of 8 bits, by NNCF's post-training quantization.

    Args:
        path: the file.
        samples: inputs that it is calibrated with.
        preset: "performance" or "mixed"; None: NNCF's default.
        min_max: take the ranges of activations over all samples; else NNCF's default, the mean over the samples of each
            one's range.
    """
    # Before the import: without it NNCF reports its use over the network.
    os.environ.setdefault("NNCF_CI", "1")
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX if min_max else None
    advanced = ranges and nncf.AdvancedQuantizationParameters(activations_range_estimator_params=ranges)
    network, data = openvino.Core().read_model(path), nncf.Dataset(samples)
    chosen = None if preset is None else nncf.QuantizationPreset(preset)
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(network, data, preset=chosen, subset_size=len(samples), advanced_parameters=advanced)
