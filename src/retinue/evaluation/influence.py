"""Statistics with the influence of each row on them, so that their standard errors need no resampling.

The influence of a row is n times what leaving it out would change, to first order, with mean zero;
`paired.cluster_error` of it, or of the gap between two forecasters' influences, is the standard error
(Hampel 1974; for AUROC as DeLong et al. 1988).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Statistic:
    """A figure and the influence of each row on it, (rows,). Both are NaN where the figure is undefined."""

    value: float
    influence: Array


def undefined(rows: int) -> Statistic:
    """What has no value on these rows."""
    return Statistic(float("nan"), np.full(rows, np.nan))


def mean(loss: Array) -> Statistic:
    """The mean of a loss; (rows,)."""
    return Statistic(float(loss.mean()), loss - loss.mean())


def auroc(churned: Array, p_churn: Array) -> Statistic:
    """Area under the ROC curve, ties counted half; undefined where only one class came true."""
    rows, left = len(churned), float(churned.sum())
    if not 0 < left < rows:
        return undefined(rows)
    yes = churned > 0
    overall = rankdata(p_churn)
    own = np.empty(rows)
    own[yes], own[~yes] = rankdata(p_churn[yes]), rankdata(p_churn[~yes])
    other = overall - own  # rows of the other class ranked below, ties half
    share = np.where(yes, other / (rows - left), 1 - other / left)
    area = float(share[yes].mean())
    return Statistic(area, (share - area) * rows / np.where(yes, left, rows - left))


def gini(realised: Array, predicted: Array) -> Statistic:
    """`metrics.normalised_gini`; undefined where all realised values are equal."""
    value = np.maximum(realised, 0.0)
    perfect = _covered(value, value)
    if perfect.value <= 1e-12 * value.mean():
        return undefined(len(value))
    found = _covered(value, predicted)
    ratio = found.value / perfect.value
    return Statistic(ratio, (found.influence - ratio * perfect.influence) / perfect.value)


def _covered(value: Array, order: Array) -> Statistic:
    """Mean of value × (2 × rank share - 1), and its influence: through the value, and through everyone's rank."""
    rows = len(value)
    tie = rankdata(order, method="dense") - 1
    size = np.bincount(tie)
    ranks = (np.cumsum(size) - (size - 1) / 2)[tie]
    covered = value * (2 * ranks - rows - 1) / rows
    by_tie = np.bincount(tie, weights=value)
    above = (by_tie.sum() - np.cumsum(by_tie) + by_tie / 2)[tie] / rows
    total = float(covered.mean())
    return Statistic(total, covered - total + 2 * (above - above.mean()))


def captured(realised: Array, score: Array, share: float) -> Statistic:
    """`profit.captured`: share of all value that the best-scored share of rows brought; undefined where there is none.

    The mean value at the edge, which the influence needs, is that of the nearest 5 % of rows by score.
    """
    rows, value = len(realised), np.maximum(realised, 0.0)
    if value.sum() <= 0:
        return undefined(rows)
    ranks = rankdata(-score)
    size = np.bincount(rankdata(-score, method="dense") - 1)
    tied = size[rankdata(-score, method="dense") - 1]
    inside = np.clip((share * rows - (ranks - (tied + 1) / 2)) / tied, 0.0, 1.0)
    near = np.abs(ranks - share * rows) <= np.maximum(0.025 * rows, tied / 2 + 1)
    edge = float(value[near].mean()) if near.any() else 0.0
    part = float((value * inside).sum() / value.sum())
    moved = value * inside - edge * (inside - share) - part * value
    return Statistic(part, (moved - moved.mean()) / value.mean())


def rmse(realised: Array, predicted: Array) -> Statistic:
    """Root mean squared error."""
    squared = (predicted - realised) ** 2
    root = float(np.sqrt(squared.mean()))
    return Statistic(root, (squared - squared.mean()) / (2 * root) if root > 0 else np.zeros(len(squared)))


def bias_percent(realised: Array, predicted: Array) -> Statistic:
    """`metrics.bias_percent`: error of the total; undefined where nothing was realised."""
    total = float(realised.mean()) if len(realised) else 0.0
    if total <= 0:
        return undefined(len(realised))
    ratio = float(predicted.mean()) / total
    return Statistic(100 * (ratio - 1), 100 * (predicted - ratio * realised) / total)


@dataclass(frozen=True)
class _Bins:
    """Rows in equal-width bins of p_churn; (rows,) each: mean said and mean came true in the row's own bin."""

    said: Array
    came: Array


def _bins(churned: Array, p_churn: Array, bins: int) -> _Bins:
    place = np.minimum((p_churn * bins).astype(int), bins - 1)
    count = np.maximum(np.bincount(place, minlength=bins), 1)
    said, came = (np.bincount(place, x, bins) / count for x in (p_churn, churned))
    return _Bins(said[place], came[place])


def expected_calibration_error(churned: Array, p_churn: Array, bins: int = 10) -> Statistic:
    """`metrics.expected_calibration_error`."""
    at = _bins(churned, p_churn, bins)
    return mean(np.sign(at.said - at.came) * (p_churn - churned))


def reliability(churned: Array, p_churn: Array, bins: int = 10) -> Statistic:
    """Reliability of `proper.brier_parts`."""
    at = _bins(churned, p_churn, bins)
    gap = at.said - at.came
    return mean(2 * gap * (p_churn - churned) - gap**2)


def resolution(churned: Array, p_churn: Array, bins: int = 10) -> Statistic:
    """Resolution of `proper.brier_parts`."""
    at = _bins(churned, p_churn, bins)
    rate = churned.mean()
    return mean(2 * (at.came - rate) * (churned - rate) - (at.came - rate) ** 2)


def averaged(parts: list[Statistic], place: NDArray[np.int64]) -> Statistic:
    """The plain mean of a figure over origins, where ranks or totals of different times do not compare.

    Args:
        parts: one per origin, in order.
        place: (rows,) which of the parts a row belongs to.
    """
    influence = np.empty(len(place))
    for i, part in enumerate(parts):
        own = place == i
        influence[own] = part.influence * (len(place) / (len(parts) * max(int(own.sum()), 1)))
    return Statistic(float(np.mean([part.value for part in parts])), influence)
