"""What customers are worth over their life by how they came, what they may cost to win, and when that is paid back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retinue.events.store import Store
from retinue.events.timeline import history
from retinue.options import ValueOptions
from retinue.schema import (
    ACQUISITION,
    AMOUNT,
    CATEGORY,
    CHANNEL,
    CLV,
    CUSTOMER_ID,
    CUSTOMERS,
    DIMENSION,
    EVENT_TIME,
    EVENT_TYPE,
    FIRST_BUY,
    GROUP,
    HORIZON_DAYS,
    LIFE_VALUE,
    LTV_CAC,
    MARGIN_RATE,
    MOST_CAC,
    ORDER,
    PAYBACK_DAYS,
    PRODUCT,
    REFUND,
    SEGMENT,
    SEGMENT_NAME,
    SHARE,
    TO_COHORT,
    TO_COHORT_ERROR,
    TOP_BUYS,
)

WAYS = {"first channel": CHANNEL, "first category": CATEGORY, "first product": PRODUCT}
ALL = "all"
LEAST_CUSTOMERS = 30
MOST_WAYS = 12
MOST_BUYS = 5
DAYS = (
    0.0,
    1.0,
    3.0,
    7.0,
    14.0,
    21.0,
    30.0,
    45.0,
    60.0,
    90.0,
    120.0,
    180.0,
    270.0,
    365.0,
    540.0,
    730.0,
    1095.0,
    1825.0,
)


def acquisition(
    store: Store,
    cutoff: datetime,
    features: pl.DataFrame,
    forecasts: pl.DataFrame,
    segments: pl.DataFrame,
    value: ValueOptions,
) -> pl.DataFrame:
    """The `acquisition` table: life value by first channel, category and product, and by segment.

    life_value is margin up to the cutoff plus clv. A way of coming is compared with customers of the same acquisition
    quarter, so that old customers do not make it look good: an association, not what the way causes.

    Args:
        store: prepared events.
        cutoff: end of history.
        features: at the cutoff; each customer's own margin_rate, where the events hold costs.
        forecasts: at the cutoff; the longest horizon counts.
        segments: at the cutoff.
        value: margin rate, cost of acquisition, and the ratio aimed at.
    """
    scan = history(store.scan(), cutoff)
    columns = scan.collect_schema().names()
    own = pl.col(MARGIN_RATE) if MARGIN_RATE in features.columns else pl.lit(None, pl.Float64)
    margins = features.select(CUSTOMER_ID, own.fill_null(value.margin_rate).alias("margin"))
    firsts = _firsts(scan, columns, margins, forecasts, segments)
    if firsts.is_empty():
        return ACQUISITION.schema.to_frame()
    paid = _paid_back(scan, columns, firsts, value)
    whole = firsts.with_columns(pl.lit(ALL).alias(ALL))
    parts = [_compared(whole, ALL, ALL, value, paid)]
    parts += [
        _compared(firsts, name, column, value, paid)
        for name, column in WAYS.items()
        if column in firsts.columns
    ]
    parts.append(_compared(firsts, "segment", SEGMENT_NAME, value, paid))
    return ACQUISITION.check(pl.concat(parts))


def _firsts(
    scan: pl.LazyFrame,
    columns: list[str],
    margins: pl.DataFrame,
    forecasts: pl.DataFrame,
    segments: pl.DataFrame,
) -> pl.DataFrame:
    """Each customer's first order, life value, margin as a share of spend, and segment."""
    amount = pl.col(AMOUNT).fill_null(0.0) if AMOUNT in columns else pl.lit(0.0)
    ways = [column for column in WAYS.values() if column in columns]
    orders = scan.filter(pl.col(EVENT_TYPE) == ORDER)
    first = (
        orders.sort(CUSTOMER_ID, EVENT_TIME)
        .group_by(CUSTOMER_ID, maintain_order=True)
        .agg(pl.col(EVENT_TIME, *ways).first())
    )
    money = (
        scan.filter(pl.col(EVENT_TYPE).is_in([ORDER, REFUND]))
        .group_by(CUSTOMER_ID)
        .agg(amount.sum().alias("so_far"))
    )
    longest = forecasts.filter(pl.col(HORIZON_DAYS) == pl.col(HORIZON_DAYS).max()).select(CUSTOMER_ID, CLV)
    told = first.join(money, on=CUSTOMER_ID).collect()
    told = (
        told.join(longest, on=CUSTOMER_ID, how="inner")
        .join(margins, on=CUSTOMER_ID, how="inner")
        .join(segments.select(CUSTOMER_ID, SEGMENT_NAME), on=CUSTOMER_ID, how="left")
    )
    day = pl.col(EVENT_TIME)
    return told.with_columns(
        (pl.col("so_far") * pl.col("margin") + pl.col(CLV)).alias(LIFE_VALUE),
        pl.format("{} Q{}", day.dt.year(), day.dt.quarter()).alias("cohort"),
    )


def _compared(
    firsts: pl.DataFrame, name: str, column: str, value: ValueOptions, paid: Mapping[str, float | None]
) -> pl.DataFrame:
    own = firsts.filter(pl.col(column).is_not_null()).with_columns(
        (pl.col(LIFE_VALUE) - pl.col(LIFE_VALUE).mean().over("cohort")).alias("apart")
    )
    rows = (
        own.group_by(pl.col(column).alias(FIRST_BUY))
        .agg(
            pl.len().cast(pl.Int64).alias(CUSTOMERS),
            pl.col(LIFE_VALUE).mean(),
            pl.col("apart").mean().alias(TO_COHORT),
            (pl.col("apart").std() / pl.len().sqrt()).fill_null(0.0).alias(TO_COHORT_ERROR),
        )
        .filter((pl.col(CUSTOMERS) >= LEAST_CUSTOMERS) | pl.lit(name == ALL))
        .sort(CUSTOMERS, FIRST_BUY, descending=[True, False])
        .head(MOST_WAYS)
    )
    cost = [_cost(way, name, value) for way in rows[FIRST_BUY]]
    ratio = [life / c if c else None for life, c in zip(rows[LIFE_VALUE], cost, strict=True)]
    back = [
        paid.get(way) if c is not None and name in (ALL, "first channel") else None
        for way, c in zip(rows[FIRST_BUY], cost, strict=True)
    ]
    return rows.with_columns(
        pl.lit(name).alias(DIMENSION),
        (pl.col(LIFE_VALUE) / value.ltv_to_cac).clip(0.0).alias(MOST_CAC),
        pl.Series(LTV_CAC, ratio, dtype=pl.Float64),
        pl.Series(PAYBACK_DAYS, back, dtype=pl.Float64),
    ).select(ACQUISITION.schema.names())


def _cost(way: str, name: str, value: ValueOptions) -> float | None:
    """What winning a customer that way costs, where it is given."""
    if name == "first channel" and way in value.acquisition_cost:
        return value.acquisition_cost[way]
    return value.acquisition_cost.get(ALL)


def _paid_back(
    scan: pl.LazyFrame, columns: list[str], firsts: pl.DataFrame, value: ValueOptions
) -> dict[str, float | None]:
    """Days until the mean margin of customers seen that long covers the cost, by first channel and for all."""
    if not value.acquisition_cost or AMOUNT not in columns:
        return {}
    money = scan.filter(pl.col(EVENT_TYPE).is_in([ORDER, REFUND])).select(
        CUSTOMER_ID, EVENT_TIME, pl.col(AMOUNT).fill_null(0.0)
    )
    last = money.select(pl.col(EVENT_TIME).max()).collect().item()
    ways = [CHANNEL] if CHANNEL in firsts.columns else []
    born = firsts.select(CUSTOMER_ID, pl.col(EVENT_TIME).alias("first"), "margin", *ways).with_columns(
        ((pl.lit(last) - pl.col("first")).dt.total_seconds() / 86_400).alias("seen")
    )
    rows = money.collect().join(born, on=CUSTOMER_ID)
    rows = rows.with_columns(
        ((pl.col(EVENT_TIME) - pl.col("first")).dt.total_seconds() / 86_400).alias("age"),
        pl.col(AMOUNT) * pl.col("margin"),
    )
    found: dict[str, float | None] = {}
    for way in (ALL, *(born[CHANNEL].drop_nulls().unique().sort() if ways else ())):
        cost = _cost(way, "first channel", value)
        if cost is not None:
            mine, who = (part if way == ALL else part.filter(pl.col(CHANNEL) == way) for part in (rows, born))
            found[way] = _first_day(mine, who["seen"].to_numpy(), cost)
    return found


def _first_day(rows: pl.DataFrame, seen: NDArray[np.float64], cost: float) -> float | None:
    """Day of life by which customers seen at least so long have brought the cost, in the mean; straight between days."""
    before = (0.0, 0.0)
    for day in DAYS:
        whole = int((seen >= day).sum())
        if whole < LEAST_CUSTOMERS:
            return None
        mine = rows.filter((pl.col("seen") >= day) & (pl.col("age") <= day))
        mean = float(mine[AMOUNT].sum()) / whole
        if mean >= cost:
            share = (cost - before[1]) / (mean - before[1]) if mean > before[1] else 0.0
            return before[0] + share * (day - before[0])
        before = (day, mean)
    return None


def top_buys(store: Store, cutoff: datetime, segments: pl.DataFrame) -> pl.DataFrame:
    """The `top_buys` table: the products and categories that a segment buys most, with its share over the base's."""
    scan = history(store.scan(), cutoff)
    columns = scan.collect_schema().names()
    parts = []
    for name, column in (("category", CATEGORY), ("product", PRODUCT)):
        if column not in columns:
            continue
        orders = scan.filter((pl.col(EVENT_TYPE) == ORDER) & pl.col(column).is_not_null())
        rows = orders.select(CUSTOMER_ID, pl.col(column).alias(GROUP)).collect()
        rows = rows.join(segments.select(CUSTOMER_ID, SEGMENT, SEGMENT_NAME), on=CUSTOMER_ID)
        base = rows.group_by(GROUP).agg((pl.len() / rows.height).alias("in base"))
        counts = rows.group_by(SEGMENT, SEGMENT_NAME, GROUP).agg(pl.len().cast(pl.Int64).alias("orders"))
        told = (
            counts.with_columns((pl.col("orders") / pl.col("orders").sum().over(SEGMENT)).alias(SHARE))
            .join(base, on=GROUP)
            .with_columns((pl.col(SHARE) / pl.col("in base")).alias("lift"), pl.lit(name).alias(DIMENSION))
            .sort(SEGMENT, "orders", GROUP, descending=[False, True, False])
            .group_by(SEGMENT, maintain_order=True)
            .head(MOST_BUYS)
        )
        parts.append(told.select(TOP_BUYS.schema.names()))
    return TOP_BUYS.check(pl.concat(parts)) if parts else TOP_BUYS.schema.to_frame()
