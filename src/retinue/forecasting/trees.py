"""The xgboost rung: a statistical law at the cutoff, corrected by trees that learnt on the grid of past cutoffs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retinue.features.catalogue import Family
from retinue.features.query import CATALOGUE
from retinue.forecasting.grid import Grid
from retinue.forecasting.outlook import Array, Law, Outlook, corrected, even_odds, logit
from retinue.models.boosting import Boosted, Examples, Floats, fit_boosted, settled
from retinue.models.btyd import SHAPES
from retinue.models.predictive import orders_log_score
from retinue.schema import CUSTOMER, CUSTOMER_ID, CUTOFF, REALISED_ORDERS, REALISED_SPEND

MOST_EXAMPLES = 150_000
HELD_OUT = 0.2  # of the customers
LAW_DAYS = (30, 90)  # horizons at which the trees are told what the law says
SHAPE_FACTORS = np.exp(np.linspace(-2.5, 2.5, 21))
KEYS = (CUSTOMER_ID, CUSTOMER, CUTOFF)
SAME_FOR_ALL = frozenset(feature.name for feature in CATALOGUE if feature.family is Family.calendar)


@dataclass(frozen=True)
class Trees:
    """A law with its corrections; `columns` are the features that the trees know, in order."""

    law: Law
    boosted: Boosted
    columns: tuple[str, ...]
    shape_factor: float

    def outlook(self, buyers: pl.DataFrame, horizons: Sequence[int], discount_rate_yearly: float) -> Outlook:
        """The law's outlook, corrected by customer; the horizon's part in it is the law's."""
        said = self.law.outlook(buyers, horizons, discount_rate_yearly)
        log_odds, log_orders, log_value = self.boosted.corrections(self._matrix(buyers))
        p_churn, orders = corrected(said.p_churn, said.orders, log_odds, log_orders)
        return Outlook(
            p_churn=p_churn,
            orders=orders,
            shape=np.clip(said.shape * self.shape_factor, *SHAPES),
            discount=said.discount,
            values=said.values.times(np.exp(log_value)),
        )

    def next_order_days(self, buyers: pl.DataFrame) -> Array:
        """Median wait for the next order, (rows,), NaN where more likely never."""
        return even_odds(self, buyers)

    def log_odds(self, buyers: pl.DataFrame, days: Sequence[float]) -> Array:
        """Log odds of an order within so many days, (days, rows)."""
        return self.law.log_odds(buyers, days) + self.boosted.corrections(self._matrix(buyers))[0]

    def _matrix(self, buyers: pl.DataFrame) -> Floats:
        return matrix(buyers, self.columns, self.law.outlook(buyers, LAW_DAYS, 0.0))


def fit_trees(law: Law, grid: Grid, closed_by: int, seed: int, device: str) -> Trees:
    """The corrections that the windows of the grid teach which close so many days before its cutoff, or earlier.

    The law is fitted at the cutoff that the trees are for and read at each cutoff of the grid: its few parameters have
    seen what the examples foretell, the trees have not. With too few examples the law stands as it is.

    Args:
        law: fitted on what is known at the cutoff of the trees.
        grid: past cutoffs.
        closed_by: days from the grid's own cutoff back to that of the trees.
        seed: of row and column samples.
        device: cpu or cuda.
    """
    columns = usable(grid.features[min(grid.features)])
    examples, shapes = _examples(law, grid, closed_by, columns)
    boosted = fit_boosted(examples, seed, device)
    return Trees(law, boosted, columns, _shape_factor(examples, boosted, shapes))


def usable(features: pl.DataFrame) -> tuple[str, ...]:
    """Numbers that tell one customer from another at the same cutoff."""
    return tuple(
        name
        for name, dtype in features.schema.items()
        if (dtype.is_numeric() or dtype == pl.Boolean) and name not in KEYS and name not in SAME_FOR_ALL
    )


def matrix(buyers: pl.DataFrame, columns: Sequence[str], law: Outlook) -> Floats:
    """(rows, features + 4) as float32, null as NaN; the last four are what the law says at its first two horizons."""
    absent = [pl.lit(None, pl.Float64).alias(name) for name in columns if name not in buyers.columns]
    known = buyers.with_columns(absent).select(pl.col(columns).cast(pl.Float64)).to_numpy()
    tiny = np.finfo(np.float64).tiny
    soon, later = np.log(np.maximum(law.orders[: len(LAW_DAYS)], tiny))
    said = [soon, later - soon, logit(1 - law.p_churn[0]), np.log(np.maximum(law.values.mean, 1e-9))]
    return settled(np.column_stack([known, np.stack(said, axis=1).round(4)])).astype(np.float32)


def share_of(customers: pl.Series, salt: int) -> Array:
    """A number in [0, 1) for each customer code, as good as drawn anew per salt (Steele et al. 2014, SplitMix64)."""
    with np.errstate(over="ignore"):
        mixed = customers.to_numpy().astype(np.uint64) + np.uint64((salt + 1) * 0x9E3779B97F4A7C15 % 2**64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53


def _examples(law: Law, grid: Grid, closed_by: int, names: Sequence[str]) -> tuple[Examples, Array]:
    """All windows stacked, thinned evenly to a bounded number of rows; and the law's shape in each row."""
    windows = grid.windows(closed_by)
    rows = sum(grid.features[offset].height for offset, _ in windows)
    kept_share = min(1.0, MOST_EXAMPLES / max(rows, 1))
    parts: list[tuple[NDArray[Any], ...]] = []
    for offset in sorted({offset for offset, _ in windows}):
        buyers = grid.features[offset]
        horizons = [days for at, days in windows if at == offset]
        law_says = law.outlook(buyers, [*LAW_DAYS, *horizons], 0.0)
        seen = matrix(buyers, names, law_says)
        held_out = share_of(buyers[CUSTOMER], 0) < HELD_OUT
        for i, days in enumerate(horizons, len(LAW_DAYS)):
            kept = share_of(buyers[CUSTOMER], 1 + offset * 1_000 + days) < kept_share
            came = grid.outcomes(offset, days)
            row: tuple[NDArray[Any], ...] = (seen, *_row(law_says, i, came), held_out)
            parts.append(tuple(each[kept] for each in row))
    if not parts:
        return _nothing(len(names) + 4)
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    x, odds, orders, value, shape, count, spend, held_out = columns
    return Examples(x, odds, orders, value, count, spend, held_out), shape


def _row(law: Outlook, i: int, came: pl.DataFrame) -> tuple[Array, ...]:
    with np.errstate(divide="ignore"):
        value, orders = np.log(law.values.mean), np.log(np.maximum(law.orders[i], 1e-12))
    count, spend = (came[name].to_numpy().astype(np.float64) for name in (REALISED_ORDERS, REALISED_SPEND))
    return logit(1 - law.p_churn[i]), orders, value, law.shape[i], count, spend


def _nothing(width: int) -> tuple[Examples, Array]:
    none = np.zeros(0)
    return Examples(
        np.zeros((0, width), np.float32), none, none, none, none, none, np.zeros(0, np.bool_)
    ), none


def _shape_factor(of: Examples, boosted: Boosted, shapes: Array) -> float:
    """How much the law's shape must change for the best log score of the counts on held-out rows."""
    rows = of.held_out
    if boosted.count is None or not rows.any():
        return 1.0
    log_odds, log_orders, _ = boosted.corrections(of.matrix[rows])
    law_churn, law_orders = 1 / (1 + np.exp(of.law_logit[rows])), np.exp(of.law_log_orders[rows])
    p_churn, expected = corrected(law_churn, law_orders, log_odds, log_orders)
    scores = [
        orders_log_score(of.orders[rows], p_churn, expected, np.clip(shapes[rows] * factor, *SHAPES)).mean()
        for factor in SHAPE_FACTORS
    ]
    return float(SHAPE_FACTORS[int(np.argmax(scores))])
