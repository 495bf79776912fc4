"""Small bases on disk, runs of the command line, and the comparison of what two runs left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

TABLES = (
    "features",
    "segments",
    "segment_profiles",
    "segment_migration",
    "forecasts",
    "decisions",
    "quality",
)
COLUMNS = {"customer_id": "cid", "event_time": "at", "event_type": "kind", "amount": "value"}
OPTIONS = ("cutoff=2014-06-30", "horizon_days=[90,180]", "segments.bootstraps=3", "segments.max_segments=4")


def orders(customers: int = 400, seed: int = 1) -> pl.DataFrame:
    """Orders, refunds and visits of a small shop over two years, a few rows of them broken."""
    rng = np.random.default_rng(seed)
    rates = rng.gamma(0.8, 1 / 60, customers)
    rows: list[dict[str, Any]] = []
    for who in range(customers):
        day = float(rng.uniform(0, 500))
        leaves = day + rng.exponential(400)
        while day < min(leaves, 730):
            amount = round(float(rng.lognormal(3, 0.7)), 2)
            kind = "order" if rng.random() > 0.05 else "refund"
            seconds = int(day * 86400)
            rows.append(
                {
                    "cid": f"c{who:04d}" if rng.random() > 0.01 else None,
                    "at": seconds,
                    "kind": kind,
                    "value": amount if kind == "order" else -amount,
                    "units": float(rng.integers(1, 6)),
                    "category": str(rng.choice(["tea", "cups", "books"])),
                    "channel": str(rng.choice(["web", "store"])),
                }
            )
            if rng.random() < 0.5:
                rows.append({"cid": f"c{who:04d}", "at": seconds + 600, "kind": "visit"})
            day += float(rng.exponential(1 / rates[who])) + 0.01
    start = pl.datetime(2013, 1, 1)
    return pl.DataFrame(rows).with_columns(at=start + pl.duration(seconds="at"))


def words(path: Path, output: Path, *more: str) -> list[str]:
    """The words of `retinue run` on such a file."""
    mapped = [f"data.columns.{ours}={theirs}" for ours, theirs in {**COLUMNS, "quantity": "units"}.items()]
    return [
        "run",
        "data=files",
        f"data.path={path}",
        "data.time_zone=UTC",
        *mapped,
        *OPTIONS,
        f"output={output}",
        *more,
    ]


def training_words(folder: Path, *more: str) -> list[str]:
    """Options that train a tiny network on a small base in seconds; the base is written into the folder."""
    path = folder / "orders.parquet"
    orders(customers=150).write_parquet(path)
    mapped = [f"data.columns.{ours}={theirs}" for ours, theirs in COLUMNS.items()]
    sizes = ["training.check_every=3", "model.width=16", "model.heads=2"]
    return [f"data.path={path}", f"output={folder / 'out'}", "tracking=off", *mapped, *sizes, *more]


def retinue(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One run of the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "retinue.cli", *args],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def assert_same_tables(left: Path, right: Path) -> None:
    """Every table and the metrics of two runs agree; floats to 1e-9 relative, all else exactly."""
    for name in TABLES:
        a, b = (pl.read_parquet(folder / f"{name}.parquet") for folder in (left, right))
        assert_frame_equal(a, b, rel_tol=1e-9, abs_tol=1e-9)
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (left, right)]
    assert_close(metrics[0], metrics[1], 1e-9)
    assert (left / "report.html").stat().st_size > 0
    assert (right / "report.html").stat().st_size > 0


def assert_close(a: Any, b: Any, tolerance: float, at: str = "metrics") -> None:
    """Two JSON values agree, numbers to a relative tolerance."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), at
        for key in a:
            assert_close(a[key], b[key], tolerance, f"{at}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), at
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_close(x, y, tolerance, f"{at}[{number}]")
    elif isinstance(a, float) and isinstance(b, float):
        assert abs(a - b) <= tolerance * max(abs(a), abs(b)) + 1e-9, at
    else:
        assert a == b, at
