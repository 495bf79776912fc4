"""Differences between forecasters on the same customers, with standard errors clustered by customer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retinue.evaluation.influence import Statistic

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error; both NaN where undefined."""

    value: float
    error: float

    @property
    def is_clear(self) -> bool:
        """Whether it lies more than two standard errors from zero."""
        return abs(self.value) > 2 * self.error


def cluster_error(values: Array, customer: Labels) -> float:
    """Standard error of the mean of rows that belong together by customer; 0 for fewer than two customers.

    Liang and Zeger 1986: sums of deviations by cluster, with the correction C/(C - 1).

    Args:
        values: (rows,).
        customer: (rows,) codes from 0.
    """
    sums = np.bincount(customer, weights=values - values.mean())
    clusters = int((np.bincount(customer) > 0).sum())
    if clusters < 2:
        return 0.0
    return float(np.sqrt(np.sum(sums**2) * clusters / (clusters - 1)) / len(values))


def seed_error(by_seed: Sequence[float] | Array) -> float:
    """Standard error of a mean over seeds, from their spread; 0 for one seed."""
    values = np.asarray(by_seed, dtype=float)
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


@dataclass(frozen=True)
class Measured:
    """A figure of one forecaster: by_seed (seeds,), and the mean over seeds of each row's influence on it (rows,)."""

    by_seed: Array
    influence: Array

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return float(self.by_seed.mean())


def over_seeds(statistics: Sequence[Statistic]) -> Measured:
    """One figure measured with each seed; without chance there is one."""
    values = np.array([one.value for one in statistics])
    return Measured(values, np.mean([one.influence for one in statistics], axis=0))


def single(one: Measured, customer: Labels) -> Estimate:
    """The figure with its error over customers and seeds, in quadrature."""
    return Estimate(
        one.value, float(np.hypot(cluster_error(one.influence, customer), seed_error(one.by_seed)))
    )


def paired(one: Measured, other: Measured, customer: Labels) -> Estimate:
    """The figure of `one` less that of `other` on the same rows, with its error over customers and seeds.

    Means of losses and smooth statistics such as AUROC, Gini or RMSE alike: the gap between the influences of a row is
    what it does to the difference. Seeds of the two are independent.

    Args:
        one: a figure over some rows.
        other: the same figure of another forecaster over the same rows.
        customer: (rows,) codes from 0.
    """
    chance = np.hypot(seed_error(one.by_seed), seed_error(other.by_seed))
    error = np.hypot(cluster_error(one.influence - other.influence, customer), chance)
    return Estimate(one.value - other.value, float(error))
