"""A whole base at a cutoff: sums over its customers, which add up shard by shard, and the summary that they give."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from retinue.sequences.units import PARTS, WINDOWS, Floats, Units

LEAST_VALUE = 0.02  # median orders
BY_FREQUENCY = (1, 2, 3, 5, 9, 17)  # repeat days from which a row of the grid begins
BY_SILENCE = (0.1, 0.3, 0.6)
BY_AGE = (0.25, 0.6)
GRID = (len(BY_FREQUENCY) + 1) * (len(BY_SILENCE) + 1) * (len(BY_AGE) + 1)
CREDIBILITY = (0.1, 20.0)  # orders that the base's mean order value may weigh as
_ALL = (*(f"{days}" for days in WINDOWS), *(f"1_{part}" for part in PARTS))
SUMMARY = (
    "log_customers", "log_span", "one_time", "frequency", "frequency_square", "three_or_more", "ten_or_more", "own_rate",
    "recency_share", "recency_share_square", "age_of_one_time", "log_frequency",
    *(f"rate_{name}" for name in _ALL), *(f"trend_{days}" for days in WINDOWS), *(f"active_{name}" for name in _ALL),
    *(f"came_{name}" for name in _ALL),
    "gap_deviation", "gap", "value_weight", "value_deviation", "refund_share", "early", "season", "week", "contacts",
)  # fmt: skip


@dataclass(frozen=True)
class Sums:
    """Sums over the customers of a base at a cutoff; those of parts of a base add up to those of the whole.

    Windows are `WINDOWS`, then the last 1/8, 1/4 and 1/2 of the history; W of them.

    Attributes:
        customers: Who have ordered.
        moments: (10,) sums over customers: frequency, its square, nobody came back, five or more, and so on.
        orders: (W,) days with a repeat order in each window.
        exposure: (W,) customer-days in it after first orders.
        older: (W,) customers who were there before it began.
        active: (W,) those of them who ordered in it.
        came: (W,) customers whose first order fell in it.
        gaps: (4,) customers with two gaps or more, their squared log deviations and degrees of freedom, sum of log means.
        values: (6,) orders of known amount and customers with one, sums behind the variances within and between.
        refunds: (2,) money paid back, and gross.
        early: First orders in the first eighth of the history.
        grid: (GRID,) customers by repeat days, by silence as a share of age, and by age as a share of the history.
        contacts: Tokens that are no order or refund.
    """

    customers: Floats
    moments: Floats
    orders: Floats
    exposure: Floats
    older: Floats
    active: Floats
    came: Floats
    gaps: Floats
    values: Floats
    refunds: Floats
    early: Floats
    contacts: Floats
    grid: Floats

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


def grid_of(frequency: Floats, silence: Floats, age: Floats) -> Floats:
    """(GRID,) customers in each cell, by repeat days and shares of age and of history."""
    cell = np.zeros(len(frequency), np.int64)
    for values, edges in ((frequency, BY_FREQUENCY), (silence, BY_SILENCE), (age, BY_AGE)):
        cell = cell * (len(edges) + 1) + np.digitize(values, edges)
    return np.bincount(cell, minlength=GRID).astype(np.float64)


@dataclass(frozen=True)
class Worth:
    """How much the base's mean order value weighs against a customer's own (Bühlmann credibility, by moments)."""

    mean: float
    weight: float
    within: float

    @classmethod
    def of(cls, sums: Sums) -> Worth:
        """Within and between variances by analysis of variance."""
        orders, customers, squares, means, square_means, inverse = (float(each) for each in sums.values)
        if not customers:
            return cls(1.0, CREDIBILITY[1], 1.0)
        mean = means / customers
        within = squares / max(orders - customers, 1.0)
        between = square_means / customers - mean**2 - within * inverse / customers
        low, high = CREDIBILITY
        weight = float(np.clip(within / max(between, 1e-6), low, high))
        return cls(max(mean, LEAST_VALUE), weight, within / mean**2)

    def own_mean(self, transactions: Floats, gross: Floats) -> Floats:
        """Mean gross value of an order of each customer, median orders."""
        return (gross + self.weight * self.mean) / (transactions + self.weight)


def summary_of(sums: Sums, units: Units) -> NDArray[np.float32]:
    """The base at a cutoff in numbers without units, (len(SUMMARY),), NaN where the history is too short to tell.

    Args:
        sums: over all its customers.
        units: of the base.
    """
    n = max(float(sums.customers), 1.0)
    spans = np.array(units.windows)
    told = spans <= units.span
    few = 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = np.log((sums.orders + few) / (sums.exposure + few * 30))
        active = np.log((sums.active + few) / (sums.older - sums.active + few))
        came = np.log((sums.came + few) / n)
        one_time = (sums.moments[2] + few) / (n + 2 * few)
        deviation = np.sqrt(sums.gaps[1] / sums.gaps[2]) if sums.gaps[2] > 0 else np.nan
        mean_gap = sums.gaps[3] / sums.gaps[0] if sums.gaps[0] > 0 else np.nan
    worth = Worth.of(sums)
    refunded = float(sums.refunds[0] / sums.refunds[1]) if sums.refunds[1] > 0 else 0.0
    steady = told & (sums.older > 0)
    recent, whole = rates[: len(WINDOWS)], rates[-1]
    columns = [
        np.log(n),
        np.log(units.span),
        np.log(one_time / (1 - one_time)),
        *(np.log((sums.moments[i] + few) / n) for i in (0, 1, 3, 4)),
        np.log(sums.moments[5] / n + 1e-6),
        sums.moments[6] / n,
        sums.moments[7] / n,
        sums.moments[8] / max(sums.moments[2], 1.0),
        sums.moments[9] / n,
        *np.where(told, rates, np.nan),
        *np.where(told[: len(WINDOWS)], recent - whole, np.nan),
        *np.where(steady, active, np.nan),
        *np.where(told, came, np.nan),
        deviation,
        mean_gap,
        np.log(worth.weight),
        np.log(worth.within + 0.01),
        refunded,
        np.log((float(sums.early) + few) / (n / 8)),
        np.std(np.log(units.season.week)),
        np.std(np.log(units.season.weekday)),
        float(np.log1p(float(sums.contacts) / n)),
    ]
    return np.array(columns, dtype=np.float32)
