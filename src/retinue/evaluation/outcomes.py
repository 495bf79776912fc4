"""What a forecaster said of each customer at each origin beside what came true, and every metric of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retinue.evaluation import influence, proper
from retinue.evaluation.influence import Statistic
from retinue.models.predictive import HurdleLogNormal, orders_log_score, pinball
from retinue.schema import (
    CLV,
    CLV_LOWER,
    CLV_UPPER,
    EXPECTED_ORDERS,
    EXPECTED_SPEND,
    ORDERS_SHAPE,
    P_CHURN,
    REALISED_ORDERS,
    REALISED_SPEND,
    SPEND_DEVIATION,
)

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
UNDEFINED = float("nan")


@dataclass(frozen=True)
class Outcomes:
    """Rows of customer × origin; (rows,) each. Losses that the forecast does not give the distribution for are NaN.

    origin: place of the fold; customer: code of the customer, the same at every origin.
    """

    origin: Labels
    customer: Labels
    p_churn: Array
    expected_orders: Array
    expected_spend: Array
    orders: Array
    spend: Array
    orders_loss: Array
    orders_crps: Array
    spend_loss: Array
    spend_crps: Array
    spend_pinball: Array
    inside_90: Array
    width_90: Array

    @property
    def churned(self) -> Array:
        """1 where no order came."""
        return np.asarray(self.orders == 0, np.float64)

    def where(self, kept: NDArray[np.bool_]) -> Outcomes:
        """Some of the rows."""
        return replace(self, **{item.name: getattr(self, item.name)[kept] for item in fields(self)})


def outcomes_of(both: pl.DataFrame, origin: int, customer: Labels) -> Outcomes:
    """Outcomes of one origin.

    Args:
        both: forecasts joined with what was realised, one row per customer.
        origin: place of the fold.
        customer: (rows,) codes.
    """
    p_churn, expected, mean = (_column(both, name) for name in (P_CHURN, EXPECTED_ORDERS, EXPECTED_SPEND))
    orders, spend = _column(both, REALISED_ORDERS), _column(both, REALISED_SPEND)
    shape, deviation = _column(both, ORDERS_SHAPE), _column(both, SPEND_DEVIATION)
    some = np.maximum(1 - p_churn, np.finfo(float).eps)
    outcome = HurdleLogNormal(p_churn, mean / some, deviation)
    unknown = np.full(len(orders), UNDEFINED)
    clv = _column(both, CLV)
    bounded = bool(((clv > 0) | (mean == 0)).all())  # else clv's interval says nothing of spend
    unit = np.divide(mean, clv, where=clv > 0, out=np.ones_like(clv))
    lower, upper = _column(both, CLV_LOWER) * unit, _column(both, CLV_UPPER) * unit
    counted, valued = not np.isnan(shape).any(), not np.isnan(deviation).any()
    return Outcomes(
        origin=np.full(len(orders), origin, np.int64),
        customer=customer,
        p_churn=p_churn,
        expected_orders=expected,
        expected_spend=mean,
        orders=orders,
        spend=spend,
        orders_loss=-orders_log_score(orders, p_churn, expected, shape) if counted else unknown,
        orders_crps=proper.orders_crps(orders, p_churn, expected, shape) if counted else unknown,
        spend_loss=proper.value_log_score(spend, outcome) if valued else unknown,
        spend_crps=proper.value_crps(spend, outcome) if valued else unknown,
        spend_pinball=pinball(spend, outcome.quantile(0.9), 0.9) if valued else unknown,
        inside_90=((lower <= spend) & (spend <= upper)).astype(float) if bounded else unknown,
        width_90=upper - lower if bounded else unknown,
    )


def all_zero(truth: Outcomes) -> Outcomes:
    """The forecast of nothing for everyone against the same truth: what shows which metrics mislead."""
    zero = np.zeros(len(truth.orders))
    return replace(
        truth,
        p_churn=np.ones(len(zero)),
        expected_orders=zero,
        expected_spend=zero,
        orders_loss=np.full(len(zero), UNDEFINED),
        orders_crps=truth.orders,
        spend_loss=np.full(len(zero), UNDEFINED),
        spend_crps=np.abs(truth.spend),
        spend_pinball=pinball(truth.spend, zero, 0.9),
        inside_90=(truth.spend == 0).astype(float),
        width_90=zero,
    )


def joined(parts: Sequence[Outcomes]) -> Outcomes:
    """All origins in one."""
    names = [item.name for item in fields(Outcomes)]
    return Outcomes(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _column(frame: pl.DataFrame, name: str) -> Array:
    if name not in frame.columns:
        return np.full(frame.height, UNDEFINED)
    return frame[name].cast(pl.Float64).fill_null(UNDEFINED).to_numpy()


@dataclass(frozen=True)
class Metric:
    """One figure of merit.

    better: "higher", "lower", or the number to come close to. within_origin: averaged over origins, since ranks of
    different times do not compare.
    """

    name: str
    better: str
    of: Callable[[Outcomes], Statistic]
    within_origin: bool = False

    def badness(self, value: float) -> float:
        """What to make small."""
        match self.better:
            case "higher":
                return -value
            case "lower":
                return value
            case aim:
                return abs(value - float(aim))


def _log_loss(rows: Outcomes) -> Array:
    edge = np.finfo(float).eps
    said = np.clip(rows.p_churn, edge, 1 - edge)
    return -np.where(rows.churned > 0, np.log(said), np.log1p(-said))


def _captured(rows: Outcomes, share: float) -> Statistic:
    return influence.captured(rows.spend, rows.expected_spend, share)


METRICS = (
    Metric("churn.auroc", "higher", lambda r: influence.auroc(r.churned, r.p_churn), True),
    Metric("churn.brier", "lower", lambda r: influence.mean((r.p_churn - r.churned) ** 2)),
    Metric("churn.log_loss", "lower", lambda r: influence.mean(_log_loss(r))),
    Metric("churn.ece", "lower", lambda r: influence.expected_calibration_error(r.churned, r.p_churn)),
    Metric("churn.reliability", "lower", lambda r: influence.reliability(r.churned, r.p_churn)),
    Metric("churn.resolution", "higher", lambda r: influence.resolution(r.churned, r.p_churn)),
    Metric("orders.log_score", "lower", lambda r: influence.mean(r.orders_loss)),
    Metric("orders.crps", "lower", lambda r: influence.mean(r.orders_crps)),
    Metric("orders.rmse", "lower", lambda r: influence.rmse(r.orders, r.expected_orders)),
    Metric("orders.bias_percent", "0", lambda r: influence.bias_percent(r.orders, r.expected_orders)),
    Metric("value.gini", "higher", lambda r: influence.gini(r.spend, r.expected_spend), True),
    Metric("value.captured_10", "higher", lambda r: _captured(r, 0.1), True),
    Metric("value.captured_20", "higher", lambda r: _captured(r, 0.2), True),
    Metric("value.log_score", "lower", lambda r: influence.mean(r.spend_loss)),
    Metric("value.crps", "lower", lambda r: influence.mean(r.spend_crps)),
    Metric("value.pinball_90", "lower", lambda r: influence.mean(r.spend_pinball)),
    Metric("value.rmse", "lower", lambda r: influence.rmse(r.spend, r.expected_spend)),
    Metric("value.mae_of_mean", "lower", lambda r: influence.mean(np.abs(r.expected_spend - r.spend))),
    Metric("value.bias_percent", "0", lambda r: influence.bias_percent(r.spend, r.expected_spend)),
    Metric("value.coverage_90", "0.9", lambda r: influence.mean(r.inside_90)),
    Metric("value.width_90", "lower", lambda r: influence.mean(r.width_90)),
)
