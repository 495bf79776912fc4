"""The blend rung: a statistical law, the trees and networks in one forecast, weighted by what they were worth on past origins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from retinue.forecasting.outlook import Array, Outlook, Predictor, Values, even_odds, least_orders, logit
from retinue.forecasting.trials import Trial, mean_log_score

EQUAL = 0.5
WEIGHTS = tuple(i / 10 for i in range(11))


@dataclass(frozen=True)
class Blend:
    """Mean log odds, and geometric means of orders, value and shape; `weight` is that of the second."""

    one: Predictor
    other: Predictor
    weight: float

    def outlook(self, buyers: pl.DataFrame, horizons: Sequence[int], discount_rate_yearly: float) -> Outlook:
        """The blended outlook at each horizon; its invariants are those of its members."""
        one, other = (each.outlook(buyers, horizons, discount_rate_yearly) for each in (self.one, self.other))
        return mixed(one, other, self.weight)

    def next_order_days(self, buyers: pl.DataFrame) -> Array:
        """Median wait for the next order, (rows,), NaN where more likely never."""
        return even_odds(self, buyers)

    def log_odds(self, buyers: pl.DataFrame, days: Sequence[float]) -> Array:
        """Log odds of an order within so many days, (days, rows)."""
        one, other = (each.log_odds(buyers, days) for each in (self.one, self.other))
        return (1 - self.weight) * one + self.weight * other


def mixed(first: Outlook, second: Outlook, weight: float) -> Outlook:
    """Two outlooks on the same rows in one; `weight` is that of the second."""
    odds = (1 - weight) * logit(1 - first.p_churn) + weight * logit(1 - second.p_churn)
    p_churn = 1 / (1 + np.exp(odds))

    def mean(one: Array, other: Array) -> Array:
        return one ** (1 - weight) * other**weight

    return Outlook(
        p_churn=p_churn,
        orders=np.maximum(
            mean(first.orders, second.orders), least_orders(p_churn, first.p_churn, first.orders)
        ),
        shape=mean(first.shape, second.shape),
        discount=mean(first.discount, second.discount),
        values=Values(
            mean(first.values.mean, second.values.mean),
            mean(first.values.own_mean_square, second.values.own_mean_square),
            mean(first.values.own_variance, second.values.own_variance),
        ),
    )


def mixed_trials(one: Sequence[Trial], other: Sequence[Trial], weight: float) -> list[Trial]:
    """Trials of a blend, from those of its members at the same origins."""
    return [replace(a, outlook=mixed(a.outlook, b.outlook, weight)) for a, b in zip(one, other, strict=True)]


def best_weight(one: Sequence[Trial], other: Sequence[Trial], even: float = EQUAL) -> float:
    """Weight of the other with the best log score on these trials, shrunk half way to an even one.

    Args:
        one: trials of what is there already.
        other: at the same origins; none leave the even weight.
        even: where all members weigh the same.
    """
    if not one:
        return even
    scores = [mean_log_score(mixed_trials(one, other, weight)) for weight in WEIGHTS]
    return (WEIGHTS[int(np.argmax(scores))] + even) / 2
