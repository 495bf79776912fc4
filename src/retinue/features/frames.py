"""The few tables that the families share: known events, orders in sequence, order days."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from zoneinfo import ZoneInfo

import polars as pl

from retinue.events.timeline import age_days, history, local_days_ago
from retinue.schema import (
    AMOUNT,
    CATEGORY,
    CHANNEL,
    CUSTOMER,
    CUSTOMER_ID,
    DISCOUNT,
    EVENT_TIME,
    EVENT_TYPE,
    EVENTS,
    ORDER,
    ORDER_ID,
    QUANTITY,
)

WINDOWS = (7, 30, 90, 180, 365)
AGE = "age_days"  # with fraction
DAYS_AGO = "days_ago"  # whole local days
NUMBER = "number"  # 1 = the customer's first order
FROM_LAST = "from_last"  # 0 = the customer's last order
VALUE = "value"
DAY_ORDERS = "day_orders"
DAY = "day"  # local date
LAST_AGO = "last_ago"
FIRST_AGO = "first_ago"
MONTH = "month_start"
LOG_PRICE = "log_price"
SEQUENCE = (CUSTOMER, EVENT_TIME, ORDER_ID, AMOUNT, DISCOUNT, CHANNEL, QUANTITY)


@dataclass(frozen=True)
class Whole:
    """What a feature may know of other customers: sums over the base at the same cutoff.

    Attributes:
        cohorts: Per month of the first order: customers, those who came again, their repeat transactions.
        prices: Per category: log unit prices of orders, summed, and how many.
        months: Per calendar month: orders.
    """

    cohorts: pl.LazyFrame
    prices: pl.LazyFrame
    months: pl.LazyFrame

    def tables(self) -> tuple[pl.LazyFrame, ...]:
        """The three in order; each has its key first and then sums."""
        return self.cohorts, self.prices, self.months


@dataclass(frozen=True)
class Frames:
    """The history of some customers at one cutoff, as lazy tables that the families share."""

    events: pl.LazyFrame
    cutoff: datetime
    zone: str
    base: Whole | None = None

    @property
    def today(self) -> date:
        """Local date of the cutoff."""
        return self.cutoff.astimezone(ZoneInfo(self.zone)).date()

    @property
    def local(self) -> pl.Expr:
        """The event's time on the shoppers' clock."""
        return pl.col(EVENT_TIME).dt.convert_time_zone(self.zone)

    @cached_property
    def whole(self) -> Whole:
        """Sums over the whole base: those given, or those of these very events."""
        return self.base or whole_of(self)

    @cached_property
    def known(self) -> pl.LazyFrame:
        """Every event known at the cutoff with `age_days` and `days_ago`; columns the source lacks are null."""
        has = self.events.collect_schema()
        lacking = [pl.lit(None, dtype=c.dtype).alias(c) for c in EVENTS.optional if c not in has]
        events = history(self.events, self.cutoff).with_columns(
            age_days(self.cutoff).alias(AGE), local_days_ago(self.cutoff, self.zone).alias(DAYS_AGO)
        )
        return events.with_columns(lacking) if lacking else events

    @cached_property
    def customers(self) -> pl.LazyFrame:
        """One row per customer with any known event: ids and whole days since the first event."""
        return self.known.group_by(CUSTOMER).agg(
            pl.col(CUSTOMER_ID).min(), pl.col(DAYS_AGO).max().alias("days_since_first_event")
        )

    def of(self, *types: str) -> pl.LazyFrame:
        """Known events of these types."""
        if len(types) == 1:
            return self.known.filter(pl.col(EVENT_TYPE) == types[0])
        return self.known.filter(pl.col(EVENT_TYPE).is_in(types))

    @cached_property
    def orders(self) -> pl.LazyFrame:
        """Orders in sequence: `number` from the first (1), `from_last` to the last (0); ties broken on full keys."""
        ordered = self.of(ORDER).sort(SEQUENCE, nulls_last=True)
        numbered = ordered.with_columns(pl.lit(1, dtype=pl.Int64).alias(NUMBER)).with_columns(
            pl.col(NUMBER).cum_sum().over(CUSTOMER)
        )
        return numbered.with_columns((pl.col(NUMBER).max().over(CUSTOMER) - pl.col(NUMBER)).alias(FROM_LAST))

    @cached_property
    def order_days(self) -> pl.LazyFrame:
        """One row per customer and local day with an order: `value` (null if no amount is known), `first_ago`."""
        amounts = pl.col(AMOUNT)
        days = (
            self.of(ORDER)
            .group_by(CUSTOMER, DAYS_AGO)
            .agg(
                amounts.sum().alias(VALUE),
                amounts.count().alias("priced"),
                pl.len().cast(pl.Int64).alias(DAY_ORDERS),
                self.local.dt.date().min().alias(DAY),
                pl.col(AGE).min(),
            )
        )
        return days.with_columns(
            pl.when(pl.col("priced") > 0).then(pl.col(VALUE)).alias(VALUE),
            pl.col(DAYS_AGO).max().over(CUSTOMER).alias(FIRST_AGO),
            pl.col(DAYS_AGO).min().over(CUSTOMER).alias(LAST_AGO),
        )


def whole_of(frames: Frames) -> Whole:
    """The sums of these events alone; those of several shards add up."""
    month = pl.col(DAY).dt.month_start()
    days = frames.order_days
    firsts = days.group_by(CUSTOMER).agg(pl.col(DAY).min(), (pl.len().cast(pl.Int64) - 1).alias("again"))
    cohorts = firsts.group_by(month.alias(MONTH)).agg(
        pl.len().cast(pl.Int64).alias("cohort_customers"),
        count_if(pl.col("again") > 0).alias("cohort_repeaters"),
        pl.col("again").sum().alias("cohort_repeats"),
    )
    prices = (
        priced(frames)
        .group_by(CATEGORY)
        .agg(pl.col(LOG_PRICE).sum().alias("log_prices"), pl.len().cast(pl.Int64).alias("prices"))
    )
    months = days.group_by(month.alias(MONTH)).agg(pl.col(DAY_ORDERS).sum().alias("month_orders"))
    return Whole(cohorts, prices, months)


def priced(frames: Frames) -> pl.LazyFrame:
    """Orders with a category and a unit price above 0, and the log of that price."""
    known = pl.col(CATEGORY).is_not_null() & (pl.col(AMOUNT) > 0) & (pl.col(QUANTITY) > 0)
    price = (pl.col(AMOUNT) / pl.col(QUANTITY)).log().alias(LOG_PRICE)
    return frames.of(ORDER).filter(known).select(CUSTOMER, CATEGORY, price)


def spread(rows: pl.LazyFrame, label: pl.Expr, name: str, weight: pl.Expr | None = None) -> pl.LazyFrame:
    """Per customer, how its events spread over the values of a label (nulls aside).

    Args:
        rows: Events with their age, or groups of events.
        label: What they are told apart by.
        name: Prefix of the columns.
        weight: Events in a row (Int64); None means one.

    Returns:
        `{name}_rows`, `_kinds`, `_kinds_180d`, `_most` (events of the commonest), `_n_log_n`, `_pairs` (ordered pairs
        of events that share the value).
    """
    n = pl.col("n").cast(pl.Float64)
    events = pl.len().cast(pl.Int64) if weight is None else weight.sum()
    kinds = (
        rows.with_columns(label.alias(name))
        .filter(pl.col(name).is_not_null())
        .group_by(CUSTOMER, name)
        .agg(events.alias("n"), pl.col(AGE).min())
    )
    return kinds.group_by(CUSTOMER).agg(
        n.sum().alias(f"{name}_rows"),
        pl.len().cast(pl.Int64).alias(f"{name}_kinds"),
        count_if(within(180)).alias(f"{name}_kinds_180d"),
        n.max().alias(f"{name}_most"),
        (n * n.log()).sum().alias(f"{name}_n_log_n"),
        (n * (n - 1)).sum().alias(f"{name}_pairs"),
    )


def entropy(name: str) -> pl.Expr:
    """Feature value from `spread`: Shannon entropy in nats, exactly 0 for one kind."""
    rows = pl.col(f"{name}_rows")
    return (
        pl.when(pl.col(f"{name}_kinds") == 1)
        .then(0.0)
        .otherwise(rows.log() - pl.col(f"{name}_n_log_n") / rows)
    )


def concentration(name: str) -> pl.Expr:
    """Feature value from `spread`: chance that two events share the value (Simpson 1949); null below two."""
    rows = pl.col(f"{name}_rows")
    return ratio(pl.col(f"{name}_pairs"), rows * (rows - 1))


def window_name(days: int | None) -> str:
    """Suffix of a window: `30d`, or `ever`."""
    return "ever" if days is None else f"{days}d"


def within(days: int | None) -> pl.Expr:
    """Whether the event lies in the last `days` days before the cutoff."""
    return pl.lit(True) if days is None else pl.col(AGE) < days


def count_if(condition: pl.Expr) -> pl.Expr:
    """Aggregate: rows that meet the condition."""
    return condition.cast(pl.Int64).sum()


def sum_if(condition: pl.Expr, value: pl.Expr) -> pl.Expr:
    """Aggregate: sum of the known values where the condition holds."""
    return pl.when(condition).then(value).sum()


def known_if(condition: pl.Expr, value: pl.Expr) -> pl.Expr:
    """Aggregate: how many values are known where the condition holds."""
    return pl.when(condition).then(value).count()


def count(name: str) -> pl.Expr:
    """Feature value: a count, 0 where the customer has no such event."""
    return pl.col(name).fill_null(0).cast(pl.Float64)


def number(name: str) -> pl.Expr:
    """Feature value: the aggregate as it is, null where it is undefined."""
    return pl.col(name).cast(pl.Float64)


def total(name: str, rows: str, known: str) -> pl.Expr:
    """Feature value: a sum; 0 where there is no such event, null where there are some and none carries the number."""
    return (
        pl.when(pl.col(rows).fill_null(0) == 0)
        .then(0.0)
        .when(pl.col(known) > 0)
        .then(pl.col(name))
        .cast(pl.Float64)
    )


def ratio(above: pl.Expr, below: pl.Expr) -> pl.Expr:
    """Quotient, null where the denominator is not positive."""
    return pl.when(below > 0).then(above / below)


def joined(first: pl.LazyFrame, others: Iterable[pl.LazyFrame]) -> pl.LazyFrame:
    """Left joins on the customer code."""
    for other in others:
        first = first.join(other, on=CUSTOMER, how="left")
    return first
