"""A small shop on disk: Poisson buyers with gamma rates who join over time, some with a late refund."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from retinue.events.store import Manifest, Store

START = datetime(2020, 1, 1, tzinfo=UTC)


def shop(folder: Path, customers: int = 150, days: int = 300, seed: int = 0) -> Store:
    """The prepared store; the data end after `days` days."""
    lot = np.random.default_rng(seed)
    rows = []
    for who in range(customers):
        day, rate, value = lot.uniform(0, days * 0.8), lot.gamma(0.6, 1 / 15), lot.lognormal(3, 0.5)
        while day < days:
            amount = value * lot.lognormal(0, 0.3)
            rows.append((who, day, day, "order", amount))
            if lot.random() < 0.1:
                rows.append((who, day + 1, day + 15, "refund", -amount))
            day += lot.exponential(1 / rate) + 0.5
    return stored(
        pl.DataFrame(rows, schema=["customer", "event", "known", "event_type", "amount"], orient="row"),
        folder,
        days,
    )


def stored(rows: pl.DataFrame, folder: Path, days: int) -> Store:
    """Rows of (customer, event, known [days], event_type, amount) as a store of one shard."""

    def at(name: str) -> pl.Expr:
        return (
            pl.lit(START) + pl.duration(seconds=(pl.col(name) * 86_400).cast(pl.Int64))
        ).dt.cast_time_unit("us")

    events = rows.select(
        pl.lit("shop").alias("base"),
        pl.format("c{}", pl.col("customer").cast(pl.String).str.zfill(4)).alias("customer_id"),
        pl.col("customer").cast(pl.Int64),
        at("event").alias("event_time"),
        at("known").alias("known_time"),
        "event_type",
        "amount",
    ).sort("customer", "event_time")
    folder.mkdir(parents=True, exist_ok=True)
    events.write_parquet(folder / "shard-00000.parquet")
    end = START + timedelta(days=days)
    manifest = Manifest(
        fingerprint="made", shards=1, rows_in=events.height, rows_kept=events.height, rows_quarantined=0,
        rows_duplicate=0, events=events.height, customers=events["customer"].n_unique(), columns=["amount"],
        event_types=dict(events.group_by("event_type").len().sort("event_type").iter_rows()),
        first_event=events["event_time"].min().isoformat(),  # type: ignore[union-attr]
        last_event=events["event_time"].max().isoformat(),  # type: ignore[union-attr]
        observation_end=end.isoformat(), observation_end_given=True, time_zone="UTC", local_zone="UTC",
        has_clock=True, currency="EUR", notes=[],
    )  # fmt: skip
    store = Store(folder, manifest)
    store.write_manifest()
    return store
