"""Off-policy estimates against a world whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from retinue.decisions.off_policy import Estimate, Logged, doubly_robust, ips, snips
from retinue.schema import InputError


class World:
    """Customers with one number x; action 1 earns 4x - 1, action 2 earns 1.5 - x, nothing earns 0; noise on all."""

    def __init__(self, seed: int, customers: int = 3_000) -> None:
        rng = np.random.default_rng(seed)
        self.x = rng.uniform(0, 1, customers)
        self.means = np.column_stack([np.zeros(customers), 4 * self.x - 1, 1.5 - self.x])
        logging = np.column_stack([np.full(customers, 0.5), 0.1 + 0.3 * self.x, 0.4 - 0.3 * self.x])
        self.action = (rng.random(customers)[:, None] > np.cumsum(logging, axis=1)).sum(axis=1)
        rows = np.arange(customers)
        reward = self.means[rows, self.action] + rng.normal(0, 2, customers)
        self.logged = Logged(self.action, logging[rows, self.action], reward)
        best = self.means.argmax(axis=1)
        self.policy = np.eye(3)[best] * 0.9 + 0.1 / 3
        self.value = float((self.policy * self.means).sum(axis=1).mean())
        self.expected = self.means * 0.7 + 0.3  # a model that is wrong


def estimates(world: World) -> dict[str, Estimate]:
    return {
        "ips": ips(world.logged, world.policy),
        "snips": snips(world.logged, world.policy),
        "dr": doubly_robust(world.logged, world.policy, world.expected),
        "right dr": doubly_robust(world.logged, world.policy, world.means),
    }


def test_intervals_hold_the_truth_at_their_level_and_do_not_lean() -> None:
    held: dict[str, list[bool]] = {}
    missed: dict[str, list[float]] = {}
    widths: dict[str, list[float]] = {}
    for seed in range(300):
        world = World(seed, 1_000)
        for name, found in estimates(world).items():
            held.setdefault(name, []).append(found.lower <= world.value <= found.upper)
            missed.setdefault(name, []).append(found.value - world.value)
            widths.setdefault(name, []).append(found.upper - found.lower)
    for name, hits in held.items():
        assert np.mean(hits) == pytest.approx(0.95, abs=0.04), name
        errors = np.array(missed[name])
        assert abs(errors.mean()) < 4 * errors.std() / np.sqrt(len(errors)), name
    assert np.mean(widths["right dr"]) < np.mean(widths["dr"]) < np.mean(widths["ips"])


def test_what_was_logged_is_its_own_mean_reward() -> None:
    """By hand: a policy that did just what the log shows, with certainty, has the mean reward of the log."""
    logged = Logged(np.array([0, 1, 1]), np.ones(3), np.array([1.0, 2.0, 6.0]))
    policy = np.eye(2)[[0, 1, 1]]
    for found in (
        ips(logged, policy),
        snips(logged, policy),
        doubly_robust(logged, policy, np.zeros((3, 2))),
    ):
        assert found.value == pytest.approx(3.0)
        assert found.effective == pytest.approx(3.0)


def test_a_rare_action_weighs_as_much_as_it_was_rare() -> None:
    """Rewards 10 (chance ¼) and 0 (chance ¾, not what the policy does): IPS says 10 / ¼ / 2 = 20, SNIPS 10."""
    logged = Logged(np.array([1, 0]), np.array([0.25, 0.75]), np.array([10.0, 0.0]))
    policy = np.array([[0.0, 1.0], [0.0, 1.0]])
    assert ips(logged, policy).value == pytest.approx(20.0)
    assert snips(logged, policy).value == pytest.approx(10.0)
    assert ips(logged, policy).effective == pytest.approx(1.0)


def test_a_log_without_chances_is_refused() -> None:
    with pytest.raises(InputError, match=r"'propensity' is 0 in row 2 \(1 in all\)"):
        Logged(np.array([0, 1]), np.array([0.5, 0.0]), np.zeros(2))
    logged = Logged(np.array([0, 0]), np.ones(2), np.zeros(2))
    with pytest.raises(InputError, match=r"must sum to 1"):
        ips(logged, np.full((2, 2), 0.3))
    with pytest.raises(InputError, match=r"2 of the log"):
        ips(logged, np.full((3, 2), 0.5))
    with pytest.raises(InputError, match=r"nothing that the policy would have done"):
        snips(logged, np.array([[0.0, 1.0], [0.0, 1.0]]))
