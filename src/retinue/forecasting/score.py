"""From the features at a cutoff to the forecasts table: fit a rung, score every customer at every horizon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retinue.config import Options, Rung
from retinue.forecasting.orders import Orders, score_orders
from retinue.models.btyd import fit
from retinue.models.gamma_gamma import GammaGamma, fit_gamma_gamma
from retinue.models.predictive import HurdleLogNormal, spend_given_order
from retinue.models.statistics import KEYS, Statistics, statistics_of
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

Array = NDArray[np.float64]
LOWER, UPPER = 0.05, 0.95


@dataclass(frozen=True)
class Values:
    """What one order of each customer brings, net of refunds: mean, and E[m²] and E[v] of spend_given_order."""

    mean: Array
    own_mean_square: Array
    own_variance: Array


def forecast(features: pl.DataFrame, options: Options, rung: Rung, horizons: Sequence[int]) -> pl.DataFrame:
    """The `forecasts` table, sorted by customer_id, cutoff, horizon_days.

    Every cutoff in the table is a fit of its own on the customers it knows; all horizons share that fit.
    Customers who have never ordered (null frequency) have no row. `clv` is the discounted margin of the
    expected spend, and lies within [clv_lower, clv_upper]: where the 90 % interval ends below the mean
    (p_churn ≥ .95 has the interval [0, 0]) its upper end is raised to the mean.

    Args:
        features: keys, frequency, recency_days, T_days; net_spend_ever, refund_value_ever and margin_rate
            where known. Without any known amount every value is 0.
        options: value.margin_rate (where margin_rate is null or absent) and value.discount_rate_yearly.
        rung: bg_nbd, mbg_nbd or pareto_nbd.
        horizons: whole days, ≥ 1.

    Raises:
        InputError: a column is missing, or a history cannot be.
    """
    missing = [name for name in (CUSTOMER_ID, CUTOFF, *KEYS) if name not in features.columns]
    if missing:
        raise InputError(
            f"features: column '{missing[0]}' is missing, and forecasts are made from it. Make the features again."
        )
    buyers = features.filter(pl.col(FREQUENCY).is_not_null()).sort(CUTOFF, CUSTOMER_ID)
    parts = [
        _at_one_cutoff(part, options, rung, sorted(set(horizons)))
        for part in buyers.partition_by(CUTOFF, maintain_order=True)
    ]
    optional = {str(column): column.dtype for column in FORECASTS.optional}
    empty = pl.DataFrame(schema=pl.Schema({**FORECASTS.schema, **optional}))
    return FORECASTS.check(pl.concat([empty, *parts]).sort(CUSTOMER_ID, CUTOFF, HORIZON_DAYS))


def _at_one_cutoff(buyers: pl.DataFrame, options: Options, rung: Rung, horizons: list[int]) -> pl.DataFrame:
    base = statistics_of(buyers)
    model = fit(rung, base.distinct)
    value_model = fit_gamma_gamma(base.transactions, base.gross, base.refunded)
    orders = score_orders(model, base.histories, horizons, options.value.discount_rate_yearly)
    values = _values(value_model, base)
    margin = _margin(buyers, options.value.margin_rate)
    place = base.place.numpy()
    return pl.concat(
        [_rows(buyers, orders, values, margin, place, i, days, rung) for i, days in enumerate(horizons)]
    )


def _values(model: GammaGamma | None, base: Statistics) -> Values:
    if model is None:
        zeros = np.zeros(len(base.gross))
        return Values(zeros, zeros, zeros)
    kept = model.kept(base.gross, base.refunded)
    square, variance = model.mean_square(base.transactions, base.gross)
    mean = model.mean(base.transactions, base.gross) * kept
    return Values(mean.numpy(), (square * kept**2).numpy(), (variance * kept**2).numpy())


def _margin(buyers: pl.DataFrame, rate: float) -> Array:
    if MARGIN_RATE not in buyers.columns:
        return np.full(buyers.height, rate)
    return buyers[MARGIN_RATE].fill_null(rate).cast(pl.Float64).to_numpy()


def _rows(
    buyers: pl.DataFrame,
    orders: Orders,
    values: Values,
    margin: Array,
    place: NDArray[np.int64],
    i: int,
    days: int,
    rung: Rung,
) -> pl.DataFrame:
    p_churn, expected, shape = (
        orders.p_churn[i][place],
        orders.expected_orders[i][place],
        orders.shape[i][place],
    )
    discount = np.divide(
        orders.discounted_orders[i],
        orders.expected_orders[i],
        where=orders.expected_orders[i] > 0,
        out=np.ones(len(orders.shape[i])),
    )
    spend = expected * values.mean
    mean, deviation = spend_given_order(
        p_churn, expected, shape, values.own_mean_square, values.own_variance, values.mean
    )
    outcome = HurdleLogNormal(p_churn, mean, deviation)
    worth = margin * discount[place]
    clv = spend * worth
    ends = np.sort(
        np.stack([outcome.quantile(LOWER) * worth, outcome.quantile(UPPER) * worth]), axis=0
    )  # a margin may be < 0
    return buyers.select(CUSTOMER_ID, CUTOFF).with_columns(
        pl.lit(days, pl.Int32).alias(HORIZON_DAYS),
        pl.lit(rung.value).alias(MODEL),
        pl.Series(P_CHURN, p_churn),
        pl.Series(EXPECTED_ORDERS, expected),
        pl.Series(EXPECTED_SPEND, spend),
        pl.Series(CLV, clv),
        pl.Series(CLV_LOWER, np.minimum(ends[0], clv)),
        pl.Series(CLV_UPPER, np.maximum(ends[1], clv)),
        pl.Series(NEXT_ORDER_DAYS, orders.next_order_days[place]).fill_nan(None),
        pl.Series(ORDERS_SHAPE, shape),
        pl.Series(SPEND_DEVIATION, deviation),
    )
