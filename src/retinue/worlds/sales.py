"""Orders with their money: values, discounts, returns and what a detailed source would tell besides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from retinue.schema import (
    AMOUNT,
    CAMPAIGN,
    CATEGORY,
    CHANNEL,
    COST,
    DEVICE,
    DISCOUNT,
    EVENT_TYPE,
    ORDER,
    ORDER_ID,
    QUANTITY,
    REFUND,
)
from retinue.worlds.clock import YEAR_DAYS, Array, Indices, Mask
from retinue.worlds.lives import Orders
from retinue.worlds.people import People
from retinue.worlds.spec import Law, Returns, Spec

OWNER, DAY = "owner", "day"
CATEGORIES = ("grocery", "home", "fashion", "beauty", "garden", "toys")
CHANNELS = ("web", "store", "app")
DEVICES = ("desktop", "mobile", "tablet")
UNIT_PRICE = 12.0


@dataclass(frozen=True)
class Sales:
    """Orders of all time by owner, then day; `refund_day` is infinite for orders never paid back. (orders,) each."""

    orders: Orders
    amount: Array
    refund_day: Array
    returns: Returns

    def pending_refunds(self, customers: int, at: float, horizon_days: int) -> Array:
        """Money expected back within the horizon for orders already made and not yet paid back by day `at`."""
        if not self.returns.share:
            return np.zeros(customers)
        open_now = (self.orders.day <= at) & (self.refund_day > at)
        since = at - self.orders.day[open_now]
        lag, share = self.returns.lag_days, self.returns.share
        still = share * np.exp(-since / lag)
        chance = still * -np.expm1(-horizon_days / lag) / (1 - share + still)
        owed = chance * self.returns.part * self.amount[open_now]
        return np.asarray(np.bincount(self.orders.owner[open_now], owed, customers), np.float64)


def merged(one: Orders, other: Orders) -> Orders:
    """Both sets of orders by owner, then day."""
    if not len(other.owner):
        return one
    owner, day = np.concatenate([one.owner, other.owner]), np.concatenate([one.day, other.day])
    campaign = np.concatenate([one.campaign, other.campaign])
    place = np.lexsort((day, owner))
    return Orders(owner[place], day[place], campaign[place])


def sell(spec: Spec, people: People, orders: Orders, rng: np.random.Generator) -> Sales:
    """Draws the value of each order, and whether and when it is paid back."""
    spend, cv = spec.spend, spec.spend.within_cv
    amount = people.value[orders.owner]
    if cv > 0 and spend.law is Law.gamma:
        amount *= cv**2 * rng.standard_gamma(cv**-2, len(amount))
    elif cv > 0:
        sigma = np.sqrt(np.log1p(cv**2))
        amount *= np.exp(sigma * rng.standard_normal(len(amount)) - sigma**2 / 2)
    if spend.drift_yearly:
        amount *= np.exp(spend.drift_yearly * orders.day / YEAR_DAYS)
    if spec.campaigns is not None:
        amount *= np.where(orders.campaign >= 0, 1 - spec.campaigns.discount, 1.0)
    amount = np.maximum(np.round(amount, 2), 0.01)
    refund_day = np.full(len(amount), np.inf)
    if spec.returns.share:
        back = rng.random(len(amount)) < spec.returns.share
        refund_day[back] = orders.day[back] + rng.exponential(spec.returns.lag_days, int(back.sum()))
    return Sales(orders, amount, refund_day, spec.returns)


def order_rows(
    spec: Spec, people: People, sales: Sales, deep: Mask | None, names: list[str], rng: np.random.Generator
) -> list[pl.DataFrame]:
    """Rows of orders and refunds that fall into the data, with owner and day.

    Args:
        spec: the world.
        people: its customers.
        sales: its orders.
        deep: orders of customers who look for a bargain before they go; (orders,).
        names: of the campaigns.
        rng: source of chance.
    """
    seen = (sales.orders.day >= 0) & (sales.orders.day < spec.days)
    owner, day, amount = sales.orders.owner[seen], sales.orders.day[seen], sales.amount[seen]
    frame = pl.DataFrame({OWNER: owner, DAY: day, AMOUNT: amount}).with_columns(
        pl.lit(ORDER).alias(EVENT_TYPE), pl.int_range(1, pl.len() + 1).cast(pl.String).alias(ORDER_ID)
    )
    campaign = sales.orders.campaign[seen]
    if spec.campaigns is not None:
        frame = frame.with_columns(_names(campaign, names).alias(CAMPAIGN))
    if spec.campaigns is not None or spec.details:
        bargain = np.zeros(len(owner), bool) if deep is None else deep[seen]
        frame = frame.with_columns(_discounts(spec, amount, campaign, bargain, rng).alias(DISCOUNT))
    if spec.details:
        frame = frame.with_columns(*_details(spec, people, owner, amount, rng))
    return [frame, *_refund_rows(spec, sales, seen, frame)]


def _refund_rows(spec: Spec, sales: Sales, seen: Mask, frame: pl.DataFrame) -> list[pl.DataFrame]:
    """Refunds inside the data; those of orders from before the data have no order to name."""
    back = (sales.refund_day >= 0) & (sales.refund_day < spec.days)
    if not back.any():
        return []
    number = np.where(seen, np.cumsum(seen) - 1, -1)[back]
    paid = np.maximum(np.round(sales.amount[back] * spec.returns.part, 2), 0.01)
    order = frame[ORDER_ID].gather(np.maximum(number, 0)).set(pl.Series(number < 0), None)
    return [
        pl.DataFrame(
            {OWNER: sales.orders.owner[back], DAY: sales.refund_day[back], AMOUNT: -paid, ORDER_ID: order}
        ).with_columns(pl.lit(REFUND).alias(EVENT_TYPE))
    ]


def _names(number: Indices, names: list[str]) -> pl.Series:
    known = pl.Series([None, *names], dtype=pl.String)
    return known.gather(number + 1)


def _discounts(
    spec: Spec, amount: Array, campaign: Indices, deep: Mask, rng: np.random.Generator
) -> pl.Series:
    """Money taken off a list price that is never told; amounts are already net of it."""
    share = np.zeros(len(amount))
    if spec.details:
        share = np.where(rng.random(len(amount)) < 0.2, rng.uniform(0.05, 0.25, len(amount)), 0.0)
        share = np.where(deep, rng.uniform(0.3, 0.5, len(amount)), share)
    if spec.campaigns is not None:
        share = np.where(campaign >= 0, spec.campaigns.discount, share)
    return pl.Series(np.round(amount * share / (1 - share), 2))


def _details(
    spec: Spec, people: People, owner: Indices, amount: Array, rng: np.random.Generator
) -> tuple[pl.Series, ...]:
    """Cost, quantity, category, channel and device; customers keep to favourites, which differ between segments."""
    cost = np.round(amount * (1 - spec.spend.margin) * rng.uniform(0.9, 1.1, len(owner)), 2)
    quantity = 1.0 + rng.poisson(amount / UNIT_PRICE)
    category = _favourites(people, owner, CATEGORIES, 0.7, rng)
    channel = _favourites(people, owner, CHANNELS, 0.85, rng)
    device = _favourites(people, owner, DEVICES, 0.8, rng)
    in_store = channel == CHANNELS.index("store")
    return (
        pl.Series(COST, cost),
        pl.Series(QUANTITY, quantity),
        pl.Series(CATEGORIES).gather(category).alias(CATEGORY),
        pl.Series(CHANNELS).gather(channel).alias(CHANNEL),
        pl.Series(DEVICES).gather(device).alias(DEVICE).set(pl.Series(in_store), None),
    )


def _favourites(
    people: People, owner: Indices, choices: tuple[str, ...], loyalty: float, rng: np.random.Generator
) -> Indices:
    own = (people.segment * 2 + rng.geometric(0.6, len(people)) - 1) % len(choices)
    other = rng.integers(0, len(choices), len(owner))
    return np.where(rng.random(len(owner)) < loyalty, own[owner], other)
