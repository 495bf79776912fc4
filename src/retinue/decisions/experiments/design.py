"""How large an experiment has to be, from what the base itself did: its variance, and what a forecast explains of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from statsmodels.stats.power import NormalIndPower

from retinue.schema import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Past:
    """What customers did in a past window as long as the experiment, beside what had been forecast.

    Attributes:
        outcome: (customers,) of the metric.
        forecast: (customers,) made before the window.
    """

    outcome: Array
    forecast: Array

    @property
    def mean(self) -> float:
        """Mean outcome."""
        return float(self.outcome.mean())

    @property
    def deviation(self) -> float:
        """Standard deviation of the outcome."""
        return float(self.outcome.std(ddof=1))

    @property
    def explained(self) -> float:
        """Share of the variance that the forecast explains, ρ²: what CUPED takes off (Deng et al. 2013)."""
        if not self.forecast.std() or not self.outcome.std():
            return 0.0
        return float(np.corrcoef(self.outcome, self.forecast)[0, 1] ** 2)

    @property
    def left(self) -> float:
        """Standard deviation after CUPED."""
        return self.deviation * float(np.sqrt(1 - self.explained))


def smallest_effect(
    past: Past, treated: int, control: int, power: float, alpha: float, cuped: bool = True
) -> float:
    """The effect on the mean that would be found with this power, in the metric's unit."""
    _check(treated, control)
    deviation = past.left if cuped else past.deviation
    found = NormalIndPower().solve_power(
        effect_size=None,
        nobs1=treated,
        alpha=alpha,
        power=power,
        ratio=control / treated,
        alternative="two-sided",
    )
    return float(found) * deviation


def customers_needed(
    past: Past, effect: float, treated_share: float, power: float, alpha: float, cuped: bool = True
) -> int:
    """Customers in both arms together that it takes to find an effect on the mean, in the metric's unit.

    Raises:
        InputError: an effect of 0, or a metric that never varies.
    """
    deviation = past.left if cuped else past.deviation
    if not effect or not deviation:
        raise InputError(
            f"experiments.effect={effect:g}: must not be 0, and the metric must vary (it has {deviation:g})."
        )
    treated = NormalIndPower().solve_power(
        effect_size=abs(effect) / deviation, alpha=alpha, power=power, ratio=(1 - treated_share) / treated_share,
        alternative="two-sided",
    )  # fmt: skip
    return int(np.ceil(float(treated) / treated_share))


def _check(treated: int, control: int) -> None:
    if min(treated, control) < 2:
        raise InputError(
            f"experiments: {treated} treated and {control} control customers are too few; at least 2 each."
        )


def designs(past: Past, arms: Mapping[str, int], control: str, power: float, alpha: float) -> pl.DataFrame:
    """Per treated arm: customers, smallest effect found with the power, with and without the forecast as covariate."""
    rows = [
        (
            arm, count, arms[control], past.mean, past.deviation, past.explained,
            smallest_effect(past, count, arms[control], power, alpha, cuped=False),
            smallest_effect(past, count, arms[control], power, alpha),
        )
        for arm, count in arms.items()
        if arm != control
    ]  # fmt: skip
    columns = {
        "arm": pl.String(), "customers": pl.Int64(), "control": pl.Int64(), "mean": pl.Float64(), "deviation": pl.Float64(),
        "explained": pl.Float64(), "smallest_effect": pl.Float64(), "smallest_effect_cuped": pl.Float64(),
    }  # fmt: skip
    return pl.DataFrame(rows, schema=pl.Schema(columns), orient="row")
