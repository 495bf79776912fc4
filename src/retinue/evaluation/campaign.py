"""A retention campaign at past origins: what treating the customers that each forecaster puts first would have earned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retinue.evaluation.comparison import ALL_ZERO, Entry
from retinue.evaluation.outcomes import Outcomes
from retinue.evaluation.profit import Array, Treated, best_share, profit_curve, saving
from retinue.options import ValueOptions

LEAST_SURVIVAL = 1e-3  # as in the quadrants: no rounding in p_churn makes a fortune


@dataclass(frozen=True)
class Ranking:
    """Profit curves of treating who has most at stake in one forecaster's eyes, over all origins.

    Attributes:
        expected: By its own word.
        realised: By who came true to leave.
    """

    expected: tuple[Treated, ...]
    realised: tuple[Treated, ...]

    @property
    def chosen(self) -> Treated:
        """What came of treating the share at which it expected most."""
        return self.realised[self.expected.index(best_share(self.expected))]


@dataclass(frozen=True)
class Campaign:
    """Rankings by forecaster, `most` with hindsight; costs in account currency per contact."""

    contact_cost: float
    by_model: dict[str, Ranking]
    most: tuple[Treated, ...]


def campaign(entries: Sequence[Entry], value: ValueOptions) -> Campaign:
    """Profit of treating the top share of the customers at each origin, summed over origins.

    A contact keeps `value.save_share` of those who would leave, and a customer kept brings the margin expected of
    who orders, expected_spend / (1 - p_churn). What leavers would have brought never shows, so the realised
    curves of all forecasters use one worth: the median of theirs. Ties and parts of a row count as in `top`.

    Args:
        entries: forecasters on the same rows; the all-zero one treats by lot and has no say in the worth.
        value: margin_rate, save_share, and contact_cost; without one, where treating all would just have paid.
    """
    rows = entries[0].by_seed[0]
    worth = {entry.model: value.margin_rate * _kept(entry.by_seed[0]) for entry in entries}
    heard = [worth[entry.model] for entry in entries if entry.model != ALL_ZERO]
    common = np.median(heard or list(worth.values()), axis=0)
    came = saving(rows.churned, common, value.save_share)
    cost = float(came.mean()) if value.contact_cost is None else value.contact_cost
    by_model = {}
    for entry in entries:
        stake = saving(entry.by_seed[0].p_churn, worth[entry.model], value.save_share)
        curves = (_pooled(gain, stake, rows.origin, cost) for gain in (stake, came))
        by_model[entry.model] = Ranking(*curves)
    return Campaign(cost, by_model, _pooled(came, came, rows.origin, cost))


def _kept(rows: Outcomes) -> Array:
    """(rows,) net spend of a customer given an order."""
    some = np.maximum(1 - rows.p_churn, LEAST_SURVIVAL)
    return np.asarray(np.maximum(rows.expected_spend, 0.0) / some, np.float64)


def _pooled(gain: Array, score: Array, origin: NDArray[np.int64], cost: float) -> tuple[Treated, ...]:
    """The same share treated at each origin, customers and profit summed."""
    parts = [profit_curve(gain[origin == at], score[origin == at], cost) for at in np.unique(origin)]
    return tuple(
        Treated(points[0].share, sum(p.customers for p in points), sum(p.profit for p in points))
        for points in zip(*parts, strict=True)
    )
