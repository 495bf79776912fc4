"""One rung's forecast at one past origin beside what came true, and what one rung leads another by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retinue.evaluation import influence
from retinue.evaluation.influence import Statistic
from retinue.evaluation.paired import Estimate, Measured, paired
from retinue.forecasting.outlook import Array, Outlook
from retinue.models.predictive import orders_log_score

STANDARD_ERRORS = 2.0
ROUNDING = 1e-9


@dataclass(frozen=True)
class Trial:
    """A forecast made at an origin, with what came within the inner horizon; rows as in `buyers`.

    Attributes:
        offset: Days from the origin to the cutoff.
        buyers: Features at the origin.
        codes: (rows,) customer codes.
        orders: (rows,) realised.
        spend: (rows,) realised, net.
        outlook: Of one horizon.
    """

    offset: int
    buyers: pl.DataFrame
    codes: NDArray[np.int64]
    orders: Array
    spend: Array
    outlook: Outlook

    @cached_property
    def log_score(self) -> Array:
        """Log probability of the realised number of orders, (rows,)."""
        said = self.outlook
        return orders_log_score(self.orders, said.p_churn[0], said.orders[0], said.shape[0])

    @cached_property
    def gini(self) -> Statistic:
        """Normalised Gini of expected against realised spend."""
        return influence.gini(self.spend, self.outlook.spend[0])


@dataclass(frozen=True)
class Lead:
    """By how much one rung beats another over the same trials, customers clustered; higher is better in both."""

    log_score: Estimate
    gini: Estimate
    origins_won: float

    @property
    def wins(self) -> bool:
        """Whether it leads by two standard errors of log score, at most origins, and is not clearly behind in Gini."""
        behind = _clear(Estimate(-self.gini.value, self.gini.error))
        return _clear(self.log_score) and not behind and self.origins_won > 0.5


def _clear(lead: Estimate) -> bool:
    return lead.value > STANDARD_ERRORS * lead.error + ROUNDING


def lead(one: Sequence[Trial], other: Sequence[Trial]) -> Lead:
    """What `one` leads `other` by: mean log score of the counts, and normalised Gini of spend averaged over origins.

    Args:
        one: trials of a rung, by origin.
        other: trials of another at the same origins.
    """
    _, customer = np.unique(np.concatenate([trial.codes for trial in one]), return_inverse=True)
    by_score = paired(_scores(one), _scores(other), customer)
    ranks = paired(_ginis(one), _ginis(other), customer)
    won = [float(a.log_score.mean() > b.log_score.mean()) for a, b in zip(one, other, strict=True)]
    defined = np.isfinite(ranks.value) and np.isfinite(ranks.error)
    return Lead(by_score, ranks if defined else Estimate(0.0, 0.0), float(np.mean(won)))


def mean_log_score(trials: Sequence[Trial]) -> float:
    """Over all rows of all trials."""
    return float(np.concatenate([trial.log_score for trial in trials]).mean())


def mean_gini(trials: Sequence[Trial]) -> float:
    """Normalised Gini of expected against realised spend, averaged over origins; NaN where it is undefined."""
    return _ginis(trials).value


def _scores(trials: Sequence[Trial]) -> Measured:
    return _measured(influence.mean(np.concatenate([trial.log_score for trial in trials])))


def _ginis(trials: Sequence[Trial]) -> Measured:
    parts = [trial.gini for trial in trials]
    place = np.repeat(np.arange(len(trials)), [len(trial.spend) for trial in trials])
    return _measured(influence.averaged(parts, place))


def _measured(statistic: Statistic) -> Measured:
    return Measured(np.array([statistic.value]), statistic.influence)
