"""Small made histories with every event type and every column, unknown values among them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from retinue.schema import EVENTS, KNOWN_EVENT_TYPES

Event = dict[str, Any]
CUTOFF = datetime(2024, 3, 31, 22, 59, 59, 999_999, tzinfo=UTC)
ZONE = "Europe/Berlin"  # the clocks went forward on the cutoff's day
COLUMNS = (*EVENTS.columns, *EVENTS.optional)


def event(kind: str, when: datetime, customer: int = 1, **values: Any) -> Event:
    """One event; what is not said is unknown."""
    row: Event = dict.fromkeys(COLUMNS)
    row |= {"base": "b", "customer_id": f"c{customer}", "customer": customer, "event_type": kind}
    return row | {"event_time": when, "known_time": when} | values


def table(events: Sequence[Event]) -> pl.DataFrame:
    """The events table of these rows."""
    return pl.DataFrame(list(events), schema={str(c): c.dtype for c in COLUMNS}, orient="row")


def history(seed: int, customers: int = 8, days: int = 800) -> list[Event]:
    """Random events up to 30 days after the cutoff; some known late; times that meet, and days that meet."""
    rng = random.Random(seed)

    def maybe(value: Any) -> Any:
        return None if rng.random() < 0.2 else value

    rows: list[Event] = []
    for customer in range(1, customers + 1):
        kinds = rng.sample(KNOWN_EVENT_TYPES, rng.randint(1, len(KNOWN_EVENT_TYPES)))
        kinds += ["order"] * rng.choice((0, 3, 12))
        for number in range(rng.randint(1, 90)):
            kind = rng.choice(kinds)
            ago = rng.expovariate(1 / rng.choice((1, 20, 200))) - rng.choice((0, 0, 0, 30))
            when = CUTOFF - timedelta(seconds=int(min(ago, days) * 86_400))
            if rows and rng.random() < 0.15:
                when = rows[-1]["event_time"]
            money = round(rng.uniform(1, 200), 2)
            rows.append(
                event(
                    kind,
                    when,
                    customer,
                    known_time=when + timedelta(days=rng.choice((0, 0, 0, 0, 5))),
                    order_id=f"o{customer}-{number:03d}",
                    amount={"order": maybe(money), "refund": maybe(-money)}.get(kind),
                    discount=maybe(rng.choice((0.0, 5.0))),
                    quantity=maybe(float(rng.randint(1, 5))),
                    lines=maybe(rng.randint(1, 9)),
                    categories=maybe(rng.randint(1, 3)),
                    category=maybe(rng.choice("abc")),
                    product=maybe(rng.choice("uvwxyz")),
                    channel=maybe(rng.choice(("Web", "app", "STORE", "phone", "kiosk"))),
                    device=maybe(rng.choice(("iOS", "desktop"))),
                    severity=maybe(rng.random()),
                    sentiment=maybe(rng.uniform(-1, 1)),
                    rating=maybe(float(rng.randint(1, 5))),
                )
            )
    return rows
