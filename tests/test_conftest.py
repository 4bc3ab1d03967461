"""What tests may count on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch


def test_a_process_among_others_has_one_thread_and_a_cache_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> None:
    assert Path(os.environ["NETOPT_CACHE_DIR"]).parent == tmp_path_factory.getbasetemp()
    if worker_id == "master":
        pytest.skip("one process, which has all cores")
    assert os.environ["OMP_NUM_THREADS"] == "1"
    assert torch.get_num_threads() == 1
    assert worker_id in str(tmp_path_factory.getbasetemp())
