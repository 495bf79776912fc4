"""Standard errors against leaving customers out one by one, known formulas and repeated draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from retinue.evaluation import influence, metrics, profit, proper
from retinue.evaluation.influence import Array, Statistic
from retinue.evaluation.paired import Measured, cluster_error, over_seeds, paired, seed_error, single

ROWS = 250
Figure = Callable[[Array, Array], Statistic]


def churn(seed: int = 0, rows: int = ROWS) -> tuple[Array, Array]:
    lot = np.random.default_rng(seed)
    p = np.round(lot.beta(2, 1, rows), 2)
    return (lot.random(rows) < p).astype(float), p


def spend(seed: int = 0, rows: int = ROWS) -> tuple[Array, Array]:
    lot = np.random.default_rng(seed)
    said = np.round(lot.gamma(0.7, 30, rows), 1)
    return np.where(lot.random(rows) < 0.5, 0.0, said * lot.lognormal(0, 0.8, rows)), said


FIGURES: dict[str, tuple[Figure, Callable[[int], tuple[Array, Array]]]] = {
    "mean": (lambda y, p: influence.mean((y - p) ** 2), churn),
    "auroc": (influence.auroc, churn),
    "ece": (influence.expected_calibration_error, churn),
    "reliability": (influence.reliability, churn),
    "resolution": (influence.resolution, churn),
    "gini": (influence.gini, spend),
    "rmse": (influence.rmse, spend),
    "bias": (influence.bias_percent, spend),
    "captured": (lambda y, p: influence.captured(y, p, 0.2), spend),
}


@pytest.mark.parametrize("name", FIGURES)
def test_values_are_those_of_the_metrics(name: str) -> None:
    figure, data = FIGURES[name]
    y, p = data(1)
    parts = proper.brier_parts(y, p) if data is churn else None
    expected: dict[str, Callable[[], float | None]] = {
        "mean": lambda: metrics.brier(y, p),
        "auroc": lambda: metrics.churn_auroc(y, p),
        "ece": lambda: metrics.expected_calibration_error(y, p),
        "reliability": lambda: parts.reliability if parts else None,
        "resolution": lambda: parts.resolution if parts else None,
        "gini": lambda: metrics.normalised_gini(y, p),
        "rmse": lambda: metrics.rmse(y, p),
        "bias": lambda: metrics.bias_percent(y, p),
        "captured": lambda: profit.captured(y, p, 0.2),
    }
    assert figure(y, p).value == pytest.approx(expected[name](), rel=1e-9)


@pytest.mark.parametrize("name", FIGURES)
def test_influence_is_what_leaving_a_row_out_changes(name: str) -> None:
    """The jackknife, row by row, is the slow reference."""
    figure, data = FIGURES[name]
    y, p = data(2)
    whole = figure(y, p)
    left_out = np.array([figure(np.delete(y, i), np.delete(p, i)).value for i in range(ROWS)])
    jackknife = float(np.sqrt((ROWS - 1) / ROWS * np.sum((left_out - left_out.mean()) ** 2)))
    error = cluster_error(whole.influence, np.arange(ROWS))
    assert whole.influence.mean() == pytest.approx(0, abs=1e-9 * max(1, abs(whole.value)))
    assert error == pytest.approx(jackknife, rel=0.2 if name == "captured" else 0.05)


@pytest.mark.parametrize("name", ["auroc", "gini", "captured", "bias"])
def test_the_error_is_the_spread_over_new_draws(name: str) -> None:
    figure, data = FIGURES[name]
    drawn = [figure(*data(seed)) for seed in range(150)]
    spread = float(np.std([one.value for one in drawn]))
    told = float(np.mean([cluster_error(one.influence, np.arange(ROWS)) for one in drawn]))
    assert told == pytest.approx(spread, rel=0.2)


def test_auroc_error_is_delongs() -> None:
    """Three churners .9 .8 .3, two who stayed .5 .2: placements 1, 1, ½ and ⅔, 1 (DeLong et al. 1988)."""
    y, p = np.array([1.0, 1, 1, 0, 0]), np.array([0.9, 0.8, 0.3, 0.5, 0.2])
    found = influence.auroc(y, p)
    assert found.value == pytest.approx(5 / 6) == pytest.approx(roc_auc_score(y, p))
    sizes = np.array([3, 3, 3, 2, 2])
    assert found.influence * sizes / 5 + 5 / 6 == pytest.approx([1, 1, 0.5, 2 / 3, 1])


def test_clustered_error_worked() -> None:
    """Two customers with two rows each: means 1 and 3, so the mean is 2 and its error 1; rows alone would say less."""
    values, customer = np.array([1.0, 1, 3, 3]), np.array([0, 0, 1, 1])
    assert cluster_error(values, customer) == pytest.approx(1.0)
    assert cluster_error(values, np.arange(4)) == pytest.approx(np.sqrt(4 / 3) / 2)
    assert cluster_error(values, np.zeros(4, np.int64)) == 0.0


def test_pairing_takes_out_what_both_share() -> None:
    lot = np.random.default_rng(3)
    shared, customer = lot.exponential(5, 1000), np.arange(1000)
    one, other = (
        over_seeds([influence.mean(shared + lot.normal(shift, 0.1, 1000))]) for shift in (0.05, 0.0)
    )
    gap = paired(one, other, customer)
    assert gap.value == pytest.approx(0.05, abs=0.02)
    assert gap.error == pytest.approx(0.1 * np.sqrt(2 / 1000), rel=0.1)
    assert gap.is_clear
    assert single(one, customer).error > 20 * gap.error


def test_seeds_add_their_spread() -> None:
    customer, flat = np.arange(4), np.zeros(4)
    one, other = Measured(np.array([1.0, 2.0, 3.0]), flat), Measured(np.array([2.0]), flat)
    assert seed_error([1.0, 2.0, 3.0]) == pytest.approx(1 / np.sqrt(3))
    assert paired(one, other, customer).error == pytest.approx(1 / np.sqrt(3))
    assert paired(one, other, customer).value == 0.0


def test_a_figure_without_meaning_is_nan() -> None:
    ones, p = np.ones(3), np.array([0.2, 0.4, 0.6])
    for found in (influence.auroc(ones, p), influence.gini(np.zeros(3), p), influence.bias_percent(0 * p, p)):
        assert np.isnan(found.value)
        assert np.isnan(found.influence).all()
