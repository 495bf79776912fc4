"""Worlds that several tests look at, each made once."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache

import polars as pl

from retinue.schema import (
    AMOUNT,
    CUSTOMER_ID,
    EVENT_TIME,
    EVENT_TYPE,
    HORIZON_DAYS,
    ORDER,
    PERSON,
    REALISED_ORDERS,
    REALISED_SPEND,
    REFUND,
)
from retinue.worlds import Kind, World, simulate, spec_of

DAYS = 420
CUSTOMERS = 3_000
HORIZONS = (45, 200)
CUTOFF = spec_of(Kind.pareto_nbd, DAYS).start + timedelta(days=DAYS // 2)


@cache
def world(kind: Kind) -> World:
    """A world with truth in the middle of its data."""
    return simulate(
        replace(spec_of(kind, DAYS), cutoffs=(CUTOFF,), horizons_days=HORIZONS), CUSTOMERS, seed=11
    )


def by_person(made: World) -> pl.DataFrame:
    """Events with the person in customer_id."""
    if made.identity is None:
        return made.events
    known = made.identity.select(CUSTOMER_ID, PERSON)
    return made.events.join(known, on=CUSTOMER_ID).drop(CUSTOMER_ID).rename({PERSON: CUSTOMER_ID})


def judged(kind: Kind, horizon_days: int) -> pl.DataFrame:
    """The truth of a shared world at one horizon beside what came true."""
    return beside(world(kind), CUTOFF, horizon_days)


def beside(made: World, cutoff: datetime, horizon_days: int) -> pl.DataFrame:
    """The truth at one horizon beside what came true."""
    future = by_person(made).filter(
        pl.col(EVENT_TIME) > cutoff, pl.col(EVENT_TIME) <= cutoff + timedelta(days=horizon_days)
    )
    realised = future.group_by(CUSTOMER_ID).agg(
        (pl.col(EVENT_TYPE) == ORDER).sum().cast(pl.Float64).alias(REALISED_ORDERS),
        pl.col(AMOUNT).filter(pl.col(EVENT_TYPE).is_in([ORDER, REFUND])).sum().alias(REALISED_SPEND),
    )
    truth = made.truth.filter(pl.col(HORIZON_DAYS) == horizon_days).join(realised, on=CUSTOMER_ID, how="left")
    return truth.with_columns(pl.col(REALISED_ORDERS, REALISED_SPEND).fill_null(0.0))
