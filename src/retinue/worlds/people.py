"""Who the customers of a world are: when they came, and the parameters that each drew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, gammaincinv, ndtr

from retinue.worlds.clock import YEAR_DAYS, Array, Clock, Indices
from retinue.worlds.spec import Chance, Law, Process, Spec, Spend, Spread

LARGEST_CHANCE = 0.98
LOSS_AT_ORDERS = (Process.bg_nbd, Process.mbg_cnbd_k)


@dataclass(frozen=True)
class People:
    """One entry per customer in each array; days since the start of the data, rates per day.

    `chance` is the chance of loss at an order, `dropout` the hazard of loss in time: one of the two is zero.
    """

    born: Array
    rate: Array
    dropout: Array
    chance: Array
    regularity: Array
    buy: Array
    value: Array
    segment: Indices

    def __len__(self) -> int:
        return len(self.born)


def draw(spec: Spec, count: int, clock: Clock, rng: np.random.Generator) -> People:
    """Draws the customers of a world."""
    who = spec.customers
    scores = _scores(count, who.rate_dropout, who.rate_spend, rng)
    segment, factors = _segments(spec, count, rng)
    born = _arrivals(spec, count, clock, rng)
    years = born / YEAR_DAYS
    pace = factors["rate"] * np.exp(spec.arrivals.rate_drift_yearly * years)
    rate = _positive(who.rate, count, scores[0], rng) * pace
    loss = factors["dropout"] * np.exp(spec.arrivals.dropout_drift_yearly * years)
    loss = np.where(rng.random(count) < who.never_churn, 0.0, loss)
    dropout, chance = _leaving(spec, loss, scores[1], rng)
    value = _values(spec.spend, count, scores[2], rng) * factors["value"]
    buy = np.ones(count)
    if spec.process is Process.bg_bb:
        buy = np.minimum(_chance(who.buy_chance, count, scores[0], rng) * pace, 1.0)
        rate = buy / who.period_days
    return People(
        born=born,
        rate=rate,
        dropout=dropout,
        chance=chance,
        regularity=_regularity(spec, count, rng) * factors["regularity"],
        buy=buy,
        value=value * np.exp(spec.arrivals.spend_drift_yearly * years),
        segment=segment,
    )


def _regularity(spec: Spec, count: int, rng: np.random.Generator) -> Array:
    if spec.process not in (Process.mbg_cnbd_k, Process.pareto_ggg):
        return np.ones(count)
    # below 0.05 nearly all gaps are zero: no buyer looks like that, and double precision does not either
    return np.maximum(_positive(spec.customers.regularity, count, None, rng), 0.05)


def _leaving(spec: Spec, loss: Array, score: Array | None, rng: np.random.Generator) -> tuple[Array, Array]:
    """Hazard in time and chance at orders; (customers,) each."""
    who, none = spec.customers, np.zeros(len(loss))
    if spec.process not in (*LOSS_AT_ORDERS, Process.bg_bb):
        return _positive(who.dropout, len(loss), score, rng) * loss, none
    most = LARGEST_CHANCE / max(spec.calendar.regime_dropout, 1.0)
    chance = np.minimum(_chance(who.dropout_chance, len(loss), score, rng) * loss, most)
    if spec.process is Process.bg_bb:
        return -np.log1p(-chance) / who.period_days, none
    return none, chance


def _scores(
    count: int, rate_dropout: float, rate_spend: float, rng: np.random.Generator
) -> tuple[Array | None, Array | None, Array | None]:
    """Normal scores of rate, dropout and spend; None where a quantity is drawn on its own."""
    if not rate_dropout and not rate_spend:
        return None, None, None
    rate, one, two = rng.standard_normal((3, count))
    return (
        rate,
        rate_dropout * rate + np.sqrt(1 - rate_dropout**2) * one,
        rate_spend * rate + np.sqrt(1 - rate_spend**2) * two,
    )


def _positive(spread: Spread, count: int, score: Array | None, rng: np.random.Generator) -> Array:
    if spread.cv == 0:
        return np.full(count, spread.mean)
    if spread.law is Law.lognormal:
        return _lognormal(spread.mean, spread.cv, rng.standard_normal(count) if score is None else score)
    shape = spread.cv**-2
    unit = rng.standard_gamma(shape, count) if score is None else gammaincinv(shape, ndtr(score))
    return np.asarray(spread.mean / shape * unit)


def _lognormal(mean: float, cv: float, score: Array) -> Array:
    sigma = np.sqrt(np.log1p(cv**2))
    return np.asarray(mean * np.exp(sigma * score - sigma**2 / 2))


def _chance(chance: Chance, count: int, score: Array | None, rng: np.random.Generator) -> Array:
    if score is None:
        return rng.beta(chance.a, chance.b, count)
    return np.asarray(betaincinv(chance.a, chance.b, ndtr(score)))


def _values(spend: Spend, count: int, score: Array | None, rng: np.random.Generator) -> Array:
    """Mean order value of each customer; gamma-gamma as Fader and Hardie (2013): inverse gamma across customers."""
    if spend.between_cv == 0:
        return np.full(count, spend.mean)
    if spend.law is Law.lognormal:
        return _lognormal(
            spend.mean, spend.between_cv, rng.standard_normal(count) if score is None else score
        )
    shape = 2 + spend.between_cv**-2
    unit = rng.standard_gamma(shape, count) if score is None else gammaincinv(shape, ndtr(-score))
    return np.asarray(spend.mean * (shape - 1) / unit)


def _segments(spec: Spec, count: int, rng: np.random.Generator) -> tuple[Indices, dict[str, Array]]:
    names = ("rate", "dropout", "value", "regularity")
    if not spec.segments:
        return np.zeros(count, np.int64), dict.fromkeys(names, np.ones(count))
    shares = np.array([s.share for s in spec.segments])
    segment = rng.choice(len(shares), count, p=shares / shares.sum()).astype(np.int64)
    return segment, {
        name: np.array([getattr(s, name) for s in spec.segments], float)[segment] for name in names
    }


def _arrivals(spec: Spec, count: int, clock: Clock, rng: np.random.Generator) -> Array:
    """Days of first orders by inverse sampling from the density of arrivals per day."""
    last = spec.days if spec.arrivals.arrival_days is None else min(spec.arrivals.arrival_days, spec.days)
    day = np.arange(-spec.arrivals.older_days, last)
    if len(day) == 0:
        return np.zeros(count)
    density = np.exp(spec.arrivals.growth_yearly * (day - day[-1]) / YEAR_DAYS)
    if spec.arrivals.seasonal:
        density = density * clock.business.at(day.astype(float))
    if (density == density[0]).all():
        return np.asarray(day[0] + rng.random(count) * (last - day[0]))
    total = np.concatenate([[0.0], np.cumsum(density)])
    edges = np.concatenate([day, [last]]).astype(float)
    return np.asarray(np.interp(rng.random(count) * total[-1], total, edges))
