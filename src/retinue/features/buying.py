"""How often, how much and how regularly: the families BTYD, volume and rhythm."""

from __future__ import annotations

import polars as pl

from retinue.features.catalogue import Family, Feature
from retinue.features.frames import (
    DAYS_AGO,
    FIRST_AGO,
    LAST_AGO,
    VALUE,
    WINDOWS,
    Frames,
    count,
    count_if,
    known_if,
    number,
    ratio,
    sum_if,
    total,
    window_name,
    within,
)
from retinue.schema import AMOUNT, CUSTOMER, EVENT_TYPE, ORDER, QUANTITY, REFUND

NO_ORDER = "no order yet"


def btyd(frames: Frames) -> pl.LazyFrame:
    """Per customer with an order: transactions (order days), first and last day, value of the repeat days."""
    repeat = pl.col(DAYS_AGO) < pl.col(FIRST_AGO)
    return frames.order_days.group_by(CUSTOMER).agg(
        count_if(repeat).alias("frequency"),
        count_if(pl.col(VALUE).is_not_null()).alias("valued"),
        pl.col(DAYS_AGO).max().alias("first_days"),
        pl.col(DAYS_AGO).min().alias("last_days"),
        pl.when(repeat).then(pl.col(VALUE)).mean().alias("monetary_value"),
    )


def _btyd(name: str, unit: str, sentence: str, value: pl.Expr, null: str = NO_ORDER) -> Feature:
    return Feature(name, unit, Family.btyd, sentence, null, value, (ORDER,))


BTYD = (
    _btyd(
        "frequency",
        "transactions",
        "Repeat transactions: days with an order after the first such day.",
        number("frequency"),
    ),
    _btyd(
        "recency_days",
        "whole days",
        "First to last day with an order.",
        number("first_days") - number("last_days"),
    ),
    _btyd("T_days", "whole days", "First day with an order to the cutoff.", number("first_days")),
    Feature(
        "valued_transactions",
        "transactions",
        Family.btyd,
        "Days with an order of known amount.",
        NO_ORDER,
        number("valued"),
        (ORDER,),
        (AMOUNT,),
    ),
    Feature(
        "monetary_value",
        "account currency",
        Family.btyd,
        "Mean value of the repeat transactions, before refunds.",
        "no repeat transaction of known amount",
        number("monetary_value"),
        (ORDER,),
        (AMOUNT,),
    ),
    _btyd("days_since_last", "whole days", "Last day with an order to the cutoff.", number("last_days")),
    Feature(
        "days_since_first_event",
        "whole days",
        Family.btyd,
        "First event of any type to the cutoff.",
        "never",
        number("days_since_first_event"),
    ),
)


def volume(frames: Frames) -> pl.LazyFrame:
    """Per customer with an order or refund: counts, money and units in each window."""
    order = pl.col(EVENT_TYPE) == ORDER
    refund = pl.col(EVENT_TYPE) == REFUND
    amount, quantity = pl.col(AMOUNT), pl.col(QUANTITY)
    aggregates: list[pl.Expr] = []
    for days in (*WINDOWS, None):
        inside, window = within(days), window_name(days)
        aggregates += [
            count_if(inside & order).alias(f"orders_{window}"),
            count_if(inside & refund).alias(f"refunds_{window}"),
            sum_if(inside, amount).alias(f"net_spend_{window}"),
            known_if(inside, amount).alias(f"amounts_{window}"),
            sum_if(inside & order, quantity).alias(f"units_{window}"),
            known_if(inside & order, quantity).alias(f"quantities_{window}"),
            sum_if(inside & refund, -amount).alias(f"refunded_{window}"),
            known_if(inside & refund, amount).alias(f"refunds_known_{window}"),
        ]
    return frames.of(ORDER, REFUND).group_by(CUSTOMER).agg(aggregates)


def _volume(days: int | None) -> tuple[Feature, ...]:
    window = window_name(days)
    orders, refunds, amounts = (f"{name}_{window}" for name in ("orders", "refunds", "amounts"))
    events = pl.col(orders).fill_null(0) + pl.col(refunds).fill_null(0)
    spend = pl.when(events == 0).then(0.0).when(pl.col(amounts) > 0).then(pl.col(f"net_spend_{window}"))
    units = total(f"units_{window}", orders, f"quantities_{window}")
    refunded = total(f"refunded_{window}", refunds, f"refunds_known_{window}")

    def feature(
        name: str, unit: str, noun: str, null: str, value: pl.Expr, kind: str, *columns: str
    ) -> Feature:
        sentence = f"{noun} {'so far' if days is None else f'in the last {days} days'}."
        return Feature(f"{name}_{window}", unit, Family.volume, sentence, null, value, (kind,), columns)

    money, none_known = "account currency", "there were some, none of known"
    return (
        feature("orders", "orders", "Orders", "never", count(orders), ORDER),
        feature(
            "net_spend", money, "Order amounts less refunds", f"{none_known} amount", spend, ORDER, AMOUNT
        ),
        feature("units", "units", "Units ordered", f"{none_known} quantity", units, ORDER, QUANTITY),
        feature("refunds", "refunds", "Refunds", "never", count(refunds), REFUND),
        feature(
            "refund_value",
            f"{money}, ≥ 0",
            "Money paid back",
            f"{none_known} amount",
            refunded,
            REFUND,
            AMOUNT,
        ),
    )


VOLUME = tuple(feature for days in (*WINDOWS, None) for feature in _volume(days))


def rhythm(frames: Frames) -> pl.LazyFrame:
    """Per customer with an order: the gaps between successive order days, and how tenure's halves compare."""
    gap = pl.col("gap")
    gaps = (
        frames.order_days.sort(CUSTOMER, DAYS_AGO, descending=[False, True])
        .with_columns(
            (pl.col(DAYS_AGO).shift(1).over(CUSTOMER) - pl.col(DAYS_AGO)).cast(pl.Float64).alias("gap")
        )
        .with_columns(
            gap.rank("ordinal").over(CUSTOMER).cast(pl.Int64).alias("rank"),
            gap.count().over(CUSTOMER).cast(pl.Int64).alias("gap_count"),
        )
    )
    middle = (2 * pl.col("rank") >= pl.col("gap_count")) & (2 * pl.col("rank") <= pl.col("gap_count") + 2)
    late = 2 * (pl.col(FIRST_AGO) - pl.col(DAYS_AGO)) > pl.col(FIRST_AGO)
    return gaps.group_by(CUSTOMER).agg(
        gap.count().cast(pl.Int64).alias("gaps"),
        gap.mean().alias("gap_mean"),
        gap.std().alias("gap_std"),
        gap.log().mean().alias("gap_log_mean"),
        pl.when(middle).then(gap).mean().alias("gap_median"),
        pl.when(pl.col(DAYS_AGO) == pl.col(LAST_AGO)).then(gap).max().alias("gap_last"),
        pl.col(DAYS_AGO).min().alias("silent_days"),
        pl.col(DAYS_AGO).max().alias("tenure_days"),
        count_if(late).alias("late_days"),
        count_if(~late).alias("early_days"),
    )


def _shape() -> pl.Expr:
    """Gamma shape of the gaps by Minka (2002, closed-form start); 1000 where they are all but equal."""
    s = pl.col("gap_mean").log() - pl.col("gap_log_mean")
    shape = (3 - s + ((s - 3) * (s - 3) + 24 * s).sqrt()) / (12 * s)
    return pl.when(pl.col("gaps") < 2).then(None).when(s < 5e-4).then(1000.0).otherwise(shape)


def _rhythm(name: str, unit: str, sentence: str, value: pl.Expr, null: str) -> Feature:
    return Feature(name, unit, Family.rhythm, sentence, null, value, (ORDER,))


_ONE, _TWO = "fewer than two order days", "fewer than three order days"
_HALVES = ((pl.col("late_days") + 0.5) / (pl.col("early_days") + 0.5)).log()
RHYTHM = (
    _rhythm("gap_mean_days", "days", "Mean gap between successive order days.", number("gap_mean"), _ONE),
    _rhythm("gap_std_days", "days", "Sample standard deviation of the gaps.", number("gap_std"), _TWO),
    _rhythm(
        "gap_cv",
        "ratio",
        "Standard deviation of the gaps over their mean.",
        ratio(number("gap_std"), number("gap_mean")),
        _TWO,
    ),
    _rhythm("gap_median_days", "days", "Median gap.", number("gap_median"), _ONE),
    _rhythm("gap_last_days", "days", "Gap before the last order day.", number("gap_last"), _ONE),
    _rhythm(
        "silence_ratio",
        "ratio",
        "Days since the last order over the customer's own mean gap.",
        ratio(number("silent_days"), number("gap_mean")),
        _ONE,
    ),
    _rhythm(
        "velocity_trend",
        "log ratio",
        "Order days in the last half of tenure against the first half, each plus a half.",
        pl.when(pl.col("tenure_days") >= 2).then(_HALVES),
        "first order less than two days before the cutoff",
    ),
    _rhythm(
        "regularity",
        "gamma shape",
        "How regular the gaps are: 1 is random, above is clockwork, below is bursts.",
        _shape(),
        _TWO,
    ),
)
