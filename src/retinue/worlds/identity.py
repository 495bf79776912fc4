"""What the records hide of who bought: guest checkouts, shared devices, rows known late; and the truth about it."""

from __future__ import annotations

import numpy as np
import polars as pl

from retinue.schema import (
    CUSTOMER_ID,
    DEVICE,
    EVENT_TIME,
    EVENT_TYPE,
    IS_GUEST,
    KNOWN_TIME,
    ORDER,
    ORDER_ID,
    PERSON,
    REFUND,
    TRUE_IDENTITY,
)
from retinue.worlds.sales import OWNER
from retinue.worlds.spec import Identity


def blurred(events: pl.DataFrame, customers: int, plan: Identity, rng: np.random.Generator) -> pl.DataFrame:
    """Events with owner and customer_id as they would be recorded, and the device's own id in `device`."""
    is_guest = _guests(events, plan, rng)
    guest = pl.format("g-{}", pl.col(ORDER_ID))
    late = pl.Series(rng.random(len(events)) < plan.late_share)
    lag = pl.Series(np.rint(rng.exponential(plan.late_days * 86_400e6, len(events))).astype(np.int64))
    return events.with_columns(
        pl.when(is_guest).then(guest).otherwise(CUSTOMER_ID).alias(CUSTOMER_ID),
        pl.Series(_devices(customers, plan, rng)).gather(events[OWNER]).alias(DEVICE),
        (pl.col(EVENT_TIME) + pl.when(late).then(lag).otherwise(0).cast(pl.Duration("us"))).alias(KNOWN_TIME),
    )


def _guests(events: pl.DataFrame, plan: Identity, rng: np.random.Generator) -> pl.Series:
    """A guest order takes its refund along."""
    orders = events.filter(pl.col(EVENT_TYPE) == ORDER)[ORDER_ID]
    guests = orders.filter(pl.Series(rng.random(len(orders)) < plan.guest_share))
    with_order = events[EVENT_TYPE].is_in([ORDER, REFUND])
    return (with_order & events[ORDER_ID].is_in(guests.implode())).fill_null(False)


def _devices(customers: int, plan: Identity, rng: np.random.Generator) -> list[str]:
    """One device per customer; neighbours in a random order share one, for the share asked."""
    number = np.arange(customers)
    mixed = rng.permutation(customers)[: 2 * round(customers * plan.shared_devices / 2)]
    number[mixed[1::2]] = mixed[0::2]
    return [f"device-{n:07d}" for n in number]


def true_identity(events: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
    """The `true_identity` table: each recorded id, the person behind it and the device."""
    person = ids.gather(events[OWNER]).alias(PERSON)
    known = events.select(CUSTOMER_ID, person, DEVICE).unique().sort(CUSTOMER_ID)
    table = known.with_columns((pl.col(CUSTOMER_ID) != pl.col(PERSON)).alias(IS_GUEST))
    return TRUE_IDENTITY.check(table.select(TRUE_IDENTITY.schema.names()))
