"""What a ranking is worth to who can reach only the top of it. Rows with the same score share what they bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]
SHARES = tuple(i / 20 for i in range(21))


@dataclass(frozen=True)
class Treated:
    """One point of a profit curve; `profit` in account currency."""

    share: float
    customers: float
    profit: float


def top(gain: Array, score: Array, shares: Sequence[float]) -> Array:
    """Sum of `gain` over the best-scored share of the rows, for each share of 0 to 1.

    A part of a row counts in part, and tied rows bring their mean, so that no order of rows matters.
    """
    ranks = rankdata(-score, method="dense") - 1
    size = np.bincount(ranks)
    summed = np.bincount(ranks, weights=gain)
    reached = np.concatenate([[0], np.cumsum(size)])
    sums = np.concatenate([[0.0], np.cumsum(summed)])
    return np.asarray(np.interp(np.array(shares) * len(gain), reached, sums), np.float64)


def captured(realised: Array, score: Array, share: float) -> float | None:
    """Share of all realised value that the best-scored share of customers brought; None where nothing was realised.

    Realised values below zero (more refunds than spend) count as zero.
    """
    value = np.maximum(realised, 0.0)
    return float(top(value, score, [share])[0] / value.sum()) if value.sum() > 0 else None


def saving(churned: Array, value_if_retained: Array, save_share: float) -> Array:
    """What treating each customer brings when treatment keeps `save_share` of those who would leave; (rows,), currency.

    With `churned` of 0 or 1 it is what would have come true, with p_churn in its place what is expected.
    """
    return churned * save_share * value_if_retained


def profit_curve(
    gain: Array, score: Array, contact_cost: float, shares: Sequence[float] = SHARES
) -> list[Treated]:
    """Profit of treating the best-scored share of the customers, for each share, at a cost per contact.

    Args:
        gain: what treating each customer brings before the cost, account currency; (rows,).
        score: who is treated first; (rows,).
        contact_cost: account currency per customer treated.
        shares: 0 to 1.
    """
    brought = top(gain, score, shares)
    return [
        Treated(share, share * len(gain), float(money - contact_cost * share * len(gain)))
        for share, money in zip(shares, brought, strict=True)
    ]


def best_share(curve: Sequence[Treated]) -> Treated:
    """The point of most profit; the smallest share of several."""
    return max(curve, key=lambda point: (point.profit, -point.share))
