"""From an outlook to the rows of the `forecasts` table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from retinue.forecasting.intervals import Levels, ends, spend_distribution
from retinue.forecasting.outlook import Array, Outlook
from retinue.models.statistics import KEYS
from retinue.options import ValueOptions
from retinue.schema import (
    CLV,
    CLV_LOWER,
    CLV_UPPER,
    CUSTOMER_ID,
    CUTOFF,
    EXPECTED_ORDERS,
    EXPECTED_SPEND,
    FORECASTS,
    FREQUENCY,
    HORIZON_DAYS,
    MARGIN_RATE,
    MODEL,
    NEXT_ORDER_DAYS,
    ORDERS_SHAPE,
    P_CHURN,
    SPEND_DEVIATION,
    InputError,
)


def buyers_of(features: pl.DataFrame) -> pl.DataFrame:
    """The customers who have ordered, sorted by cutoff and customer_id.

    Raises:
        InputError: a column that forecasts are made from is missing.
    """
    missing = [name for name in (CUSTOMER_ID, CUTOFF, *KEYS) if name not in features.columns]
    if missing:
        raise InputError(
            f"features: column '{missing[0]}' is missing, and forecasts are made from it. Make the features again."
        )
    return features.filter(pl.col(FREQUENCY).is_not_null()).sort(CUTOFF, CUSTOMER_ID)


def forecasts_table(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The parts as one checked table, sorted by customer_id, cutoff, horizon_days."""
    optional = {str(column): column.dtype for column in (ORDERS_SHAPE, SPEND_DEVIATION)}
    empty = pl.DataFrame(schema=pl.Schema({**FORECASTS.schema, **optional}))
    return FORECASTS.check(pl.concat([empty, *parts]).sort(CUSTOMER_ID, CUTOFF, HORIZON_DAYS))


def rows_of(
    buyers: pl.DataFrame,
    said: Outlook,
    wait: Array,
    horizons: Sequence[int],
    model: str,
    levels: Levels,
    value: ValueOptions,
) -> pl.DataFrame:
    """One row per customer and horizon.

    `clv` is the discounted margin of the expected spend, and lies within [clv_lower, clv_upper]: where the 90 %
    interval ends below the mean (one of a likely churner is [0, 0]) its upper end is raised to the mean.

    Args:
        buyers: keys and margin_rate where known, in the row order of the outlook.
        said: the outlook at these horizons.
        wait: (rows,) median days to the next order, NaN where more likely never.
        horizons: whole days.
        model: name of the rung.
        levels: of the intervals.
        value: margin where margin_rate is null or absent.
    """
    margin, level = _margin(buyers, value.margin_rate), levels.of(buyers)
    keys = buyers.select(CUSTOMER_ID, CUTOFF)
    waits = pl.Series(NEXT_ORDER_DAYS, wait).fill_nan(None)
    tables = []
    for i, days in enumerate(horizons):
        worth = margin * said.discount[i]
        clv = said.spend[i] * worth
        outcome = spend_distribution(said, i)
        spans = [outcome.quantile(end) * worth for end in ends(level, said.p_churn[i])]
        tables.append(
            keys.with_columns(
                pl.lit(days, pl.Int32).alias(HORIZON_DAYS),
                pl.lit(model).alias(MODEL),
                pl.Series(P_CHURN, said.p_churn[i]),
                pl.Series(EXPECTED_ORDERS, said.orders[i]),
                pl.Series(EXPECTED_SPEND, said.spend[i]),
                pl.Series(CLV, clv),
                pl.Series(CLV_LOWER, np.minimum(np.minimum(*spans), clv)),  # a margin may be below zero
                pl.Series(CLV_UPPER, np.maximum(np.maximum(*spans), clv)),
                waits,
                pl.Series(ORDERS_SHAPE, said.shape[i]),
                pl.Series(SPEND_DEVIATION, outcome.deviation),
            )
        )
    return pl.concat(tables)


def _margin(buyers: pl.DataFrame, rate: float) -> Array:
    if MARGIN_RATE not in buyers.columns:
        return np.full(buyers.height, rate)
    return buyers[MARGIN_RATE].fill_null(rate).cast(pl.Float64).to_numpy()
