"""The blend rung: a statistical law and the trees in one forecast, weighted by what they were worth on past origins."""

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
    """Mean log odds, and geometric means of orders, value and shape; `weight` is that of the trees."""

    law: Predictor
    trees: Predictor
    weight: float

    def outlook(self, buyers: pl.DataFrame, horizons: Sequence[int], discount_rate_yearly: float) -> Outlook:
        """The blended outlook at each horizon; its invariants are those of its members."""
        law, trees = (each.outlook(buyers, horizons, discount_rate_yearly) for each in (self.law, self.trees))
        return mixed(law, trees, self.weight)

    def next_order_days(self, buyers: pl.DataFrame) -> Array:
        """Median wait for the next order, (rows,), NaN where more likely never."""
        return even_odds(self, buyers)

    def log_odds(self, buyers: pl.DataFrame, days: Sequence[float]) -> Array:
        """Log odds of an order within so many days, (days, rows)."""
        law, trees = (each.log_odds(buyers, days) for each in (self.law, self.trees))
        return (1 - self.weight) * law + self.weight * trees


def mixed(law: Outlook, trees: Outlook, weight: float) -> Outlook:
    """Two outlooks on the same rows in one."""
    odds = (1 - weight) * logit(1 - law.p_churn) + weight * logit(1 - trees.p_churn)
    p_churn = 1 / (1 + np.exp(odds))

    def mean(one: Array, other: Array) -> Array:
        return one ** (1 - weight) * other**weight

    return Outlook(
        p_churn=p_churn,
        orders=np.maximum(mean(law.orders, trees.orders), least_orders(p_churn, law.p_churn, law.orders)),
        shape=mean(law.shape, trees.shape),
        discount=mean(law.discount, trees.discount),
        values=Values(
            mean(law.values.mean, trees.values.mean),
            mean(law.values.own_mean_square, trees.values.own_mean_square),
            mean(law.values.own_variance, trees.values.own_variance),
        ),
    )


def best_weight(law: Sequence[Trial], trees: Sequence[Trial]) -> float:
    """Weight of the trees with the best log score on these trials, shrunk half way to a half; a half without trials."""
    if not law:
        return EQUAL
    scores = [
        mean_log_score(
            [replace(a, outlook=mixed(a.outlook, b.outlook, w)) for a, b in zip(law, trees, strict=True)]
        )
        for w in WEIGHTS
    ]
    return (WEIGHTS[int(np.argmax(scores))] + EQUAL) / 2
