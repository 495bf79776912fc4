"""Threads that wait for each other spin shortly, unless somebody has said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


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
