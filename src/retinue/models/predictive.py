"""The predictive distribution of orders and spend that a forecast row stands for, and its scores.

Orders: nothing with p_churn, else 1 + NegBinomial. Spend: nothing with p_churn, else log-normal with given
    mean and deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ndtr, ndtri

Array = NDArray[np.float64]


def orders_log_score(realised: Array, p_churn: Array, expected_orders: Array, shape: Array) -> Array:
    """Log probability of the realised number of orders; (rows,).

    p_churn is kept one rounding error away from 0 and 1.
    N | N ≥ 1 = 1 + NegBinomial(mean E[N]/(1 - p_churn) - 1, shape).
    """
    edge = np.finfo(float).eps
    p_churn = np.clip(p_churn, edge, 1 - edge)
    score = np.log(p_churn)
    came = realised > 0  # the costly part is for them alone
    some, shape, more = 1 - p_churn[came], shape[came], np.maximum(realised[came] - 1, 0.0)
    beyond = np.maximum(expected_orders[came] / some - 1, 0.0)
    log_stay = -np.log1p(beyond / shape)
    log_go = np.log(np.maximum(beyond, np.finfo(float).tiny)) - np.log(shape + beyond)
    count = (
        gammaln(shape + more)
        - gammaln(shape)
        - gammaln(more + 1)
        + shape * log_stay
        + np.where(more > 0, more * log_go, 0.0)
    )
    score[came] = np.log(some) + count
    return score


def spend_given_order(
    p_churn: Array,
    expected_orders: Array,
    shape: Array,
    own_mean_square: Array,
    own_variance: Array,
    value_mean: Array,
) -> tuple[Array, Array]:
    """Mean and standard deviation of gross spend given at least one order; (rows,) each.

    With N orders of a customer whose mean value m and variance per order v are uncertain: E[V²] = E[N²] E[m²]
    + E[N] E[v].
    """
    count = np.maximum(expected_orders / np.maximum(1 - p_churn, np.finfo(float).eps), 1.0)
    count_square = count**2 + (count - 1) + (count - 1) ** 2 / shape
    mean = count * value_mean
    square = count_square * own_mean_square + count * own_variance
    return mean, np.sqrt(np.maximum(square - mean**2, 0.0))


@dataclass(frozen=True)
class HurdleLogNormal:
    """Zero with probability p_zero, else log-normal with this mean and deviation; (rows,) each.

    A mean of zero is the point mass at zero.
    """

    p_zero: Array
    mean: Array
    deviation: Array

    @property
    def _logs(self) -> tuple[Array, Array]:
        safe = np.where(self.mean > 0, self.mean, 1.0)
        variance = np.log1p((self.deviation / safe) ** 2)
        return np.log(safe) - variance / 2, np.sqrt(np.maximum(variance, 1e-18))

    def quantile(self, level: float | Array) -> Array:
        """Smallest value that the outcome stays at or below with this probability; (rows,)."""
        middle, spread = self._logs
        inside = (level - self.p_zero) / np.maximum(1 - self.p_zero, np.finfo(float).eps)
        positive = (inside > 0) & (self.mean > 0)
        where = ndtri(np.where(positive, np.minimum(inside, 1 - 1e-16), 0.5))
        return np.where(positive, np.exp(middle + spread * where), 0.0)

    def cdf(self, value: Array) -> Array:
        """P(outcome ≤ value); (rows,)."""
        middle, spread = self._logs
        above = np.maximum(value, np.finfo(float).tiny)
        positive = np.where(self.mean > 0, ndtr((np.log(above) - middle) / spread), 1.0)
        return np.where(
            value < 0, 0.0, self.p_zero + (1 - self.p_zero) * np.where(value > 0, positive, self.mean <= 0)
        )

    def crps(self, realised: Array, levels: int = 99) -> Array:
        """Continuous ranked probability score: twice the mean pinball loss over evenly spaced levels; (rows,).

        Gneiting and Ranjan 2011, eq. 10; the midpoints (i - ½)/levels.
        """
        total = np.zeros_like(realised)
        for level in (np.arange(levels) + 0.5) / levels:
            total += pinball(realised, self.quantile(level), level)
        return 2 * total / levels


def pinball(realised: Array, quantile: Array, level: float) -> Array:
    """Quantile loss of each row."""
    miss = realised - quantile
    return np.maximum(level * miss, (level - 1) * miss)
