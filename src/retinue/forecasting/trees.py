"""The xgboost rung: what statistics say at the cutoff, corrected by trees that learnt on the grid of past cutoffs."""

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
from retinue.forecasting.outlook import Array, Outlook, Predictor, corrected, even_odds, logit
from retinue.models.boosting import FOLDS, Boosted, Examples, Floats, fit_boosted, settled
from retinue.models.btyd import SHAPES
from retinue.models.predictive import orders_log_score
from retinue.schema import CUSTOMER, CUSTOMER_ID, CUTOFF, REALISED_ORDERS, REALISED_SPEND

MOST_EXAMPLES = 120_000
MOST_TRIED = 60_000  # of a fit that is only tried at a past origin
FIRST_DAYS = (30, 90)  # horizons at which the trees are told what the first forecast says
SCALES = np.exp(np.linspace(-2.0, 3.0, 21))
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
MOST_SCORED = 20_000
KEYS = (CUSTOMER_ID, CUSTOMER, CUTOFF)
SAME_FOR_ALL = frozenset(feature.name for feature in CATALOGUE if feature.family is Family.calendar)


@dataclass(frozen=True)
class Dispersion:
    """Shape of the negative binomial of orders beyond the first: scale × their expected number^power."""

    scale: float
    power: float

    def shape(self, p_churn: Array, orders: Array) -> Array:
        """The shape where so much is expected."""
        beyond = orders / np.maximum(1 - p_churn, np.finfo(np.float64).eps) - 1
        return np.clip(self.scale * np.maximum(beyond, SHAPES[0]) ** self.power, *SHAPES)


@dataclass(frozen=True)
class Trees:
    """A first forecast with its corrections; `columns` are the features that the trees know, in order."""

    first: Predictor
    boosted: Boosted
    columns: tuple[str, ...]
    dispersion: Dispersion | None

    def outlook(self, buyers: pl.DataFrame, horizons: Sequence[int], discount_rate_yearly: float) -> Outlook:
        """The first forecast's outlook, corrected by customer; the horizon's part in it is that of the first."""
        said = self.first.outlook(buyers, horizons, discount_rate_yearly)
        log_odds, log_orders, log_value = self.boosted.corrections(self._matrix(buyers))
        p_churn, orders = corrected(said.p_churn, said.orders, log_odds, log_orders)
        return Outlook(
            p_churn=p_churn,
            orders=orders,
            shape=self.dispersion.shape(p_churn, orders) if self.dispersion else said.shape,
            discount=said.discount,
            values=said.values.times(np.exp(log_value)),
        )

    def next_order_days(self, buyers: pl.DataFrame) -> Array:
        """Median wait for the next order, (rows,), NaN where more likely never."""
        return even_odds(self, buyers)

    def log_odds(self, buyers: pl.DataFrame, days: Sequence[float]) -> Array:
        """Log odds of an order within so many days, (days, rows)."""
        return self.first.log_odds(buyers, days) + self.boosted.corrections(self._matrix(buyers))[0]

    def _matrix(self, buyers: pl.DataFrame) -> Floats:
        return matrix(buyers, self.columns, self.first.outlook(buyers, FIRST_DAYS, 0.0))


def fit_trees(first: Predictor, grid: Grid, closed_by: int, seed: int, device: str) -> Trees:
    """The corrections that the windows of the grid teach which close so many days before its cutoff, or earlier.

    The first forecast is fitted at the cutoff that the trees are for and read at each cutoff of the grid: its few
    parameters have seen what the examples foretell, the trees have not. With too few examples it stands as it is.

    Args:
        first: fitted on what is known at the cutoff of the trees.
        grid: past cutoffs.
        closed_by: days from the grid's own cutoff back to that of the trees.
        seed: of row and column samples.
        device: cpu or cuda.
    """
    columns = usable(grid.features[min(grid.features)], grid.layout.sees_seasons)
    most = MOST_TRIED if closed_by else MOST_EXAMPLES
    examples = _examples(first, grid, closed_by, columns, most)
    boosted = fit_boosted(examples, seed, device)
    return Trees(first, boosted, columns, _dispersion(examples, boosted))


def usable(features: pl.DataFrame, with_calendar: bool = False) -> tuple[str, ...]:
    """Numbers that tell one customer from another at the same cutoff; the date of the cutoff only where asked for."""
    left_out = KEYS if with_calendar else (*KEYS, *SAME_FOR_ALL)
    return tuple(
        name
        for name, dtype in features.schema.items()
        if (dtype.is_numeric() or dtype == pl.Boolean) and name not in left_out
    )


def matrix(buyers: pl.DataFrame, columns: Sequence[str], first: Outlook) -> Floats:
    """(rows, features + 4) as float32, null as NaN; the last four are what is first forecast at two horizons."""
    absent = [pl.lit(None, pl.Float64).alias(name) for name in columns if name not in buyers.columns]
    known = buyers.with_columns(absent).select(pl.col(columns).cast(pl.Float64)).to_numpy()
    tiny = np.finfo(np.float64).tiny
    soon, later = np.log(np.maximum(first.orders[: len(FIRST_DAYS)], tiny))
    said = [soon, later - soon, logit(1 - first.p_churn[0]), np.log(np.maximum(first.values.mean, 1e-9))]
    return settled(np.column_stack([known, np.stack(said, axis=1).round(4)])).astype(np.float32)


def share_of(customers: pl.Series, salt: int) -> Array:
    """A number in [0, 1) for each customer code, as good as drawn anew per salt (Steele et al. 2014, SplitMix64)."""
    with np.errstate(over="ignore"):
        mixed = customers.to_numpy().astype(np.uint64) + np.uint64((salt + 1) * 0x9E3779B97F4A7C15 % 2**64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53


def _examples(first: Predictor, grid: Grid, closed_by: int, names: Sequence[str], most: int) -> Examples:
    """All windows stacked, thinned evenly to a bounded number of rows."""
    windows = grid.windows(closed_by)
    rows = sum(grid.features[offset].height for offset, _ in windows)
    kept_share = min(1.0, most / max(rows, 1))
    parts: list[tuple[NDArray[Any], ...]] = []
    for offset in sorted({offset for offset, _ in windows}):
        buyers = grid.features[offset]
        horizons = [days for at, days in windows if at == offset]
        said = first.outlook(buyers, [*FIRST_DAYS, *horizons], 0.0)
        seen = matrix(buyers, names, said)
        fold = (share_of(buyers[CUSTOMER], 0) * FOLDS).astype(np.int64)
        for i, days in enumerate(horizons, len(FIRST_DAYS)):
            kept = share_of(buyers[CUSTOMER], 1 + offset * 1_000 + days) < kept_share
            came = grid.outcomes(offset, days)
            row: tuple[NDArray[Any], ...] = (seen, *_row(said, i, came), fold)
            parts.append(tuple(each[kept] for each in row))
    if not parts:
        return _nothing(len(names) + 4)
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Examples(*columns)


def _row(said: Outlook, i: int, came: pl.DataFrame) -> tuple[Array, ...]:
    with np.errstate(divide="ignore"):
        value, orders = np.log(said.values.mean), np.log(np.maximum(said.orders[i], 1e-12))
    count, spend = (came[name].to_numpy().astype(np.float64) for name in (REALISED_ORDERS, REALISED_SPEND))
    return logit(1 - said.p_churn[i]), orders, value, count, spend


def _nothing(width: int) -> Examples:
    none = np.zeros(0)
    return Examples(np.zeros((0, width), np.float32), none, none, none, none, none, np.zeros(0, np.int64))


def _dispersion(of: Examples, boosted: Boosted) -> Dispersion | None:
    """That with the best log score of the counts on rows that the member held out; None where no counts were learnt."""
    parts = []
    for k, member in enumerate(boosted.members):
        rows = np.flatnonzero(of.fold == k)
        rows = rows[:: max(1, -(-len(rows) * len(boosted.members) // MOST_SCORED))]
        if member.count is None or not len(rows):
            return None
        log_odds, log_orders, _ = member.corrections(of.matrix[rows])
        churn, orders = 1 / (1 + np.exp(of.first_logit[rows])), np.exp(of.first_log_orders[rows])
        parts.append((of.orders[rows], *corrected(churn, orders, log_odds, log_orders)))
    return best_dispersion(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def best_dispersion(came: Array, p_churn: Array, expected: Array) -> Dispersion:
    """That with the best log score of the counts that came where so much was expected, (rows,) each."""
    choices = [Dispersion(float(scale), power) for power in POWERS for scale in SCALES]
    scores = [
        orders_log_score(came, p_churn, expected, each.shape(p_churn, expected)).mean() for each in choices
    ]
    return choices[int(np.argmax(scores))]
