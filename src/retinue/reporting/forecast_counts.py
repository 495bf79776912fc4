"""Forecasts of any number of customers as counts that add up over shards, and what is read off them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retinue.decisions.quadrants import Quadrant, quadrant_table, quadrants, value_if_retained
from retinue.forecasting.scoring import part_path
from retinue.options import DecisionOptions
from retinue.reporting.charts_value import (
    BAND_QUANTILES,
    LEAST_VALUE,
    RISK_BINS,
    band_edges,
    risk_bin,
    tenths,
)
from retinue.schema import (
    CLV,
    CUSTOMER_ID,
    CUSTOMERS,
    CUTOFF,
    HORIZON_DAYS,
    P_CHURN,
    QUADRANT,
    VALUE_AT_STAKE,
    VALUE_IF_RETAINED,
)

Array = NDArray[np.float64]

BIN = "bin"
MOST_TO_SAVE = 20
READ: list[str] = [CUTOFF, HORIZON_DAYS, P_CHURN, CLV]
# every amount of three digits from a thousandth to a thousand million millions: those of one bin differ by 1% at most
_AMOUNTS = np.array([LEAST_VALUE, *(float(f"{m}e{d}") for d in range(-5, 13) for m in range(100, 1000))])
EDGES = np.concatenate([-_AMOUNTS[::-1], _AMOUNTS])


@dataclass(frozen=True)
class Counts:
    """Sums over customers, small whatever their number.

    Attributes:
        values: customers and their clv together, by cutoff, horizon and bin of clv.
        risks: customers by cutoff, horizon, bin of churn risk and side of the threshold.
        retained: customers by cutoff and bin of the value if retained, at the longest horizon.
    """

    values: pl.DataFrame
    risks: pl.DataFrame
    retained: pl.DataFrame


@dataclass(frozen=True)
class Groups:
    """The value × risk quadrants at one cutoff and the longest horizon.

    Attributes:
        limit: value if retained from which a customer counts as high.
        table: customers, clv and value at stake of each.
        save: of those to save, the largest stakes.
    """

    limit: float
    table: pl.DataFrame
    save: pl.DataFrame


def shard_counts(out: Path, day: str, rules: DecisionOptions, shard: int) -> Counts:
    """The counts of the forecasts of one day and shard."""
    part = pl.read_parquet(part_path(out, day, shard), columns=READ)
    keys, customers = [CUTOFF, HORIZON_DAYS], pl.len().cast(pl.Int64).alias(CUSTOMERS)
    is_high = (pl.col(P_CHURN) >= rules.risk_threshold).alias("is_high")
    longest = part.filter(pl.col(HORIZON_DAYS) == pl.col(HORIZON_DAYS).max()).with_columns(
        value_if_retained()
    )
    return Counts(
        part.with_columns(_bins(part[CLV])).group_by(*keys, BIN).agg(customers, pl.col(CLV).sum()),
        part.group_by(*keys, risk_bin().alias(BIN), is_high).agg(customers),
        longest.with_columns(_bins(longest[VALUE_IF_RETAINED])).group_by(CUTOFF, BIN).agg(customers),
    )


def _bins(values: pl.Series) -> pl.Series:
    """Place of each value among EDGES, an edge being the least of its bin."""
    return pl.Series(BIN, np.searchsorted(EDGES, values.to_numpy(), side="right"), dtype=pl.Int64)


def add_counts(one: Counts, other: Counts) -> Counts:
    """The counts of the customers of both."""
    return Counts(
        _added(one.values, other.values), _added(one.risks, other.risks), _added(one.retained, other.retained)
    )


def _added(one: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    keys = [name for name in one.columns if name not in (CUSTOMERS, CLV, VALUE_AT_STAKE)]
    return pl.concat([one, other]).group_by(keys).agg(pl.all().sum()).sort(keys)


def value_bands(values: pl.DataFrame) -> tuple[list[float], list[tuple[int, float]]]:
    """Edges of the bands, and customers and their clv together in each.

    Args:
        values: `Counts.values` of one cutoff and horizon.
    """
    least, customers, worth = _ascending(values)
    positive = customers * (least >= LEAST_VALUE)
    edges = band_edges(*(_at_rank(least, positive, q) for q in BAND_QUANTILES))
    band = np.searchsorted(edges, least, side="right")
    bands = [(int(customers[band == i].sum()), float(worth[band == i].sum())) for i in range(len(edges) + 1)]
    return edges, bands


def value_tenths(values: pl.DataFrame) -> tuple[list[int], list[float]]:
    """Where each tenth of the customers ends, best first, and its clv together; a bin is parted at its mean.

    Args:
        values: `Counts.values` of one cutoff and horizon.
    """
    _, customers, worth = _ascending(values)
    people, value = (np.concatenate([[0.0], np.cumsum(each[::-1])]) for each in (customers, worth))
    ends = tenths(round(people[-1]))
    held = np.interp(ends, people, value)
    return ends, [float(other - one) for one, other in itertools.pairwise(held)]


def risk_sides(risks: pl.DataFrame) -> tuple[list[int], list[int]]:
    """Customers below the threshold of risk and from it on, by bin of risk.

    Args:
        risks: `Counts.risks` of one cutoff and horizon.
    """
    sides = [
        dict(risks.filter(side).select(BIN, CUSTOMERS).iter_rows())
        for side in (~pl.col("is_high"), pl.col("is_high"))
    ]
    low, high = ([side.get(i, 0) for i in range(RISK_BINS)] for side in sides)
    return low, high


def high_from(retained: pl.DataFrame, rules: DecisionOptions) -> float:
    """Value if retained that counts as high: the option, else its quantile over the customers, cut to three digits.

    Args:
        retained: `Counts.retained` of one cutoff.
        rules: the options.
    """
    if rules.value_threshold is not None:
        return rules.value_threshold
    least, customers, _ = _ascending(retained)
    found = _at_rank(least, customers, rules.value_quantile, upper=True)
    return max(found or 0.0, 0.0)


def _ascending(counts: pl.DataFrame) -> tuple[Array, Array, Array]:
    """Least value, customers and clv of each bin."""
    ranked = counts.sort(BIN)
    least = np.concatenate([[-np.inf], EDGES])[ranked[BIN].to_numpy()]
    worth = ranked[CLV] if CLV in ranked.columns else ranked[CUSTOMERS]
    return least, ranked[CUSTOMERS].cast(pl.Float64).to_numpy(), worth.cast(pl.Float64).to_numpy()


def _at_rank(least: Array, customers: Array, quantile: float, upper: bool = False) -> float | None:
    """Least value of the bin in which a quantile lies, the lower or the upper of the two customers beside it."""
    upto = np.cumsum(customers)
    if not len(upto) or upto[-1] == 0:
        return None
    place = (upto[-1] - 1) * quantile
    return float(least[np.searchsorted(upto, np.ceil(place) if upper else np.floor(place), side="right")])


def shard_groups(
    out: Path, day: str, cutoff: datetime, horizon_days: int, rules: DecisionOptions, shard: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sums of the quadrants of one shard's customers, and those to save with the most at stake.

    Args:
        out: folder of the run.
        day: folder of the forecasts, as `Scoring.day` names it.
        cutoff: of the forecasts.
        horizon_days: the longest.
        rules: with a `value_threshold`.
        shard: which.
    """
    wanted_rows = (pl.col(CUTOFF) == cutoff) & (pl.col(HORIZON_DAYS) == horizon_days)
    part = pl.scan_parquet(part_path(out, day, shard)).filter(wanted_rows).collect()
    decided = quadrants(part, rules)
    save = decided.filter(pl.col(QUADRANT) == Quadrant.save.value).join(
        part.select(CUSTOMER_ID, P_CHURN, CLV), on=CUSTOMER_ID
    )
    wanted = (CUSTOMER_ID, VALUE_AT_STAKE, P_CHURN, VALUE_IF_RETAINED, CLV)
    sums = quadrant_table(part, decided).select(QUADRANT, CUSTOMERS, CLV, VALUE_AT_STAKE)
    return sums, _most_at_stake(save.select(wanted))


def groups_of(parts: Iterable[tuple[pl.DataFrame, pl.DataFrame]], limit: float) -> Groups:
    """The quadrants of all customers from those of each shard."""
    parts = iter(parts)
    table, save = next(parts)
    for more, others in parts:
        table, save = _added(table, more), _most_at_stake(pl.concat([save, others]))
    return Groups(limit, table, save)


def _most_at_stake(save: pl.DataFrame) -> pl.DataFrame:
    return save.sort(VALUE_AT_STAKE, CUSTOMER_ID, descending=[True, False]).head(MOST_TO_SAVE)
