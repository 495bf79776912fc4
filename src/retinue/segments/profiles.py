"""What each segment is like, in one row and one sentence."""

from __future__ import annotations

import polars as pl

from retinue.schema import (
    CUSTOMER_ID,
    CUSTOMERS,
    CUTOFF,
    DESCRIPTION,
    SEGMENT,
    SEGMENT_NAME,
    SEGMENT_PROFILES,
    SETS_APART,
    SHARE,
    SPEND_SHARE,
)
from retinue.segments.model import SegmentModel
from retinue.segments.traits import ORDERS, SILENCE, SPEND, with_orders

ALWAYS_SHOWN = ("orders_ever", "net_spend_ever", "average_order_value", "days_since_last", "gap_mean_days")


def profiles(model: SegmentModel, features: pl.DataFrame, segments: pl.DataFrame) -> pl.DataFrame:
    """One row per segment that has customers: name, description, size, and medians of the features used.

    The medians stand under the features' own names and in their units; null where no member has a value.

    Args:
        model: the fit.
        features: the features table that was placed.
        segments: the segments table that came of it.
    """
    placed = with_orders(features).join(segments, on=[CUSTOMER_ID, CUTOFF], validate="1:1")
    columns = [
        name for name in dict.fromkeys((*ALWAYS_SHOWN, *model.scaler.columns)) if name in placed.columns
    ]
    medians = [pl.col(name).cast(pl.Float64).median() for name in columns]
    money = pl.col(SPEND.columns[0]).sum() if SPEND.columns[0] in placed.columns else pl.lit(0.0)
    rows = (
        placed.sort(CUSTOMER_ID, CUTOFF)
        .group_by(SEGMENT, SEGMENT_NAME, maintain_order=True)
        .agg(pl.len().cast(pl.Int64).alias(CUSTOMERS), money.cast(pl.Float64).alias("money"), *medians)
        .sort(SEGMENT)
    )
    base = placed.select(medians).row(0, named=True) if columns else {}
    apart = dict(zip(model.ids, model.sets_apart, strict=True))
    total = pl.col("money").sum()
    table = rows.with_columns(
        (pl.col(CUSTOMERS) / pl.col(CUSTOMERS).sum()).alias(SHARE),
        pl.when(total > 0).then(pl.col("money") / total).alias(SPEND_SHARE),
        pl.col(SEGMENT).replace_strict(apart, default="", return_dtype=pl.String).alias(SETS_APART),
    )
    sentences = [_sentence(row, base) for row in table.iter_rows(named=True)]
    table = table.with_columns(pl.Series(DESCRIPTION, sentences, dtype=pl.String))
    keys = [SEGMENT, SEGMENT_NAME, DESCRIPTION, SETS_APART, CUSTOMERS, SHARE, SPEND_SHARE]
    return SEGMENT_PROFILES.check(table.select(*keys, *columns))


def _sentence(row: dict[str, object], base: dict[str, object]) -> str:
    """E.g. "412 customers (18%): typically 6 orders (base: 1), last order 40 days ago (base: 200)."."""
    figures = []
    for column, words in (
        (ORDERS.columns[0], "{} order{}"),
        (SPEND.columns[0], "{} spent"),
        (SILENCE.columns[0], "last order {} day{} ago"),
    ):
        own, typical = row.get(column), base.get(column)
        refunded = column == SPEND.columns[0] and isinstance(own, float) and own < 0
        if isinstance(own, float) and isinstance(typical, float) and not refunded:
            figures.append(
                f"{words.format(_number(own), '' if own == 1 else 's')} (base: {_number(typical)})"
            )
    share, customers = row[str(SHARE)], row[str(CUSTOMERS)]
    assert isinstance(share, float)
    told = f"{customers:,} customer{'' if customers == 1 else 's'} ({share:.0%})"
    return f"{told}: typically {', '.join(figures)}." if figures else f"{told}."


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 or value == round(value) else f"{value:,.1f}"
