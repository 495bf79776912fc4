"""The future of a living customer, given its own parameters and state: orders, life and silence on a grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import numpy as np
from scipy.special import gammaincc, gammaln

from retinue.worlds.clock import Array, Clock, Indices, Mask
from retinue.worlds.lives import Lives, is_poisson
from retinue.worlds.people import People
from retinue.worlds.pushes import Pushes
from retinue.worlds.renewal import renewal_masses
from retinue.worlds.spec import Process, Spec

LARGEST_GRID = 400


@dataclass(frozen=True)
class Path:
    """The future of some customers who are alive on day `at`, in cells of time.

    `lo`, `hi` are the cells' ends and `when` the day that stands for the orders of a cell, (customers or 1, cells);
    `orders` of the process itself, `pushed` by campaigns, mean chance to be `alive`, and the chance that the first
    order falls into the cell (`first`): (customers, cells).
    """

    lo: Array
    hi: Array
    when: Array
    orders: Array
    pushed: Array
    alive: Array
    first: Array

    def up_to(self, day: float) -> Array:
        """Share of each cell that lies before a day; (customers or 1, cells)."""
        width = self.hi - self.lo
        return np.clip((day - self.lo) / np.where(width > 0, width, 1.0), 0.0, 1.0)


@dataclass(frozen=True)
class Scene:
    """A whole world as far as it has been simulated."""

    spec: Spec
    people: People
    clock: Clock
    lives: Lives
    pushes: Pushes

    def is_alive(self, at: float) -> Mask:
        """Customers who had come by day `at` and were not lost; (customers,)."""
        return (self.people.born <= at) & (self.lives.lost > at)


def path(scene: Scene, who: Indices, at: float, horizons_days: tuple[int, ...], state: Array) -> Path:
    """Futures of the living customers `who`; `state` is that of `states`."""
    match scene.spec.process:
        case Process.pareto_nbd | Process.bg_nbd:
            return _memoryless(scene, who, at, horizons_days)
        case Process.mbg_cnbd_k | Process.pareto_ggg:
            if is_poisson(scene.people):
                return _memoryless(scene, who, at, horizons_days)
            return _renewing(scene, who, at, max(horizons_days), state[who])
        case Process.two_state:
            return _two_state(scene, who, at, horizons_days, state[who])
        case Process.bg_bb:
            return _opportunities(scene, who, at, horizons_days)
    assert_never(scene.spec.process)


def life(scene: Scene, who: Indices, at: float, horizon_days: int, state: Array) -> Path:
    """As `path`, for those who ask only whether the customer lives: cheaper where loss does not hang on orders."""
    if scene.spec.process in (Process.pareto_ggg, Process.two_state):
        return _memoryless(scene, who, at, (horizon_days,))
    return path(scene, who, at, (horizon_days,), state)


def states(scene: Scene, at: float) -> Array:
    """What the future hangs on beside parameters: 1 if active (two_state), day of the last order (renewals), else 0."""
    if scene.lives.stays is not None:
        return scene.lives.stays.is_on(len(scene.people), at).astype(float)
    if is_poisson(scene.people):
        return np.zeros(len(scene.people))
    return scene.lives.orders.last_day(len(scene.people), at)


def intensity(scene: Scene, at: float, state: Array) -> Array:
    """Orders per day of each customer on day `at`, were it alive, without campaigns; (customers,)."""
    people = scene.people
    season = scene.clock.business.at(np.array([at]))
    match scene.spec.process:
        case Process.two_state:
            return np.asarray(people.rate * season * state)
        case Process.bg_bb:
            chance = np.minimum(people.buy * season, 1.0)
            period = scene.spec.customers.period_days
            return np.asarray(chance * np.exp(-people.dropout * period) / period)
        case _:
            if is_poisson(people):
                return people.rate * season
    k = people.regularity
    since = k * people.rate * (scene.clock.business(np.array([at])) - scene.clock.business(state))
    since = np.clip(since, 1e-9, 400.0)
    log_density = (k - 1) * np.log(since) - since - gammaln(k)
    return np.asarray(season * people.rate * k * np.exp(log_density) / gammaincc(k, since))


def _edges(at: float, horizons_days: tuple[int, ...]) -> Array:
    """Cell ends that hold every horizon's end; (1, cells + 1)."""
    longest = max(horizons_days)
    even = np.linspace(0, longest, min(longest, LARGEST_GRID) + 1)
    return at + np.union1d(even, horizons_days)[None, :]


def _mean_survival(hazard: Array) -> tuple[Array, Array]:
    """Survival at cell ends (customers, cells + 1), and its mean in each cell, under a hazard per cell."""
    total = np.concatenate([np.zeros((len(hazard), 1)), np.cumsum(hazard, axis=1)], axis=1)
    ends = np.exp(-total)
    small = hazard < 1e-9
    mean = np.where(small, ends[:, :-1], (ends[:, :-1] - ends[:, 1:]) / np.where(small, 1.0, hazard))
    return ends, mean


def _first(silent: Array, alive: Array) -> Array:
    """Chance that the first order falls into each cell: silence ends at a rate that only the living can have."""
    return alive * (silent[:, :-1] - silent[:, 1:])


def _memoryless(scene: Scene, who: Indices, at: float, horizons_days: tuple[int, ...]) -> Path:
    people, clock, edges = scene.people, scene.clock, _edges(at, horizons_days)
    rate = people.rate[who][:, None]
    business = rate * np.diff(clock.business(edges))
    in_time = people.dropout[who][:, None] * np.diff(clock.decay(edges))
    _, alive_in_time = _mean_survival(in_time)
    at_orders = rate * people.chance[who][:, None] * np.diff(clock.drain(edges))
    alive = _mean_survival(at_orders)[1] if people.chance.any() else alive_in_time
    pushed = scene.pushes.increments(people, who, edges, at)
    silent, _ = _mean_survival(business + pushed)
    lo, hi = edges[:, :-1], edges[:, 1:]
    return Path(lo, hi, (lo + hi) / 2, business * alive, pushed * alive, alive, _first(silent, alive_in_time))


def _renewing(scene: Scene, who: Indices, at: float, longest: int, last: Array) -> Path:
    people, clock = scene.people, scene.clock
    rate, now = people.rate[who], clock.business(np.array([at]))
    since = rate * (now - clock.business(last))
    reach = rate * (clock.business(np.array([at + longest])) - now)
    masses = renewal_masses(
        people.regularity[who],
        since,
        reach,
        lambda u: people.chance[who][:, None] * clock.decay.at(clock.business.day(now + u / rate[:, None])),
    )
    edges = clock.business.day(now + masses.edges / rate[:, None])
    edges[:, 0], edges[:, -1] = at, at + longest
    lo, hi = edges[:, :-1], edges[:, 1:]
    _, alive_in_time = _mean_survival(people.dropout[who][:, None] * np.diff(clock.decay(edges)))
    alive = alive_in_time * masses.alive
    pushed = scene.pushes.increments(people, who, edges, at)
    quiet = np.exp(-np.concatenate([np.zeros((len(who), 1)), np.cumsum(pushed, axis=1)], axis=1))
    first = _first(masses.silent * quiet, alive_in_time)
    return Path(lo, hi, (lo + hi) / 2, masses.orders * alive_in_time, pushed * alive, alive, first)


def _two_state(scene: Scene, who: Indices, at: float, horizons_days: tuple[int, ...], is_on: Array) -> Path:
    people, clock, who_all = scene.people, scene.clock, scene.spec.customers
    edges = _edges(at, horizons_days)
    leave, back = 1 / who_all.on_days, 1 / who_all.off_days
    middle = (edges[:, :-1] + edges[:, 1:]) / 2
    share = back / (leave + back)
    active = share + (is_on[:, None] - share) * np.exp(-(leave + back) * (middle - at))
    business = people.rate[who][:, None] * np.diff(clock.business(edges))
    _, alive = _mean_survival(people.dropout[who][:, None] * np.diff(clock.decay(edges)))
    pushed = scene.pushes.increments(people, who, edges, at)
    on, off = is_on.copy(), 1 - is_on
    silent = np.ones((len(who), edges.shape[1]))
    for cell, days in enumerate(np.diff(edges[0])):
        # half the switching, the orders, half the switching: second order in the step
        on, off = _switch(on, off, leave, back, days / 2)
        on = on * np.exp(-business[:, cell] - pushed[:, cell])
        off = off * np.exp(-pushed[:, cell])
        on, off = _switch(on, off, leave, back, days / 2)
        silent[:, cell + 1] = on + off
    lo, hi = edges[:, :-1], edges[:, 1:]
    return Path(lo, hi, middle, business * active * alive, pushed * alive, alive, _first(silent, alive))


def _switch(on: Array, off: Array, leave: float, back: float, days: float) -> tuple[Array, Array]:
    moved = -np.expm1(-(leave + back) * days)
    flow = (leave * on - back * off) / (leave + back) * moved
    return on - flow, off + flow


def _opportunities(scene: Scene, who: Indices, at: float, horizons_days: tuple[int, ...]) -> Path:
    """Cells end at the customer's next opportunities and at the horizons' ends; orders fall on the cells' ends."""
    people, clock, period = scene.people, scene.clock, scene.spec.customers.period_days
    born = people.born[who][:, None]
    done = np.floor((at - born) / period)
    ahead = born + (done + 1 + np.arange(int(max(horizons_days) / period) + 2)) * period
    ends = at + np.broadcast_to(np.array(sorted(horizons_days), float), (len(who), len(horizons_days)))
    both = np.concatenate([ahead, ends], axis=1)
    in_order = np.argsort(both, axis=1, kind="stable")
    hi = np.take_along_axis(both, in_order, 1)
    opportunity = in_order < ahead.shape[1]
    edges = np.concatenate([np.full((len(who), 1), at), hi], axis=1)
    survival = np.exp(-people.dropout[who][:, None] * (clock.decay(hi) - clock.decay(born + done * period)))
    survival = np.where(opportunity, survival, 1.0)
    after = np.minimum.accumulate(survival, axis=1)
    before = _shifted(after)
    chance = np.where(opportunity, np.minimum(people.buy[who][:, None] * clock.business.at(hi), 1.0), 0.0)
    pushed = scene.pushes.increments(people, who, edges, at)
    earlier = _shifted(np.cumprod(1 - chance, axis=1) * np.exp(-np.cumsum(pushed, axis=1)))
    # the push works before the opportunity at the cell's end: the dead of that end were still alive during the cell
    pushed_first = before * earlier * -np.expm1(-pushed)
    first = pushed_first + after * earlier * np.exp(-pushed) * chance
    return Path(edges[:, :-1], hi, hi, after * chance, pushed * before, before, first)


def _shifted(at_ends: Array) -> Array:
    """The same at the cells' starts, where it begins at one."""
    return np.concatenate([np.ones((len(at_ends), 1)), at_ends[:, :-1]], axis=1)
