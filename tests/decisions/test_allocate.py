"""The allocator: against HiGHS on whole small cases, by hand, and by what may never happen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import csr_array

from retinue.decisions.allocate import CORE, NONE, Problem, allocate

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


ROUND_FOR_EVER = """
import json, sys
import subprocess
import sys
from pathlib import Path

import numpy as np
from retinue.decisions.allocate import Problem, _exact
told = json.load(open(sys.argv[1]))
shape = told["customers"], told["actions"]
net, cost = np.full(shape, -np.inf), np.zeros(shape)
net[told["customer"], told["action"]] = told["net"]
cost[told["customer"], told["action"]] = told["cost"]
none, budget = np.empty(0), np.array([told["budget"]])
problem = Problem(net, cost, np.ones((1, shape[1])), budget, np.empty((0, shape[1])), none, np.full(shape[0], -1), none)
choice = _exact(problem)
print(problem.value(choice), problem.usage(choice)[0] <= told["budget"] * (1 + 1e-9))
"""


def test_a_knapsack_on_which_presolve_goes_round_for_ever_is_solved() -> None:
    path = Path(__file__).parents[1] / "golden" / "knapsack.json"  # of a budget curve of a simulated shop
    command = [sys.executable, "-c", ROUND_FOR_EVER, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    value, fits = done.stdout.split()
    assert float(value) == pytest.approx(72.2016580693145, rel=1e-5)
    assert fits == "True"
