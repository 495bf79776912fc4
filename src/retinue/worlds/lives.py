"""The processes: when each customer orders and is lost, from the first order to the end of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import numpy as np

from retinue.worlds.clock import Array, Clock, Indices, Mask
from retinue.worlds.people import People
from retinue.worlds.spec import Process, Spec

BLOCK_CELLS = 4_000_000
LARGEST_BLOCK = 256
SMALL_BLOCK = 16


@dataclass(frozen=True)
class Orders:
    """Orders by owner, then day; `campaign` is the campaign that added the order, -1 for none. (orders,) each."""

    owner: Indices
    day: Array
    campaign: Indices

    def last_day(self, customers: int, at: float) -> Array:
        """Day of each customer's last order up to and with day `at`; NaN before the first. (customers,)."""
        past = self.day <= at
        counts = np.bincount(self.owner, past, customers).astype(np.int64)
        starts = np.searchsorted(self.owner, np.arange(customers))
        last = np.full(customers, np.nan)
        some = counts > 0
        last[some] = self.day[starts[some] + counts[some] - 1]
        return last


@dataclass(frozen=True)
class Stays:
    """Spells of activity of a two-state customer, by owner, then start; (spells,) each."""

    owner: Indices
    start: Array
    stop: Array

    def is_on(self, customers: int, at: float) -> Mask:
        """Whether each customer is active on day `at`; (customers,)."""
        now = (self.start <= at) & (at < self.stop)
        return np.bincount(self.owner[now], minlength=customers) > 0


@dataclass(frozen=True)
class Lives:
    """What came to pass: day of loss (infinite: never), orders, and spells where the process has them."""

    lost: Array
    orders: Orders
    stays: Stays | None = None


def live(  # noqa: PLR0911
    spec: Spec, people: People, clock: Clock, rng: np.random.Generator
) -> Lives:
    """Simulates all customers up to the end of the data; the first order of each is at `people.born`."""
    match spec.process:
        case Process.pareto_nbd:
            lost = _losses(people, clock, rng)
            return _poisson(people, clock, lost, spec.days, rng)
        case Process.bg_nbd:
            return _dying_at_orders(people, clock, spec.days, False, rng)
        case Process.mbg_cnbd_k:
            if is_poisson(people):
                return _dying_at_orders(people, clock, spec.days, True, rng)
            return _renewals(people, clock, np.full(len(people), np.inf), spec.days, rng)
        case Process.pareto_ggg:
            return _renewals(people, clock, _losses(people, clock, rng), spec.days, rng)
        case Process.two_state:
            return _two_state(spec, people, clock, rng)
        case Process.bg_bb:
            return _opportunities(spec, people, clock, rng)
    assert_never(spec.process)


def is_poisson(people: People) -> bool:
    """Whether no gap remembers when the last order was."""
    return bool((people.regularity == 1).all())


def _waits(rate: Array, rng: np.random.Generator) -> Array:
    """Exponential waiting times; infinite where the rate is zero."""
    draws = rng.standard_exponential(len(rate))
    return np.where(rate > 0, draws / np.where(rate > 0, rate, 1.0), np.inf)


def _losses(people: People, clock: Clock, rng: np.random.Generator) -> Array:
    return clock.decay.day(clock.decay(people.born) + _waits(people.dropout, rng))


def _scatter(
    counts: Indices, low: Array, high: Array, closed: Mask, rng: np.random.Generator
) -> tuple[Indices, Array, Indices]:
    """One point at `low`, `counts` uniform ones in order, and one at `high` where closed, for each interval.

    Order statistics of the uniform are normalised partial sums of exponentials, so nothing needs sorting.

    Returns:
        Interval and place of each point, and each interval's first slot.
    """
    slots = counts + 1 + closed
    interval = np.repeat(np.arange(len(slots)), slots)
    after = np.cumsum(rng.standard_exponential(len(interval)))
    before = np.concatenate([[0.0], after[:-1]])
    ends = np.cumsum(slots)
    starts = ends - slots
    total = np.where(closed, before[ends - 1], after[ends - 1]) - before[starts]
    step = (high - low) / total
    return interval, low[interval] + (before - before[starts][interval]) * step[interval], starts


def _poisson(people: People, clock: Clock, lost: Array, days: int, rng: np.random.Generator) -> Lives:
    low, high = clock.business(people.born), clock.business(np.minimum(lost, days))
    counts = rng.poisson(people.rate * (high - low))
    owner, time, starts = _scatter(counts, low, high, np.zeros(len(people), bool), rng)
    day = clock.business.day(time)
    day[starts] = people.born
    return Lives(lost, Orders(owner, day, np.full(len(day), -1)))


def _dying_at_orders(
    people: People, clock: Clock, days: int, dies_at_first: bool, rng: np.random.Generator
) -> Lives:
    """BG/NBD and MBG/NBD: fatal orders are a Poisson process of rate λp, independent of the others at λ(1 - p)."""
    lost = clock.drain.day(clock.drain(people.born) + _waits(people.rate * people.chance, rng))
    if dies_at_first:
        fatal = rng.random(len(people)) < people.chance * clock.decay.at(people.born)
        lost = np.where(fatal, people.born, lost)
    low, high = clock.business(people.born), clock.business(np.minimum(lost, days))
    kept = people.rate * (1 - people.chance) if clock.decay.plain else people.rate
    counts = rng.poisson(kept * (high - low))
    closed = (lost <= days) & (lost > people.born)
    owner, time, starts = _scatter(counts, low, high, closed, rng)
    day = clock.business.day(time)
    day[starts] = people.born
    if not clock.decay.plain:
        keep = rng.random(len(day)) >= people.chance[owner] * clock.decay.at(day)
        keep[starts] = True
        keep[(starts + counts + 1)[closed]] = True
        owner, day = owner[keep], day[keep]
    return Lives(lost, Orders(owner, day, np.full(len(day), -1)))


def _renewals(people: People, clock: Clock, lost: Array, days: int, rng: np.random.Generator) -> Lives:
    """Gamma gaps in business time, drawn in blocks of about the number each customer still needs."""
    lost = lost.copy()
    fatal = rng.random(len(people)) < people.chance * clock.decay.at(people.born)
    lost[fatal] = people.born[fatal]
    reach, stop = clock.business(people.born).copy(), clock.business(np.minimum(lost, days))
    owners, times = [np.arange(len(people))], [reach.copy()]
    active = np.flatnonzero(~fatal)
    while len(active):
        size = _block_sizes(people, active, (stop - reach)[active])
        going = []
        for block in np.unique(size):
            same = active[size == block]
            for who in np.array_split(same, max(1, len(same) * int(block) // BLOCK_CELLS)):
                inside, time = _block(people, clock, who, int(block), reach, stop, lost, rng)
                owners.append(np.repeat(who, inside.sum(1)))
                times.append(time[inside])
                going.append(who[(reach <= stop)[who]])
        active = np.concatenate(going)
    owner = np.concatenate(owners)
    in_order = np.argsort(owner, kind="stable")
    day = clock.business.day(np.concatenate(times)[in_order])
    owner = owner[in_order]
    day[np.searchsorted(owner, np.arange(len(people)))] = people.born
    return Lives(lost, Orders(owner, day, np.full(len(day), -1)))


def _block_sizes(people: People, who: Indices, time: Array) -> Indices:
    """About as many orders as each customer will still make in some business time; few distinct sizes."""
    need = np.minimum(people.rate[who] * time, 1.5 / np.maximum(people.chance[who], 1e-9))
    size = np.minimum(need + np.sqrt(need / people.regularity[who]) + 1, LARGEST_BLOCK)
    step = np.where(size < SMALL_BLOCK, 2, SMALL_BLOCK)
    return np.asarray(np.ceil(size / step) * step, np.int64)


def _block(
    people: People,
    clock: Clock,
    who: Indices,
    size: int,
    reach: Array,
    stop: Array,
    lost: Array,
    rng: np.random.Generator,
) -> tuple[Mask, Array]:
    """The next orders of some customers, (customers, size); moves `reach`, and sets `stop`, `lost` of those who go."""
    shape = people.regularity[who][:, None]
    gaps = rng.standard_gamma(shape, (len(who), size)) / (shape * people.rate[who][:, None])
    time = reach[who][:, None] + np.cumsum(gaps, axis=1)
    reach[who] = time[:, -1]
    inside = time <= stop[who][:, None]
    if people.chance.any():
        worse = 1.0 if clock.decay.plain else clock.decay.at(clock.business.day(time))
        fatal = inside & (rng.random(time.shape) < people.chance[who][:, None] * worse)
        gone = fatal.any(1)
        last = time[np.arange(len(who)), fatal.argmax(1)]
        inside[gone] &= time[gone] <= last[gone][:, None]
        lost[who[gone]] = clock.business.day(last[gone])
        reach[who[gone]], stop[who[gone]] = np.inf, last[gone]
    return inside, time


def _two_state(spec: Spec, people: People, clock: Clock, rng: np.random.Generator) -> Lives:
    """Poisson orders during exponential spells of activity, the first of which starts with the first order."""
    lost = _losses(people, clock, rng)
    until = np.minimum(lost, spec.days)
    reach, active = people.born.copy(), np.arange(len(people))
    owners, starts, stops = [], [], []
    size = 8
    while len(active):
        on = rng.exponential(spec.customers.on_days, (len(active), size))
        off = rng.exponential(spec.customers.off_days, (len(active), size))
        stop = reach[active][:, None] + np.cumsum(on + off, axis=1) - off
        begun = (stop - on) < until[active][:, None]
        owners.append(np.repeat(active, begun.sum(1)))
        starts.append((stop - on)[begun])
        stops.append(stop[begun])
        reach[active] = stop[:, -1] + off[:, -1]
        active = active[reach[active] < until[active]]
    owner = np.concatenate(owners)
    in_order = np.argsort(owner, kind="stable")
    stays = Stays(owner[in_order], np.concatenate(starts)[in_order], np.concatenate(stops)[in_order])
    return Lives(lost, _orders_in_stays(people, clock, stays, until, rng), stays)


def _orders_in_stays(
    people: People, clock: Clock, stays: Stays, until: Array, rng: np.random.Generator
) -> Orders:
    low, high = clock.business(stays.start), clock.business(np.minimum(stays.stop, until[stays.owner]))
    counts = rng.poisson(people.rate[stays.owner] * (high - low))
    spell, time, starts = _scatter(counts, low, high, np.zeros(len(low), bool), rng)
    day = clock.business.day(time)
    born = np.diff(stays.owner, prepend=-1) > 0
    day[starts[born]] = people.born[stays.owner[born]]
    keep = np.ones(len(day), bool)
    keep[starts[~born]] = False
    owner = stays.owner[spell][keep]
    return Orders(owner, day[keep], np.full(len(owner), -1))


def _opportunities(spec: Spec, people: People, clock: Clock, rng: np.random.Generator) -> Lives:
    """BG/BB: at the start of each period a customer may be lost, else orders with its own chance times the season."""
    period = spec.customers.period_days
    gone = clock.decay.day(clock.decay(people.born) + _waits(people.dropout, rng))
    lost = people.born + (np.floor((gone - people.born) / period) + 1) * period
    last = np.minimum(gone, spec.days)
    counts = np.floor((last - people.born) / period).astype(np.int64)
    owner = np.repeat(np.arange(len(people)), counts + 1)
    starts = np.cumsum(counts + 1) - counts - 1
    day = people.born[owner] + (np.arange(len(owner)) - starts[owner]) * period
    keep = rng.random(len(day)) < people.buy[owner] * clock.business.at(day)
    keep[starts] = True
    return Lives(lost, Orders(owner[keep], day[keep], np.full(int(keep.sum()), -1)))
