"""The features table of a store: shard by shard in bounded memory, written whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import polars as pl

from retinue.cluster import HERE, Spread
from retinue.events.store import Store, written_whole
from retinue.features.catalogue import Feature
from retinue.features.frames import Frames, Whole, whole_of
from retinue.features.query import COMPARING, available_at, features_at
from retinue.schema import CUSTOMER_ID, CUTOFF

ROWS_AT_ONCE = 200_000
ONE_ID_IN = 1_000
ROWS_PER_GROUP = 4_000  # a range of customers reads no more of a shard than it needs
PART = "part"
Collect = Callable[[pl.LazyFrame], pl.DataFrame]


def build(
    store: Store,
    cutoffs: Sequence[datetime],
    path: Path,
    report: Callable[[int, int], None] | None = None,
    features: Sequence[Feature] | None = None,
    collect: Collect = pl.LazyFrame.collect,
    spread: Spread = HERE,
) -> Path:
    """Writes the features of every customer at every cutoff, sorted by (customer_id, cutoff).

    Args:
        store: Prepared events.
        cutoffs: Last instants of history; doubles are dropped.
        path: Parquet file to write, whole or not at all.
        report: Called with (shards done, shards) after each shard.
        features: Only these; None means all that the events known at the latest cutoff support.
        collect: What runs a query; the default is Polars in memory, one shard at a time.
        spread: How shards are worked on.

    Returns:
        `path`.
    """
    if features is None:
        features = available_at(store.scan(), max(cutoffs), store.local_zone)[0]
    parts = path.with_name(f".{path.name}.parts")
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    try:
        comparing = any(feature.family in COMPARING for feature in features)
        wholes = {
            moment: whole_at(store, moment, collect, spread) if comparing else None
            for moment in sorted(set(cutoffs))
        }
        work = partial(_write_shard, store, wholes, features, collect, parts)
        for shard, _ in enumerate(spread(work, range(store.manifest.shards))):
            if report is not None:
                report(shard + 1, store.manifest.shards)
        with written_whole(path) as unfinished:
            _merge(sorted(parts.glob("*.parquet")), parts, unfinished)
    finally:
        shutil.rmtree(parts, ignore_errors=True)
    return path


def _write_shard(
    store: Store,
    wholes: dict[datetime, Whole | None],
    kept: Sequence[Feature],
    collect: Collect,
    parts: Path,
    shard: int,
) -> None:
    events = store.scan(shard).collect().lazy()  # read once: the families would each read the file again
    at_cutoffs = [
        collect(features_at(events, moment, store.local_zone, features=kept, whole=whole))
        for moment, whole in wholes.items()
    ]
    rows = pl.concat(at_cutoffs).sort(CUSTOMER_ID, CUTOFF)
    with written_whole(parts / f"{shard:05d}.parquet") as unfinished:
        rows.write_parquet(unfinished, compression="lz4", row_group_size=ROWS_PER_GROUP)


def whole_at(
    store: Store, cutoff: datetime, collect: Collect = pl.LazyFrame.collect, spread: Spread = HERE
) -> Whole:
    """The sums over the base at a cutoff: one query per shard, then added up.

    Args:
        store: Prepared events.
        cutoff: Last instant of history.
        collect: What runs a query.
        spread: How shards are worked on.
    """
    asked = [_sums_of(store, cutoff, shard) for shard in range(store.manifest.shards)]
    rows = pl.concat(spread(collect, [stacked(shard) for shard in asked]))
    added = []
    for i, table in enumerate(asked[0].tables()):
        key, *sums = table.collect_schema().names()
        added.append(rows.filter(pl.col(PART) == i).group_by(key).agg(pl.col(sums).sum()).sort(key).lazy())
    return Whole(*added)


def _sums_of(store: Store, cutoff: datetime, shard: int) -> Whole:
    return whole_of(Frames(store.scan(shard), cutoff, store.local_zone))


def stacked(whole: Whole) -> pl.LazyFrame:
    """The tables of sums one under another, told apart by `part`, so that a shard is one query."""
    tables = [table.with_columns(pl.lit(i).alias(PART)) for i, table in enumerate(whole.tables())]
    return pl.concat(tables, how="diagonal")


def _merge(shards: list[Path], folder: Path, path: Path) -> None:
    """Sorts what may be larger than memory: ranges of customers, each sorted, then written one after another.

    Every shard is sorted already, so that a range is a run of its rows, and no row is read twice. Where ranges begin follows
    from some of the ids of each shard: those of the whole base would not be bounded.
    """
    some = pl.concat([_ids(shard).gather_every(ONE_ID_IN) for shard in shards]).sort()
    starts = sorted({some[i] for i in range(0, len(some), max(1, ROWS_AT_ONCE // ONE_ID_IN))})
    places = [_places(_ids(shard), starts) for shard in shards]
    sorted_ranges = []
    for i in range(len(starts)):
        runs = [
            pl.scan_parquet(shard).slice(place[i], place[i + 1] - place[i])
            for shard, place in zip(shards, places, strict=True)
        ]
        part = folder / f"range-{i:05d}.parquet"
        rows = pl.concat(runs).collect().sort(CUSTOMER_ID, CUTOFF)
        rows.write_parquet(part, compression="lz4", row_group_size=ROWS_AT_ONCE // 4)
        sorted_ranges.append(part)
    pl.scan_parquet(sorted_ranges or shards).sink_parquet(path, compression="zstd", maintain_order=True)


def _ids(shard: Path) -> pl.Series:
    return pl.read_parquet(shard, columns=[str(CUSTOMER_ID)])[CUSTOMER_ID]


def _places(ids: pl.Series, starts: list[str]) -> list[int]:
    """Where each range begins in the ids of a shard, the first one at 0, and their end."""
    return [0, *(ids.search_sorted(start, side="left") for start in starts[1:]), len(ids)]
