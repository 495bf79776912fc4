"""The features of every customer at one cutoff, as one lazy query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import polars as pl

from retinue.events.timeline import has_clock, history
from retinue.features import baskets, buying, care, contact, places, standing
from retinue.features.catalogue import Family, Feature, LeftOut, markdown, split
from retinue.features.frames import Frames, Whole, joined
from retinue.schema import CUSTOMER, CUSTOMER_ID, CUTOFF, EVENT_TYPE, ORDER, REFUND, UTC_TIME

CATALOGUE: tuple[Feature, ...] = (
    *buying.BTYD,
    *buying.VOLUME,
    *buying.RHYTHM,
    *baskets.BASKET,
    *baskets.PRICE,
    *baskets.RETURNS,
    *places.CHANNELS,
    *places.TIMING,
    *contact.ENGAGEMENT,
    *contact.CAMPAIGNS,
    *care.SERVICE,
    *care.SUBSCRIPTION,
    *care.LOYALTY,
    *standing.COHORT,
    *standing.CALENDAR,
)

COMPARING = frozenset({Family.price, Family.cohort, Family.calendar})
"""The families that read sums over the whole base."""

AGGREGATES: dict[Family, Callable[[Frames], pl.LazyFrame]] = {
    Family.btyd: buying.btyd,
    Family.volume: buying.volume,
    Family.rhythm: buying.rhythm,
    Family.basket: baskets.basket,
    Family.price: baskets.price,
    Family.returns: baskets.returns,
    Family.channel: places.channel,
    Family.timing: places.timing,
    Family.engagement: contact.engagement,
    Family.campaigns: contact.campaigns,
    Family.service: care.service,
    Family.subscription: care.subscription,
    Family.loyalty: care.loyalty,
    Family.cohort: standing.cohort,
    Family.calendar: standing.calendar,
}


def available_at(
    events: pl.LazyFrame, cutoff: datetime, zone: str
) -> tuple[tuple[Feature, ...], tuple[LeftOut, ...]]:
    """Features that what was known at the cutoff supports, and the others with their reasons; nothing later is read.

    A base has a column where a known event holds a value in it, and a clock where a known order or refund
    (any event, where there are neither) is not at 0:00 in the zone. Features of orders are always there: forecasts
    are made from them, also where nobody has ordered yet.
    """
    columns = events.collect_schema().names()
    seen = held_at(events, cutoff, zone).collect(engine="streaming")
    types = [ORDER, *seen[EVENT_TYPE]]
    money = seen.filter(pl.col(EVENT_TYPE).is_in([ORDER, REFUND]))
    clocked = bool((money if money.height else seen)["clock"].any())
    return split(CATALOGUE, [c for c in columns if seen[f"held {c}"].sum() > 0], types, clocked)


def held_at(events: pl.LazyFrame, cutoff: datetime, zone: str) -> pl.LazyFrame:
    """Per type of the events known at the cutoff: values in each column (`held …`), whether any has a clock (`clock`)."""
    held = [pl.col(c).count().alias(f"held {c}") for c in events.collect_schema().names()]
    # the largest truth value is `any`, which does not run on a GPU
    return history(events, cutoff).group_by(EVENT_TYPE).agg(*held, has_clock(zone).max().alias("clock"))


def catalogue_markdown() -> str:
    """The text of docs/features.md."""
    return markdown(CATALOGUE)


def features_at(
    events: pl.LazyFrame,
    cutoff: datetime,
    zone: str = "UTC",
    families: Sequence[Family] | None = None,
    features: Sequence[Feature] | None = None,
    whole: Whole | None = None,
) -> pl.LazyFrame:
    """One row per customer with any event known at the cutoff, sorted by customer_id.

    Args:
        events: The events table of one base; optional columns may be absent.
        cutoff: Last instant of history.
        zone: Where the shoppers live; days, weekdays and hours are read there.
        families: Only these; None means all.
        features: Only these, e.g. the first part of `available`; None means all that the columns support.
        whole: Sums over the whole base at this cutoff, where `events` are only a part of it.

    Returns:
        customer_id, customer, cutoff and one column per feature, in the order of the catalogue.
    """
    frames = Frames(events, cutoff, zone, whole)
    if features is None:
        features, _ = split(CATALOGUE, events.collect_schema().names(), None)
    wanted = [f for f in features if families is None or f.family in families]
    needed = {feature.family for feature in wanted}
    aggregates = [query(frames) for family, query in AGGREGATES.items() if family in needed]
    return (
        joined(frames.customers, aggregates)
        .select(
            CUSTOMER_ID,
            CUSTOMER,
            pl.lit(cutoff).cast(UTC_TIME).alias(CUTOFF),
            *(feature.value.cast(feature.dtype).alias(feature.name) for feature in wanted),
        )
        .sort(CUSTOMER_ID)
    )
