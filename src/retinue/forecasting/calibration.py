"""What past origins say of a rung's level: a cautious correction of it, and how far totals may miss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from scipy.optimize import brentq
from scipy.stats import t as student

from retinue.forecasting.outlook import Array, Outlook, Predictor, corrected, even_odds, logit
from retinue.forecasting.trials import Trial

LEAST_WINDOWS = 3.0
FURTHEST = 5.0  # log odds


@dataclass(frozen=True)
class Correction:
    """What to add to log odds of an order, log expected orders and log value of an order, the same for everyone."""

    log_odds: float = 0.0
    log_orders: float = 0.0
    log_value: float = 0.0


@dataclass(frozen=True)
class Recalibrated:
    """A predictor with its level corrected."""

    inner: Predictor
    by: Correction

    def outlook(self, buyers: pl.DataFrame, horizons: Sequence[int], discount_rate_yearly: float) -> Outlook:
        """The inner outlook, moved."""
        return moved(self.inner.outlook(buyers, horizons, discount_rate_yearly), self.by)

    def next_order_days(self, buyers: pl.DataFrame) -> Array:
        """Median wait for the next order, (rows,), NaN where more likely never."""
        return even_odds(self, buyers)

    def log_odds(self, buyers: pl.DataFrame, days: Sequence[float]) -> Array:
        """Log odds of an order within so many days, (days, rows)."""
        return self.inner.log_odds(buyers, days) + self.by.log_odds


def moved(said: Outlook, by: Correction) -> Outlook:
    """The outlook with its level corrected."""
    p_churn, orders = corrected(said.p_churn, said.orders, by.log_odds, by.log_orders)
    return replace(
        said, p_churn=p_churn, orders=orders, values=said.values.times(float(np.exp(by.log_value)))
    )


def correction_of(trials: Sequence[Trial], disjoint_windows: float) -> Correction | None:
    """The correction that past origins agree on; None from futures that amount to fewer than three disjoint ones.

    Each log miss of level is shrunk by its spread between origins: mean × max(0, 1 - (spread²/origins)/mean²), the
    positive-part rule of James and Stein (1961). It is made only where the same, from the older origins, would have
    brought the latest one nearer: misses of other seasons, or of days when less had been learnt, do not.

    Args:
        trials: of a rung, latest origin first.
        disjoint_windows: that their futures amount to.
    """
    if disjoint_windows < LEAST_WINDOWS or len(trials) < LEAST_WINDOWS:
        return None
    orders = proven([_log_miss(trial.orders, trial.outlook.orders[0]) for trial in trials])
    spend = proven([_log_miss(trial.spend, trial.outlook.spend[0]) for trial in trials])
    return Correction(proven([_odds_miss(trial) for trial in trials]), orders, spend - orders)


def proven(misses: Sequence[float]) -> float:
    """`shrunk`, where that of the older misses would have made the latest, which comes first, smaller; else 0."""
    latest, *older = misses
    return shrunk(misses) if abs(latest - shrunk(older)) < abs(latest) else 0.0


def shrunk(misses: Sequence[float]) -> float:
    """The mean miss, shrunk by its variance between origins; 0 where they disagree or any is undefined."""
    values = np.asarray(misses)
    centre = float(values.mean())
    if not np.isfinite(values).all() or centre == 0 or len(values) < 2:
        return 0.0
    return centre * max(0.0, 1 - float(values.var(ddof=1)) / len(values) / centre**2)


def total_factor(trials: Sequence[Trial], what: str) -> float | None:
    """The 90 % interval of a total is [total/factor, total × factor]; None from fewer than two origins.

    exp(Student's t × root mean square log miss of the totals of past origins, × √(1 + 1/origins)): what all
    customers share is in it, unlike in a sum of independent customers.

    Args:
        trials: by origin.
        what: orders or spend.
    """
    sides = [
        (trial.orders, trial.outlook.orders[0]) if what == "orders" else (trial.spend, trial.outlook.spend[0])
        for trial in trials
    ]
    misses = np.array([_log_miss(came, said) for came, said in sides])
    if len(misses) < 2 or not np.isfinite(misses).all():
        return None
    reach = student.ppf(0.95, len(misses)) * np.sqrt(np.mean(misses**2) * (1 + 1 / len(misses)))
    return float(np.exp(reach))


def _log_miss(came: Array, said: Array) -> float:
    return float(np.log(came.sum() / said.sum())) if came.sum() > 0 and said.sum() > 0 else float("nan")


def _odds_miss(trial: Trial) -> float:
    """What to add to everyone's log odds so that as many are expected to order as did."""
    odds, share = logit(1 - trial.outlook.p_churn[0]), float((trial.orders > 0).mean())

    def gap(by: float) -> float:
        return float((1 / (1 + np.exp(-(odds + by)))).mean()) - share

    return float(brentq(gap, -FURTHEST, FURTHEST)) if gap(-FURTHEST) < 0 < gap(FURTHEST) else float("nan")
