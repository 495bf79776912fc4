"""Who moved where between two cutoffs."""

from __future__ import annotations

import polars as pl

from retinue.schema import (
    CUSTOMER_ID,
    CUSTOMERS,
    DIMENSION,
    FROM_GROUP,
    LIFECYCLE,
    MIGRATION,
    SEGMENT,
    SEGMENT_NAME,
    SHARE,
    TO_GROUP,
    InputError,
)

NOT_THERE_YET = "not there yet"
NO_LONGER_THERE = "no longer there"


def migration(before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    """Moves of customers between segments and between lifecycle stages; `share` is of those in `from`.

    A segment that stands at both cutoffs goes by its later name.

    Args:
        before: segments table of the earlier cutoff, one row per customer.
        after: the same of the later cutoff.

    Raises:
        InputError: a table holds a customer twice.
    """
    for side, table in (("before", before), ("after", after)):
        if twice := len(table) - table[CUSTOMER_ID].n_unique():
            raise InputError(
                f"migration: '{side}' holds {twice:,} customers more than once; give one cutoff at a time."
            )
    renamed = after.group_by(SEGMENT).agg(pl.col(SEGMENT_NAME).min().alias("later_name"))
    before = before.join(renamed, on=SEGMENT, how="left", maintain_order="left").with_columns(
        pl.coalesce("later_name", SEGMENT_NAME).alias(SEGMENT_NAME)
    )
    moves = [_moves(before, after, SEGMENT_NAME, "segment"), _moves(before, after, LIFECYCLE, "lifecycle")]
    return MIGRATION.check(pl.concat(moves))


def _moves(before: pl.DataFrame, after: pl.DataFrame, column: str, dimension: str) -> pl.DataFrame:
    left = before.select(CUSTOMER_ID, pl.col(column).alias(FROM_GROUP))
    right = after.select(CUSTOMER_ID, pl.col(column).alias(TO_GROUP))
    return (
        left.join(right, on=CUSTOMER_ID, how="full", coalesce=True)
        .with_columns(
            pl.col(FROM_GROUP).fill_null(NOT_THERE_YET), pl.col(TO_GROUP).fill_null(NO_LONGER_THERE)
        )
        .group_by(FROM_GROUP, TO_GROUP)
        .agg(pl.len().cast(pl.Int64).alias(CUSTOMERS))
        .with_columns((pl.col(CUSTOMERS) / pl.col(CUSTOMERS).sum().over(FROM_GROUP)).alias(SHARE))
        .sort(FROM_GROUP, TO_GROUP)
        .select(pl.lit(dimension).alias(DIMENSION), FROM_GROUP, TO_GROUP, CUSTOMERS, SHARE)
    )
