"""The processes: when each customer orders and is lost, from the first order to the end of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import numpy as np

from retinue.worlds.clock import Array, Clock, Indices, Mask
from retinue.worlds.people import People
from retinue.worlds.spec import Process, Spec

GROUP_ORDERS = 200_000
LARGEST_BLOCK = 256
MOST_STAGES = 4


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
    """Gamma gaps in business time, customers a few thousand at a time, so that the work stays in the cache."""
    lost = lost.copy()
    start, stop = clock.business(people.born), clock.business(np.minimum(lost, days))
    nerve = _nerve(people, rng)
    need = people.rate * (stop - start)
    groups = np.cumsum(np.minimum(need, nerve) + 2) // GROUP_ORDERS
    owners, times = [], []
    for who in np.split(np.arange(len(people)), np.flatnonzero(np.diff(groups)) + 1):
        owner, time = _renewals_of(Lot(people, clock, who, start, stop, nerve), lost, rng)
        owners.append(owner)
        times.append(time)
    owner, day = np.concatenate(owners), clock.business.day(np.concatenate(times))
    day[np.flatnonzero(np.diff(owner, prepend=-1))] = people.born
    return Lives(lost, Orders(owner, day, np.full(len(day), -1)))


def _nerve(people: People, rng: np.random.Generator) -> Array:
    """How much wear each customer stands; an order wears by 1 where its chance of loss is the customer's own.

    An exponential draw over -log(1 - chance), so that an order takes customers away with just their chance.
    """
    if not people.chance.any():
        return np.full(len(people), np.inf)
    return _waits(-np.log1p(-people.chance), rng)


@dataclass(frozen=True)
class Lot:
    """Some customers `who` and, of all, where in business time each starts and stops and its nerve."""

    people: People
    clock: Clock
    who: Indices
    start: Array
    stop: Array
    nerve: Array


def _renewals_of(lot: Lot, lost: Array, rng: np.random.Generator) -> tuple[Indices, Array]:
    """Owner and business time of the orders of one lot, by owner, then time; sets `lost` of those who go."""
    who, time, nerve = lot.who, lot.start[lot.who], lot.nerve[lot.who]
    owners, times = [], []
    size = np.ones(len(who), np.int64)
    gaps = np.zeros(len(who))  # the first order is there without a wait
    while len(who):
        owner, starts = np.repeat(np.arange(len(who)), size), np.cumsum(size) - size
        after = np.cumsum(gaps)
        passed = after - (after[starts] - gaps[starts])[owner]
        moment = time[owner] + passed * (1 / lot.people.rate[who])[owner]
        survived, nerve = _worn(lot, who, owner, moment, size, nerve)
        kept = moment <= lot.stop[who][owner]
        if (survived < size).any():
            kept &= np.arange(len(kept)) <= (starts + survived)[owner]
        slots = np.flatnonzero(kept)
        owners.append(who[owner[slots]])
        times.append(moment[slots])
        fatal = starts + np.minimum(survived, size - 1)
        gone = (survived < size) & (moment[fatal] <= lot.stop[who])
        lost[who[gone]] = lot.clock.business.day(moment[fatal[gone]])
        time = moment[starts + size - 1]
        goes_on = (survived >= size) & (time <= lot.stop[who])
        who, time, nerve = who[goes_on], time[goes_on], nerve[goes_on]
        size = _block_sizes(lot.people, who, lot.stop[who] - time, nerve)
        gaps = _gaps(lot.people.regularity[who], size, rng)
    owner = np.concatenate(owners)
    in_order = np.argsort(owner, kind="stable")
    return owner[in_order], np.concatenate(times)[in_order]


def _worn(
    lot: Lot, who: Indices, owner: Indices, moment: Array, size: Indices, nerve: Array
) -> tuple[Indices, Array]:
    """How many of its next `size` orders each customer survives, and the nerve that is left after them."""
    if lot.clock.decay.plain or not lot.people.chance.any():
        return np.minimum(np.floor(nerve), size).astype(np.int64), nerve - size
    chance = lot.people.chance[who]
    harder = np.log1p(-chance[owner] * lot.clock.decay.at(lot.clock.business.day(moment)))
    wear = harder / np.where(chance > 0, np.log1p(-chance), -np.inf)[owner]
    total, starts = np.cumsum(wear), np.cumsum(size) - size
    before = total[starts] - wear[starts]
    stands = total - before[owner] <= nerve[owner]
    survived = np.bincount(owner[stands], minlength=len(who))
    return survived, nerve - (total[starts + size - 1] - before)


def _block_sizes(people: People, who: Indices, time: Array, nerve: Array) -> Indices:
    """About as many orders as each customer will still make in some business time."""
    need = people.rate[who] * time
    need += np.sqrt(need / people.regularity[who]) / 2 + 1
    return np.clip(np.minimum(need, nerve + 1), 1, LARGEST_BLOCK).astype(np.int64)


def _gaps(shape: Array, size: Indices, rng: np.random.Generator) -> Array:
    """Gamma gaps of mean 1, `size` for each customer."""
    count = int(size.sum())
    if len(shape) and (shape == shape[0]).all():
        # one shape for all is drawn faster, a whole one faster still
        whole = int(shape[0])
        if whole == shape[0] <= MOST_STAGES:
            return np.asarray(rng.standard_exponential((whole, count)).sum(0) / whole)
        return np.asarray(rng.standard_gamma(shape[0], count) / shape[0])
    each = np.repeat(shape, size)
    return np.asarray(rng.standard_gamma(each) / each)


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
