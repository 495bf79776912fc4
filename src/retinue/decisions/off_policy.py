"""What another policy would have earned, from the log of decisions that had a chance: IPS, SNIPS and doubly robust.

Horvitz and Thompson (1952), Swaminathan and Joachims (2015), Dudík, Langford and Li (2011).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from retinue.schema import InputError

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Logged:
    """Decisions that were taken, and what came of them; (rows,) each, (rows, actions) for the policies.

    Attributes:
        action: place of the action taken.
        propensity: chance that the logging policy gave it.
        reward: margin within the horizon less the action's cost.
    """

    action: Labels
    propensity: Array
    reward: Array

    def __post_init__(self) -> None:
        wrong = ~((self.propensity > 0) & (self.propensity <= 1))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise InputError(
                f"decisions: 'propensity' is {self.propensity[row]:g} in row {row + 1} ({wrong.sum():,} in all); what was done "
                "had a chance above 0 and up to 1. Log the policy's own."
            )


@dataclass(frozen=True)
class Estimate:
    """Mean reward per customer with the ends of its interval, and how many customers the weights amount to."""

    value: float
    lower: float
    upper: float
    effective: float


def ips(logged: Logged, policy: Array, level: float = 0.95) -> Estimate:
    """Inverse propensity scores: unbiased, wide where the policies differ."""
    weight = _weights(logged, policy)
    return _estimate(weight * logged.reward, weight, level)


def snips(logged: Logged, policy: Array, level: float = 0.95) -> Estimate:
    """The same over the sum of the weights: a little biased, narrower; interval by the delta method."""
    weight = _weights(logged, policy)
    total = weight.mean()
    if total == 0:
        raise InputError(
            "off-policy: the log holds nothing that the policy would have done; it cannot be judged from it."
        )
    value = float((weight * logged.reward).mean() / total)
    return _estimate(value + weight * (logged.reward - value) / total, weight, level)


def doubly_robust(logged: Logged, policy: Array, expected: Array, level: float = 0.95) -> Estimate:
    """A model of the reward, its misses weighed by inverse propensity: right if either is.

    Args:
        logged: the log.
        policy: (rows, actions) chance of each action under the policy that is judged.
        expected: (rows, actions) reward by a model that has not seen the row.
        level: of the interval.
    """
    weight = _weights(logged, policy)
    rows = np.arange(len(weight))
    said = (policy * expected).sum(axis=1)
    return _estimate(said + weight * (logged.reward - expected[rows, logged.action]), weight, level)


def _weights(logged: Logged, policy: Array) -> Array:
    if policy.shape[0] != len(logged.action):
        raise InputError(
            f"off-policy: {policy.shape[0]:,} rows of the policy and {len(logged.action):,} of the log; give as many."
        )
    if not np.allclose(policy.sum(axis=1), 1.0):
        raise InputError("off-policy: the chances of a policy must sum to 1 in each row, nothing among them.")
    return np.asarray(policy[np.arange(len(policy)), logged.action] / logged.propensity)


def _estimate(each: Array, weight: Array, level: float) -> Estimate:
    half = float(norm.ppf(0.5 + level / 2) * each.std(ddof=1) / np.sqrt(len(each)))
    squares = float((weight**2).sum())
    effective = float(weight.sum() ** 2 / squares) if squares else 0.0
    value = float(each.mean())
    return Estimate(value, value - half, value + half, effective)
