"""Lifecycle stages: each customer's silence against the customer's own norm."""

from __future__ import annotations

import polars as pl

from retinue.options import SegmentOptions
from retinue.schema import LIFECYCLE, InputError

STAGES = ("new", "active", "cooling", "dormant", "lapsed", "suppressed")
PRIOR_GAPS = 2.0
DEFAULT_GAP_DAYS = 90.0
SHORTEST_NORM_DAYS = 1.0


def typical_gap_days(features: pl.DataFrame) -> float:
    """Median over repeat buyers of their own mean gap, days; 90 where the base has no repeat buyer."""
    gaps = features.with_columns(_own_gap(features).alias("gap"))["gap"].drop_nulls()
    middle = gaps.median()
    return round(float(middle), 9) if isinstance(middle, float) and middle > 0 else DEFAULT_GAP_DAYS


def silence(features: pl.DataFrame, typical_gap: float) -> pl.Series:
    """Days since the last order over the customer's norm, f64; null where no order and no event is known.

    The norm is the mean of the customer's own gaps and of two typical ones, at least a day, so that one
    short gap makes nobody overdue, and a one-time buyer is judged by the base. A customer who never ordered
    is silent since the first event.

    Args:
        features: features table.
        typical_gap: the base's, days.
    """
    gaps = pl.when(_own_gap(features).is_not_null()).then(_repeats(features)).otherwise(0.0)
    own = pl.when(gaps > 0).then(_own_gap(features)).otherwise(0.0)
    norm = (gaps * own + PRIOR_GAPS * typical_gap) / (gaps + PRIOR_GAPS)
    since = pl.coalesce(_column(features, "days_since_last"), _column(features, "days_since_first_event"))
    ratio = since / pl.max_horizontal(norm, pl.lit(SHORTEST_NORM_DAYS))
    return features.with_columns(ratio.alias("silence"))["silence"]


def stages(features: pl.DataFrame, options: SegmentOptions, typical_gap: float) -> pl.Series:
    """Stage of each row, str.

    new: first order (or event, where there was no order) less than `new_days` ago; then active, cooling,
    dormant or lapsed by silence; suppressed, above all, where `suppressed` or `consent_withdrawn` is true or
    `consent` false.

    Raises:
        InputError: the three ratios do not ascend.
    """
    ratios = (options.cooling_ratio, options.dormant_ratio, options.lapsed_ratio)
    if not 0 < ratios[0] <= ratios[1] <= ratios[2]:
        raise InputError(
            f"segments.cooling_ratio, dormant_ratio, lapsed_ratio={list(ratios)}: must ascend from above 0, "
            "for example 1.5, 3 and 6."
        )
    age = pl.coalesce(_column(features, "T_days"), _column(features, "days_since_first_event"))
    ratio = pl.lit(silence(features, typical_gap))
    stage = (
        pl.when(_suppressed(features)).then(pl.lit("suppressed"))
        .when((age < options.new_days) | ratio.is_null()).then(pl.lit("new"))
        .when(ratio > options.lapsed_ratio).then(pl.lit("lapsed"))
        .when(ratio > options.dormant_ratio).then(pl.lit("dormant"))
        .when(ratio > options.cooling_ratio).then(pl.lit("cooling"))
        .otherwise(pl.lit("active"))
    )  # fmt: skip
    return features.with_columns(stage.alias(LIFECYCLE))[LIFECYCLE]


def _own_gap(features: pl.DataFrame) -> pl.Expr:
    """The customer's mean gap, days; null for one-time buyers."""
    repeats = _repeats(features)
    either = pl.coalesce(_column(features, "recency_days") / repeats, _column(features, "gap_mean_days"))
    return pl.when(repeats > 0).then(either)


def _repeats(features: pl.DataFrame) -> pl.Expr:
    return pl.coalesce(_column(features, "frequency"), _column(features, "orders_ever") - 1)


def _column(features: pl.DataFrame, name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Float64) if name in features.columns else pl.lit(None, dtype=pl.Float64)


def _suppressed(features: pl.DataFrame) -> pl.Expr:
    flags = [pl.col(n).cast(pl.Boolean) for n in ("suppressed", "consent_withdrawn") if n in features.columns]
    flags += [~pl.col("consent").cast(pl.Boolean)] if "consent" in features.columns else []
    return pl.any_horizontal(pl.lit(False), *[flag.fill_null(False) for flag in flags])
