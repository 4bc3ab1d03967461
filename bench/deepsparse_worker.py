"""DeepSparse in a process of its own, since it wants another numpy than netopt: runs what it is told, and times it.

    .venv-deepsparse/bin/python bench/deepsparse_worker.py model.onnx BATCH < counts > times

For each line of the input, a number n, it runs the network n times on random images and writes the n times in seconds.
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    """Compile the network, say so, then answer until the input ends."""
    import deepsparse
    import numpy as np

    engine = deepsparse.Engine(sys.argv[1], batch_size=int(sys.argv[2]), num_cores=1)
    generator = np.random.default_rng(0)
    inputs = [generator.standard_normal(shape).astype(np.float32) for shape in engine.input_shapes]
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            before = time.perf_counter()
            engine.run(inputs, val_inp=False)
            times.append(time.perf_counter() - before)
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()
