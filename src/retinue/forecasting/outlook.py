"""What a rung says of each customer before it becomes a table, and the statistical laws' way of saying it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retinue.forecasting.orders import order_chances, order_waits, score_orders
from retinue.models.btyd import LONGEST_WAIT_DAYS, OrderModel, fit
from retinue.models.gamma_gamma import GammaGamma, fit_gamma_gamma
from retinue.models.own_rate import fit_own_rate
from retinue.models.predictive import spend_given_order
from retinue.models.statistics import Statistics, statistics_of
from retinue.options import Rung

Array = NDArray[np.float64]
LADDER_DAYS = tuple(float(days) for days in np.geomspace(1.0, LONGEST_WAIT_DAYS, 36).round(6))
LEAST_SHARE = 0.25  # of the law's own orders beyond the first, that a correction leaves


@dataclass(frozen=True)
class Values:
    """What one order brings, net of refunds: mean, and E[m²] and E[v] of spend_given_order; (rows,) each."""

    mean: Array
    own_mean_square: Array
    own_variance: Array

    def times(self, factor: Array | float) -> Values:
        """The same in another unit."""
        return Values(self.mean * factor, self.own_mean_square * factor**2, self.own_variance * factor**2)


@dataclass(frozen=True)
class Outlook:
    """The predictive distribution of orders and spend at each horizon.

    Attributes:
        p_churn: (h, rows) P(no order).
        orders: (h, rows) expected orders.
        shape: (h, rows) of the negative binomial of orders beyond the first.
        discount: (h, rows) expected discounted orders over expected orders.
        values: of one order.
    """

    p_churn: Array
    orders: Array
    shape: Array
    discount: Array
    values: Values

    @property
    def spend(self) -> Array:
        """Expected net spend, (h, rows)."""
        return self.orders * self.values.mean

    @property
    def deviation(self) -> Array:
        """Standard deviation of spend given at least one order, (h, rows)."""
        square, variance, mean = self.values.own_mean_square, self.values.own_variance, self.values.mean
        return spend_given_order(self.p_churn, self.orders, self.shape, square, variance, mean)[1]


class Predictor(Protocol):
    """A fitted rung: says its outlook on customers, in the row order of their features."""

    def outlook(self, buyers: pl.DataFrame, horizons: Sequence[int], discount_rate_yearly: float) -> Outlook:
        """The outlook at each horizon."""
        ...

    def log_odds(self, buyers: pl.DataFrame, days: Sequence[float]) -> Array:
        """Log odds of an order within so many days, (days, rows); rises in days."""
        ...

    def next_order_days(self, buyers: pl.DataFrame) -> Array:
        """Median wait for the next order, (rows,), NaN where more likely never."""
        ...


@dataclass(frozen=True)
class Law:
    """A statistical model of orders with one of their value."""

    orders: OrderModel
    value: GammaGamma | None

    def outlook(self, buyers: pl.DataFrame, horizons: Sequence[int], discount_rate_yearly: float) -> Outlook:
        """The outlook at each horizon; values are zero where no amount of the base is known."""
        base = statistics_of(buyers)
        said = score_orders(self.orders, base.histories, list(horizons), discount_rate_yearly)
        place = base.place.numpy()
        orders, discounted = said.expected_orders[:, place], said.discounted_orders[:, place]
        return Outlook(
            p_churn=said.p_churn[:, place],
            orders=orders,
            shape=said.shape[:, place],
            discount=np.divide(discounted, orders, where=orders > 0, out=np.ones_like(orders)),
            values=_values(self.value, base),
        )

    def next_order_days(self, buyers: pl.DataFrame) -> Array:
        """Median wait for the next order, (rows,), NaN where more likely never."""
        base = statistics_of(buyers)
        waits: Array = order_waits(self.orders, base.histories)[base.place.numpy()]
        return waits

    def log_odds(self, buyers: pl.DataFrame, days: Sequence[float]) -> Array:
        """Log odds of an order within so many days, (days, rows)."""
        base = statistics_of(buyers)
        return logit(order_chances(self.orders, base.histories, days))[:, base.place.numpy()]


def fit_law(rung: Rung, buyers: pl.DataFrame, like: Law | None = None) -> Law:
    """The law of own_rate, bg_nbd, mbg_nbd or pareto_nbd on customers who have ordered.

    Args:
        rung: one of the four.
        buyers: their features.
        like: another law of the same buyers, whose model of value is shared; None fits one.
    """
    base = statistics_of(buyers)
    orders = fit_own_rate(base.distinct) if rung is Rung.own_rate else fit(rung, base.distinct)
    value = like.value if like else fit_gamma_gamma(base.transactions, base.gross, base.refunded)
    return Law(orders, value)


def logit(chance: Array) -> Array:
    """Log odds, of chances kept one rounding error away from 0 and 1."""
    edge = np.finfo(np.float64).eps
    kept = np.clip(chance, edge, 1 - edge)
    return np.log(kept) - np.log1p(-kept)


def corrected(
    p_churn: Array, orders: Array, log_odds: Array | float, log_orders: Array | float
) -> tuple[Array, Array]:
    """P(no order) and expected orders of a law, moved by so much; they fall and rise in the horizon as the law's do."""
    moved = 1 / (1 + np.exp(logit(1 - p_churn) + log_odds))
    return moved, np.maximum(orders * np.exp(log_orders), least_orders(moved, p_churn, orders))


def least_orders(p_churn: Array, law_churn: Array, law_orders: Array) -> Array:
    """P(an order) × (1 + a quarter of the orders that the law expects beyond the first); rises in the horizon."""
    # Of a customer gone for ever 1 - law_churn is rounding; read against less than that, 1e-20 orders would seem many.
    beyond = np.maximum(law_orders / np.maximum(1 - law_churn, np.finfo(np.float64).eps) - 1, 0.0)
    return (1 - p_churn) * (1 + LEAST_SHARE * beyond)


def median_wait(days: Sequence[float], log_odds: Array) -> Array:
    """Days until an order is as likely as not, (rows,), NaN where that is not within the last of `days`.

    Between two days the log odds are read as linear in log days, before the first the chance as linear in days.

    Args:
        days: ascending.
        log_odds: (days, rows), rising in days.
    """
    likely = log_odds >= 0
    first = likely.argmax(axis=0)
    rows = np.arange(log_odds.shape[1])
    logs = np.log(np.asarray(days))
    low, high = log_odds[np.maximum(first - 1, 0), rows], log_odds[first, rows]
    share = np.divide(-low, high - low, where=high > low, out=np.zeros_like(high))
    between = np.exp(logs[np.maximum(first - 1, 0)] * (1 - share) + logs[first] * share)
    at_once = days[0] * 0.5 * (1 + np.exp(-high))
    return np.where(likely.any(axis=0), np.where(first == 0, at_once, between), np.nan)


def even_odds(fitted: Predictor, buyers: pl.DataFrame) -> Array:
    """`median_wait` of a predictor, read on a ladder of days; (rows,)."""
    return median_wait(LADDER_DAYS, fitted.log_odds(buyers, LADDER_DAYS))


def _values(model: GammaGamma | None, base: Statistics) -> Values:
    if model is None:
        zeros = np.zeros(len(base.gross))
        return Values(zeros, zeros, zeros)
    square, variance = model.mean_square(base.transactions, base.gross)
    mean = model.mean(base.transactions, base.gross)
    kept = model.kept(base.gross, base.refunded).numpy()
    return Values(mean.numpy(), square.numpy(), variance.numpy()).times(kept)
