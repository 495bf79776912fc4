"""Token stores of small shops for several tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from retinue.events.store import Store
from retinue.events.timeline import history
from retinue.features.catalogue import Family
from retinue.features.query import features_at
from retinue.schema import CUSTOMER, FREQUENCY
from retinue.sequences.readouts import Readouts
from retinue.sequences.season import Season
from retinue.sequences.tokens import Tokens, write_tokens
from retinue.sequences.vocabulary import Vocabulary, fit_vocabulary
from tests.forecasting.shops import START

FEATURES = ("frequency", "recency_days", "T_days")


def at(day: float) -> datetime:
    """An instant so many days after the shops open."""
    return START + timedelta(days=day)


def resharded(store: Store, folder: Path, shards: int) -> Store:
    """The same events in another number of shards, their rows shuffled."""
    folder.mkdir(parents=True)
    other = Store(folder, replace(store.manifest, shards=shards))
    rows = store.scan().collect().sample(fraction=1.0, shuffle=True, seed=3)
    for shard in range(shards):
        rows.filter(pl.col(CUSTOMER) % shards == shard).write_parquet(other.shard_path(shard))
    other.write_manifest()
    return other


def tokens_of(store: Store, folder: Path) -> Tokens:
    """Written and read again."""
    return write_tokens(store, folder).read()


def readouts_at(store: Store, moments: list[datetime], end: datetime) -> Readouts:
    """All customers who had ordered by those cutoffs, with a few features."""
    known = history(store.scan(), end)
    tables = [features_at(known, at, store.local_zone, (Family.btyd,)).collect() for at in moments]
    return Readouts.of([t.filter(pl.col(FREQUENCY).is_not_null()) for t in tables], FEATURES, end)


def learnt(tokens: Tokens, end: datetime) -> tuple[Vocabulary, Season]:
    """Vocabulary and season at an end of training."""
    vocabulary = fit_vocabulary(tokens, end)
    orders = tokens.day[tokens.of_kind("order")]
    return vocabulary, Season.fit(orders, int(end.timestamp() // 86_400) - 1)
