"""Small raw files and one-call preparation for the tests of events/."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from retinue.events.prepare import prepare
from retinue.events.store import Store
from retinue.options import ColumnOptions, DataOptions
from retinue.schema import CUSTOMER_ID, EVENT_TIME, EVENT_TYPE, FINDING, ORDER_ID


def write(path: Path, lines: Iterable[str]) -> Path:
    """A text file of the lines."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def orders_csv(folder: Path, rows: Iterable[str], header: str = "customer_id,event_time,amount") -> Path:
    """orders.csv with our own column names."""
    return write(folder / "orders.csv", [header, *rows])


def options(
    path: Path | str | None = None, columns: dict[str, str] | None = None, **rest: Any
) -> DataOptions:
    """Options of `data=files` for a path."""
    told = None if path is None else str(path)
    return DataOptions(path=told, columns=ColumnOptions(**(columns or {})), **rest)


def prepared(path: Path | str, folder: Path, shards: int = 1, **rest: Any) -> Store:
    """The store made from a path, written to folder/store."""
    return prepare(options(path, **rest), folder / "store", shards)


def events_of(store: Store) -> pl.DataFrame:
    """All events, sorted so that the number of shards does not show."""
    events = store.scan().collect()
    keys = [name for name in (CUSTOMER_ID, EVENT_TIME, EVENT_TYPE, ORDER_ID) if name in events.columns]
    return events.sort(keys, maintain_order=True)


def notes_of(store: Store) -> str:
    """What preparation noticed, as one text."""
    return "\n".join(note[str(FINDING)] for note in store.manifest.notes)
