"""Kills `retinue run` at random moments (SIGKILL); the run that finishes must equal an unbroken one.

python -m tests.stages.kill_runs 30
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from tests.stages.runs import assert_same_tables, orders, retinue, words


def check_nothing_half_written(output: Path) -> int:
    """Every table that stands under its own name can be read whole; returns how many there are."""
    tables = [
        path
        for path in output.rglob("*.parquet")
        if not path.name.startswith(".") and ".unfinished" not in str(path)
    ]
    for path in tables:
        pl.read_parquet(path)
    return len(tables)


def kill_once(command: list[str], after_s: float) -> bool:
    """Starts a run and kills its whole process group; False if it had already ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "retinue.cli", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def kill_runs(folder: Path, kills: int, seed: int = 0) -> list[tuple[float, int]]:
    """Kills so many runs, finishes one, compares. Returns (seconds before the kill, tables that stood) of each."""
    orders().write_parquet(folder / "orders.parquet")
    whole, broken = folder / "whole", folder / "broken"
    started = time.monotonic()
    first = retinue(*words(folder / "orders.parquet", whole))
    assert first.returncode == 0, first.stderr
    seconds = time.monotonic() - started
    chance = random.Random(seed)
    done: list[tuple[float, int]] = []
    while len(done) < kills:
        after = chance.uniform(0.2, 1.0) * seconds
        if kill_once(words(folder / "orders.parquet", broken), after):
            done.append((after, check_nothing_half_written(broken)))
        elif broken.exists():
            # It had finished: make it start again from a random stage.
            stamps = sorted((broken / ".stages").glob("*.json"))
            for stamp in chance.sample(stamps, chance.randint(1, len(stamps))):
                stamp.unlink()
    last = retinue(*words(folder / "orders.parquet", broken))
    assert last.returncode == 0, last.stderr
    assert_same_tables(whole, broken)
    left = list(broken.rglob("*unfinished*"))
    assert not left, left
    return done


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    with tempfile.TemporaryDirectory() as name:
        for number, (moment, standing) in enumerate(kill_runs(Path(name), wanted), 1):
            print(f"kill {number:3d} after {moment:5.2f} s: {standing} tables stood, each whole")
    print(f"{wanted} kills; the finished run left the same tables as an uninterrupted one")
