"""Seconds and peak memory of all features on a made base: `python scripts/bench_features.py [events]`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from retinue.events.store import Manifest, Store
from retinue.features import available_at, build
from retinue.schema import EVENTS

FIRST, LAST = datetime(2023, 1, 1, tzinfo=UTC), datetime(2024, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
SHARES = {
    "order": 0.40,
    "refund": 0.02,
    "visit": 0.20,
    "view": 0.12,
    "cart": 0.05,
    "search": 0.02,
    "email_sent": 0.07,
    "email_open": 0.03,
    "email_click": 0.01,
    "campaign": 0.02,
    "coupon_redeemed": 0.01,
    "ticket_opened": 0.005,
    "ticket_resolved": 0.004,
    "review": 0.005,
    "survey": 0.002,
    "login": 0.01,
    "subscription_start": 0.001,
    "subscription_renew": 0.01,
    "payment_failed": 0.001,
    "points_earned": 0.008,
    "points_redeemed": 0.002,
}


def made(events: int, customers: int, seed: int) -> pl.DataFrame:
    """Events of all kinds, spread unevenly over customers, with every optional column."""
    rng = np.random.default_rng(seed)
    weights = rng.gamma(0.6, size=customers) + 0.02
    customer = rng.choice(customers, size=events, p=weights / weights.sum())
    shares = np.array(list(SHARES.values()))
    kind = np.array(list(SHARES))[rng.choice(len(shares), size=events, p=shares / shares.sum())]
    seconds = int((LAST - FIRST).total_seconds())
    when = np.datetime64("2023-01-01", "us") + rng.integers(0, seconds, events).astype("timedelta64[s]")
    money = np.isin(kind, ["order", "refund"])
    amount = np.where(money, np.round(rng.lognormal(3.5, 0.7, events), 2), np.nan)
    order = kind == "order"
    text = {
        "category": (order, np.array([f"category {i}" for i in range(24)])),
        "product": (order, np.array([f"product {i}" for i in range(5000)])),
        "brand": (order, np.array([f"brand {i}" for i in range(200)])),
        "channel": (order, np.array(["web", "app", "store", "phone"])),
        "device": (~money, np.array(["desktop", "mobile", "tablet"])),
        "campaign": (kind == "campaign", np.array(["spring", "summer"])),
        "region": (order, np.array(["north", "south"])),
    }
    labels = {
        name: pl.when(pl.Series(mask)).then(pl.Series(values[rng.integers(0, len(values), events)]))
        for name, (mask, values) in text.items()
    }
    frame = pl.DataFrame(
        {
            "base": pl.repeat("made", events, eager=True),
            "customer_id": pl.Series(customer).cast(pl.String).str.zfill(7),
            "customer": customer.astype(np.int64) * 2_654_435_761 % (1 << 61),
            "event_time": pl.Series(when).dt.replace_time_zone("UTC"),
            "known_time": pl.Series(when).dt.replace_time_zone("UTC"),
            "event_type": kind,
            "order_id": pl.Series(np.arange(events)).cast(pl.String),
            "amount": pl.Series(np.where(kind == "refund", -amount, amount)).fill_nan(None),
            "discount": np.where(rng.random(events) < 0.3, 2.5, 0.0),
            "cost": np.abs(amount) * 0.6,
            "quantity": rng.integers(1, 6, events).astype(float),
            "lines": rng.integers(1, 6, events).astype(np.int32),
            "categories": rng.integers(1, 3, events).astype(np.int32),
            "severity": rng.random(events),
            "sentiment": rng.random(events) * 2 - 1,
            "rating": rng.integers(1, 6, events).astype(float),
        }
    ).with_columns(**labels)
    return frame.select(*EVENTS.columns, *EVENTS.optional)


def stored(frame: pl.DataFrame, shards: int, folder: Path) -> Store:
    """A finished store of these events."""
    counts = dict(frame.group_by("event_type").len().sort("event_type").iter_rows())
    manifest = Manifest(
        fingerprint="made",
        shards=shards,
        rows_in=frame.height,
        rows_kept=frame.height,
        rows_quarantined=0,
        rows_duplicate=0,
        events=frame.height,
        customers=frame["customer"].n_unique(),
        columns=frame.columns,
        event_types=counts,
        first_event=FIRST.isoformat(),
        last_event=LAST.isoformat(),
        observation_end=LAST.isoformat(),
        observation_end_given=True,
        time_zone="UTC",
        local_zone="Europe/London",
        has_clock=True,
        currency="",
        notes=[],
    )
    store = Store(folder, manifest)
    for shard in range(shards):
        part = frame.filter(pl.col("customer") % shards == shard).sort("customer", "event_time")
        part.write_parquet(store.shard_path(shard), compression="zstd")
    store.write_manifest()
    return store


def _peak_gb() -> float:
    """Of this program alone: ru_maxrss would count the parent's memory at the fork."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024**2


def measured(folder: Path, cutoffs: int) -> dict[str, float]:
    """One build in this process: seconds, rows, columns, peak resident memory."""
    store = Store.open(folder)
    started, worked = time.perf_counter(), time.process_time()
    moments = [LAST - timedelta(days=30 * i) for i in range(cutoffs)]
    path = build(store, moments, folder / "features.parquet")
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
    table = pl.scan_parquet(path)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "rows": table.select(pl.len()).collect().item(),
        "features": len(available_at(store.scan(), LAST, store.local_zone)[0]),
        "peak_gb": _peak_gb(),
    }


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("events", type=int, nargs="?", default=5_000_000)
    words.add_argument("--customers", type=int, default=190_000)
    words.add_argument("--shards", type=int, default=16)
    words.add_argument("--cutoffs", type=int, default=1)
    words.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.measure:
        print(json.dumps(measured(given.measure, given.cutoffs)))
        return
    with tempfile.TemporaryDirectory() as folder:
        stored(made(given.events, given.customers, 0), given.shards, Path(folder))
        again = [sys.executable, __file__, "--measure", folder, "--cutoffs", str(given.cutoffs)]
        line = subprocess.run(again, check=True, capture_output=True, text=True).stdout
    got = json.loads(line)
    row = {
        "events": f"{given.events:,}",
        "customers": f"{given.customers:,}",
        "shards": given.shards,
        "cutoffs": given.cutoffs,
        "features": got["features"],
        "rows": f"{got['rows']:,}",
        "seconds": f"{got['seconds']:.1f}",
        "CPU seconds": f"{got['cpu_seconds']:.1f}",
        "peak GB": f"{got['peak_gb']:.2f}",
    }
    print("  ".join(f"{name:>11}" for name in row))
    print("  ".join(f"{value:>11}" for value in row.values()))


if __name__ == "__main__":
    main()
