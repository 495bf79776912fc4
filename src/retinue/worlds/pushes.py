"""Campaigns that push orders: whom they reach, the orders they add, and the rate at which they still do so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from retinue.worlds.clock import Array, Clock, Indices, Mask
from retinue.worlds.lives import Lives, Orders
from retinue.worlds.people import People
from retinue.worlds.spec import Campaigns, Spec, Targeting

FADED_DECAYS = 25
SILENCE_WEIGHT = 1.0
USUAL_SILENCE = 0.7


@dataclass(frozen=True)
class Pushes:
    """All campaigns of a world; (campaigns,) or (customers, campaigns) each.

    A campaign reaches who is `treated` on its day; `lift` (customers,) is the factor on the own order rate at that
    moment, which fades with `decay_days`. A customer is `eligible` once it has ordered, lost or not.
    """

    days: Array
    targeted: NDArray[np.bool_]
    propensity: Array
    treated: Mask
    eligible: Mask
    lift: Array
    decay_days: float
    grids: tuple[Array, ...]
    curves: tuple[Array, ...]

    def increments(self, people: People, who: Indices, edges: Array, at: float) -> Array:
        """Expected orders pushed in each cell, were the customer alive; (customers, cells).

        Campaigns sent by day `at` count where they reached the customer, later ones by the chance that they will.
        """
        pushed = np.zeros((len(who), edges.shape[1] - 1))
        for number, day in enumerate(self.days):
            if day + FADED_DECAYS * self.decay_days < at:
                continue
            reached = self.treated[who, number] if day <= at else self.propensity[who, number]
            strength = people.rate[who] * self.lift[who] * reached
            pushed += strength[:, None] * np.diff(self.reach(number, edges))
        return pushed

    def reach(self, number: int, day: Array) -> Array:
        """∫ season × exp(-days since / decay_days) from campaign `number` to each day; any shape."""
        return np.interp(day, self.grids[number], self.curves[number])

    def rate(self, people: People, clock: Clock, at: float) -> Array:
        """Orders per day still pushed on day `at`, were the customer alive; (customers,)."""
        rate = np.zeros(len(people))
        for number, day in enumerate(self.days):
            if day <= at:
                rate += self.treated[:, number] * np.exp(-(at - day) / self.decay_days)
        return np.asarray(rate * people.rate * self.lift * clock.business.at(np.array([at])))


def no_pushes(customers: int) -> Pushes:
    """A world without campaigns."""
    none = np.zeros((customers, 0))
    return Pushes(
        np.zeros(0),
        np.zeros(0, bool),
        none,
        none.astype(bool),
        none.astype(bool),
        np.zeros(customers),
        1.0,
        (),
        (),
    )


def push(
    spec: Spec, people: People, clock: Clock, lives: Lives, rng: np.random.Generator
) -> tuple[Pushes, Orders]:
    """Sends the campaigns one after the other; targeted ones look at all orders so far, pushed ones too."""
    plan = spec.campaigns
    empty = Orders(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))
    if plan is None:
        return no_pushes(len(people)), empty
    pushes = _planned(plan, spec.days, people, clock, rng)
    added = [empty]
    last_pushed = np.full(len(people), -np.inf)
    for number, day in enumerate(pushes.days):
        last = np.fmax(lives.orders.last_day(len(people), day), last_pushed)
        chance = (
            _propensity(plan, people, day - last)
            if pushes.targeted[number]
            else np.full(len(people), plan.share)
        )
        pushes.propensity[:, number] = np.where(pushes.eligible[:, number], chance, 0.0)
        pushes.treated[:, number] = rng.random(len(people)) < pushes.propensity[:, number]
        added.append(_add(pushes, number, people, np.minimum(lives.lost, spec.days), rng))
        if number + 1 < len(pushes.days):
            for orders in added:
                known = orders.day <= pushes.days[number + 1]
                np.maximum.at(last_pushed, orders.owner[known], orders.day[known])
    owner, day, number_of = (
        np.concatenate([getattr(o, name) for o in added]) for name in ("owner", "day", "campaign")
    )
    return pushes, Orders(owner, day, number_of)


def _planned(
    plan: Campaigns, last_day: int, people: People, clock: Clock, rng: np.random.Generator
) -> Pushes:
    """The campaigns before anybody is chosen."""
    days = np.arange(plan.first_day, last_day, plan.every_days, dtype=float)
    targeted = np.array([_is_targeted(plan, number) for number in range(len(days))], bool)
    grids, curves = (
        zip(*(_curve(clock, day, plan.decay_days) for day in days), strict=True) if len(days) else ((), ())
    )
    shape = (len(people), len(days))
    return Pushes(
        days,
        targeted,
        np.zeros(shape),
        np.zeros(shape, bool),
        people.born[:, None] <= days,
        _lifts(plan, len(people), rng),
        plan.decay_days,
        grids,
        curves,
    )


def _is_targeted(plan: Campaigns, number: int) -> bool:
    return plan.targeting is Targeting.targeted or (plan.targeting is Targeting.both and number % 2 == 1)


def _lifts(plan: Campaigns, count: int, rng: np.random.Generator) -> Array:
    sigma = np.sqrt(np.log1p(plan.lift_cv**2))
    return np.asarray(plan.lift * np.exp(sigma * rng.standard_normal(count) - sigma**2 / 2))


def _propensity(plan: Campaigns, people: People, silence_days: Array) -> Array:
    """Rises with silence measured in the customer's own gaps; kept off 0 and 1, so that effects stay identified."""
    share = np.clip(plan.share, 0.02, 0.98)
    silence = np.log1p(np.nan_to_num(silence_days * people.rate, nan=0.0, posinf=0.0))
    return np.asarray(np.clip(expit(logit(share) + SILENCE_WEIGHT * (silence - USUAL_SILENCE)), 0.02, 0.98))


def _curve(clock: Clock, day: float, decay_days: float) -> tuple[Array, Array]:
    """∫ season × exp(-s / decay_days) ds from the campaign's day on, exact at eighths of a day; (points,) each."""
    grid = day + np.arange(0, int(np.ceil(FADED_DECAYS * decay_days)) * 8 + 1) / 8
    faded = -decay_days * np.diff(np.exp(-(grid - day) / decay_days))
    return grid, np.concatenate([[0.0], np.cumsum(faded * clock.business.at(grid[:-1]))])


def _add(pushes: Pushes, number: int, people: People, until: Array, rng: np.random.Generator) -> Orders:
    total = pushes.reach(number, until)
    counts = rng.poisson(people.rate * pushes.lift * pushes.treated[:, number] * total)
    owner = np.repeat(np.arange(len(people)), counts)
    place = rng.random(len(owner)) * total[owner]
    day = np.interp(place, pushes.curves[number], pushes.grids[number])
    return Orders(owner, day, np.full(len(owner), number))
