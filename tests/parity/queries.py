"""Every query that must run on a GPU, by a walk of the catalogue: a new one is covered without being named."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import polars as pl

from retinue.events.timeline import future, history
from retinue.features import CATALOGUE, Family, features_at
from retinue.features.frames import Frames, whole_of
from retinue.schema import AMOUNT, EVENTS

CUTOFF, HORIZON_DAYS, ZONE = datetime(2024, 2, 29, 22, 59, 59, tzinfo=UTC), 90, "Europe/Berlin"


def events(*optional: str) -> pl.LazyFrame:
    """An empty events table with the required columns and these."""
    return pl.LazyFrame(
        schema={
            str(c): c.dtype for c in (*EVENTS.columns, *EVENTS.optional) if c in (*EVENTS.columns, *optional)
        }
    )


def queries() -> Iterator[tuple[str, pl.LazyFrame]]:
    """Names and queries: history, labels, every feature, every family, all features of a rich and of a bare base."""
    rich, bare = events(*EVENTS.optional), events(AMOUNT)
    yield "history", history(rich, CUTOFF)
    yield "future", future(rich, CUTOFF, HORIZON_DAYS, ZONE)
    yield "realised", _realised(rich)
    for feature in CATALOGUE:
        yield f"feature {feature.name}", features_at(rich, CUTOFF, ZONE, features=[feature])
    for family in Family:
        yield f"family {family.value}", features_at(rich, CUTOFF, ZONE, [family])
    for table in ("cohorts", "prices", "months"):
        yield f"whole base, {table}", getattr(whole_of(Frames(rich, CUTOFF, ZONE)), table)
    yield "features of a bare base", features_at(bare, CUTOFF, ZONE)
    yield "all features", features_at(rich, CUTOFF, ZONE)


def untranslatable() -> pl.LazyFrame:
    """A query that cuDF cannot run: a list operation. A gate that lets it through is blind."""
    return (
        events(AMOUNT).group_by("customer").agg(pl.col("amount")).with_columns(pl.col("amount").list.sort())
    )


def _realised(rows: pl.LazyFrame) -> pl.LazyFrame:
    rooms = [f"retinue.evaluation.{name}" for name in ("metrics", "profit", "proper")]
    with _stand_ins(*rooms, "retinue.models.predictive"):
        from retinue.evaluation.realised import realised

        return realised(rows, CUTOFF, HORIZON_DAYS, ZONE)


@contextmanager
def _stand_ins(*names: str) -> Iterator[None]:
    """Empty modules for what the metrics in the labels' file need (torch, scipy): the GPU plan has neither."""

    class Empty(ModuleType):
        def __getattr__(self, name: str) -> Any:
            return type(name, (), {})

    missing = [name for name in names if not _loads(name)]
    sys.modules.update({name: Empty(name) for name in missing})
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


def _loads(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True
