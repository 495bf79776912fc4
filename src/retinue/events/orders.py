"""Cleaned rows of some customers to events: exact duplicates merged, lines summed to orders, refunds tied to orders."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from retinue.events.cleaning import CLOCK, SAME_A, SAME_B
from retinue.events.words import GIVEN, WITHDRAWN
from retinue.options import AmountIs
from retinue.schema import (
    AMOUNT,
    BASE,
    CATEGORIES,
    CATEGORY,
    COST,
    CUSTOMER,
    CUSTOMER_ID,
    DISCOUNT,
    EVENT_TIME,
    EVENT_TYPE,
    EVENTS,
    KNOWN_TIME,
    LABELS,
    LINES,
    ORDER,
    ORDER_ID,
    PRODUCT,
    QUANTITY,
    RATING,
    REFUND,
    SENTIMENT,
    SEVERITY,
    Column,
)

_BUCKET, _CENTS = "__bucket__", "__cents__"
_SUMS = (AMOUNT, DISCOUNT, COST, QUANTITY)
_MEANS = (SEVERITY, SENTIMENT, RATING)
_DAY_US = 86_400_000_000
_RUN, _ALIKE, _BEFORE = "__run__", "__alike__", "__before__"
ORDER_GAP_DAYS = 30  # lines of one order number further apart are of two orders


@dataclass(frozen=True)
class Grouping:
    """How rows become events; the same for every shard, and nothing of it depends on other rows but the columns."""

    columns: tuple[str, ...]
    merge_duplicates: bool | None
    local_zone: str
    consent_changes: bool = False  # of consent, keep the answers that differ from the one before
    amount_is: AmountIs = AmountIs.line


@dataclass(frozen=True)
class Grouped:
    """Events of one shard with what was done to its rows."""

    events: pl.DataFrame
    rows: int
    duplicates: int
    kept_repeats: int
    full_cancellations: int
    restarted: int = 0
    merged_lines: int = 0
    several_lines: int = 0
    alike_lines: int = 0
    alike_money: float = 0.0


def event_columns(filled: set[str]) -> tuple[str, ...]:
    """Columns of the store, in the order of the contract, from those that hold at least one value."""
    made = set(filled) | {str(column) for column in EVENTS.columns}
    if filled & {str(ORDER_ID), str(PRODUCT), str(CATEGORY)}:
        made.add(LINES)
    if CATEGORY in filled:
        made.add(CATEGORIES)
    return tuple(str(column) for column in (*EVENTS.columns, *EVENTS.optional) if column in made)


def to_events(rows: pl.DataFrame, grouping: Grouping) -> Grouped:
    """Events sorted by (customer, event_time, event_type, order_id, raw content), whatever the order of the rows."""
    kept, kept_repeats = _without_duplicates(rows, grouping)
    is_money = pl.col(EVENT_TYPE).is_in([ORDER, REFUND])
    others = kept.filter(~is_money)
    if grouping.consent_changes:
        others = _changed_answers(others)
    money, restarted = _with_runs(kept.filter(is_money))
    made = summed(money.lazy(), grouping).collect()
    several, alike, extra = _repeated_totals(made)
    orders, cancellations = _tied(made.drop(_ALIKE, strict=False))
    events = pl.concat([orders, others], how="diagonal")
    missing = [
        pl.lit(None, dtype=column.dtype).alias(column)
        for column in (*EVENTS.columns, *EVENTS.optional)
        if column in grouping.columns and column not in events.columns
    ]
    ordered = [key for key in (ORDER_ID, SAME_A, SAME_B) if key in events.columns]
    events = events.with_columns(missing).sort(CUSTOMER, EVENT_TIME, EVENT_TYPE, *ordered)
    merged = rows.height - kept.height
    return Grouped(
        events.select(grouping.columns),
        kept.height,
        merged,
        kept_repeats,
        cancellations,
        restarted,
        merged if ORDER_ID in rows.columns else 0,
        several,
        alike,
        extra,
    )


def _with_runs(rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Order numbers that begin again told apart: `17`, then `17 (2)` for lines of the customer long after the first ones.

    A refund goes with the last order of its number before it.
    """
    if ORDER_ID not in rows.columns or rows.is_empty():
        return rows, 0
    keys = [CUSTOMER, ORDER_ID]
    is_order, gap = pl.col(EVENT_TYPE) == ORDER, pl.duration(days=ORDER_GAP_DAYS)
    time = pl.col(EVENT_TIME)
    spans = (
        rows.lazy()
        .filter(is_order, pl.col(ORDER_ID).is_not_null())
        .group_by(keys)
        .agg(time.min(), time.max().alias(_RUN))
    )
    again = spans.filter(pl.col(_RUN) - time > gap).select(keys).collect()
    if again.is_empty():
        return rows, 0
    some = rows.join(again, on=keys, how="semi").sort(*keys, EVENT_TIME, ~is_order, SAME_A, SAME_B)
    last = pl.when(is_order).then(time).shift(1).forward_fill().over(keys).alias(_BEFORE)
    begins = (is_order & (time - pl.col(_BEFORE) > gap)).fill_null(False)
    some = some.with_columns(last).with_columns(begins.cast(pl.Int32).cum_sum().over(keys).alias(_RUN))
    restarted = some.select(CUSTOMER, ORDER_ID, _RUN).filter(pl.col(_RUN) > 0).n_unique()
    named = (
        pl.when(pl.col(_RUN) > 0).then(pl.format("{} ({})", ORDER_ID, pl.col(_RUN) + 1)).otherwise(ORDER_ID)
    )
    some = some.with_columns(named.alias(ORDER_ID)).drop(_RUN, _BEFORE)
    return pl.concat([rows.join(again, on=keys, how="anti"), some]), restarted


def _repeated_totals(orders: pl.DataFrame) -> tuple[int, int, float]:
    """Orders of several lines, those of them whose lines all carry one amount, and what the repeats add up to."""
    if _ALIKE not in orders.columns:
        return 0, 0, 0.0
    several = orders.filter(pl.col(EVENT_TYPE) == ORDER, pl.col(LINES) > 1)
    alike = several.filter(pl.col(_ALIKE) & (pl.col(AMOUNT) != 0))
    extra = (pl.col(AMOUNT) * (1 - 1 / pl.col(LINES))).sum()
    return several.height, alike.height, float(alike.select(extra).item())


def _changed_answers(others: pl.DataFrame) -> pl.DataFrame:
    """Of a customer's answers about consent those that differ from the one before; at one instant no counts last."""
    is_answer = pl.col(EVENT_TYPE).is_in([GIVEN, WITHDRAWN])
    answers = others.filter(is_answer).sort(CUSTOMER, EVENT_TIME, EVENT_TYPE, SAME_A, SAME_B)
    before = pl.col(EVENT_TYPE).shift(1).over(CUSTOMER)
    return pl.concat([others.filter(~is_answer), answers.filter(pl.col(EVENT_TYPE).ne_missing(before))])


def _without_duplicates(rows: pl.DataFrame, grouping: Grouping) -> tuple[pl.DataFrame, int]:
    """Rows equal in every input column merged, and how many were kept for being possibly two purchases of one day.

    Each row answers for itself, by its order id and its clock, so that no later row changes what becomes of it.
    """
    if grouping.merge_duplicates is False:
        return rows, 0
    mergeable = pl.lit(True)
    if grouping.merge_duplicates is None:
        mergeable = pl.col(CLOCK)
        if ORDER_ID in rows.columns:
            mergeable |= pl.col(ORDER_ID).is_not_null()
    repeats = rows.select(SAME_A, SAME_B, EVENT_TYPE, BASE, CUSTOMER).is_duplicated()
    if not repeats.any():
        return rows, 0
    twice = rows.filter(repeats)
    once = twice.filter(mergeable).unique([SAME_A, SAME_B, EVENT_TYPE, BASE, CUSTOMER])
    doubtful = twice.filter(~mergeable)
    return pl.concat([rows.filter(~repeats), once, doubtful]), doubtful.height


def summed(rows: pl.LazyFrame, grouping: Grouping) -> pl.LazyFrame:
    """One row per order, and per refund: by order id, else by customer and second; dates share one, so a day is one."""
    time = pl.col(EVENT_TIME)
    day = time.dt.convert_time_zone(grouping.local_zone).dt.date().cast(pl.Int64)
    bucket = time.dt.epoch("us") // 1_000_000
    keys: list[str] = [CUSTOMER, EVENT_TYPE, _BUCKET]
    has = set(rows.collect_schema().names())
    if ORDER_ID in has:
        # an order is its id; refunds of one order on different days stay apart
        by_id = pl.when(pl.col(EVENT_TYPE) == REFUND).then(day)
        bucket = pl.when(pl.col(ORDER_ID).is_null()).then(bucket).otherwise(by_id)
        keys.append(ORDER_ID)
    weight = [pl.col(AMOUNT).abs()] if AMOUNT in has else []
    names: list[str] = [c for c in LABELS if c in has]
    rows = rows.with_columns(bucket.alias(_BUCKET))
    rows = rows.sort(
        *keys, *weight, *names, SAME_A, SAME_B,
        descending=[False] * len(keys) + [True] * len(weight) + [False] * (len(names) + 2), nulls_last=True,
    )  # fmt: skip
    every = [pl.col(BASE, CUSTOMER_ID).first(), time.min(), pl.col(KNOWN_TIME).max()]
    totals = {AMOUNT} if grouping.amount_is is AmountIs.order_total and ORDER_ID in has else set()
    every += [_total(c) if c in totals else _sum(c) for c in _SUMS if c in has]
    if AMOUNT in has and ORDER_ID in has and LINES in grouping.columns:
        known = pl.col(AMOUNT).count() == pl.len()
        every.append((known & (pl.col(AMOUNT).min() == pl.col(AMOUNT).max())).alias(_ALIKE))
    every += [pl.col(c).mean() for c in _MEANS if c in has]
    every += [pl.col(c).first() for c in names]
    if LINES in grouping.columns:
        # the largest truth value is `any`, which does not run on a GPU
        told = [pl.col(c).is_not_null().max() for c in (ORDER_ID, PRODUCT, CATEGORY) if c in has]
        every.append(pl.when(pl.any_horizontal(told)).then(pl.len()).cast(pl.Int32).alias(LINES))
    if CATEGORY in has:
        kinds = pl.when(pl.col(CATEGORY).count() > 0).then(pl.col(CATEGORY).drop_nulls().n_unique())
        every.append(kinds.cast(pl.Int32).alias(CATEGORIES))
    return rows.group_by(keys, maintain_order=True).agg(every).drop(_BUCKET)


def _sum(column: Column) -> pl.Expr:
    return pl.when(pl.col(column).count() > 0).then(pl.col(column).sum()).alias(column)


def _total(column: Column) -> pl.Expr:
    """The total that stands on some or all lines of an order; rows without an order number are orders of their own."""
    # rows are sorted by the size of their amount, the largest first
    return (
        pl.when(pl.col(ORDER_ID).first().is_null())
        .then(_sum(column))
        .otherwise(pl.col(column).first())
        .alias(column)
    )


def _tied(orders: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Refunds that undo a whole earlier order of the customer within a day take its order id; both are kept.

    Each order is cancelled at most once, by the first refund of its exact amount; other refunds keep their own number.
    """
    if ORDER_ID not in orders.columns or AMOUNT not in orders.columns:
        return orders, 0
    is_refund = pl.col(EVENT_TYPE) == REFUND
    refunds = orders.filter(is_refund)
    if refunds.is_empty():
        return orders, 0
    sold = orders.filter(~is_refund)
    loose = refunds.join(sold.filter(pl.col(ORDER_ID).is_not_null()), on=[CUSTOMER, ORDER_ID], how="anti")
    if loose.is_empty():
        return orders, 0
    cents = (pl.col(AMOUNT).abs() * 10_000).round().cast(pl.Int64, strict=False).alias(_CENTS)
    keyed = loose.with_columns(cents).sort(EVENT_TIME, ORDER_ID, CUSTOMER, _CENTS)
    target = sold.filter(pl.col(ORDER_ID).is_not_null()).select(
        CUSTOMER, cents, EVENT_TIME, pl.col(ORDER_ID).alias("__order__"), pl.col(EVENT_TIME).alias("__sold__")
    )
    matched = keyed.join_asof(
        target.sort(EVENT_TIME, "__order__"), on=EVENT_TIME, by=[CUSTOMER, _CENTS], strategy="backward", tolerance="1d",
        check_sortedness=False,
    )  # fmt: skip
    matched = matched.select(CUSTOMER, pl.col(ORDER_ID), EVENT_TIME, "__order__").drop_nulls("__order__")
    matched = matched.unique([CUSTOMER, "__order__"], keep="first", maintain_order=True)
    matched = matched.with_columns(pl.lit(REFUND).alias(EVENT_TYPE))
    tied = orders.join(
        matched,
        on=[CUSTOMER, EVENT_TYPE, ORDER_ID, EVENT_TIME],
        how="left",
        nulls_equal=True,
        maintain_order="left",
    )
    tied = tied.with_columns(pl.coalesce("__order__", ORDER_ID).alias(ORDER_ID)).drop("__order__")
    return tied, matched.height
