"""The statistical rungs without a past to be tried on: fitted on the features alone."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from retinue.forecasting.rungs import Training, fit_rung
from retinue.forecasting.table import buyers_of, forecasts_table
from retinue.options import Options, Rung
from retinue.schema import CUTOFF


def forecast(features: pl.DataFrame, options: Options, rung: Rung, horizons: Sequence[int]) -> pl.DataFrame:
    """The `forecasts` table, sorted by customer_id, cutoff, horizon_days.

    Every cutoff in the table is a fit of its own on the customers it knows; all horizons share that fit.
    Customers who have never ordered (null frequency) have no row. Intervals are those of the model.

    Args:
        features: keys, frequency, recency_days, T_days; net_spend_ever, refund_value_ever and margin_rate
            where known. Without any known amount every value is 0.
        options: value.margin_rate (where margin_rate is null or absent) and value.discount_rate_yearly.
        rung: own_rate, bg_nbd, mbg_nbd or pareto_nbd; xgboost and blend learn from a past and fall back to a law here.
        horizons: whole days, ≥ 1.

    Raises:
        InputError: a column is missing, or a history cannot be.
    """
    parts = buyers_of(features).partition_by(CUTOFF, maintain_order=True)
    return forecasts_table([fit_rung(rung, Training(part, None, options))(part, horizons) for part in parts])
