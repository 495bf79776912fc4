"""What came true within a horizon after a cutoff, and every metric of a forecast against it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retinue.evaluation import metrics, profit, proper
from retinue.events.timeline import future, history
from retinue.models.predictive import HurdleLogNormal, orders_log_score, pinball
from retinue.schema import (
    AMOUNT,
    CLV,
    CLV_LOWER,
    CLV_UPPER,
    CUSTOMER,
    CUSTOMER_ID,
    CUTOFF,
    EVENT_TIME,
    EVENT_TYPE,
    EXPECTED_ORDERS,
    EXPECTED_SPEND,
    FORECASTS,
    HORIZON_DAYS,
    ORDER,
    ORDERS_SHAPE,
    P_CHURN,
    REALISED,
    REALISED_ORDERS,
    REALISED_SPEND,
    REFUND,
    SPEND_DEVIATION,
    InputError,
)

Array = NDArray[np.float64]
KEYS = (CUSTOMER_ID, CUTOFF, HORIZON_DAYS)
ONE_CLASS = "only one class came true"
NOT_GIVEN = "the forecasts do not give the distribution"
NO_MARGIN = "clv is zero or negative where spend is expected, so its interval says nothing of spend"
WHY = {
    "auroc": ONE_CLASS,
    "average_precision": ONE_CLASS,
    "bias_percent": "nothing was realised",
    "gini": "all realised values are equal",
    "spearman": "predicted or realised values are all equal",
    "log_score": NOT_GIVEN,
    "mae": NOT_GIVEN,
    "pinball_90": NOT_GIVEN,
    "crps": NOT_GIVEN,
    "captured_10": "nothing was realised",
    "captured_20": "nothing was realised",
    "coverage_90": NO_MARGIN,
    "width_90": NO_MARGIN,
}


def realised(events: pl.LazyFrame, cutoff: datetime, horizon_days: int, zone: str = "UTC") -> pl.LazyFrame:
    """The `realised` table: one row per customer with an order known at the cutoff, sorted by customer_id.

    realised_orders counts transactions, that is distinct local days (in `zone`) with an order, as frequency
    does; realised_spend sums the amounts of orders and refunds in the future window, unknown amounts as 0.

    Args:
        events: the events table; a base without amounts has a realised_spend of 0.
        cutoff: UTC instant; the future is (cutoff, cutoff + horizon_days].
        horizon_days: length of the future, days of the zone.
        zone: zone in which a day is read.
    """
    day = pl.col(EVENT_TIME).dt.convert_time_zone(zone).dt.date()
    is_order = pl.col(EVENT_TYPE) == ORDER
    has_amount = AMOUNT in events.collect_schema()
    amount = pl.col(AMOUNT).fill_null(0.0) if has_amount else pl.lit(0.0)
    known = history(events, cutoff).filter(is_order).group_by(CUSTOMER).agg(pl.col(CUSTOMER_ID).min())
    ahead = (
        future(events, cutoff, horizon_days, zone)
        .filter(pl.col(EVENT_TYPE).is_in([ORDER, REFUND]))
        .select(CUSTOMER, amount.alias(REALISED_SPEND), pl.when(is_order).then(day).alias("day"))
        .group_by(CUSTOMER)
        .agg(
            pl.col("day").drop_nulls().n_unique().cast(pl.Float64).alias(REALISED_ORDERS),
            pl.col(REALISED_SPEND).sort().sum(),
        )
    )
    return (
        known.join(ahead, on=CUSTOMER, how="left")
        .with_columns(
            pl.lit(cutoff, CUTOFF.dtype).alias(CUTOFF),
            pl.lit(horizon_days, HORIZON_DAYS.dtype).alias(HORIZON_DAYS),
            pl.col(REALISED_ORDERS, REALISED_SPEND).fill_null(0.0),
        )
        .select(REALISED.schema.names())
        .sort(CUSTOMER_ID)
    )


def evaluate(forecasts: pl.DataFrame, realised: pl.DataFrame) -> dict[str, Any]:
    """Metrics of one cutoff and horizon, JSON-able: an undefined score is null, its reason in `undefined`.

    Customers in one table only are counted, not scored. `value` compares expected_spend with net realised
    spend; `mae` is that of the median read-out, `mae_of_mean` that of expected_spend; the interval of clv is
    set against spend after taking margin and discount out again (× expected_spend/clv). `log_score` is the
    mean negative log probability of the realised number of orders. `all_zero` scores a forecast of nothing
    for everyone.

    Args:
        forecasts: the `forecasts` table; orders_shape and spend_deviation are needed for log score, CRPS,
            pinball and the median read-out, without them these are null.
        realised: the `realised` table.

    Raises:
        InputError: no customer is in both tables, or they hold more than one cutoff or horizon.
    """
    FORECASTS.check(forecasts)
    REALISED.check(realised)
    both = forecasts.join(realised, on=list(KEYS), how="inner", validate="1:1").sort(CUSTOMER_ID)
    windows = both.select(CUTOFF, HORIZON_DAYS).unique().height
    if windows != 1:
        raise InputError(
            f"evaluate: forecasts and realised share {windows} cutoffs and horizons; give tables of exactly one."
        )
    scores: dict[str, Any] = {
        "cutoff": both[CUTOFF][0].isoformat(),
        "horizon_days": int(both[HORIZON_DAYS][0]),
        "customers": both.height,
        "not_scored": forecasts.height + realised.height - 2 * both.height,
        "churn": _churn(_column(both, REALISED_ORDERS), _column(both, P_CHURN)),
        "orders": _orders(both),
        "value": _value(both),
        "all_zero": _all_zero(both),
    }
    scores["undefined"] = {
        f"{group}.{name}": WHY[name]
        for group in ("churn", "orders", "value")
        for name, score in scores[group].items()
        if score is None
    }
    return scores


def _column(part: pl.DataFrame, name: str) -> Array:
    return part[name].cast(pl.Float64).to_numpy()


def _churn(orders: Array, p_churn: Array) -> dict[str, Any]:
    churned = (orders == 0).astype(float)
    parts = proper.brier_parts(churned, p_churn)
    return {
        "realised_share": float(churned.mean()),
        "predicted_share": float(p_churn.mean()),
        "auroc": metrics.churn_auroc(churned, p_churn),
        "average_precision": metrics.churn_average_precision(churned, p_churn),
        "brier": metrics.brier(churned, p_churn),
        "brier_reliability": parts.reliability,
        "brier_resolution": parts.resolution,
        "brier_uncertainty": parts.uncertainty,
        "log_loss": metrics.churn_log_loss(churned, p_churn),
        "ece": metrics.expected_calibration_error(churned, p_churn),
        "reliability": metrics.reliability(churned, p_churn),
    }


def _orders(part: pl.DataFrame) -> dict[str, Any]:
    came, expected = _column(part, REALISED_ORDERS), _column(part, EXPECTED_ORDERS)
    score = crps = None
    if _given(part, ORDERS_SHAPE):
        said = (_column(part, P_CHURN), expected, _column(part, ORDERS_SHAPE))
        score = float(-orders_log_score(came, *said).mean())
        crps = float(proper.orders_crps(came, *said).mean())
    return {
        "realised": float(came.sum()),
        "predicted": float(expected.sum()),
        "rmse": metrics.rmse(came, expected),
        "bias_percent": metrics.bias_percent(came, expected),
        "log_score": score,
        "crps": crps,
    }


def _value(part: pl.DataFrame) -> dict[str, Any]:
    came, expected = _column(part, REALISED_SPEND), _column(part, EXPECTED_SPEND)
    scores: dict[str, Any] = {
        "realised": float(came.sum()),
        "predicted": float(expected.sum()),
        "gini": metrics.normalised_gini(came, expected),
        "spearman": metrics.rank_correlation(came, expected),
        "rmse": metrics.rmse(came, expected),
        "bias_percent": metrics.bias_percent(came, expected),
        "mae": None,
        "mae_of_mean": metrics.mae(came, expected),
        "pinball_90": None,
        "crps": None,
        "log_score": None,
        "captured_10": profit.captured(came, expected, 0.1),
        "captured_20": profit.captured(came, expected, 0.2),
        "deciles": metrics.deciles(came, expected),
    }
    if _given(part, SPEND_DEVIATION):
        outcome = _outcome(part)
        scores["mae"] = metrics.mae(came, outcome.quantile(0.5))
        scores["pinball_90"] = float(pinball(came, outcome.quantile(0.9), 0.9).mean())
        scores["crps"] = float(proper.value_crps(came, outcome).mean())
        scores["log_score"] = float(proper.value_log_score(came, outcome).mean())
    return scores | _interval(part)


def _outcome(part: pl.DataFrame) -> HurdleLogNormal:
    p_churn = _column(part, P_CHURN)
    some = np.maximum(1 - p_churn, np.finfo(float).eps)
    return HurdleLogNormal(p_churn, _column(part, EXPECTED_SPEND) / some, _column(part, SPEND_DEVIATION))


def _interval(part: pl.DataFrame) -> dict[str, Any]:
    clv, expected = _column(part, CLV), _column(part, EXPECTED_SPEND)
    if not ((clv > 0) | (expected == 0)).all():
        return {"coverage_90": None, "width_90": None}
    unit = np.divide(expected, clv, where=clv > 0, out=np.ones_like(clv))
    lower, upper = _column(part, CLV_LOWER) * unit, _column(part, CLV_UPPER) * unit
    came = _column(part, REALISED_SPEND)
    return {"coverage_90": metrics.coverage(came, lower, upper), "width_90": metrics.width(lower, upper)}


def _all_zero(part: pl.DataFrame) -> dict[str, Any]:
    """The row that shows which metrics mislead; scores that are infinite for it are left out."""
    orders, spend = _column(part, REALISED_ORDERS), _column(part, REALISED_SPEND)
    zero = np.zeros(part.height)
    churn = _churn(orders, np.ones(part.height))
    return {
        "churn": {name: churn[name] for name in ("auroc", "average_precision", "brier", "ece")},
        "orders": {
            "rmse": metrics.rmse(orders, zero),
            "bias_percent": metrics.bias_percent(orders, zero),
            "crps": float(orders.mean()),
        },
        "value": {
            "gini": metrics.normalised_gini(spend, zero),
            "rmse": metrics.rmse(spend, zero),
            "mae": metrics.mae(spend, zero),
            "bias_percent": metrics.bias_percent(spend, zero),
            "pinball_90": float(pinball(spend, zero, 0.9).mean()),
            "crps": metrics.mae(spend, zero),
            "captured_10": profit.captured(spend, zero, 0.1),
            "captured_20": profit.captured(spend, zero, 0.2),
            "coverage_90": metrics.coverage(spend, zero, zero),
        },
    }


def _given(part: pl.DataFrame, name: str) -> bool:
    return name in part.columns and part[name].null_count() == 0
