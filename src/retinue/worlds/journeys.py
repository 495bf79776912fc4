"""Visits, e-mails, tickets and reviews around the orders, which move before a loss as its planted cause says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from retinue.schema import CATEGORY, EVENT_TYPE, RATING, SENTIMENT, SEVERITY
from retinue.worlds.clock import Array, Indices, Mask
from retinue.worlds.lives import Lives, Orders
from retinue.worlds.people import People
from retinue.worlds.sales import DAY, OWNER
from retinue.worlds.spec import Journeys, Spec

CLICK_SHARE = 0.15
SENDING_TIME = 0.4


@dataclass(frozen=True)
class Causes:
    """Why each customer will go, and since when it shows; `names[number]`, number -1 for none. (customers,) each."""

    names: tuple[str, ...]
    number: Indices
    since: Array

    def shows(self, name: str, owner: Indices, day: Array) -> Mask:
        """Whether the cause shows at each event; (events,)."""
        if name not in self.names:
            return np.zeros(len(owner), bool)
        shown: Mask = (self.number[owner] == self.names.index(name)) & (day >= self.since[owner])
        return shown

    def factor(self, changes: dict[str, float]) -> Array:
        """Factor on a rate while the cause shows; (customers,)."""
        factors = np.array([*(changes.get(name, 1.0) for name in self.names), 1.0])
        return factors[self.number]

    def shown(self, alive: Mask, at: float) -> pl.Series:
        """Name of the cause that shows on day `at`, null where none does or the customer is lost; (customers,)."""
        visible = pl.Series(alive & (self.since <= at))
        return self.labels.set(~visible, None)

    @property
    def labels(self) -> pl.Series:
        """Name of each customer's cause, null for none."""
        return pl.Series([None, *self.names], dtype=pl.String).gather(self.number + 1)


def plant(spec: Spec, lives: Lives, rng: np.random.Generator) -> Causes:
    """Gives every customer who will go a cause; without journeys nobody has one."""
    count = len(lives.lost)
    if spec.journeys is None:
        return Causes((), np.full(count, -1), np.full(count, np.inf))
    names, shares = zip(*spec.journeys.causes, strict=True)
    drawn = rng.choice(len(names), count, p=np.array(shares) / sum(shares))
    number = np.where(np.isfinite(lives.lost), drawn, -1)
    return Causes(tuple(names), number, lives.lost - spec.journeys.lead_days)


def bargains(causes: Causes, orders: Orders) -> Mask:
    """Orders made while a customer is leaving over prices; (orders,)."""
    return causes.shows("price", orders.owner, orders.day)


def journey_rows(
    spec: Spec, plan: Journeys, people: People, lives: Lives, causes: Causes, rng: np.random.Generator
) -> list[pl.DataFrame]:
    """Rows of visits, e-mails, tickets and reviews with owner and day; only e-mails are sent to the lost as well."""
    more, less = plan.strength, 1 / plan.strength
    visits = causes.factor({"price": more, "engagement": less})
    owner, day = _stream(spec, people, lives, causes, plan.visits_per_order, visits, rng)
    rows = [_rows(owner, day, "visit")]
    rows += _emails(spec, plan, people, lives, causes, rng)
    rows += _tickets(spec, plan, people, lives, causes, rng)
    reviews = causes.factor({"quality": more})
    owner, day = _stream(spec, people, lives, causes, plan.reviews_per_order, reviews, rng)
    bad = causes.shows("quality", owner, day)
    rating = np.clip(np.rint(rng.normal(np.where(bad, 1.8, 4.3), 0.8)), 1.0, 5.0)
    sentiment = np.clip((rating - 3) / 2 + rng.normal(0, 0.1, len(rating)), -1.0, 1.0)
    told = pl.Series(RATING, rating), pl.Series(SENTIMENT, sentiment)
    return [*rows, _rows(owner, day, "review").with_columns(*told)]


def _rows(owner: Indices, day: Array, event_type: str) -> pl.DataFrame:
    return pl.DataFrame({OWNER: owner, DAY: day}).with_columns(pl.lit(event_type).alias(EVENT_TYPE))


def _stream(
    spec: Spec,
    people: People,
    lives: Lives,
    causes: Causes,
    per_order: float,
    factor: Array,
    rng: np.random.Generator,
) -> tuple[Indices, Array]:
    """Poisson events during life at a multiple of the order rate, times `factor` once the cause shows."""
    start = np.maximum(people.born, 0.0)
    stop = np.maximum(np.minimum(lives.lost, spec.days), start)
    turn = np.clip(causes.since, start, stop)
    owners, days = [], []
    for low, high, change in ((start, turn, np.ones(len(people))), (turn, stop, factor)):
        counts = rng.poisson(people.rate * per_order * change * (high - low))
        owner = np.repeat(np.arange(len(people)), counts)
        owners.append(owner)
        days.append(low[owner] + rng.random(len(owner)) * (high - low)[owner])
    return np.concatenate(owners), np.concatenate(days)


def _emails(
    spec: Spec, plan: Journeys, people: People, lives: Lives, causes: Causes, rng: np.random.Generator
) -> list[pl.DataFrame]:
    mails = np.arange(0, spec.days, plan.email_days, dtype=np.float64) + SENDING_TIME
    owner, number = np.nonzero(people.born[:, None] <= mails)
    sent: Array = mails[number]
    eager = np.clip(plan.open_share * rng.gamma(4.0, 0.25, len(people)), 0.0, 0.95)
    bored = causes.shows("engagement", owner, sent)
    opens = rng.random(len(owner)) < eager[owner] / np.where(bored, plan.strength, 1.0)
    opened = sent[opens] + rng.exponential(0.3, int(opens.sum()))
    reader = owner[opens]
    lives_on = opened < lives.lost[reader]
    reader, opened = reader[lives_on], opened[lives_on]
    keen = causes.shows("price", reader, opened)
    clicks = rng.random(len(reader)) < np.minimum(CLICK_SHARE * np.where(keen, plan.strength, 1.0), 0.9)
    return [
        _rows(owner, sent, "email_sent"),
        _rows(reader, opened, "email_open"),
        _rows(reader[clicks], opened[clicks] + 0.001, "email_click"),
    ]


def _tickets(
    spec: Spec, plan: Journeys, people: People, lives: Lives, causes: Causes, rng: np.random.Generator
) -> list[pl.DataFrame]:
    factor = causes.factor({"service": plan.strength})
    owner, day = _stream(spec, people, lives, causes, plan.tickets_per_order, factor, rng)
    angry = causes.shows("service", owner, day)
    severity = np.where(angry, rng.beta(5, 2, len(owner)), rng.beta(2, 5, len(owner)))
    sentiment = np.clip(rng.normal(np.where(angry, -0.6, 0.0), 0.25), -1.0, 1.0)
    topic = np.where(angry, 0, rng.integers(1, 4, len(owner)))
    topic = np.where(causes.shows("quality", owner, day), 1, topic)
    topic = np.where(causes.shows("price", owner, day), 2, topic)
    topics = pl.Series(("service", "quality", "price", "delivery")).gather(topic)
    solved = day + rng.exponential(np.where(angry, 8.0, 2.0))
    opened = _rows(owner, day, "ticket_opened").with_columns(
        topics.alias(CATEGORY), pl.Series(SEVERITY, severity), pl.Series(SENTIMENT, sentiment)
    )
    return [opened, _rows(owner, solved, "ticket_resolved").with_columns(topics.alias(CATEGORY))]
