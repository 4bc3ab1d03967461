"""The examples run as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_digits_prints_the_table(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "digits.py")]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    (header,) = (i for i, line in enumerate(lines) if "accuracy (95 %)" in line)
    names = [line.split("  ")[0].strip() for line in lines[header + 2 : header + 5]]
    assert names == ["original", "factored", "factored + retrained"]
    accuracies = [float(line.split(" % ")[0].split()[-1]) for line in lines[header + 2 : header + 5]]
    assert accuracies[0] > 95
    assert accuracies[1] < accuracies[2] <= accuracies[0] + 1
    assert "agree on 1620 of 1620 held-out digits" in result.stdout
    assert list(tmp_path.iterdir()) == []
