"""`retinue doctor`: what is wrong with the stored events, worst first, and what each output can rest on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from retinue.events.identity import made_alike
from retinue.events.notes import FACT, PROBLEM, WARNING, finding
from retinue.events.store import Store
from retinue.events.timeline import bulk_days, history, is_observed
from retinue.options import IdRule
from retinue.schema import (
    AMOUNT,
    CUSTOMER,
    CUSTOMER_ID,
    EVENT_TIME,
    EVENT_TYPE,
    KNOWN_EVENT_TYPES,
    LEVEL,
    ORDER,
    ORDER_ID,
    QUALITY,
    REFUND,
    listed,
    shown,
)

_DAY_US = 86_400_000_000
_OUTLIER_Z = 5.0
_BINS_PER_E = 1000
_FEW_CUSTOMERS = 100
_FEW_REPEATERS = 30
_FEW_FOR_SEGMENTS = 40
_GUEST_ORDERS, _GUEST_SHARE, _GUEST_BUYERS = 30, 0.1, 20
_HUGE_EVENTS = 10_000
_SILENT_DAYS = 30

Row = dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """Numbers of one history that all findings share; days are days of 24 hours up to `end`."""

    store: Store
    events: pl.LazyFrame
    end: datetime
    horizon_days: int
    customers: pl.DataFrame
    orders: int
    buyers: int
    repeaters: int
    span_days: float
    silent_days: float


def doctor(store: Store, horizon_days: int, cutoff: datetime | None = None) -> pl.DataFrame:
    """The quality table, worst first: what preparation noticed, what the events show, what each output can rest on.

    Args:
        store: prepared events.
        horizon_days: length of the future that forecasts are wanted for.
        cutoff: last instant of history; None = end of observation.
    """
    facts = _facts(store, horizon_days, cutoff)
    rows = [
        *store.manifest.notes,
        *_of_customers(facts),
        *_of_span(facts, cutoff),
        *_of_money(facts),
        *_of_refunds(facts),
        *_of_refunds_above_orders(facts),
        *_of_consent(facts),
        *_of_outputs(facts),
    ]
    order = {PROBLEM: 0, WARNING: 1, FACT: 2}
    rows.sort(key=lambda row: order[row[str(LEVEL)]])
    return QUALITY.check(pl.DataFrame(rows, schema=QUALITY.schema))


def _facts(store: Store, horizon_days: int, cutoff: datetime | None) -> Facts:
    end = cutoff or store.observation_end
    events = history(store.scan(), end)
    day = pl.col(EVENT_TIME).dt.convert_time_zone(store.local_zone).dt.date()
    is_order = pl.col(EVENT_TYPE) == ORDER
    customers = (
        events.group_by(CUSTOMER)
        .agg(
            pl.len().alias("events"),
            is_order.sum().alias("orders"),
            pl.col(EVENT_TIME).filter(is_order).min().alias("first"),
            day.filter(is_order).min().alias("first_day"),
            day.filter(is_order).max().alias("last_day"),
        )
        .collect(engine="streaming")
        .sort(CUSTOMER)
    )
    buyers = customers.filter(pl.col("orders") > 0)
    last: Any = events.select(pl.col(EVENT_TIME).max()).collect(engine="streaming").item()
    return Facts(
        store=store,
        events=events,
        end=end,
        horizon_days=horizon_days,
        customers=customers,
        orders=int(customers["orders"].sum()),
        buyers=buyers.height,
        repeaters=buyers.filter(pl.col("last_day") > pl.col("first_day")).height,
        span_days=0.0 if not buyers.height else _bulk(buyers, end),
        silent_days=0.0 if last is None else _days(end - last),
    )


def _bulk(buyers: pl.DataFrame, end: datetime) -> float:
    ages = (pl.lit(end) - pl.col("first")).dt.total_microseconds() / _DAY_US
    return bulk_days(buyers.select(ages).to_series().to_numpy())


def _days(span: timedelta) -> float:
    return span.total_seconds() / 86_400


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _of_customers(facts: Facts) -> Iterator[Row]:
    count, events = facts.customers.height, int(facts.customers["events"].sum())
    kinds = ", ".join(f"{name} {number:,}" for name, number in facts.store.manifest.event_types.items())
    yield finding(FACT, "rows", f"{_counted(count, 'customer')} with {_counted(events, 'event')} ({kinds}).")
    if events <= 1:
        cure = "Check data.path and data.columns.*, or export more history."
        few = "there is 1 event in all" if events else "there is no event at all"
        yield finding(PROBLEM, "rows", f"{few}: nothing can be learnt.", cure)
    yield from _of_alike_ids(facts)
    if count == 1:
        cure = "Check data.columns.customer_id: it may name the shop, not the shopper."
        yield finding(PROBLEM, "identity", "there is one customer only: nothing can be compared.", cure)
    if facts.orders == 0:
        yield finding(PROBLEM, "rows", "there is not one order up to the cutoff.", _cure_for_no_order(facts))
    elif facts.repeaters == 0:
        nobody = "the only buyer never" if facts.buyers == 1 else f"none of the {facts.buyers:,} buyers"
        text = f"{nobody} came back on another day: no rhythm can be learnt."
        yield finding(PROBLEM, "repeat", text, "Export a longer history, or check the customer ids.")
    else:
        share = facts.repeaters / facts.buyers
        level = WARNING if share < 0.05 else FACT
        text = f"{facts.repeaters:,} of {_counted(facts.buyers, 'buyer')} ({share:.1%}) ordered on more than one day."
        yield finding(
            level, "repeat", text, "Check that returning customers keep their id." if share < 0.05 else None
        )
    yield from _of_huge_customer(facts, events)


def _of_alike_ids(facts: Facts) -> Iterator[Row]:
    """Customers whose ids differ in capitals, blanks, unseen letters or the form of accents alone."""
    ids = facts.store.scan().select(pl.col(CUSTOMER_ID).unique()).collect(engine="streaming")[CUSTOMER_ID]
    alike = made_alike(ids, [IdRule.nfc, IdRule.trim, IdRule.casefold])
    twice = ids.filter(alike.is_duplicated() & alike.is_not_null())
    if twice.is_empty():
        return
    first = alike.filter(alike.is_duplicated() & alike.is_not_null()).sort()[0]
    some = listed(f"'{one}'" for one in sorted(ids.filter(alike == first))[:3])
    text = (
        f"{len(twice):,} customer ids differ from another in capitals, blanks, unseen letters or accents alone ({some}): they "
        f"may be {alike.filter(alike.is_duplicated()).n_unique():,} people."
    )
    yield finding(WARNING, "identity", text, "Set data.id_normalise=[nfc,trim,casefold] if they are.")


def _cure_for_no_order(facts: Facts) -> str:
    """How orders are found: by the word for them, where the events have words of their own."""
    kinds = facts.store.manifest.event_types
    if ORDER in kinds:
        return "Give an earlier history or a later cutoff: all orders lie after it."
    words = [name for name in sorted(kinds, key=lambda name: -kinds[name]) if name not in KNOWN_EVENT_TYPES]
    if words:
        named = ", ".join(f"'{word}'" for word in words[:10])
        return f"Set data.event_names.order='<your word for a purchase>'; the words that are not known are {named}."
    return "Add the file of orders: data.paths.order=<file>, or data.path=<file> without an event type."


def _of_huge_customer(facts: Facts, events: int) -> Iterator[Row]:
    if facts.customers.is_empty():
        return
    top = facts.customers.sort("events", CUSTOMER, descending=[True, False]).row(0, named=True)
    is_huge = top["events"] >= _HUGE_EVENTS and (
        facts.customers.height == 1 or top["events"] >= 0.05 * events
    )
    share = top["orders"] / max(facts.orders, 1)
    is_guest = top["orders"] >= _GUEST_ORDERS and share >= _GUEST_SHARE and facts.buyers >= _GUEST_BUYERS
    if not (is_huge or is_guest):
        return
    name = (
        facts.events.filter(pl.col(CUSTOMER) == top[CUSTOMER])
        .select(pl.col(CUSTOMER_ID).first())
        .collect()
        .item()
    )
    text = (
        f"customer '{shown(name)}' alone has {top['events']:,} of {_counted(events, 'event')}, and {share:.0%} of the orders: "
        "one id for all guests, a till, a test account or a reseller?"
    )
    yield finding(WARNING, "identity", text, f"Set data.guest_ids=['{shown(name)}'] to set its rows aside.")


def _of_span(facts: Facts, cutoff: datetime | None) -> Iterator[Row]:
    if facts.orders == 0:
        return
    span, horizon = facts.span_days, facts.horizon_days
    yield from _of_lone_dates(facts)
    text = f"orders span {_counted(round(span), 'day')} up to the cutoff; the horizon is {_counted(horizon, 'day')}"
    if span < horizon - 1:
        cure = f"Ask for horizon_days={max(int(span), 1)} or less, or export a longer history."
        yield finding(WARNING, "span", f"{text}: forecasts reach further than the history behind them.", cure)
    else:
        yield finding(FACT, "span", f"{text} ({span / horizon:.1f} times over).")
    cycles = span / 365.25
    if cycles < 2:
        text = f"the history holds {cycles:.1f} yearly cycles: a season cannot be told from a trend."
        yield finding(WARNING if cycles < 1 else FACT, "season", text, "Export at least two years.")
    yield from _of_ends(facts)
    if cutoff is not None:
        seen = is_observed(facts.store.observation_end, cutoff, horizon, facts.store.local_zone)
        what = "the whole horizon after the cutoff is observed: forecasts are checked against what came true"
        text = what if seen else "the data end before cutoff + horizon: forecasts cannot be checked yet"
        yield finding(FACT, "span", f"{text}.")


def _of_lone_dates(facts: Facts) -> Iterator[Row]:
    """Customers whose first order lies long before that of all others: a slip more often than a loyal customer."""
    buyers = facts.customers.filter(pl.col("orders") > 0)
    age = (pl.lit(facts.end) - pl.col("first")).dt.total_microseconds() / _DAY_US
    lone = buyers.filter(age > facts.span_days + 1).sort("first", CUSTOMER)
    if lone.is_empty():
        return
    first = (
        facts.events.filter(pl.col(CUSTOMER) == lone[CUSTOMER][0])
        .select(pl.col(CUSTOMER_ID).first())
        .collect()
        .item()
    )
    text = (
        f"the first order of {_counted(lone.height, 'customer')} lies long before those of all others (customer "
        f"'{shown(first)}': {lone['first'][0]:%Y-%m-%d}); the history is taken to begin with the others."
    )
    yield finding(WARNING, "span", text, "Check that date; leave it empty in the export where it is unknown.")


def _of_ends(facts: Facts) -> Iterator[Row]:
    """Whether the history seems cut off at its start, or falls silent before its end."""
    buyers = facts.customers.filter(pl.col("orders") > 0)
    age = (pl.lit(facts.end) - pl.col("first")).dt.total_microseconds() / _DAY_US
    early = buyers.filter(age > facts.span_days * 11 / 12).height / facts.buyers
    if early > 0.25 and facts.buyers > 1 and facts.span_days > 1:
        text = (
            f"{early:.0%} of all first orders fall into the first {_counted(round(facts.span_days / 12), 'day')}: a cohort, or "
            "earlier orders are cut off and customers look younger than they are."
        )
        yield finding(WARNING, "span", text, "Export from the beginning, or take the first months with care.")
    silent = facts.silent_days
    if silent > max(3.0, 0.02 * facts.span_days):
        text = f"the last event lies {silent:,.0f} days before the end of history: is the export complete?"
        yield finding(WARNING, "span", text, "Check the last day of the export and data.observation_end.")


def _of_money(facts: Facts) -> Iterator[Row]:
    """Outliers by robust z (median and MAD, normal-consistent) on log amount; flagged, never dropped."""
    if AMOUNT not in facts.store.manifest.columns or facts.orders == 0:
        return
    paid = facts.events.filter(pl.col(EVENT_TYPE) == ORDER, pl.col(AMOUNT) > 0)
    bins = (
        paid.group_by((pl.col(AMOUNT).log() * _BINS_PER_E).round().cast(pl.Int64).alias("bin"))
        .agg(pl.len().alias("n"))
        .collect(engine="streaming")
    )
    if bins.is_empty():
        yield finding(WARNING, "money", "no order has an amount above zero.", "Check data.columns.amount.")
        return
    middle = _weighted_median(bins, "bin")
    spread = 1.4826 * _weighted_median(bins.with_columns((pl.col("bin") - middle).abs().alias("off")), "off")
    typical = math.exp(middle / _BINS_PER_E)
    yield finding(FACT, "money", f"half of all orders are below {typical:,.2f}.")
    if spread == 0:
        return
    z = (pl.col("bin") - middle) / spread
    far = bins.filter(z.abs() > _OUTLIER_Z)
    if far.height:
        count = int(far["n"].sum())
        text = (
            f"{count:,} of {_counted(facts.orders, 'order')} ({count / facts.orders:.2%}) "
            f"{'lies' if count == 1 else 'lie'} beyond {_OUTLIER_Z:g} "
            f"robust deviations from the typical {typical:,.2f}, the furthest {_furthest(paid, typical, min(count, 3))}. "
            f"{'It is' if count == 1 else 'They are'} kept."
        )
        yield finding(
            WARNING,
            "money",
            text,
            "Check these orders: wholesale, a slip, another currency, or later cancelled?",
        )


def _furthest(paid: pl.LazyFrame, typical: float, most: int) -> str:
    """The orders whose amounts are furthest from the typical one, on the log scale."""
    away = (pl.col(AMOUNT) / typical).log().abs().alias("away")
    named = paid.select(CUSTOMER_ID, AMOUNT, EVENT_TIME, away).top_k(most, by=["away", CUSTOMER_ID]).collect()
    rows = named.sort("away", CUSTOMER_ID, EVENT_TIME, descending=[True, False, False]).iter_rows(named=True)
    return ", ".join(
        f"{row[AMOUNT]:,.2f} ('{shown(row[CUSTOMER_ID])}', {row[EVENT_TIME]:%Y-%m-%d})" for row in rows
    )


def _weighted_median(bins: pl.DataFrame, value: str) -> float:
    ordered = bins.sort(value)
    reached = ordered["n"].cum_sum() * 2 >= ordered["n"].sum()
    return float(ordered.filter(reached)[value][0])


def _of_refunds(facts: Facts) -> Iterator[Row]:
    refunds = facts.events.filter(pl.col(EVENT_TYPE) == REFUND)
    count = refunds.select(pl.len()).collect(engine="streaming").item()
    if count == 0:
        if AMOUNT in facts.store.manifest.columns:
            yield finding(
                FACT, "refunds", "there are no refunds: value is gross where your shop takes returns."
            )
        return
    if ORDER_ID not in facts.store.manifest.columns:
        yield finding(FACT, "refunds", f"{_counted(count, 'refund')} without order id: the delay is unknown.")
        return
    keys = [CUSTOMER, ORDER_ID]
    sold = facts.events.filter(pl.col(EVENT_TYPE) == ORDER).select(*keys, pl.col(EVENT_TIME).alias("sold"))
    pairs = refunds.drop_nulls(ORDER_ID).join(sold, on=keys, how="inner")
    delay = (pl.col(EVENT_TIME) - pl.col("sold")).dt.total_microseconds() / _DAY_US
    linked, late = (
        pairs.select(pl.len(), delay.quantile(0.9).alias("late")).collect(engine="streaming").row(0)
    )
    text = f"{_counted(count, 'refund')}, {linked:,} of them tied to their order"
    if linked < max(10, count / 2):
        cure = "Give refunds the order_id of their order."
        yield finding(FACT, "refunds", f"{text}: too few to tell how late they come.", cure)
        return
    text = f"{text}; nine in ten come within {late:,.1f} days: the value of the last {late:,.0f} days may still fall."
    yield finding(FACT, "refunds", text)


def _of_refunds_above_orders(facts: Facts) -> Iterator[Row]:
    """Orders of which more went back than was paid, as where each line of an order has the refund of the whole."""
    if not {str(AMOUNT), str(ORDER_ID)} <= set(facts.store.manifest.columns):
        return
    keys, money = [CUSTOMER, ORDER_ID], pl.col(AMOUNT).sum()
    known = facts.events.filter(pl.col(ORDER_ID).is_not_null())
    back = known.filter(pl.col(EVENT_TYPE) == REFUND).group_by(keys).agg((-money).alias("back"))
    paid = known.filter(pl.col(EVENT_TYPE) == ORDER).group_by(keys).agg(money.alias("paid"))
    above = back.join(paid, on=keys).filter(pl.col("back") > pl.col("paid") + 0.01)
    count, refunded, sold = (
        above.select(pl.len(), pl.col("back").sum(), pl.col("paid").sum()).collect(engine="streaming").row(0)
    )
    if count:
        text = f"{_counted(count, 'order')} had more given back than paid: {refunded:,.2f} of {sold:,.2f}."
        cure = (
            "If each row of an order has the refund of the whole order, export one row per order, or set "
            "data.amount_is=order_total where amounts are of the whole order too."
        )
        yield finding(WARNING, "refunds", text, cure)


def _of_consent(facts: Facts) -> Iterator[Row]:
    kinds = facts.store.manifest.event_types
    if not any(kind.startswith("consent_") for kind in kinds):
        yield finding(FACT, "consent", "there are no consent events: who may be contacted is unknown.")
        return
    told = facts.events.filter(pl.col(EVENT_TYPE).str.starts_with("consent_"))
    count = told.select(pl.col(CUSTOMER).n_unique()).collect(engine="streaming").item()
    share = count / max(facts.customers.height, 1)
    level = WARNING if share < 0.5 else FACT
    yield finding(
        level,
        "consent",
        f"{_counted(count, 'customer')} ({share:.0%}) {'has' if count == 1 else 'have'} said yes or no to being contacted.",
    )


def _of_outputs(facts: Facts) -> Iterator[Row]:
    """For each output: supported, weak (and why), or not supported (and why)."""
    lacks: list[str] = []
    weak: list[str] = []
    if facts.repeaters == 0:
        lacks.append("nobody came back")
    elif facts.repeaters < _FEW_REPEATERS:
        weak.append(f"only {_counted(facts.repeaters, 'customer')} came back")
    if 0 < facts.buyers < _FEW_CUSTOMERS:
        weak.append(f"only {_counted(facts.buyers, 'buyer')}")
    if facts.span_days < facts.horizon_days - 1:
        weak.append("the history is shorter than the horizon")
    _judge_silence(facts, lacks, weak)
    has_money = AMOUNT in facts.store.manifest.columns
    for output in ("churn", "orders"):
        yield _verdict(output, lacks, weak)
    yield _verdict("clv", lacks if has_money else [*lacks, "there are no amounts"], weak)
    small = facts.buyers < _FEW_FOR_SEGMENTS
    yield _verdict(
        "segments",
        [f"{_counted(facts.buyers, 'buyer')} {'is' if facts.buyers == 1 else 'are'} too few"]
        if small
        else [],
        [],
    )


def _judge_silence(facts: Facts, lacks: list[str], weak: list[str]) -> None:
    """Data that end long before the cutoff look like customers who all stopped at once."""
    silent, span = facts.silent_days, facts.span_days
    if facts.orders == 0 or silent <= max(_SILENT_DAYS, span / 10):
        return
    text = f"the data end {silent:,.0f} days before the cutoff"
    if silent > span / 2:
        lacks.append(f"{text}, more than half of the {span:,.0f} days since the first order")
    else:
        weak.append(text)


def _verdict(output: str, lacks: list[str], weak: list[str]) -> Row:
    if lacks:
        text = f"{output}: not supported, since {' and '.join(lacks)}."
        return finding(PROBLEM, output, text, "See the other lines.")
    if weak:
        return finding(
            WARNING, output, f"{output}: weak, since {' and '.join(weak)}.", "See the other lines."
        )
    return finding(FACT, output, f"{output}: supported by these data.")
