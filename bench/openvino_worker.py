"""OpenVINO in a process of its own, so that its environment can differ: runs what it is told, and times it.

    ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI python bench/openvino_worker.py model.xml < counts > times

See worker_loop.py; the input is random.
"""

from __future__ import annotations

import sys

import numpy as np
from openvino_calls import call_of, compiled, primitives
from worker_loop import answer


def main() -> None:
    """Compile the network, then answer until the input ends."""
    network = compiled(sys.argv[1], "f32")
    shape = tuple(network.inputs[0].shape)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    answer(call_of(network, x), {"primitives": primitives(network)})


if __name__ == "__main__":
    main()
