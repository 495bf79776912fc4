"""Who gets which action: the most net value under budgets, capacities and floors, one action per customer at most.

Lagrangian relaxation: with a price on each limit every customer's best action is one argmax, and the prices that
minimise the relaxed value bound what any allocation can reach (Everett 1963; Fisher 1981). They are found by cutting
planes in a trust region; what they choose is made to fit, and the customers for whom it is nearly a tie are settled by
an integer programme (the core of Balas and Zemel 1980), solved by HiGHS.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import highspy
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csc_array, vstack

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

NONE = -1  # the choice of no action
ROWS_AT_ONCE = 65_536
SAMPLE = 20_000
MOST_CUTS = 120
CLOSE = 2e-5  # relative gap at which prices are good enough
CORE = 300
CORE_SECONDS = 5.0
ROUNDS = 4
SLACK = 1e-9  # relative, for sums in floating point
MOST_TRIED = 20_000


@dataclass(frozen=True)
class Problem:
    """What there is to allocate; customers N, actions A, limits on money M, limits on counts C, floors G.

    Attributes:
        net: (N, A) expected gain less expected cost, account currency; -inf where an action may not be given.
        cost: (N, A) expected cost, account currency, ≥ 0.
        pays: (M, A) 1 where an action's cost counts against a budget.
        budgets: (M,) account currency.
        uses: (C, A) units that one contact takes of a capacity.
        capacities: (C,) in those units.
        group: (N,) floor that a customer counts for, -1 for none.
        floors: (G,) least customers with an action.
    """

    net: Array
    cost: Array
    pays: Array
    budgets: Array
    uses: Array
    capacities: Array
    group: Indices = field(default_factory=lambda: np.zeros(0, np.int64))
    floors: Array = field(default_factory=lambda: np.zeros(0))

    @property
    def limits(self) -> Array:
        """Budgets, capacities, then floors with a minus sign, as all usage is at most its limit; (R,)."""
        return np.concatenate([self.budgets, self.capacities, -self.floors])

    def groups(self, rows: slice | Indices) -> Indices:
        """Floors of some customers."""
        return self.group[rows] if len(self.floors) else np.full(len(self.net[rows]), -1)

    def some(self, rows: Indices, limits: Array) -> Problem:
        """The problem of a part of the customers under other limits."""
        m, c = len(self.budgets), len(self.capacities)
        group = self.groups(rows) if len(self.floors) else self.group
        return replace(
            self, net=self.net[rows], cost=self.cost[rows], group=group, budgets=limits[:m],
            capacities=limits[m : m + c], floors=-limits[m + c :],
        )  # fmt: skip

    def usage(self, choice: Indices) -> Array:
        """What a choice takes of each limit; (R,)."""
        rows = np.flatnonzero(choice != NONE)
        action = choice[rows]
        actions = self.net.shape[1]
        spent = np.bincount(action, self.cost[rows, action], actions)
        given = np.bincount(action, minlength=actions).astype(np.float64)
        reached = np.bincount(self.groups(rows) + 1, minlength=len(self.floors) + 1)[1:]
        return np.concatenate([self.pays @ spent, self.uses @ given, -reached.astype(np.float64)])

    def usage_of(self, row: int, action: int) -> Array:
        """What one action for one customer takes of each limit; (R,)."""
        reached = np.zeros(len(self.floors))
        if len(reached) and self.group[row] >= 0:
            reached[self.group[row]] = -1.0
        return np.concatenate([self.pays[:, action] * self.cost[row, action], self.uses[:, action], reached])

    def value(self, choice: Indices) -> float:
        """Net value of a choice."""
        rows = np.flatnonzero(choice != NONE)
        return float(self.net[rows, choice[rows]].sum())

    def fits(self, usage: Array) -> bool:
        """Whether no limit is broken, sums taken as floating point gives them."""
        return bool((usage <= self.limits + SLACK * np.maximum(np.abs(self.limits), 1.0)).all())


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
        core: customers nearest to a tie whom an integer programme settles; 0 for none.

    Returns:
        Its budgets and capacities hold whatever was asked. Floors that could not be met within them are short in
        `usage`; the caller says so.
    """
    prices, bound = _prices(problem)
    wanted, _, lead = _best(problem, prices)
    choice = _filled(problem, _fitted(problem, wanted, prices), prices)
    for _ in range(ROUNDS if core and len(choice) and len(prices) else 0):
        again = _settled(problem, choice, np.where(choice == wanted, lead, -1.0), min(core, len(choice)))
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
        priced = _priced(problem, rows, prices)
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
            method="highs",
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
    priced = _priced(problem, rows, prices)
    less = np.where(parts < mine[:, None], priced, -np.inf)
    step = less.argmax(axis=1)
    is_none = less[at, step] <= 0
    step = np.where(is_none, NONE, step)
    loss = priced[at, now] - np.where(is_none, 0.0, less[at, np.maximum(step, 0)])
    return step, np.maximum(loss, 0.0), mine - np.where(is_none, 0.0, parts[at, np.maximum(step, 0)])


def _priced(problem: Problem, rows: slice | Indices, prices: Array) -> Array:
    """Net value of each action at the prices of what it takes; (rows, A)."""
    m, c = len(problem.budgets), len(problem.capacities)
    priced = (
        problem.net[rows]
        - problem.cost[rows] * (prices[:m] @ problem.pays)
        - prices[m : m + c] @ problem.uses
    )
    if len(problem.floors):
        priced += np.append(prices[m + c :], 0.0)[problem.groups(rows)][
            :, None
        ]  # group -1 is the last: nothing
    return np.asarray(priced)


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
    worth = _priced(problem, free, prices).max(axis=1, initial=-np.inf)
    short = room[m + c :] < 0
    needed = (
        np.append(short, False)[problem.groups(free)] if len(problem.floors) else np.zeros(len(free), bool)
    )
    order = np.lexsort((-worth, ~needed))
    slack = SLACK * np.maximum(np.abs(limits), 1.0)
    for place in order[:MOST_TRIED]:
        row = int(free[place])
        must = bool(needed[place]) and room[m + c + problem.group[row]] < 0
        for action in np.argsort(-_priced(problem, free[place : place + 1], prices)[0], kind="stable"):
            if not np.isfinite(problem.net[row, action]) or (problem.net[row, action] <= 0 and not must):
                continue
            takes = problem.usage_of(row, int(action))
            if (takes <= room + slack)[: m + c].all():
                choice[row] = action
                room = room - takes
                break
    return choice


def _settled(problem: Problem, choice: Indices, lead: Array, core: int) -> Indices:
    """The choice with the customers nearest to a tie chosen again by an integer programme, the others as they are."""
    rows = np.sort(
        np.argpartition(lead, core - 1)[:core]
    )  # those who could not have what they want come first
    others = choice.copy()
    others[rows] = NONE
    part = problem.some(rows, problem.limits - problem.usage(others))
    again = _exact(part)
    if again is None:
        return choice
    settled = others.copy()
    settled[rows] = again
    better = problem.value(settled) > problem.value(choice) or not problem.fits(problem.usage(choice))
    return settled if better and problem.fits(problem.usage(settled)) else choice


class _Quiet(highspy.Highs):
    """HiGHS without its callbacks, as turning them on prints a banner whatever the options say."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def enableCallbacks(self) -> None:  # noqa: N802 (its own name)
        """Leaves them off."""


def _exact(problem: Problem) -> Indices | None:
    """The best choice of a small problem by HiGHS; None where it found none in time, or there is none."""
    row, action = np.nonzero(np.isfinite(problem.net))
    if not len(row):
        return None
    count, limits = len(problem.net), problem.limits
    takes = np.array([problem.usage_of(int(i), int(j)) for i, j in zip(row, action, strict=True)])
    once = csc_array((np.ones(len(row)), (row, np.arange(len(row)))), shape=(count, len(row)))
    rows = csc_array(vstack([once, csc_array(takes.T)]))
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(row), count + len(limits)
    model.col_cost_ = -problem.net[row, action]
    model.col_lower_, model.col_upper_ = np.zeros(len(row)), np.ones(len(row))
    model.row_lower_ = np.full(count + len(limits), -highspy.kHighsInf)
    model.row_upper_ = np.concatenate([np.ones(count), limits])
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_, model.a_matrix_.index_, model.a_matrix_.value_ = (
        rows.indptr,
        rows.indices,
        rows.data,
    )
    model.integrality_ = [highspy.HighsVarType.kInteger] * len(row)
    solver = _Quiet()
    # presolve of HiGHS 1.16 can go round for ever on a plain knapsack of 489 columns, looking at no clock (docs/log.md)
    calm: dict[str, bool | float | str] = {
        "output_flag": False,
        "time_limit": CORE_SECONDS,
        "mip_rel_gap": 1e-6,
        "presolve": "off",
    }
    for name, value in calm.items():
        solver.setOptionValue(name, value)
    solver.passModel(model)
    solver.run()
    if solver.getInfo().primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return None
    chosen = np.array(solver.getSolution().col_value) > 0.5
    choice = np.full(count, NONE)
    choice[row[chosen]] = action[chosen]
    return choice
