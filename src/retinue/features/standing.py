"""Where the customer stands among others and in the year: the families cohort and calendar."""

from __future__ import annotations

from datetime import date

import polars as pl

from retinue.features.catalogue import Family, Feature
from retinue.features.frames import DAY, DAYS_AGO, MONTH, NUMBER, Frames, joined, number, ratio
from retinue.schema import CHANNEL, CUSTOMER, ORDER

NEW_DAYS, VETERAN_DAYS = 90, 730


def cohort(frames: Frames) -> pl.LazyFrame:
    """Per customer with an order: first month and channel, and how the customers of that month came again."""
    first_month = pl.col(DAY).min().dt.month_start().alias(MONTH)
    own = frames.order_days.group_by(CUSTOMER).agg(
        first_month,
        pl.col(DAYS_AGO).max().alias("customer_days"),
        (pl.len().cast(pl.Int64) - 1).alias("own_repeats"),
    )
    first = frames.orders.filter(pl.col(NUMBER) == 1).select(CUSTOMER, pl.col(CHANNEL).alias("first_channel"))
    return joined(own, [first]).join(frames.whole.cohorts, on=MONTH, how="left")


def _cohort(
    name: str, unit: str, sentence: str, value: pl.Expr, null: str = "no order yet", *columns: str
) -> Feature:
    return Feature(name, unit, Family.cohort, sentence, null, value, (ORDER,), columns)


def _label(name: str, sentence: str, value: pl.Expr, null: str, dtype: pl.DataType, *columns: str) -> Feature:
    return Feature(name, "label", Family.cohort, sentence, null, value, (ORDER,), columns, dtype=dtype)


_STAGE = (
    pl.when(pl.col("customer_days").is_null())
    .then(pl.lit("prospect"))
    .when(pl.col("customer_days") < NEW_DAYS)
    .then(pl.lit("new"))
    .when(pl.col("customer_days") < VETERAN_DAYS)
    .then(pl.lit("established"))
    .otherwise(pl.lit("veteran"))
)
_MEAN_REPEATS = ratio(number("cohort_repeats"), number("cohort_customers"))
COHORT = (
    _label(
        "acquisition_month",
        "Month of the first order, as its first day.",
        pl.col(MONTH),
        "no order yet",
        pl.Date(),
    ),
    _label(
        "acquisition_channel",
        "Channel of the first order.",
        pl.col("first_channel"),
        "no order yet, or unknown",
        pl.String(),
        CHANNEL,
    ),
    _label(
        "lifetime_stage",
        f"prospect (no order), new (first under {NEW_DAYS} days ago), established, or veteran ({VETERAN_DAYS} days).",
        _STAGE,
        "never",
        pl.String(),
    ),
    _cohort(
        "cohort_repeat_rate",
        "share",
        "Customers of the same acquisition month, so of the same age, with a repeat transaction.",
        ratio(number("cohort_repeaters"), number("cohort_customers")),
    ),
    _cohort(
        "cohort_mean_frequency",
        "transactions",
        "Mean repeat transactions of the same acquisition month.",
        _MEAN_REPEATS,
    ),
    _cohort(
        "frequency_to_cohort",
        "ratio",
        "Own repeat transactions over the mean of the same acquisition month.",
        ratio(number("own_repeats"), _MEAN_REPEATS),
        "no order yet, or nobody of that month came again",
    ),
)


def calendar(frames: Frames) -> pl.LazyFrame:
    """Per customer: month and week of the cutoff, days to the month of the year with most orders per month."""
    today = frames.today
    opening = frames.whole.months.select(pl.col(MONTH).min().alias("opening"))
    months = (
        frames.whole.months.with_columns(pl.lit(1, dtype=pl.Int64).alias("key"))
        .join(opening.with_columns(pl.lit(1, dtype=pl.Int64).alias("key")), on="key")
        .filter(pl.col(MONTH) != pl.col("opening"), pl.col(MONTH) != today.replace(day=1))
        .group_by("key", pl.col(MONTH).dt.month().cast(pl.Int64).alias("month"))
        .agg(pl.col("month_orders").mean().alias("monthly"))
        .with_columns(pl.len().over("key").alias("months"), pl.col("monthly").max().over("key").alias("top"))
    )
    peak = (
        months.filter(pl.col("monthly") == pl.col("top"), pl.col("months") == 12)
        .group_by("key")
        .agg(pl.col("month").min().alias("peak"))
    )
    constants = {
        "cutoff_month": float(today.month),
        "cutoff_week": float(today.isocalendar().week),
    }
    until = pl.coalesce(pl.when(pl.col("peak") == m).then(pl.lit(_days_to(m, today))) for m in range(1, 13))
    return (
        frames.customers.select(CUSTOMER, pl.lit(1, dtype=pl.Int64).alias("key"))
        .join(peak, on="key", how="left")
        .select(CUSTOMER, *(pl.lit(v).alias(k) for k, v in constants.items()), until.alias("peak_days"))
    )


def _days_to(month: int, today: date) -> float:
    """Days to the first day of the next such month; 0 within it."""
    if month == today.month:
        return 0.0
    return float((date(today.year + (month < today.month), month, 1) - today).days)


def _calendar(name: str, unit: str, sentence: str, null: str = "never") -> Feature:
    types = (ORDER,) if null != "never" else ()
    column = "peak_days" if null != "never" else name
    return Feature(name, unit, Family.calendar, sentence, null, number(column), types)


CALENDAR = (
    _calendar("cutoff_month", "1 to 12", "Month of the cutoff."),
    _calendar("cutoff_week", "1 to 53", "ISO week of the cutoff."),
    _calendar(
        "days_to_peak_season",
        "days",
        "To the month of the year in which the base has most orders per month; 0 within it.",
        "the twelve months of the year have not all been seen whole",
    ),
)
