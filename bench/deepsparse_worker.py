"""DeepSparse in a process of its own, since it wants another numpy than netopt: runs what it is told, and times it.

    .venv-deepsparse/bin/python bench/deepsparse_worker.py model.onnx BATCH < counts > times

See worker_loop.py; the images are random.
"""

from __future__ import annotations

import sys

from worker_loop import answer


def main() -> None:
    """Compile the network, then answer until the input ends."""
    import deepsparse
    import numpy as np

    engine = deepsparse.Engine(sys.argv[1], batch_size=int(sys.argv[2]), num_cores=1)
    generator = np.random.default_rng(0)
    inputs = [generator.standard_normal(shape).astype(np.float32) for shape in engine.input_shapes]
    answer(lambda: engine.run(inputs, val_inp=False), "ready")


if __name__ == "__main__":
    main()
