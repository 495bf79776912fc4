"""90 % intervals of spend whose coverage was set on past origins, group by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import rankdata

from retinue.forecasting.outlook import Array, Outlook
from retinue.forecasting.trials import Trial
from retinue.models.predictive import HurdleLogNormal
from retinue.schema import FREQUENCY, NET_SPEND_EVER, T_DAYS

COVERAGE = 0.9
LEAST_ROWS = 150
TIERS = 3
LEVELS = np.linspace(0.7, 0.998, 150)
NAMES = tuple(
    f"{age}, {times}, {tier} spend"
    for age in ("known", "new")
    for times in ("bought once", "came again")
    for tier in ("low", "middle", "high")
)


def groups(buyers: pl.DataFrame, new_days: int, edges: tuple[float, ...] | None = None) -> NDArray[np.int64]:
    """(rows,) which of NAMES a customer belongs to: first order within `new_days` × repeat × third by past spend.

    Args:
        buyers: their features.
        new_days: age below which a customer is new.
        edges: of `tier_edges`, where these buyers are only a part of the base; None takes the thirds of these.
    """
    spend = _past_spend(buyers)
    tier = _thirds(spend) if edges is None else np.searchsorted(np.array(edges), spend, side="right")
    new = (buyers[T_DAYS] < new_days).cast(pl.Int64).to_numpy()
    again = (buyers[FREQUENCY] > 0).cast(pl.Int64).to_numpy()
    return np.asarray((new * 2 + again) * TIERS + tier, dtype=np.int64)


def tier_edges(buyers: pl.DataFrame) -> tuple[float, ...]:
    """Past spend from which a customer is in the middle and in the upper third of these buyers; inf where none is."""
    spend = _past_spend(buyers)
    tier = _thirds(spend)
    return tuple(float(spend[tier >= i].min(initial=np.inf)) for i in range(1, TIERS))


def _past_spend(buyers: pl.DataFrame) -> Array:
    known = NET_SPEND_EVER in buyers.columns
    return buyers[NET_SPEND_EVER].fill_null(0.0).to_numpy() if known else np.zeros(buyers.height)


def _thirds(spend: Array) -> NDArray[np.int64]:
    share = (rankdata(spend) - 0.5) / max(len(spend), 1)
    return np.asarray(np.minimum(share * TIERS, TIERS - 1).astype(np.int64))


@dataclass(frozen=True)
class Levels:
    """The nominal level of each group of NAMES whose interval held 90 % on past origins.

    Attributes:
        by_group: As in NAMES.
        new_days: Age below which a customer is new.
        edges: See `groups`.
    """

    by_group: Array
    new_days: int
    edges: tuple[float, ...] | None = None

    def of(self, buyers: pl.DataFrame) -> Array:
        """(rows,) the level of each customer."""
        return self.by_group[groups(buyers, self.new_days, self.edges)]


NOMINAL = Levels(np.full(len(NAMES), COVERAGE), 0)  # where no past is known


def spend_distribution(said: Outlook, i: int) -> HurdleLogNormal:
    """Of spend within the i-th horizon."""
    some = np.maximum(1 - said.p_churn[i], np.finfo(np.float64).eps)
    return HurdleLogNormal(said.p_churn[i], said.spend[i] / some, said.deviation[i])


def ends(level: Array | float, p_zero: Array) -> tuple[Array, Array]:
    """Lower and upper quantile of an interval that holds `level`: from zero on where zero is likely, else central."""
    central = p_zero < (1 - level) / 2
    return np.where(central, (1 - level) / 2, 0.0), np.where(central, (1 + level) / 2, level)


def fit_levels(trials: Sequence[Trial], new_days: int) -> Levels:
    """Conformal levels on the scale of the predictive distribution (Chernozhukov et al. 2021), split by time.

    Where a customer spends nothing, the distribution function jumps; the realised level is then uniform below
    the jump, and the share of it inside the interval counts, so that a group of many zeros does not look well
    covered for that alone. Its interval may be [0, 0] and hold more than 90 %: no shorter one exists. Groups
    of fewer than 150 rows take the level of their repeat class, those of fewer still that of all; without
    trials it is the nominal 90 %.

    Args:
        trials: of the rung, by origin.
        new_days: age below which a customer is new.
    """
    found = np.full(len(NAMES), COVERAGE)
    if not trials:
        return Levels(found, new_days)
    inside, rows = _held(trials, new_days)
    again = np.arange(len(NAMES)) // TIERS % 2
    everyone = _level(inside.sum(axis=1), rows.sum(), COVERAGE)
    for place in range(len(NAMES)):
        alike = again == again[place]
        wider = _level(inside[:, alike].sum(axis=1), rows[alike].sum(), everyone)
        found[place] = _level(inside[:, place], rows[place], wider)
    return Levels(found, new_days)


def _held(trials: Sequence[Trial], new_days: int) -> tuple[Array, NDArray[np.int64]]:
    """Rows inside the interval of each level, in parts, (levels, groups); and how many rows each group of NAMES has."""
    outcomes = [spend_distribution(trial.outlook, 0) for trial in trials]
    group = np.concatenate([groups(trial.buyers, new_days) for trial in trials])
    order = np.argsort(group, kind="stable")
    spend = np.concatenate([trial.spend for trial in trials])[order]
    nothing = np.concatenate([outcome.p_zero for outcome in outcomes])[order]
    reached = np.concatenate([o.cdf(t.spend) for o, t in zip(outcomes, trials, strict=True)])[order]
    rows = np.bincount(group, minlength=len(NAMES))
    there = np.flatnonzero(rows)
    starts = (np.cumsum(rows) - rows)[there]
    inside = np.zeros((len(LEVELS), len(NAMES)))
    for i, level in enumerate(LEVELS):
        lower, upper = ends(level, nothing)
        below_jump = np.where(lower > 0, 0.0, np.minimum(1.0, upper / np.maximum(nothing, 1e-12)))
        held = np.where(spend == 0, below_jump, (lower <= reached) & (reached <= upper))
        held[spend < 0] = 0.0
        inside[i, there] = np.add.reduceat(held, starts)
    return inside, rows


def _level(inside: Array, rows: int, otherwise: float) -> float:
    """The least level that held 90 % of these rows and of one more; the highest where none did.

    Args:
        inside: (levels,) rows inside the interval, in parts.
        rows: of them all.
        otherwise: where there are too few.
    """
    if rows < LEAST_ROWS:
        return otherwise
    enough = inside / rows >= min(COVERAGE * (1 + 1 / rows), 1.0)
    return float(LEVELS[enough.argmax()] if enough.any() else LEVELS[-1])
