"""The kernels of binary ops are right on other CPUs than this machine's: Arm, under QEMU; x86-64 without AVX-512."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cross.cases import CASES
from tests.cross.operands import expected, values_of
from tests.cross.program import Outcome, run_kernels
from tests.cross.targets import TARGETS, CrossTarget

pytestmark = pytest.mark.cross


@pytest.fixture(scope="module", params=TARGETS, ids=lambda target: target.name)
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What the kernels of all cases did, in one program."""
    target: CrossTarget = request.param
    if reason := target.missing():
        pytest.skip(reason)
    return run_kernels(CASES, target, tmp_path_factory.mktemp("cross"))


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_reference(outcomes: dict[str, Outcome], name: str) -> None:
    problem, outcome = CASES[name], outcomes[name]
    exact, bound = expected(problem, values_of(problem), outcome.output.shape)
    wrong = ~(np.abs(outcome.output.astype(np.float64) - exact) <= bound)
    assert np.count_nonzero(wrong) == 0
    assert outcome.stray_bytes == 0
