"""The allocator: against HiGHS on whole small cases, by hand, and by what may never happen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import csr_array

from retinue.decisions.allocate import CORE, allocate
from retinue.decisions.problem import NONE, Problem

SMALL_CORE = 40  # fewer than the customers of a case, so that prices have to do their part


def case(seed: int, customers: tuple[int, int] = (60, 180)) -> Problem:
    """A random case with two budgets, a capacity, people's minutes and two floors, all of which may bind."""
    rng = np.random.default_rng(seed)
    count, actions = int(rng.integers(*customers)), int(rng.integers(2, 6))
    gain = rng.lognormal(2, 1, (count, 1)) * rng.uniform(0.1, 1, (count, actions))
    cost = (
        rng.uniform(0.1, 1, (1, actions))
        * rng.lognormal(0.5, 0.5, (count, 1))
        * rng.uniform(0.8, 1.2, (count, actions))
    )
    net = gain - cost
    net[(rng.random((count, actions)) < 0.3) | (net < 0)] = -np.inf
    most = np.where(np.isfinite(net), cost, 0).max(axis=1).sum()
    return Problem(
        net,
        cost,
        pays=np.vstack([np.ones(actions), np.arange(actions) % 2 == 0]).astype(float),
        budgets=most * np.array([rng.uniform(0.15, 0.6), rng.uniform(0.1, 0.3)]),
        uses=np.vstack([np.eye(actions)[0], rng.integers(0, 10, actions)]).astype(float),
        capacities=np.array([np.floor(count * rng.uniform(0.05, 0.3)), count * rng.uniform(0.4, 2)]),
        group=rng.integers(-1, 2, count),
        floors=np.floor(count * np.array([0.02, 0.03])),
    )


def referee(problem: Problem) -> float | None:
    """The best value by a mixed-integer programme of the whole case, written down anew; None where none is feasible."""
    count, actions = problem.net.shape
    allowed = np.isfinite(problem.net)
    rows, at_most = [], []
    for customer in range(count):
        row = np.zeros((count, actions))
        row[customer] = 1
        rows.append(row)
        at_most.append(1.0)
    for who_pays, budget in zip(problem.pays, problem.budgets, strict=True):
        rows.append(problem.cost * who_pays)
        at_most.append(budget)
    for use, capacity in zip(problem.uses, problem.capacities, strict=True):
        rows.append(np.tile(use, (count, 1)))
        at_most.append(capacity)
    for place, least in enumerate(problem.floors):
        rows.append(-np.tile((problem.group == place)[:, None], (1, actions)).astype(float))
        at_most.append(-least)
    found = milp(
        -np.where(allowed, problem.net, 0).ravel(),
        integrality=np.ones(count * actions),
        bounds=(0, allowed.ravel().astype(float)),
        constraints=LinearConstraint(csr_array(np.array([row.ravel() for row in rows])), -np.inf, at_most),
        options={"mip_rel_gap": 1e-7},
    )
    return None if found.x is None else float(-found.fun)


def check_against_highs(seeds: range, core: int, most: float, customers: tuple[int, int] = (60, 180)) -> None:
    tried, worst = 0, 0.0
    for seed in seeds:
        problem = case(seed, customers)
        best = referee(problem)
        if best is None or best <= 0:
            continue
        found = allocate(problem, core)
        assert problem.fits(found.usage), seed
        assert found.bound >= best * (1 - 1e-7), seed
        worst = max(worst, 1 - found.value / best)
        tried += 1
    assert tried > 0.9 * len(seeds)
    assert worst <= most


def test_prices_alone_with_a_small_core_come_close_to_highs() -> None:
    check_against_highs(range(30), SMALL_CORE, 5e-3)


def test_more_customers_than_the_core_are_within_a_thousandth_of_highs() -> None:
    check_against_highs(range(4), CORE, 1e-3, (400, 600))


@pytest.mark.slow
def test_within_a_thousandth_of_highs_on_500_cases() -> None:
    check_against_highs(range(1_000, 1_500), CORE, 1e-3)


def without_limits(net: list[list[float]], cost: list[list[float]]) -> Problem:
    width = len(net[0])
    none = np.zeros((0, width))
    return Problem(np.array(net), np.array(cost), none, np.zeros(0), none, np.zeros(0))


def test_without_limits_everyone_gets_the_best_that_pays() -> None:
    found = allocate(without_limits([[3.0, 5.0], [-1.0, -np.inf], [2.0, 1.0]], [[1.0, 1.0]] * 3))
    assert found.choice.tolist() == [1, NONE, 0]
    assert found.value == found.bound == 7.0


def test_a_budget_buys_the_most_per_pound_and_is_priced_by_the_next_one() -> None:
    """Costs 4, 4, 4, 4 and a budget of 8: the two best are bought; a ninth pound alone buys nothing whole."""
    net, cost = np.array([[9.0], [7.0], [6.0], [2.0]]), np.full((4, 1), 4.0)
    none = np.zeros((0, 1))
    found = allocate(Problem(net, cost, np.ones((1, 1)), np.array([8.0]), none, np.zeros(0)))
    assert found.choice.tolist() == [0, 0, NONE, NONE]
    assert 6 / 4 <= found.prices[0] <= 7 / 4


def test_a_cheaper_action_is_taken_where_money_is_short() -> None:
    """One customer could have 10 for 8 or 6 for 2, three more 5 for 2: four cheap ones beat one dear."""
    net = np.array([[10.0, 6.0], [-np.inf, 5.0], [-np.inf, 5.0], [-np.inf, 5.0]])
    cost = np.array([[8.0, 2.0]] * 4)
    none = np.zeros((0, 2))
    found = allocate(Problem(net, cost, np.ones((1, 2)), np.array([8.0]), none, np.zeros(0)))
    assert found.choice.tolist() == [1, 1, 1, 1]


def test_a_floor_takes_the_least_bad_of_its_group() -> None:
    net, cost = np.array([[9.0], [8.0], [1.0], [2.0]]), np.ones((4, 1))
    none = np.zeros((0, 1))
    problem = Problem(
        net,
        cost,
        np.ones((1, 1)),
        np.array([2.0]),
        none,
        np.zeros(0),
        np.array([-1, -1, 0, 0]),
        np.array([1.0]),
    )
    assert allocate(problem).choice.tolist() == [0, NONE, NONE, 0]


def test_a_capacity_of_none_gives_nobody_the_action() -> None:
    none = np.zeros((0, 1))
    problem = Problem(np.ones((5, 1)), np.ones((5, 1)), none, np.zeros(0), np.ones((1, 1)), np.zeros(1))
    assert (allocate(problem).choice == NONE).all()


def test_nobody_and_nothing_are_no_error() -> None:
    none = np.zeros((0, 0))
    empty = Problem(np.zeros((3, 0)), np.zeros((3, 0)), none, np.zeros(0), none, np.zeros(0))
    assert allocate(empty).choice.tolist() == [NONE] * 3
    nobody = Problem(
        np.zeros((0, 2)), np.zeros((0, 2)), np.ones((1, 2)), np.ones(1), np.zeros((0, 2)), np.zeros(0)
    )
    assert not len(allocate(nobody).choice)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0, 8, 300]))
def test_no_limit_is_ever_broken_and_no_barred_action_given(seed: int, core: int) -> None:
    problem = case(seed, (1, 60))
    found = allocate(problem, core)
    held = len(problem.budgets) + len(problem.capacities)
    assert (found.usage[:held] <= problem.limits[:held] * (1 + 1e-9) + 1e-9).all()
    given_to = np.flatnonzero(found.choice != NONE)
    assert np.isfinite(problem.net[given_to, found.choice[given_to]]).all()
    assert (found.prices >= 0).all()
    assert found.value <= found.bound * (1 + 1e-9) + 1e-9


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_the_order_of_customers_changes_no_value(seed: int) -> None:
    problem = case(seed, (20, 60))
    order = np.random.default_rng(seed).permutation(len(problem.net))
    turned = problem.some(order, problem.limits)
    assert allocate(turned).value == pytest.approx(allocate(problem).value, rel=2e-3, abs=1e-6)


def knapsack(net: np.ndarray, cost: np.ndarray, budget: float) -> Problem:
    """One budget and no other limit."""
    none = np.zeros((0, net.shape[1]))
    return Problem(net, cost, np.ones((1, net.shape[1])), np.array([budget]), none, np.zeros(0))


@pytest.mark.parametrize(
    ("name", "known", "gap"),
    [
        # of a budget curve of a simulated shop; the value is HiGHS's
        ("knapsack", 72.2016580693145, 1e-3),
        # cases/allocation_that_never_ends.npz; the value is what HiGHS 1.15.1 had when its 5 s were over
        ("never_ends", 2_509.094258, 0.012),
    ],
)
def test_knapsacks_in_which_highs_goes_round_for_ever_are_solved(name: str, known: float, gap: float) -> None:
    given = json.loads((Path(__file__).parents[1] / "golden" / f"{name}.json").read_text())
    shape = given["customers"], given["actions"]
    net, cost = np.full(shape, -np.inf), np.zeros(shape)
    net[given["customer"], given["action"]] = given["net"]
    cost[given["customer"], given["action"]] = given["cost"]
    problem = knapsack(net, cost, given["budget"])
    found = allocate(problem)
    assert problem.fits(found.usage)
    assert found.value >= known * (1 - 1e-5)
    assert 0 <= found.gap <= gap


SHAPES = {
    "nothing to spend": lambda net, cost: knapsack(net, cost, 0.0),
    "a budget below any cost": lambda net, cost: knapsack(net, cost, cost.min() / 2),
    "more than all costs": lambda net, cost: knapsack(net, cost, cost.sum() * 2),
    "exactly one": lambda net, cost: knapsack(net, cost, cost.min()),
    "all alike": lambda net, cost: knapsack(np.full_like(net, 3.0), np.full_like(cost, 2.0), len(net) * 1.1),
    "all costs nothing": lambda net, cost: knapsack(net, cost * 0.0, 1.0),
    "nobody gains": lambda net, cost: knapsack(-np.abs(net), cost, cost.mean()),
    "nobody may": lambda net, cost: knapsack(np.full_like(net, -np.inf), cost, cost.mean()),
    "huge": lambda net, cost: knapsack(net * 1e12, cost * 1e12, cost.sum() * 1e11),
    "tiny": lambda net, cost: knapsack(net * 1e-12, cost * 1e-12, cost.sum() * 1e-13),
    "one dear among cheap": lambda net, cost: knapsack(
        np.where(np.arange(len(net))[:, None] == 0, net * 1e4, net),
        np.where(np.arange(len(net))[:, None] == 0, cost * 1e4, cost),
        cost.sum(),
    ),
    "one action": lambda net, cost: knapsack(net[:, :1], cost[:, :1], cost.mean() * 5),
    "one customer": lambda net, cost: knapsack(net[:1], cost[:1], cost[0].max()),
    "costs in steps": lambda net, cost: knapsack(net, np.ceil(cost * 2) / 2, len(net) / 7),
}


@pytest.mark.parametrize("customers", [1, 2, 40, 400])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_ends_within_its_limits_and_its_bound(shape: str, customers: int) -> None:
    rng = np.random.default_rng(customers)
    net, cost = rng.lognormal(2, 1, (customers, 4)), rng.lognormal(0, 1, (customers, 4))
    problem = SHAPES[shape](net, cost)
    found = allocate(problem)
    assert problem.fits(found.usage)
    assert found.value <= found.bound * (1 + 1e-9)
    best = referee(problem) if customers <= 40 and shape not in ("huge", "tiny", "nobody may") else None
    if best is not None:
        assert found.value >= best * (1 - 1e-3) - 1e-9
        assert found.bound >= best * (1 - 1e-7) - 1e-9


def test_500_random_problems_stay_within_their_limits_and_their_stated_gap() -> None:
    for seed in range(2_000, 2_500):
        problem = case(seed, (1, 60))
        found = allocate(problem)
        held = len(problem.budgets) + len(problem.capacities)
        assert (found.usage[:held] <= problem.limits[:held] * (1 + 1e-9) + 1e-9).all(), seed
        assert found.value == pytest.approx(problem.value(found.choice)), seed
        assert found.value <= found.bound * (1 + 1e-9) + 1e-9, seed
