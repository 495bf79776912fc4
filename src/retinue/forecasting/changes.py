"""What a scoring of a base changed against the scoring of an earlier day."""

from __future__ import annotations

import polars as pl

from retinue.schema import (
    CLV,
    CLV_BEFORE,
    CLV_NOW,
    CUSTOMER_ID,
    CUTOFF,
    FORECAST_CHANGES,
    GONE_CUSTOMERS,
    HORIZON_DAYS,
    IN_BOTH,
    MODEL,
    NEW_CUSTOMERS,
    P_CHURN,
    PREVIOUS_CUTOFF,
    PREVIOUS_MODEL,
    RISK_FELL,
    RISK_ROSE,
)

LEAST_CHANGE = 0.1 - 1e-9  # of p_churn; a change from .2 to .3 counts in spite of rounding
_KEPT = (CUSTOMER_ID, HORIZON_DAYS, CUTOFF, MODEL, P_CHURN, CLV)


def changes_between(before: pl.LazyFrame, now: pl.LazyFrame) -> pl.DataFrame:
    """The `forecast_changes` table: one row per horizon that both scorings have, at the latest cutoff of each.

    Args:
        before: the `forecasts` table of an earlier day.
        now: that of this one.
    """
    both = _latest(before).join(
        _latest(now), on=[CUSTOMER_ID, HORIZON_DAYS], how="full", coalesce=True, suffix="_now"
    )
    was, is_now = pl.col(P_CHURN), pl.col(f"{P_CHURN}_now")
    in_both = was.is_not_null() & is_now.is_not_null()
    counted = both.group_by(HORIZON_DAYS).agg(
        pl.col(f"{CUTOFF}_now").max().alias(CUTOFF),
        pl.col(CUTOFF).max().alias(PREVIOUS_CUTOFF),
        pl.col(f"{MODEL}_now").max().alias(MODEL),
        pl.col(MODEL).max().alias(PREVIOUS_MODEL),
        _count(in_both, IN_BOTH),
        _count(was.is_null(), NEW_CUSTOMERS),
        _count(is_now.is_null(), GONE_CUSTOMERS),
        _count(in_both & (is_now - was >= LEAST_CHANGE), RISK_ROSE),
        _count(in_both & (was - is_now >= LEAST_CHANGE), RISK_FELL),
        pl.col(CLV).filter(in_both).sum().alias(CLV_BEFORE),
        pl.col(f"{CLV}_now").filter(in_both).sum().alias(CLV_NOW),
    )
    comparable = counted.filter(pl.col(CUTOFF).is_not_null() & pl.col(PREVIOUS_CUTOFF).is_not_null())
    names = FORECAST_CHANGES.schema.names()
    return FORECAST_CHANGES.check(comparable.select(names).sort(HORIZON_DAYS).collect(engine="streaming"))


def _latest(forecasts: pl.LazyFrame) -> pl.LazyFrame:
    return forecasts.filter(pl.col(CUTOFF) == pl.col(CUTOFF).max()).select(_KEPT)


def _count(rows: pl.Expr, name: str) -> pl.Expr:
    return rows.fill_null(False).sum().cast(pl.Int64).alias(name)
