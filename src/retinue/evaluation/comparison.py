"""Forecasters side by side on the same folds: every metric by origin and pooled, with paired differences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retinue.evaluation.influence import averaged
from retinue.evaluation.outcomes import METRICS, Metric, Outcomes
from retinue.evaluation.paired import Estimate, Measured, over_seeds, paired, single
from retinue.schema import BACKTEST

ALL_ZERO = "all_zero"


@dataclass(frozen=True)
class Entry:
    """One forecaster: its outcomes with each seed, over all folds. Entries of one comparison share their rows."""

    model: str
    by_seed: tuple[Outcomes, ...]

    def where(self, kept: NDArray[np.bool_]) -> Entry:
        """Some of the rows."""
        return Entry(self.model, tuple(rows.where(kept) for rows in self.by_seed))


@dataclass(frozen=True)
class Folds:
    """What the rows of a comparison stand for: instants of the origins, and which rows are of new customers."""

    origins: Sequence[datetime]
    horizon_days: int
    is_new: NDArray[np.bool_]


def compare(entries: Sequence[Entry], folds: Folds) -> pl.DataFrame:
    """The `backtest` table: per population, origin (and pooled), metric and forecaster.

    Differences are paired by customer and origin and clustered by customer; the spread over seeds is added.
    The first entry is the simplest forecaster. The all-zero row is never the best.

    Args:
        entries: the forecasters, simplest first.
        folds: what their rows stand for.
    """
    everyone = np.ones_like(folds.is_new)
    populations = (("all", everyone), ("new", folds.is_new), ("known", ~folds.is_new))
    rows = [
        row
        for population, kept in populations
        if kept.any()
        for row in _population(population, [entry.where(kept) for entry in entries], folds)
    ]
    return BACKTEST.check(pl.DataFrame(rows, schema=BACKTEST.schema, orient="row"))


Row = tuple[object, ...]


def _population(population: str, entries: list[Entry], folds: Folds) -> Iterator[Row]:
    origin = entries[0].by_seed[0].origin
    at, place = np.unique(origin, return_inverse=True)
    parts = [[entry.where(origin == one) for entry in entries] for one in at]
    for metric in METRICS:
        by_origin = [[[metric.of(rows) for rows in entry.by_seed] for entry in part] for part in parts]
        for i, part in enumerate(parts):
            keys = (population, folds.origins[int(at[i])], folds.horizon_days)
            yield from _rows(keys, metric, part, [over_seeds(of) for of in by_origin[i]])
        pooled = [
            over_seeds(
                [
                    averaged([of[e][s] for of in by_origin], place)
                    if metric.within_origin
                    else metric.of(rows)
                    for s, rows in enumerate(entry.by_seed)
                ]
            )
            for e, entry in enumerate(entries)
        ]
        yield from _rows((population, None, folds.horizon_days), metric, entries, pooled)


def _rows(keys: Row, metric: Metric, entries: list[Entry], measured: list[Measured]) -> Iterator[Row]:
    customer = entries[0].by_seed[0].customer
    badness = [
        math.inf if entry.model == ALL_ZERO or math.isnan(one.value) else metric.badness(one.value)
        for entry, one in zip(entries, measured, strict=True)
    ]
    best = int(np.argmin(badness)) if min(badness) < math.inf else None
    for i, (entry, one) in enumerate(zip(entries, measured, strict=True)):
        simple = None if i == 0 else paired(one, measured[0], customer)
        ahead = None if best in (None, i) else paired(one, measured[best], customer)
        yield (
            *keys, entry.model, metric.name, metric.better, len(customer), len(entry.by_seed),
            *_known(single(one, customer)), entries[0].model, *_known(simple),
            None if best is None else entries[best].model, *_known(ahead),
        )  # fmt: skip


def _known(estimate: Estimate | None) -> tuple[float | None, float | None]:
    """The number and its error; null where undefined."""
    if estimate is None or math.isnan(estimate.value):
        return None, None
    return estimate.value, None if math.isnan(estimate.error) else estimate.error
