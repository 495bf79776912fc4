"""The event store: Parquet files sharded by customer, a manifest, and tables written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from retinue.schema import CUSTOMER, EVENT_TYPE, ORDER, SCHEMA_VERSION, InputError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; renamed to it on success, removed on any error or Ctrl-C."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    if unfinished.is_symlink():
        unfinished.unlink()  # nothing is written through somebody's link
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_table(frame: pl.DataFrame | pl.LazyFrame, path: Path) -> None:
    """Writes one Parquet table, whole or not at all."""
    with written_whole(path) as unfinished:
        if isinstance(frame, pl.LazyFrame):
            frame.sink_parquet(unfinished, compression="zstd")
        else:
            frame.write_parquet(unfinished, compression="zstd")


def write_text(text: str, path: Path) -> None:
    """Writes one text file, whole or not at all."""
    with written_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def buyer_codes(events: pl.LazyFrame) -> pl.LazyFrame:
    """Codes of the customers with an order, each once, in no order."""
    return events.filter(pl.col(EVENT_TYPE) == ORDER).select(pl.col(CUSTOMER).unique())


@dataclass(frozen=True)
class Manifest:
    """What the store says of itself.

    rows_in + rows_made = rows_kept + rows_quarantined + rows_duplicate + rows_left_out, asserted when it is written.
    """

    fingerprint: str
    shards: int
    rows_in: int
    rows_kept: int
    rows_quarantined: int
    rows_duplicate: int
    events: int
    customers: int
    columns: list[str]
    event_types: dict[str, int]
    first_event: str
    last_event: str
    observation_end: str
    observation_end_given: bool
    time_zone: str
    local_zone: str
    has_clock: bool
    currency: str
    notes: list[dict[str, Any]]
    rows_left_out: int = 0
    rows_made: int = 0
    future_from: str | None = None  # first time that was set aside as lying in the future
    schema_version: int = SCHEMA_VERSION

    @property
    def mark(self) -> str:
        """What the tables made of the store follow from: the input, and what a clock let in of it."""
        return f"{self.fingerprint} {self.rows_kept} {self.future_from}"


@dataclass(frozen=True)
class Store:
    """One base's events in shards; `customer % shards` names the file, rows are sorted by (customer, event_time)."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Raises InputError where no finished store stands."""
        path = folder / "manifest.json"
        if not path.is_file():
            raise InputError(f"{folder}: holds no prepared events. Run: retinue prepare data=… output=…")
        return cls(folder, Manifest(**json.loads(path.read_text(encoding="utf-8"))))

    def write_manifest(self) -> None:
        """Last of all, so that a folder with a manifest is a finished store."""
        write_text(
            json.dumps(asdict(self.manifest), indent=1, ensure_ascii=False), self.folder / "manifest.json"
        )

    def shard_path(self, shard: int) -> Path:
        """File of one shard."""
        return self.folder / f"shard-{shard:05d}.parquet"

    def scan(self, shard: int | None = None) -> pl.LazyFrame:
        """All events, or those of one shard, as the `events` table."""
        paths = [self.shard_path(s) for s in (range(self.manifest.shards) if shard is None else [shard])]
        return pl.scan_parquet(paths)

    @property
    def observation_end(self) -> datetime:
        """Last instant that the data cover, UTC."""
        return datetime.fromisoformat(self.manifest.observation_end)

    @property
    def local_zone(self) -> str:
        """Zone in which the shoppers' weekday, hour and day are read."""
        return self.manifest.local_zone

    def quarantine(self) -> pl.DataFrame:
        """Rows that could not be used, whole, with file, row and reason."""
        return pl.read_parquet(self.folder / "quarantine.parquet")

    def protected(self) -> pl.DataFrame | None:
        """Protected attributes by customer_id, or None; no feature query can reach them."""
        path = self.folder / "protected.parquet"
        return pl.read_parquet(path) if path.is_file() else None
