"""What the report is made from, and the one joined table behind its figures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from retinue.decisions.kpis import Target
from retinue.events.store import Manifest
from retinue.options import DecisionOptions, ValueOptions
from retinue.reporting.activity import ActivityTables
from retinue.reporting.words import is_number
from retinue.schema import (
    CLV,
    CLV_LOWER,
    CLV_UPPER,
    CUSTOMER_ID,
    CUTOFF,
    EXPECTED_ORDERS,
    EXPECTED_SPEND,
    HORIZON_DAYS,
    LIFECYCLE,
    MODEL,
    NET_SPEND_EVER,
    P_CHURN,
    QUADRANT,
    SEGMENT,
    SEGMENT_NAME,
    SPEND_DEVIATION,
    VALUE_AT_STAKE,
    VALUE_IF_RETAINED,
    Column,
)

ORDERS_EVER = Column("orders_ever", pl.Float64, "orders up to the cutoff", "unknown")
DAYS_SINCE_LAST = Column("days_since_last", pl.Float64, "days from the last order to the cutoff", "no order")

QUADRANTS = ("save", "advocate", "nurture", "let_go")
LIFECYCLE_STAGES = ("new", "active", "cooling", "dormant", "lapsed", "suppressed")
_NORMAL_90 = 1.6448536269514722


@dataclass(frozen=True)
class ActionTables:
    """What the pages on actions show.

    Attributes:
        menu: name of the menu.
        limits: what held the actions back, and what more of it would bring.
        curve: what each budget would bring.
        moves: who changed quadrant since the forecasts before, and why.
        kpis: key figures.
        acquisition: life value by way of coming.
        buys: what each segment buys most.
        targets: of key figures, with how far they have come.
        months: by when.
        experiments: effects by experiment.
        uplift: how well each measured effect is known.
        curves: forecasts of some customers at many horizons.
        events: of the same customers.
    """

    menu: str
    limits: pl.DataFrame
    curve: pl.DataFrame
    moves: pl.DataFrame
    kpis: pl.DataFrame
    acquisition: pl.DataFrame
    buys: pl.DataFrame
    targets: list[Target]
    months: float
    experiments: dict[str, pl.DataFrame]
    uplift: dict[str, Any]
    curves: pl.DataFrame
    events: pl.DataFrame


@dataclass(frozen=True)
class ReportTables:
    """Everything a report shows; `horizon_days` is the leading horizon, of which headlines and charts speak."""

    name: str
    currency: str
    cutoff: datetime
    horizon_days: int
    horizons: list[int]
    manifest: Manifest
    features: pl.DataFrame
    segments: pl.DataFrame
    segment_profiles: pl.DataFrame
    forecasts: pl.DataFrame
    decisions: pl.DataFrame
    quality: pl.DataFrame
    activity: ActivityTables
    value: ValueOptions
    quadrant_rules: DecisionOptions
    migration: pl.DataFrame | None = None
    metrics: dict[str, Any] | None = None
    reconciled: pl.DataFrame | None = None
    actions: ActionTables | None = None


def scored_customers(tables: ReportTables) -> pl.DataFrame:
    """One row per customer with a forecast at the leading horizon: forecast, quadrant, segment, past."""
    keys = [CUSTOMER_ID, CUTOFF]
    wanted = [CLV, CLV_LOWER, CLV_UPPER, EXPECTED_ORDERS, EXPECTED_SPEND, P_CHURN, MODEL]
    scored = tables.forecasts.filter(pl.col(HORIZON_DAYS) == tables.horizon_days).select(
        *keys, HORIZON_DAYS, *wanted
    )
    scored = scored.join(
        tables.decisions.select(*keys, HORIZON_DAYS, QUADRANT, VALUE_IF_RETAINED, VALUE_AT_STAKE),
        on=[*keys, HORIZON_DAYS],
        how="left",
    )
    scored = scored.join(tables.segments.select(*keys, SEGMENT, SEGMENT_NAME, LIFECYCLE), on=keys, how="left")
    if SPEND_DEVIATION in tables.forecasts.columns:
        spread = tables.forecasts.select(*keys, HORIZON_DAYS, SPEND_DEVIATION)
        scored = scored.join(spread, on=[*keys, HORIZON_DAYS], how="left")
    past = [c for c in (ORDERS_EVER, NET_SPEND_EVER, DAYS_SINCE_LAST) if c in tables.features.columns]
    scored = scored.join(
        tables.features.select(*keys, *(pl.col(c).cast(pl.Float64) for c in past)), on=keys, how="left"
    )
    absent = [c for c in (ORDERS_EVER, NET_SPEND_EVER, DAYS_SINCE_LAST) if c not in past]
    return scored.with_columns(pl.lit(None, pl.Float64).alias(c) for c in absent).sort(keys)


def total(values: Iterable[float | None]) -> float:
    """Exact sum, the same for any order of rows; unknown values are left out."""
    return math.fsum(v for v in values if v is not None)


@dataclass(frozen=True)
class Estimate:
    """A total with its 90% interval; `from_past` where past misses made it, else independent customers."""

    mean: float
    lower: float
    upper: float
    from_past: bool = False


def total_value(scored: pl.DataFrame) -> Estimate:
    """Expected clv of all customers, account currency, with a 90% interval.

    Customers are taken as independent given the model, so their variances add up. A customer's value is 0
    with probability p = p_churn, else it has mean clv/(1 − p) and deviation d, so its variance is
    p/(1 − p)·clv² + (1 − p)·d². Where the forecasts give no d, the variance is p/(1 − p)·clv², or that of a
    normal with the customer's own interval if larger. Errors that all customers share (a wrong model, a
    different season) are not in it.
    """
    mean = total(scored[CLV])
    half = _NORMAL_90 * math.sqrt(total(scored.select(_variance(scored.columns, CLV)).to_series()))
    floor = min(0.0, total(scored[CLV_LOWER]))
    return Estimate(mean, max(mean - half, min(floor, mean)), mean + half)


def total_spend(scored: pl.DataFrame, metrics: dict[str, Any] | None, horizon_days: int) -> Estimate:
    """Expected undiscounted spend of all customers, account currency, with a 90% interval.

    Args:
        scored: one row per customer at the horizon.
        metrics: `totals` of the horizon holds the interval from past misses, where there were enough.
        horizon_days: picks the row of `totals`; without one customers are independent, as in `total_value`.
    """
    mean = total(scored[EXPECTED_SPEND])
    told = (((metrics or {}).get("totals") or {}).get(str(horizon_days)) or {}).get("spend") or {}
    expected, lower, upper = (told.get(key) for key in ("expected", "lower", "upper"))
    if is_number(expected) and is_number(lower) and is_number(upper) and expected > 0:
        return Estimate(mean, mean * lower / expected, mean * upper / expected, from_past=True)
    half = _NORMAL_90 * math.sqrt(total(scored.select(_variance(scored.columns, EXPECTED_SPEND)).to_series()))
    return Estimate(mean, max(mean - half, min(0.0, mean)), mean + half)


def as_wide_as(value: Estimate, spend: Estimate) -> Estimate:
    """The discounted value with the relative reach of the spend it comes of, where past misses made that."""
    if not spend.from_past or spend.mean <= 0 or value.mean <= 0:
        return value
    low, high = (value.mean * side / spend.mean for side in (spend.lower, spend.upper))
    return Estimate(value.mean, low, high, from_past=True)


def _variance(columns: list[str], of: Column) -> pl.Expr:
    """Variance of one customer's clv or expected_spend."""
    mean, clv, p = pl.col(of), pl.col(CLV), pl.col(P_CHURN)
    gamble = pl.when(p < 1).then(p / (1 - p) * mean**2).otherwise(0.0)
    of_interval = ((pl.col(CLV_UPPER) - pl.col(CLV_LOWER)) / (2 * _NORMAL_90)) ** 2
    if of != CLV:
        of_interval = pl.when(clv != 0).then(of_interval * (mean / clv) ** 2).otherwise(0.0)
    rough = pl.max_horizontal(of_interval, gamble)
    if SPEND_DEVIATION not in columns:
        return rough
    unit = pl.when(pl.col(EXPECTED_SPEND) > 0).then(mean / pl.col(EXPECTED_SPEND)).otherwise(0.0)
    exact = gamble + (1 - p) * (unit * pl.col(SPEND_DEVIATION)) ** 2
    return pl.when(pl.col(SPEND_DEVIATION).is_not_null()).then(exact).otherwise(rough)


def total_churners(scored: pl.DataFrame) -> Estimate:
    """Expected customers without an order in the horizon, with a 90% interval (independent customers)."""
    mean = total(scored[P_CHURN])
    half = _NORMAL_90 * math.sqrt(total(scored.select(pl.col(P_CHURN) * (1 - pl.col(P_CHURN))).to_series()))
    return Estimate(mean, max(mean - half, 0.0), min(mean + half, float(scored.height)))


def high_value_from(scored: pl.DataFrame, rules: DecisionOptions) -> float | None:
    """Value from which a customer counts as high: the option, else the least that was counted so."""
    if rules.value_threshold is not None:
        return rules.value_threshold
    high = scored.filter(pl.col(QUADRANT).is_in(["save", "advocate"]))
    least = high[VALUE_IF_RETAINED].min()
    return float(least) if isinstance(least, (int, float)) else None
