"""A finished store of given events, without the reading that usually makes one."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from retinue.events.store import Manifest, Store
from tests.features.histories import CUTOFF, ZONE


def stored(frame: pl.DataFrame, folder: Path, shards: int) -> Store:
    """The events in shards, as `prepare` leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    types = dict(frame.group_by("event_type").len().sort("event_type").iter_rows())
    manifest = Manifest(
        fingerprint="made", shards=shards, rows_in=frame.height, rows_kept=frame.height, rows_quarantined=0,
        rows_duplicate=0, events=frame.height, customers=frame["customer"].n_unique(), columns=frame.columns,
        event_types=types, first_event="2020-01-01T00:00:00+00:00", last_event=CUTOFF.isoformat(),
        observation_end=CUTOFF.isoformat(), observation_end_given=True, time_zone="UTC", local_zone=ZONE,
        has_clock=True, currency="", notes=[],
    )  # fmt: skip
    store = Store(folder, manifest)
    for shard in range(shards):
        frame.filter(pl.col("customer") % shards == shard).sort("customer", "event_time").write_parquet(
            store.shard_path(shard)
        )
    store.write_manifest()
    return store
