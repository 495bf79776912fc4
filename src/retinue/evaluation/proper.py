"""Proper scores of the distributions that a forecast row stands for, each customer by itself; lower is better."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from retinue.models.predictive import HurdleLogNormal

Array = NDArray[np.float64]
TAIL = 1e-10


@dataclass(frozen=True)
class BrierParts:
    """brier = reliability - resolution + uncertainty + within; `within` is what the bins hide."""

    reliability: float
    resolution: float
    uncertainty: float
    within: float


def brier_parts(churned: Array, p_churn: Array, bins: int = 10) -> BrierParts:
    """The Brier score taken apart over equal-width bins of p_churn.

    Reliability (0 is best) is the squared gap between said and realised, resolution (more is better) how
    far the bins differ from the base rate, uncertainty what saying the base rate would score. Murphy 1973,
    with the within-bin variance and covariance of Stephenson, Coelho and Jolliffe 2008, eq. 5.
    """
    place = np.minimum((p_churn * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    filled = np.maximum(count, 1)
    said = (np.bincount(place, p_churn, bins) / filled)[place]
    came = (np.bincount(place, churned, bins) / filled)[place]
    rate = float(churned.mean())
    reliability = float(np.mean((said - came) ** 2))
    resolution = float(np.mean((came - rate) ** 2))
    uncertainty = rate * (1 - rate)
    whole = float(np.mean((p_churn - churned) ** 2))
    return BrierParts(reliability, resolution, uncertainty, whole - reliability + resolution - uncertainty)


def orders_crps(realised: Array, p_churn: Array, expected_orders: Array, shape: Array) -> Array:
    """Continuous ranked probability score of the number of orders; (rows,), orders.

    Σ over n of (P(N ≤ n) - [realised ≤ n])², N = 0 with p_churn, else 1 + NegBinomial with mean E[N]/(1 -
    p_churn) - 1 and this shape. Epstein 1969; summed until the tail is below 1e-10.
    """
    score = (p_churn - (realised <= 0)) ** 2
    some = np.maximum(1 - p_churn, np.finfo(float).eps)
    beyond = np.maximum(expected_orders / some - 1, 0.0)
    log_go = np.log(np.maximum(beyond, np.finfo(float).tiny)) - np.log(shape + beyond)
    log_mass = -shape * np.log1p(beyond / shape)
    below = p_churn + (1 - p_churn) * np.exp(log_mass)
    rows, n = np.arange(len(realised)), 1
    while len(rows):
        score[rows] += (below[rows] - (realised[rows] <= n)) ** 2
        log_mass[rows] += np.log((shape[rows] + n - 1) / n) + log_go[rows]
        below[rows] = np.minimum(below[rows] + (1 - p_churn[rows]) * np.exp(log_mass[rows]), 1.0)
        n += 1
        rows = rows[(below[rows] < 1 - TAIL) & (n <= 1e4) | (realised[rows] > n - 1)]
    return score


def value_log_score(realised: Array, outcome: HurdleLogNormal) -> Array:
    """Negative log likelihood of the realised spend; (rows,), nats.

    No spend (or more refunds than spend) has its probability, some spend its density per unit of account
    currency, so that scores compare only within one currency. A zero where none could be, or a spend where
    none was possible, costs what one rounding error of probability does.
    """
    edge = np.finfo(float).eps
    p_zero = np.clip(outcome.p_zero, edge, 1 - edge)
    safe = np.where(outcome.mean > 0, outcome.mean, 1.0)
    variance = np.maximum(np.log1p((outcome.deviation / safe) ** 2), 1e-18)
    logs = np.log(np.maximum(realised, np.finfo(float).tiny))
    far = logs - (np.log(safe) - variance / 2)
    density = -logs - 0.5 * np.log(2 * np.pi * variance) - far**2 / (2 * variance)
    some = np.where(
        outcome.mean > 0, np.log1p(-p_zero) + np.maximum(density, np.log(edge) * 20), np.log(edge)
    )
    return -np.where(realised > 0, some, np.log(p_zero))


def value_crps(realised: Array, outcome: HurdleLogNormal) -> Array:
    """Continuous ranked probability score of the spend in closed form; (rows,), account currency.

    E|X - y| - E|X - X'|/2 of a zero with p_zero, else a log-normal (Baran and Lerch 2015, eq. A.2).
    """
    p, mean = outcome.p_zero, outcome.mean
    safe = np.where(mean > 0, mean, 1.0)
    spread = np.sqrt(np.maximum(np.log1p((outcome.deviation / safe) ** 2), 1e-18))
    above = np.maximum(realised, np.finfo(float).tiny)
    z = (np.log(above) - (np.log(safe) - spread**2 / 2)) / spread
    gap = np.where(
        realised > 0, realised * (2 * ndtr(z) - 1) + mean * (1 - 2 * ndtr(z - spread)), mean - realised
    )
    gap = np.where(mean > 0, gap, np.abs(realised))
    between = 2 * mean * (2 * ndtr(spread / np.sqrt(2)) - 1)
    near = p * np.abs(realised) + (1 - p) * gap
    return np.asarray(near - p * (1 - p) * mean - 0.5 * (1 - p) ** 2 * between, np.float64)
