"""Networks of 8 bits that others make of a trained one, without training: from its weights and calibration images."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino_calls
import peers
import torch
from numpy.typing import NDArray
from torch import nn

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Int8Network:
    """A quantized network on one thread, as its engine reads it from its files; floats in and out.

    Attributes:
        file_bytes: of all its files.
        run: the output (1, ...) of one input (1, ...).
        timed: a call for an input (1, ...), without what `run` adds to the engine.
    """

    file_bytes: int
    run: Callable[[Array], Array]
    timed: Callable[[Array], Callable[[], object]]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """The outputs (number, ...) of images (number, ...)."""
        return torch.cat([torch.from_numpy(self.run(image.contiguous().numpy())) for image in images.split(1)])


def nncf_openvino(
    model: nn.Module, calibration: torch.Tensor, *, preset: str | None = None, min_max: bool = False
) -> Int8Network:
    """NNCF's post-training quantization, run by OpenVINO.

    Args:
        model: the trained network, in eval mode.
        calibration: images (number, ...). All are used, one by one: NNCF takes the mean over its samples of each one's
            least and greatest value, so that a batch for a sample would give other ranges.
        preset: "performance", symmetric activations, which is NNCF's default; or "mixed", asymmetric ones.
        min_max: take the least and greatest value of all images instead of that mean.
    """
    import openvino

    samples = [image.contiguous().numpy() for image in calibration.split(1)]
    with peers.exported(model, calibration[:1]) as path:
        quantized = Path(path).with_name("quantized.xml")
        # As NNCF's examples do: constants that are not quantized stay float32.
        result = openvino_calls.quantized(path, samples, preset=preset, min_max=min_max)
        openvino.save_model(result, quantized, compress_to_fp16=False)
        size = quantized.stat().st_size + quantized.with_suffix(".bin").stat().st_size
        network = openvino_calls.compiled(quantized, "f32")
    request = network.create_infer_request()
    return Int8Network(
        file_bytes=size,
        run=lambda image: next(iter(request.infer([image], share_inputs=True).values())),
        timed=lambda image: openvino_calls.call_of(network, image),
    )


def onnxruntime_static(
    model: nn.Module, calibration: torch.Tensor, *, activations: str = "QUInt8", method: str = "MinMax"
) -> Int8Network:
    """ONNX Runtime's static quantization: QDQ format, weights of 8 signed bits per output channel.

    Its documentation (`quantize_static`, "Choosing parameters for CPU inference") recommends unsigned activations on
    x86, and weights of 7 bits where there is no VNNI, whose sums do not saturate.

    Args:
        model: the trained network, in eval mode.
        calibration: images (number, ...).
        activations: their type, "QUInt8" or "QInt8".
        method: how ranges are found, "MinMax", "Entropy" or "Percentile".
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with peers.exported(model, calibration[:1]) as path, _quiet():
        prepared, quantized = (Path(path).with_name(f"{stage}.onnx") for stage in ("prepared", "quantized"))
        quant_pre_process(path, prepared)
        quantization.quantize_static(
            prepared,
            quantized,
            _reader(calibration, _input_of(path)),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=_sums_saturate(),
            activation_type=quantization.QuantType[activations],
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod[method],
        )
        session = peers.onnxruntime_session(quantized)
        size = quantized.stat().st_size
    (source,) = session.get_inputs()
    return Int8Network(
        file_bytes=size,
        run=lambda image: session.run(None, {source.name: image})[0],
        timed=lambda image: lambda: session.run(None, {source.name: image}),
    )


def _input_of(path: str) -> str:
    import onnx

    (source,) = onnx.load(path, load_external_data=False).graph.input
    return str(source.name)


def _reader(calibration: torch.Tensor, name: str) -> Any:
    """ONNX Runtime's reader of calibration images, one by one."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._images = iter(calibration.split(1))

        def get_next(self) -> dict[str, Array] | None:
            image = next(self._images, None)
            return None if image is None else {name: image.contiguous().numpy()}

    return Reader()


def _sums_saturate() -> bool:
    """Whether ONNX Runtime computes on this CPU with instructions whose 16-bit sums of two products saturate."""
    cpu = torch.cpu.get_capabilities()
    has_vnni = any(cpu.get(feature, False) for feature in ("avx512_vnni", "avx_vnni"))
    return cpu.get("architecture") == "x86_64" and not has_vnni


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the quantizer prints, and tells the root logger of each tensor."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
