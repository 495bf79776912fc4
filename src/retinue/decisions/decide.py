"""From offers to decisions: who gets what under the limits, why, and with what chance, one row per customer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retinue.decisions.allocate import Allocation, allocate, best_at
from retinue.decisions.offers import BARS, CONTACTS, WITHDRAWN, Offers, drawn
from retinue.decisions.problem import NONE, Problem
from retinue.options import ActionOptions, DecisionOptions
from retinue.schema import (
    ACTION,
    ACTION_CHANNEL,
    ALLOWED,
    ALTERNATIVES,
    BINDING,
    BUDGET_CURVE,
    CONSENT,
    CUSTOMER_ID,
    CUTOFF,
    DECISIONS,
    EFFECT_SOURCE,
    EVIDENCE,
    EXPECTED_COST,
    EXPECTED_GAIN,
    EXPERIMENT,
    EXPLORED,
    GAIN_LOWER,
    GAIN_UPPER,
    HORIZON_DAYS,
    LIFECYCLE,
    LIMIT_NAME,
    LIMIT_UNIT,
    LIMITS,
    MODEL,
    NAMED_CAUSE,
    POLICY,
    PRICE,
    PROPENSITY,
    SEGMENT,
    USED,
    InputError,
)
from retinue.segments.lifecycle import STAGES

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

NOTHING = "none"
UNKNOWN_CONSENT = "unknown"
EXPLORE_SALT = "retinue exploration"
SHOWN = 3
CURVE_POINTS = 12


@dataclass(frozen=True)
class Decided:
    """The decisions with what they rest on.

    Attributes:
        table: the `decisions` table.
        limits: the `limits` table, all that was held.
        value: expected gain less expected cost of all actions, account currency.
        gap: how far below the best possible it may lie at most, as a share of that.
    """

    table: pl.DataFrame
    limits: pl.DataFrame
    value: float
    gap: float


def customers_of(
    quadrants: pl.DataFrame,
    forecasts: pl.DataFrame,
    features: pl.DataFrame,
    segments: pl.DataFrame,
    running: pl.DataFrame,
) -> pl.DataFrame:
    """What offers are made from: quadrant, forecast, segment and stage, contacts and consent, running experiment.

    Args:
        quadrants: the decisions table so far; its rows and their order are kept.
        forecasts: at the same cutoff.
        features: at the same cutoff.
        segments: at the same cutoff.
        running: assignments of the experiments that run at the cutoff or will.
    """
    keys = [CUSTOMER_ID, CUTOFF]
    known = [name for name in (CONTACTS, WITHDRAWN) if name in features.columns]
    joined = (
        quadrants.join(forecasts, on=[*keys, HORIZON_DAYS], how="left", validate="1:1", maintain_order="left")
        .join(segments, on=keys, how="left", validate="1:1", maintain_order="left")
        .join(features.select(*keys, *known), on=keys, how="left", validate="1:1", maintain_order="left")
        .join(running.select(CUSTOMER_ID, EXPERIMENT), on=CUSTOMER_ID, how="left", maintain_order="left")
    )
    return joined.with_columns(pl.col(LIFECYCLE).fill_null(STAGES[0]))


def decide(
    customers: pl.DataFrame,
    quadrants: pl.DataFrame,
    made: Offers,
    menu: Mapping[str, ActionOptions],
    rules: DecisionOptions,
    budget: float | None,
    seed: int = 0,
) -> Decided:
    """Chooses at most one action per customer, so that net value is highest within every limit.

    Args:
        customers: what the offers were made from, one row each, with segment and model.
        quadrants: the decisions table so far, in the same order.
        made: from `offers`.
        menu: the same as the offers'.
        rules: limits, exploration.
        budget: of all actions; None for no limit.
        seed: of exploration.

    Raises:
        InputError: a floor that cannot be met within the other limits, or of a segment that there is not.
    """
    names, problem = _limited(customers, made, menu, rules, budget)
    explored = _explored(customers, made, rules, seed)
    drawn_action, left = _explore(problem, made, explored, seed, customers[CUSTOMER_ID])
    found = allocate(left)
    choice = np.where(drawn_action != NONE, drawn_action, found.choice)
    choice[explored & (drawn_action == NONE)] = NONE
    usage = problem.usage(choice)
    _check_floors(names, problem, usage)
    wanted = np.where(explored, best_at(problem, found.prices), choice)
    table = _table(quadrants, made, problem, [name for name, _ in names], found, choice)
    policy = _policy(menu, rules, budget, seed)
    table = table.with_columns(
        pl.Series(PROPENSITY, _propensity(made, wanted, choice, rules.exploration)),
        pl.Series(EXPLORED, explored),
        pl.lit(policy).alias(POLICY),
        customers[MODEL],
        _consent(customers),
        *(customers[name] for name in (NAMED_CAUSE, EVIDENCE) if name in customers.columns),
    )
    limits = pl.DataFrame(
        {
            LIMIT_NAME: [name for name, _ in names],
            LIMIT_UNIT: [unit for _, unit in names],
            ALLOWED: np.abs(problem.limits),
            USED: np.abs(usage),
            PRICE: found.prices,
        },
        schema=LIMITS.schema,
    )
    value = problem.value(choice)
    gap = max(0.0, (found.bound - found.value) / found.bound) if found.bound > 0 else 0.0
    return Decided(DECISIONS.check(table), LIMITS.check(limits), value, gap)


def budget_curve(
    customers: pl.DataFrame,
    made: Offers,
    menu: Mapping[str, ActionOptions],
    rules: DecisionOptions,
    points: int = CURVE_POINTS,
) -> pl.DataFrame:
    """What each budget would bring, from nothing to where the next unit of money earns nothing; other limits as set."""
    free = _limited(customers, made, menu, rules, None)[1]
    most = allocate(free, core=0)  # what a search would settle is nothing on the scale of a curve
    rows = np.flatnonzero(most.choice != NONE)
    spent = float(made.cost[rows, most.choice[rows]].sum())
    told = []
    for share in np.linspace(0.0, 1.0, points) ** 2:
        problem = _limited(customers, made, menu, rules, spent * share)[1]
        # a floor may cost more than a small budget: the curve shows what money brings, floors aside
        found = allocate(replace(problem, floors=problem.floors * 0.0), core=0)
        chosen = np.flatnonzero(found.choice != NONE)
        action = found.choice[chosen]
        cost, gain = (float(of[chosen, action].sum()) for of in (made.cost, made.gain))
        ends = (float(of[chosen, action].sum()) - cost for of in (made.lower, made.upper))
        told.append((spent * share, len(chosen), cost, gain, gain - cost, *ends, float(found.prices[0])))
    return BUDGET_CURVE.check(pl.DataFrame(told, schema=BUDGET_CURVE.schema, orient="row"))


def _limited(
    customers: pl.DataFrame,
    made: Offers,
    menu: Mapping[str, ActionOptions],
    rules: DecisionOptions,
    budget: float | None,
) -> tuple[list[tuple[str, str]], Problem]:
    """The problem, and each limit's name and unit in its order."""
    actions = list(menu.values())
    names: list[tuple[str, str]] = []
    pays, budgets, uses, capacities = [], [], [], []
    if budget is not None:
        names.append(("budget", "account currency"))
        pays.append(np.ones(len(actions)))
        budgets.append(budget)
    for channel, most in rules.channel_budgets.items():
        names.append((f"{channel} budget", "account currency"))
        pays.append(np.array([float(a.channel == channel) for a in actions]))
        budgets.append(most)
    if rules.agent_hours is not None:
        names.append(("agent hours", "hours"))
        uses.append(np.array([a.minutes / 60 for a in actions]))
        capacities.append(rules.agent_hours)
    for place, (name, action) in enumerate(menu.items()):
        if action.capacity is not None:
            names.append((f"{name} capacity", "contacts"))
            uses.append(np.eye(len(actions))[place])
            capacities.append(action.capacity)
    group, floors = _floors(customers, rules)
    names += [(f"floor of segment {key}", "customers") for key in rules.floors]
    width = (0, len(actions))
    return names, Problem(
        net=made.net,
        cost=made.cost,
        pays=np.array(pays).reshape(len(pays), width[1]),
        budgets=np.array(budgets, dtype=np.float64),
        uses=np.array(uses).reshape(len(uses), width[1]),
        capacities=np.array(capacities, dtype=np.float64),
        group=group,
        floors=floors,
    )


def _floors(customers: pl.DataFrame, rules: DecisionOptions) -> tuple[Indices, Array]:
    group = np.full(customers.height, -1)
    known = {str(segment) for segment in customers[SEGMENT].drop_nulls().unique().to_list()}
    for place, key in enumerate(rules.floors):
        if key not in known:
            raise InputError(
                f"decisions.floors.{key}: there is no segment {key}; there are {', '.join(sorted(known))}."
            )
        group[(customers[SEGMENT].cast(pl.String) == key).fill_null(False).to_numpy()] = place
    return group, np.array(list(rules.floors.values()), dtype=np.float64)


def _check_floors(names: Sequence[tuple[str, str]], problem: Problem, usage: Array) -> None:
    for place, least in enumerate(problem.floors):
        row = len(problem.limits) - len(problem.floors) + place
        if -usage[row] < least - 1e-9:
            raise InputError(
                f"decisions.floors: {names[row][0]} asks for {least:g} customers, and {-usage[row]:g} can be given an action "
                "within the other limits. Ask for fewer, or raise the budget."
            )


def _explored(customers: pl.DataFrame, made: Offers, rules: DecisionOptions, seed: int) -> NDArray[np.bool_]:
    """Customers with something admissible, drawn for exploration."""
    if rules.exploration <= 0:
        return np.zeros(customers.height, np.bool_)
    chosen = drawn(customers[CUSTOMER_ID], f"{EXPLORE_SALT} {seed}") < rules.exploration
    return np.asarray(chosen & (made.barred == 0).any(axis=1))


def _explore(
    problem: Problem, made: Offers, explored: NDArray[np.bool_], seed: int, ids: pl.Series
) -> tuple[Indices, Problem]:
    """A random admissible action or none for the explored, within the limits, and what is left for the others.

    Raises:
        InputError: the limits do not hold what exploration draws.
    """
    drawn_action = np.full(len(explored), NONE)
    rows = np.flatnonzero(explored)
    if len(rows):
        open_to = made.barred[rows] == 0
        place = (drawn(ids[rows], f"{EXPLORE_SALT} action {seed}") * (open_to.sum(axis=1) + 1)).astype(
            np.int64
        )
        order = np.argsort(~open_to, axis=1, kind="stable")
        taken = place < open_to.sum(axis=1)
        drawn_action[rows] = np.where(
            taken, order[np.arange(len(rows)), np.minimum(place, len(made.names) - 1)], NONE
        )
    usage = problem.usage(drawn_action)
    held = len(problem.budgets) + len(problem.capacities)
    if (usage[:held] > problem.limits[:held]).any():
        over = int(np.argmax(usage[:held] - problem.limits[:held]))
        raise InputError(
            f"decisions.exploration: what it draws takes {usage[over]:,.2f} of a limit of {problem.limits[over]:,.2f}. "
            "Lower exploration, or raise the limit."
        )
    net = np.where(explored[:, None], -np.inf, problem.net)
    left = problem.limits - usage
    m, c = len(problem.budgets), len(problem.capacities)
    return drawn_action, replace(
        problem, net=net, budgets=left[:m], capacities=left[m : m + c], floors=np.maximum(-left[m + c :], 0.0)
    )


def _propensity(made: Offers, wanted: Indices, choice: Indices, exploration: float) -> Array:
    """Chance that the policy gives each customer what it gave: its share of exploration, and the rest if it wants it."""
    options = (made.barred == 0).sum(axis=1) + 1  # nothing is one of them
    random = np.where(options > 1, exploration / options, 0.0)
    return np.where(wanted == choice, 1 - random * (options - 1), random)


def _table(
    quadrants: pl.DataFrame,
    made: Offers,
    problem: Problem,
    limits: Sequence[str],
    found: Allocation,
    choice: Indices,
) -> pl.DataFrame:
    """The decisions table so far with what was chosen, what it brings, what else there was, and what stood in the way."""
    rows, given, at = np.arange(len(choice)), choice != NONE, np.maximum(choice, 0)

    def of(numbers: Array) -> Array:
        return np.where(given, numbers[rows, at], 0.0) if made.names else np.zeros(len(rows))

    place = np.where(given, choice, len(made.names))
    names = pl.Series([*made.names, NOTHING], dtype=pl.String)
    channels = pl.Series([*made.channels, None], dtype=pl.String)
    source = pl.Series([*("measured" if m else "assumed" for m in made.measured), None], dtype=pl.String)
    return quadrants.with_columns(
        names.gather(place).alias(ACTION),
        channels.gather(place).alias(ACTION_CHANNEL),
        pl.Series(EXPECTED_GAIN, of(made.gain)),
        pl.Series(GAIN_LOWER, of(made.lower)),
        pl.Series(GAIN_UPPER, of(made.upper)),
        pl.Series(EXPECTED_COST, of(made.cost)),
        source.gather(place).alias(EFFECT_SOURCE),
        _bindings(made, problem, limits, found, choice),
        _alternatives(made),
    )


def _bindings(
    made: Offers, problem: Problem, limits: Sequence[str], found: Allocation, choice: Indices
) -> pl.Series:
    """The limit that weighs most on the action given, or on the best one not given; else the rule that bars all."""
    count, actions = made.gain.shape
    words = [*(bar.value for bar in BARS), *limits]
    if not actions:
        return pl.Series(BINDING, [BARS[0].value] * count, dtype=pl.String)
    net = made.net
    best = np.where(choice != NONE, choice, net.argmax(axis=1))
    m, c = len(problem.budgets), len(problem.capacities)
    weighs = np.zeros((1 + m + c, count))  # the first row is nothing
    for place in range(m):
        weighs[1 + place] = (
            found.prices[place] * problem.pays[place, best] * made.cost[np.arange(count), best]
        )
    for place in range(c):
        weighs[1 + m + place] = found.prices[m + place] * problem.uses[place, best]
    heaviest = weighs.argmax(axis=0)
    of_limit = np.where(heaviest > 0, len(BARS) + heaviest - 1, 0)
    able = (made.barred == 0).any(axis=1)
    told = np.where(able, of_limit, made.barred.max(axis=1))
    return pl.Series(words, dtype=pl.String).gather(told).alias(BINDING)


def _alternatives(made: Offers) -> pl.Series:
    """The best three actions that may be given, with their net value: `discount_10 +3.20; call +1.05`."""
    net = made.net
    told = pl.Series([""] * len(net), dtype=pl.String)
    if not made.names or not len(net):
        return told.alias(ALTERNATIVES)
    names = pl.Series(made.names, dtype=pl.String)
    order = np.argsort(-net, axis=1, kind="stable")[:, :SHOWN]
    for place in range(order.shape[1]):
        worth = net[np.arange(len(net)), order[:, place]]
        more = pl.concat_str(
            pl.lit("; " if place else ""),
            names.gather(order[:, place]),
            pl.lit(" +"),
            pl.Series(worth).round(2).cast(pl.String),
        )
        known = pl.when(pl.Series(np.isfinite(worth))).then(more).otherwise(pl.lit(""))
        told = pl.select(pl.concat_str(told, known)).to_series()
    return told.alias(ALTERNATIVES)


def _consent(customers: pl.DataFrame) -> pl.Expr:
    if WITHDRAWN not in customers.columns:
        return pl.lit(UNKNOWN_CONSENT).alias(CONSENT)
    withdrawn = customers[WITHDRAWN].fill_null(0.0) > 0
    return pl.when(withdrawn).then(pl.lit("withdrawn")).otherwise(pl.lit("not withdrawn")).alias(CONSENT)


def _policy(
    menu: Mapping[str, ActionOptions], rules: DecisionOptions, budget: float | None, seed: int
) -> str:
    """A short fingerprint of everything that the choice followed from, besides the customers."""
    parts = [{name: asdict(action) for name, action in menu.items()}, asdict(rules), budget, seed]
    return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()[:12]
