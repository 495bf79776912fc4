"""Threads that wait for each other spin shortly, unless somebody has said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from retinue.accel.processes import side_by_side


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({}, "1000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "active"}, "None"),
    ],
)
def test_an_import_sets_how_long_threads_spin(said: dict[str, str], found: str) -> None:
    silent = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    ask = "import retinue, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, check=True, env=silent | said
    )
    assert done.stdout.strip() == found


def test_nothing_loads_torch_before_it_is_set() -> None:
    ask = "import sys, retinue; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("items", [0, 1, 5])
def test_items_side_by_side_have_a_thread_each_and_leave_the_others_theirs(items: int) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        said = side_by_side(lambda item: (item, torch.get_num_threads()), range(items))
        assert said == [(item, 1) for item in range(items)]
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


def test_a_mistake_in_one_item_is_heard() -> None:
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda item: 1 / item, [2, 1, 0])
