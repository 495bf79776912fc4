"""Seconds and peak memory of features on a made base: python scripts/bench_features.py [events] [--peers pandas duckdb].

With --peers, three families (BTYD, volume, rhythm) by us, by pandas and by DuckDB, each in a process of its own and from the same
files to a file, in turns; a peer's values are compared with ours before its time counts. Without, all features by us.
DuckDB and pandas (with pyarrow) come with the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl
from bench_features_peer import with_duckdb, with_pandas  # type: ignore[import-not-found]
from rich.console import Console
from rich.table import Table

from retinue.events.store import Manifest, Store
from retinue.features import available_at, build
from retinue.features.buying import BTYD, RHYTHM, VOLUME
from retinue.schema import CUSTOMER_ID, EVENTS

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


def by(maker: str, folder: Path, made_at: Path) -> dict[str, float]:
    """Three families by one of the makers in this process: seconds, processor seconds and peak memory."""
    store = Store.open(folder)
    files = [store.shard_path(shard) for shard in range(store.manifest.shards)]
    started, worked = time.perf_counter(), time.process_time()
    if maker == "retinue":
        build(store, [LAST], made_at, features=(*BTYD, *VOLUME, *RHYTHM))
    else:
        {"pandas": with_pandas, "duckdb": with_duckdb}[maker](files, LAST, store.local_zone, made_at)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_gb": _peak_gb()}


def apart(ours: Path, theirs: Path) -> float:
    """The largest relative difference of a value; infinite where one is null and the other is not."""
    mine, other = (pl.read_parquet(path).sort(CUSTOMER_ID) for path in (ours, theirs))
    if mine[CUSTOMER_ID].to_list() != other[CUSTOMER_ID].to_list():
        return float("inf")
    most = 0.0
    for feature in (*BTYD, *VOLUME, *RHYTHM):
        x, y = (table[feature.name].cast(pl.Float64).fill_nan(None) for table in (mine, other))
        if (x.is_null() != y.is_null()).any():
            return float("inf")
        most = max(most, float(((x - y).abs() / (x.abs() + 1)).max() or 0.0))  # type: ignore[arg-type]
    return most


def told_by(*words: str) -> dict[str, float]:
    """What this file says in a process of its own."""
    line = subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True, text=True)
    got: dict[str, float] = json.loads(line.stdout)
    return got


def compared(folder: Path, peers: list[str], turns: int) -> None:
    """Prints medians over turns of ours and the peers."""
    makers = ["retinue", *peers]
    runs: dict[str, list[dict[str, float]]] = {maker: [] for maker in makers}
    for _ in range(turns):
        for maker in makers:
            runs[maker].append(told_by("--by", maker, "--measure", str(folder)))
    middle = {
        maker: {name: float(np.median([run[name] for run in found])) for name in found[0]}
        for maker, found in runs.items()
    }
    table = Table(
        "by", "seconds", "of ours", "processor s", "of ours", "peak GB", "of ours", "values differ by"
    )
    ours = middle["retinue"]
    for maker in makers:
        cells = []
        for name, form in (("seconds", ".1f"), ("cpu_seconds", ".1f"), ("peak_gb", ".2f")):
            cells += [format(middle[maker][name], form), f"{middle[maker][name] / ours[name]:.2f}"]
        differ = apart(folder / "retinue.parquet", folder / f"{maker}.parquet")
        table.add_row(maker, *cells, f"{differ:.1e}")
    packages = ", ".join(f"{name} {version(name)}" for name in ("polars", *peers))
    columns = len((*BTYD, *VOLUME, *RHYTHM))
    table.title = f"{columns} features; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {packages}"
    Console(width=130).print(table)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("events", type=int, nargs="?", default=5_000_000)
    words.add_argument("--customers", type=int, default=190_000)
    words.add_argument("--shards", type=int, default=16)
    words.add_argument("--cutoffs", type=int, default=1)
    words.add_argument("--peers", nargs="*", choices=["pandas", "duckdb"], default=[])
    words.add_argument("--turns", type=int, default=3, help="of ours and the peers")
    words.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    words.add_argument("--by", help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.by:
        print(json.dumps(by(given.by, given.measure, given.measure / f"{given.by}.parquet")))
        return
    if given.measure:
        print(json.dumps(measured(given.measure, given.cutoffs)))
        return
    with tempfile.TemporaryDirectory() as folder:
        stored(made(given.events, given.customers, 0), given.shards, Path(folder))
        if given.peers:
            print(f"{given.events:,} events, {given.customers:,} customers, {given.shards} shards")
            compared(Path(folder), given.peers, given.turns)
            return
        got = told_by("--measure", folder, "--cutoffs", str(given.cutoffs))
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
