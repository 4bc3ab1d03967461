"""Files that were written before: they load, give what they gave, and are written again byte for byte.

A convolution, layers of one bit, a residual, a dense layer and a softmax, with random weights. No sign in them is
decided by less than 5e-5, so that sums in another order give the same signs.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import netopt

FILES = Path(__file__).parent / "files"
X = torch.linspace(-1, 1, 3 * 12 * 12).reshape(1, 3, 12, 12)
# What the writer's own program gave.
OUTPUTS = {
    "version_2_float32": [0.0856206, 0.0644215, 0.1103989, 0.0435448, 0.0745066]
    + [0.2298086, 0.0917869, 0.1567898, 0.0995980, 0.0435243],
    "version_2_bf16": [0.0854548, 0.0642641, 0.1104407, 0.0436818, 0.0744052]
    + [0.2298230, 0.0913092, 0.1573338, 0.0996751, 0.0436122],
}


# Of float32, the digits above; bfloat16 has 8 bits, and a sum in another order may round otherwise.
@pytest.mark.parametrize(("name", "tolerance"), [("version_2_float32", 1e-6), ("version_2_bf16", 4e-3)])
def test_a_file_of_version_2(name: str, tolerance: float, tmp_path: Path) -> None:
    program = netopt.load(FILES / f"{name}.nopt")
    torch.testing.assert_close(program(X), torch.tensor([OUTPUTS[name]]), atol=tolerance, rtol=0.0)
    program.save(tmp_path / "again.nopt")
    assert (tmp_path / "again.nopt").read_bytes() == (FILES / f"{name}.nopt").read_bytes()
