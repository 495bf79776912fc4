"""Causes of the customers with the most at stake in a base that was scored shard by shard."""

from __future__ import annotations

from datetime import datetime
from functools import partial, reduce
from pathlib import Path

import polars as pl

from retinue.decisions.causes import reasons
from retinue.decisions.quadrants import value_at_stake
from retinue.forecasting.scoring import Scoring, part_path
from retinue.schema import CUSTOMER_ID, CUTOFF, HORIZON_DAYS, REASONS, VALUE_AT_STAKE


def reasons_in_shards(
    scoring: Scoring, out: Path, cutoff: datetime, horizon_days: int, most: int
) -> pl.DataFrame:
    """The `reasons` table with value_at_stake, the largest stakes first: what `reasons` says of these customers at once.

    One shard is in memory at a time, and beside it only the customers asked about.

    Args:
        scoring: what was asked of whom; its rung reads features.
        out: folder of the forecasts, of which every shard stands.
        cutoff: of the forecasts.
        horizon_days: of the churn that is explained.
        most: customers asked about.
    """
    asked = partial(_stakes, out, scoring.day, cutoff, horizon_days, most)
    stakes = reduce(partial(_larger, most), scoring.spread(asked, range(scoring.store.manifest.shards)))
    predictor, buyers = scoring.of_some(stakes[CUSTOMER_ID], cutoff)
    told = stakes.join(reasons(predictor, buyers, horizon_days), on=CUSTOMER_ID, maintain_order="left")
    return REASONS.check(told.select(*REASONS.schema.names(), VALUE_AT_STAKE))


def _stakes(out: Path, day: str, cutoff: datetime, horizon_days: int, most: int, shard: int) -> pl.DataFrame:
    """The customers of a shard with the most at stake."""
    wanted = (pl.col(CUTOFF) == cutoff) & (pl.col(HORIZON_DAYS) == horizon_days)
    part = pl.scan_parquet(part_path(out, day, shard)).filter(wanted).select(CUSTOMER_ID, value_at_stake())
    return _ranked(part.collect()).head(most)


def _larger(most: int, one: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    return _ranked(pl.concat([one, other])).head(most)


def _ranked(stakes: pl.DataFrame) -> pl.DataFrame:
    return stakes.sort(VALUE_AT_STAKE, CUSTOMER_ID, descending=[True, False])
