"""Value × risk quadrants: whom to save, whom to ask for more, whom to nurture, whom to let go."""

from __future__ import annotations

from enum import Enum

import polars as pl

from retinue.options import DecisionOptions
from retinue.schema import (
    CLV,
    CUSTOMER_ID,
    CUSTOMERS,
    CUTOFF,
    DECISIONS,
    DIMENSION,
    EXPECTED_CHURNERS,
    FORECASTS,
    FROM_GROUP,
    HORIZON_DAYS,
    MOVES,
    P_CHURN,
    QUADRANT,
    QUADRANTS,
    SHARE,
    TO_GROUP,
    VALUE_AT_STAKE,
    VALUE_IF_RETAINED,
    WHY,
    InputError,
)

LEAST_SURVIVAL = 1e-3


class Quadrant(Enum):
    """What the two thresholds make of a customer."""

    save = "save"
    advocate = "advocate"
    let_go = "let_go"
    nurture = "nurture"


def quadrants(forecasts: pl.DataFrame, options: DecisionOptions) -> pl.DataFrame:
    """Each customer's quadrant at the longest horizon: the decisions table sorted by customer_id and cutoff.

    clv holds the risk already (margin comes only from customers who order), so ranking by it would call every
    customer at risk worthless. The value that retention would keep is the margin given at least one order
    more: E[M | N ≥ 1] = E[M] / P(N ≥ 1) = clv / (1 − p_churn), as M = 0 where N = 0. It is at most 1,000 ×
    clv (1 − p_churn counts as at least 0.001), so that no rounding in p_churn makes a fortune; a negative
    one is 0.

    High value: at or above `value_threshold`, or else the `value_quantile` over the cutoff's customers, and
    above 0. High risk: p_churn at or above `risk_threshold`. value_at_stake = p_churn × value if retained.

    Args:
        forecasts: forecasts table, one model's rows per customer, cutoff and horizon.
        options: the two thresholds.

    Raises:
        InputError: a customer has several rows at one cutoff and horizon, or p_churn or clv is not finite.
    """
    longest = _longest(forecasts)
    valued = longest.with_columns(value_if_retained())
    high_value = (pl.col(VALUE_IF_RETAINED) >= _high_from(options)) & (pl.col(VALUE_IF_RETAINED) > 0)
    high_risk = pl.col(P_CHURN) >= options.risk_threshold
    quadrant = (
        pl.when(high_value & high_risk).then(pl.lit(Quadrant.save.value))
        .when(high_value).then(pl.lit(Quadrant.advocate.value))
        .when(high_risk).then(pl.lit(Quadrant.let_go.value))
        .otherwise(pl.lit(Quadrant.nurture.value))
    )  # fmt: skip
    decided = valued.with_columns(quadrant.alias(QUADRANT), value_at_stake())
    return DECISIONS.check(decided.select(DECISIONS.schema.names()).sort(CUSTOMER_ID, CUTOFF))


def value_if_retained() -> pl.Expr:
    """Of a row of forecasts, account currency; see `quadrants`."""
    survival = pl.max_horizontal(1.0 - pl.col(P_CHURN), pl.lit(LEAST_SURVIVAL))
    return pl.max_horizontal(pl.col(CLV) / survival, pl.lit(0.0)).alias(VALUE_IF_RETAINED)


def value_at_stake() -> pl.Expr:
    """Of a row of forecasts, account currency; see `quadrants`."""
    return (pl.col(P_CHURN) * value_if_retained()).alias(VALUE_AT_STAKE)


def _high_from(options: DecisionOptions) -> pl.Expr:
    if options.value_threshold is not None:
        return pl.lit(options.value_threshold)
    return pl.col(VALUE_IF_RETAINED).quantile(options.value_quantile, "linear").over(CUTOFF)


def quadrant_moves(
    then: pl.DataFrame, now: pl.DataFrame, features: pl.DataFrame, options: DecisionOptions
) -> pl.DataFrame:
    """The `moves` table of those whose quadrant is another than at an earlier cutoff: which threshold was crossed, and why.

    Args:
        then: forecasts at the earlier cutoff.
        now: forecasts at the later one.
        features: at the later one; days_since_last tells who has ordered since.
        options: the thresholds; a quantile of value is another amount at each cutoff.
    """
    if then.is_empty() or now.is_empty():
        return MOVES.schema.to_frame()
    sides = []
    for forecasts in (then, now):
        made = quadrants(forecasts, options)
        risks = _longest(forecasts).select(CUSTOMER_ID, P_CHURN)
        sides.append(made.with_columns(_high_from(options).alias("from")).join(risks, on=CUSTOMER_ID))
    both = sides[0].join(sides[1], on=CUSTOMER_ID, suffix=" now")
    both = both.filter(pl.col(QUADRANT) != pl.col(f"{QUADRANT} now"))
    days = (now[CUTOFF][0] - then[CUTOFF][0]).total_seconds() / 86_400
    known = "days_since_last" in features.columns
    silent = features.select(
        CUSTOMER_ID, pl.col("days_since_last") if known else pl.lit(None, pl.Float64).alias("days_since_last")
    )
    both = both.join(silent, on=CUSTOMER_ID, how="left")
    risk, was_risk = pl.col(f"{P_CHURN} now"), pl.col(P_CHURN)
    at_risk = options.risk_threshold
    value, was_value = pl.col(f"{VALUE_IF_RETAINED} now"), pl.col(VALUE_IF_RETAINED)
    crossed_risk = (risk >= at_risk) != (was_risk >= at_risk)
    valued = [Quadrant.save.value, Quadrant.advocate.value]
    crossed_value = pl.col(QUADRANT).is_in(valued) != pl.col(f"{QUADRANT} now").is_in(valued)
    money = [one.round(2) for one in (was_value, value, pl.col("from now"), pl.col("from"))]
    clauses = [
        pl.when(crossed_risk).then(
            pl.format(
                "risk {} % → {} %, high from {} %",
                (was_risk * 100).round(1),
                (risk * 100).round(1),
                pl.lit(at_risk * 100).round(1),
            )
        ),
        pl.when(crossed_value).then(pl.format("value if retained {} → {}, high from {} (then {})", *money)),
        pl.when(pl.col("days_since_last") < days)
        .then(pl.lit("an order since then"))
        .when(pl.col("days_since_last").is_not_null())
        .then(pl.format("no order for {} days", pl.col("days_since_last").round(0).cast(pl.Int64))),
    ]
    return MOVES.check(
        both.select(
            CUSTOMER_ID,
            pl.lit("quadrant").alias(DIMENSION),
            pl.col(QUADRANT).alias(FROM_GROUP),
            pl.col(f"{QUADRANT} now").alias(TO_GROUP),
            pl.concat_str(clauses, separator="; ", ignore_nulls=True).alias(WHY),
        ).sort(CUSTOMER_ID)
    )


def _longest(forecasts: pl.DataFrame) -> pl.DataFrame:
    FORECASTS.check(forecasts)
    longest = forecasts.filter(pl.col(HORIZON_DAYS) == pl.col(HORIZON_DAYS).max())
    if twice := len(longest) - len(longest.unique([CUSTOMER_ID, CUTOFF])):
        raise InputError(
            f"forecasts: {twice:,} rows repeat a customer at one cutoff and horizon; give one model's rows."
        )
    for column in (P_CHURN, CLV):
        if bad := int((~longest[column].is_finite()).sum()):
            raise InputError(f"forecasts: '{column}' has {bad:,} values that are not finite; forecast again.")
    return longest


def quadrant_table(forecasts: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
    """Customers, share, expected churners, clv and value at stake of all four quadrants; empty ones hold 0.

    Args:
        forecasts: the table that was decided on.
        decisions: what `quadrants` made of it.
    """
    keys = [CUSTOMER_ID, CUTOFF, HORIZON_DAYS]
    rows = decisions.join(forecasts.select(*keys, P_CHURN, CLV), on=keys, validate="1:1").sort(keys)
    sums = rows.group_by(CUTOFF, QUADRANT).agg(
        pl.len().cast(pl.Int64).alias(CUSTOMERS),
        pl.col(P_CHURN).sum().alias(EXPECTED_CHURNERS),
        pl.col(CLV).sum(),
        pl.col(VALUE_AT_STAKE).sum(),
    )
    names = pl.DataFrame({QUADRANT: [q.value for q in Quadrant], "place": range(len(Quadrant))})
    whole = decisions.select(CUTOFF).unique().join(names, how="cross")
    table = (
        whole.join(sums, on=[CUTOFF, QUADRANT], how="left")
        .sort(CUTOFF, "place")
        .with_columns(
            pl.col(CUSTOMERS).fill_null(0), pl.col(EXPECTED_CHURNERS, CLV, VALUE_AT_STAKE).fill_null(0.0)
        )
    )
    shares = table.with_columns((pl.col(CUSTOMERS) / pl.col(CUSTOMERS).sum().over(CUTOFF)).alias(SHARE))
    return QUADRANTS.check(shares.select(QUADRANTS.schema.names()))
