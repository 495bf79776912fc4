"""Rows, seconds and peak memory of `prepare` on synthetic orders: bench_prepare.py [csv|parquet] [rows …]."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

BATCH = 1_000_000


def order_rows(seed: int, rows: int, customers: int) -> pl.DataFrame:
    """One batch: customer, day, value; about the 30 bytes a row of an order export."""
    rng = np.random.default_rng(seed)
    days = pl.Series(rng.integers(14_000, 16_000, rows), dtype=pl.Int32).cast(pl.Date)
    return pl.DataFrame(
        {"cid": rng.integers(0, customers, rows), "day": days, "value": rng.gamma(2.0, 20.0, rows).round(2)}
    )


def write_input(kind: str, rows: int, folder: Path) -> Path:
    """One CSV file, or one Parquet file per batch, written batch by batch."""
    customers = max(rows // 20, 1)
    sizes = [min(BATCH, rows - start) for start in range(0, rows, BATCH)]
    batches = (order_rows(seed, size, customers) for seed, size in enumerate(sizes))
    if kind == "csv":
        path = folder / "orders.csv"
        with path.open("wb") as file:
            for number, batch in enumerate(batches):
                batch.write_csv(file, include_header=number == 0)
        return path
    path = folder / "orders"
    path.mkdir()
    for number, batch in enumerate(batches):
        batch.write_parquet(path / f"orders-{number:05d}.parquet")
    return path


def prepare_once(path: str, output: str) -> None:
    """In a process of its own, so that its peak memory is its own."""
    from retinue.config import resolve  # noqa: PLC0415
    from retinue.events.prepare import prepare  # noqa: PLC0415

    words = [f"data.path={path}", "data.columns.customer_id=cid", "data.columns.event_time=day"]
    options = resolve([*words, "data.columns.amount=value"])
    start = time.perf_counter()
    store = prepare(options.data, Path(output))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    manifest = store.manifest
    assert manifest.rows_in == manifest.rows_kept + manifest.rows_quarantined + manifest.rows_duplicate
    print(f"{manifest.rows_in:>12,} {manifest.shards:>7} {manifest.events:>12,} {seconds:>9.1f} {peak:>9.2f}")


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        prepare_once(sys.argv[2], sys.argv[3])
        return
    kind = sys.argv[1] if len(sys.argv) > 1 else "csv"
    counts = [int(word.replace("_", "")) for word in sys.argv[2:]] or [1_000_000, 10_000_000]
    print(
        f"{'rows':>12} {'shards':>7} {'events':>12} {'seconds':>9} {'peak GiB':>9} {'input GB':>9}",
        flush=True,
    )
    for rows in counts:
        with tempfile.TemporaryDirectory() as folder:
            path = write_input(kind, rows, Path(folder))
            size = sum(f.stat().st_size for f in ([path] if path.is_file() else path.iterdir())) / 1e9
            command = [sys.executable, __file__, "--child", str(path), str(Path(folder) / "store")]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(f"{done.stdout.rstrip()} {size:>9.2f}", flush=True)


if __name__ == "__main__":
    main()
