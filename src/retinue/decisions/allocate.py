"""Who gets which action: the most net value under budgets, capacities and floors, one action per customer at most.

Lagrangian relaxation: with a price on each limit every customer's best action is one argmax, and the prices that
minimise the relaxed value bound what any allocation can reach (Everett 1963; Fisher 1981). They are found by cutting
planes in a trust region; what they choose is made to fit, and the customers for whom it is nearly a tie (the core of
Balas and Zemel 1980) are settled by a search of bounded width. Every step has a limit of its own, so it always ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from retinue.decisions.core_search import search
from retinue.decisions.problem import NONE, SLACK, Array, Indices, Problem

ROWS_AT_ONCE = 65_536
SAMPLE = 20_000
MOST_CUTS = 120
MOST_PIVOTS = 10_000
LP_SECONDS = 2.0
CLOSE = 2e-5  # relative gap at which prices are good enough
CORE = 300
ROUNDS = 4
ENOUGH = 1e-4  # relative gap at which nothing more is searched
MOST_TRIED = 20_000


@dataclass(frozen=True)
class Allocation:
    """What was chosen.

    Attributes:
        choice: (N,) action, -1 for none.
        prices: (R,) net value that one more unit of each limit would bring; of floors, what one more costs.
        usage: (R,) of each limit.
        value: net value, account currency.
        bound: no allocation reaches more.
    """

    choice: Indices
    prices: Array
    usage: Array
    value: float
    bound: float

    @property
    def gap(self) -> float:
        """How far below the best possible it may lie at most, as a share of that."""
        return (self.bound - self.value) / self.bound if self.bound > 0 else 0.0


def allocate(problem: Problem, core: int = CORE) -> Allocation:
    """The allocation; within `gap` of the best there is.

    Args:
        problem: what there is to allocate.
        core: customers nearest to a tie whom a search settles; 0 for none.

    Returns:
        Its budgets and capacities hold whatever was asked. Floors that could not be met within them are short in
        `usage`; the caller says so.
    """
    prices, bound = _prices(problem)
    wanted, _, lead = _best(problem, prices)
    choice = _filled(problem, _fitted(problem, wanted, prices), prices)
    for _ in range(ROUNDS if core and len(choice) and len(prices) else 0):
        if bound - problem.value(choice) <= ENOUGH * abs(bound):
            break
        first = np.where(choice == wanted, lead, -1.0)
        again = _settled(problem, choice, first, prices, min(core, len(choice)))
        if (again == choice).all():
            break
        choice = again
    value = problem.value(choice)
    return Allocation(choice, prices, problem.usage(choice), value, max(bound, value))


def best_at(problem: Problem, prices: Array) -> Indices:
    """Each customer's best action at the prices, -1 for none; (N,)."""
    return _best(problem, prices)[0]


def _best(problem: Problem, prices: Array) -> tuple[Indices, Array, Array]:
    """Each customer's best action at the prices, what it is worth there, and its lead over the next best; (N,) each."""
    count, actions = problem.net.shape
    choice, worth, lead = np.full(count, NONE), np.zeros(count), np.full(count, np.inf)
    if not actions:
        return choice, worth, lead
    for low in range(0, count, ROWS_AT_ONCE):
        rows = slice(low, min(low + ROWS_AT_ONCE, count))
        priced = problem.priced(rows, prices)
        best = priced.argmax(axis=1)
        top = priced[np.arange(len(best)), best]
        taken = top > 0
        choice[rows] = np.where(taken, best, NONE)
        worth[rows] = np.where(taken, top, 0.0)
        second = np.partition(priced, -2, axis=1)[:, -2] if actions > 1 else np.full(len(top), -np.inf)
        with np.errstate(invalid="ignore"):
            lead[rows] = np.where(taken, top - np.maximum(second, 0.0), -top)
    return choice, worth, lead


def _relaxed(problem: Problem, prices: Array) -> tuple[float, Array]:
    """The relaxed value at the prices, and its subgradient; (R,)."""
    choice, worth, _ = _best(problem, prices)
    limits = problem.limits
    return float(worth.sum() + prices @ limits), limits - problem.usage(choice)


def _prices(problem: Problem) -> tuple[Array, float]:
    """The prices that minimise the relaxed value, and that value: first on a sample, then on everyone."""
    limits = problem.limits
    count = len(problem.net)
    if not len(limits):
        return limits, _relaxed(problem, limits)[0]
    unit = _units(problem)
    start, reach = np.zeros(len(limits)), 1.0
    if count > SAMPLE:
        rows = np.sort(np.random.default_rng(0).choice(count, SAMPLE, replace=False))
        start, _ = _descend(problem.some(rows, limits * (SAMPLE / count)), start, unit, reach)
        reach = 0.05
    return _descend(problem, start, unit, reach)


def _units(problem: Problem) -> Array:
    """What a unit of each limit is about worth, so that prices are numbers near 1; (R,)."""
    good = np.isfinite(problem.net) & (problem.net > 0)
    typical = float(problem.net[good].mean()) if good.any() else 1.0
    most = problem.uses.max(axis=1, initial=0.0)
    uses = np.where(most > 0, most, 1.0)
    return np.concatenate(
        [np.ones(len(problem.budgets)), typical / uses, np.full(len(problem.floors), typical)]
    )


def _descend(problem: Problem, start: Array, unit: Array, reach: float) -> tuple[Array, float]:
    """Cutting planes in a box around the best prices so far, which grows where the planes foretell well."""
    limits = len(start)
    best = start / unit
    lowest, slope = _relaxed(problem, start)
    slope = slope * unit
    planes = [np.append(slope, lowest - slope @ best)]  # slope and height at zero of each
    for _ in range(MOST_CUTS):
        cuts = np.array(planes)
        rows = np.column_stack([cuts[:, :limits], -np.ones(len(cuts))])
        box = [(max(x - reach, 0.0), x + reach) for x in best]
        found = linprog(
            np.append(np.zeros(limits), 1.0),
            rows,
            -cuts[:, limits],
            bounds=[*box, (None, None)],
            method="highs-ds",
            options={"maxiter": MOST_PIVOTS, "presolve": False, "time_limit": LP_SECONDS},
        )
        if not found.success:
            break
        tried, foretold = found.x[:limits], lowest - float(found.x[limits])
        at_edge = bool((np.abs(tried - best) > 0.99 * reach).any())
        if foretold <= CLOSE * max(abs(lowest), 1e-12):
            if not at_edge or reach > 1e6:
                break
            reach *= 4
            continue
        value, slope = _relaxed(problem, tried * unit)
        slope = slope * unit
        planes.append(np.append(slope, value - slope @ tried))
        gained = lowest - value
        if gained > 0.1 * foretold:
            best, lowest = tried, value
            reach *= 2 if at_edge and gained > 0.5 * foretold else 1
        elif gained <= 0:
            reach *= 0.6
    return best * unit, lowest


def _fitted(problem: Problem, choice: Indices, prices: Array) -> Indices:
    """The choice made to keep every budget and capacity: who loses least steps down to less, or to nothing, first."""
    choice, limits = choice.copy(), problem.limits
    held = range(len(problem.budgets) + len(problem.capacities))
    for to_nothing in (False, False, True):
        for place in held:
            over = problem.usage(choice)[place] - limits[place]
            if over <= 0:
                continue
            rows = np.flatnonzero(choice != NONE)
            rows = rows[_part(problem, rows, choice[rows], place) > 0]
            step, loss, freed = _steps_down(problem, rows, choice[rows], place, prices)
            if to_nothing:
                step, freed = np.full(len(rows), NONE), _part(problem, rows, choice[rows], place)
            order = np.argsort(loss / freed, kind="stable")
            enough = int(np.searchsorted(np.cumsum(freed[order]), over)) + 1
            choice[rows[order[:enough]]] = step[order[:enough]]
    return choice


def _steps_down(
    problem: Problem, rows: Indices, now: Indices, place: int, prices: Array
) -> tuple[Indices, Array, Array]:
    """For customers with an action: the best that takes less of a limit, what is lost at the prices, and what is freed."""
    parts = np.column_stack(
        [_part(problem, rows, np.full(len(rows), action), place) for action in range(problem.net.shape[1])]
    )
    at = np.arange(len(rows))
    mine = parts[at, now]
    priced = problem.priced(rows, prices)
    less = np.where(parts < mine[:, None], priced, -np.inf)
    step = less.argmax(axis=1)
    is_none = less[at, step] <= 0
    step = np.where(is_none, NONE, step)
    loss = priced[at, now] - np.where(is_none, 0.0, less[at, np.maximum(step, 0)])
    return step, np.maximum(loss, 0.0), mine - np.where(is_none, 0.0, parts[at, np.maximum(step, 0)])


def _part(problem: Problem, rows: Indices, actions: Indices, place: int) -> Array:
    """What each of these actions takes of one budget or capacity."""
    m = len(problem.budgets)
    if place < m:
        return np.asarray(problem.pays[place, actions] * problem.cost[rows, actions])
    return np.asarray(problem.uses[place - m, actions])


def _filled(problem: Problem, choice: Indices, prices: Array) -> Indices:
    """The choice with actions added where there is room, floors first, then what is worth most at the prices."""
    limits = problem.limits
    if not len(limits) or not problem.net.shape[1]:
        return choice
    room = limits - problem.usage(choice)
    m, c = len(problem.budgets), len(problem.capacities)
    free = np.flatnonzero((choice == NONE) & np.isfinite(problem.net).any(axis=1))
    worth = problem.priced(free, prices).max(axis=1, initial=-np.inf)
    short = room[m + c :] < 0
    needed = (
        np.append(short, False)[problem.groups(free)] if len(problem.floors) else np.zeros(len(free), bool)
    )
    order = np.lexsort((-worth, ~needed))
    slack = SLACK * np.maximum(np.abs(limits), 1.0)
    for place in order[:MOST_TRIED]:
        row = int(free[place])
        must = bool(needed[place]) and room[m + c + problem.group[row]] < 0
        for action in np.argsort(-problem.priced(free[place : place + 1], prices)[0], kind="stable"):
            if not np.isfinite(problem.net[row, action]) or (problem.net[row, action] <= 0 and not must):
                continue
            takes = problem.usage_of(row, int(action))
            if (takes <= room + slack)[: m + c].all():
                choice[row] = action
                room = room - takes
                break
    return choice


def _settled(problem: Problem, choice: Indices, lead: Array, prices: Array, core: int) -> Indices:
    """The choice with the customers nearest to a tie chosen again by a search, the others as they are."""
    rows = np.sort(
        np.argpartition(lead, core - 1)[:core]
    )  # those who could not have what they want come first
    others = choice.copy()
    others[rows] = NONE
    part = problem.some(rows, problem.limits - problem.usage(others))
    again = search(part, choice[rows], prices)
    settled = others.copy()
    settled[rows] = again
    better = problem.value(settled) > problem.value(choice) or not problem.fits(problem.usage(choice))
    return settled if better and problem.fits(problem.usage(settled)) else choice
