"""A binary 3 x 3 convolution in Larq Compute Engine, in a process of its own, since it wants TensorFlow.

    TF_USE_LEGACY_KERAS=1 .venv-larq/bin/python bench/larq_worker.py CHANNELS SIZE < counts > times

See worker_loop.py. Floats in, floats out, one image, one thread; padded with +1 (with 0 it computes a correction
besides). Its kernels by hand are for Arm; on x86 it runs C++ code that, as it says, is not optimized for speed. Of its
three ways to convolve the indirect one is by far the fastest there (20 times as fast as the default one, at 64 channels
of 56 x 56), so that one is measured.
"""

from __future__ import annotations

import sys
from importlib.metadata import version

from worker_loop import answer


def main() -> None:
    """Convert the layer, check it, then answer until the input ends."""
    import larq
    import larq_compute_engine as lce
    import numpy as np
    import tensorflow as tf

    channels, size = map(int, sys.argv[1:])
    tf.keras.utils.set_random_seed(0)
    layer = larq.layers.QuantConv2D(
        channels,
        3,
        padding="same",
        pad_values=1.0,
        input_quantizer="ste_sign",
        kernel_quantizer="magnitude_aware_sign",
        use_bias=False,
    )
    model = tf.keras.Sequential([tf.keras.Input((size, size, channels), batch_size=1), layer])
    converted = lce.convert_keras_model(model)
    x = np.random.default_rng(0).standard_normal((1, size, size, channels)).astype(np.float32)
    interpreter = lce.testing.Interpreter(converted, num_threads=1, use_indirect_bgemm=True)
    y, expected = interpreter.predict(x), model(x).numpy()
    if np.abs(y - expected).max() > 1e-5 * np.abs(expected).max():
        raise ValueError(f"Larq Compute Engine is off by {np.abs(y - expected).max()}")
    packages = ("larq-compute-engine", "larq", "tensorflow")
    # The inner interpreter, without the outer one's generators and copies.
    answer(
        lambda: interpreter.interpreter.predict([x]),
        {"bytes": len(converted), "versions": {name: version(name) for name in packages}},
    )


if __name__ == "__main__":
    main()
