"""Proper scores: worked by hand, against the definition by simulation or summing, and what makes them proper."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import lognorm, nbinom

from retinue.evaluation import profit, proper
from retinue.models.predictive import HurdleLogNormal


def test_brier_parts_worked() -> None:
    """Said .1, .1, .9, .9 and 0, 1, 1, 1 came: reliability (.4² + .1²)/2, resolution .25², uncertainty ¾·¼."""
    parts = proper.brier_parts(np.array([0.0, 1, 1, 1]), np.array([0.1, 0.1, 0.9, 0.9]))
    assert parts.reliability == pytest.approx(0.085)
    assert parts.resolution == pytest.approx(0.0625)
    assert parts.uncertainty == pytest.approx(0.1875)
    assert parts.within == pytest.approx(0, abs=1e-12)


def test_brier_parts_add_up_to_the_score() -> None:
    lot = np.random.default_rng(0)
    p = lot.random(500)
    y = (lot.random(500) < p).astype(float)
    parts = proper.brier_parts(y, p)
    whole = parts.reliability - parts.resolution + parts.uncertainty + parts.within
    assert whole == pytest.approx(np.mean((p - y) ** 2))
    assert abs(parts.within) < 0.01


@pytest.mark.parametrize(("p", "mean", "shape"), [(0.4, 1.5, 0.7), (0.05, 40.0, 3.0), (0.9, 0.1, 1.0)])
def test_orders_crps_is_the_squared_area_between_the_steps(p: float, mean: float, shape: float) -> None:
    beyond = mean / (1 - p) - 1
    n = np.arange(5_000)
    below = p + (1 - p) * np.where(n > 0, nbinom.cdf(n - 1, shape, shape / (shape + beyond)), 0.0)
    for came in (0, 1, 3, 200):
        expected = np.sum((below - (n >= came)) ** 2)
        found = proper.orders_crps(*(np.array([x], float) for x in (came, p, mean, shape)))
        assert found[0] == pytest.approx(expected, rel=1e-8, abs=1e-8)


def test_orders_crps_of_a_sure_forecast_is_the_distance() -> None:
    """No order for sure, and three came: 3. Rows do not touch each other."""
    found = proper.orders_crps(np.array([3.0, 0.0]), np.ones(2), np.zeros(2), np.ones(2))
    assert found == pytest.approx([3.0, 0.0], abs=1e-6)


def outcome(p: float, mean: float, deviation: float, rows: int = 1) -> HurdleLogNormal:
    return HurdleLogNormal(np.full(rows, p), np.full(rows, mean), np.full(rows, deviation))


def test_value_scores_are_those_of_their_distribution() -> None:
    said = outcome(0.3, 50.0, 40.0)
    spread = np.sqrt(np.log1p(0.64))
    law = lognorm(spread, scale=50 / np.sqrt(1.64))
    assert proper.value_log_score(np.array([20.0]), said)[0] == pytest.approx(-np.log(0.7) - law.logpdf(20.0))
    assert proper.value_log_score(np.array([-5.0]), said)[0] == pytest.approx(-np.log(0.3))
    drawn = np.where(
        np.random.default_rng(1).random(400_000) < 0.3,
        0,
        law.rvs(400_000, random_state=np.random.default_rng(2)),
    )
    for came in (-10.0, 0.0, 20.0, 300.0):
        expected = np.abs(drawn - came).mean() - 0.5 * np.abs(drawn[::2] - drawn[1::2]).mean()
        assert proper.value_crps(np.array([came]), said)[0] == pytest.approx(expected, rel=0.01)
        quantiles = said.crps(np.array([came]), levels=999)[0]
        assert proper.value_crps(np.array([came]), said)[0] == pytest.approx(quantiles, rel=0.01)


def test_value_scores_of_the_point_mass_at_zero() -> None:
    nothing = outcome(1.0, 0.0, 0.0, 2)
    came = np.array([0.0, 7.0])
    assert proper.value_crps(came, nothing) == pytest.approx([0.0, 7.0])
    assert proper.value_log_score(came, nothing) == pytest.approx(
        [0.0, -np.log(np.finfo(float).eps)], abs=1e-12
    )


def test_the_truth_scores_best() -> None:
    lot = np.random.default_rng(3)
    came = np.where(lot.random(20_000) < 0.6, 0.0, lot.lognormal(3, 0.5, 20_000))
    mean, deviation = np.exp(3.125), np.exp(3.125) * np.sqrt(np.expm1(0.25))
    for score in (proper.value_log_score, proper.value_crps):
        truth = score(came, outcome(0.6, mean, deviation, len(came))).mean()
        for p, m, d in ((0.5, mean, deviation), (0.6, mean * 1.3, deviation), (0.6, mean, deviation * 2)):
            assert score(came, outcome(p, m, d, len(came))).mean() > truth


def test_captured_and_profit_worked() -> None:
    """Best first: 60, 0, 30, 10. Two of four bring 60 %; at 12 a contact and half saved, the first pays best."""
    value, score = np.array([10.0, 30, 0, 60]), np.array([1.0, 2, 3, 4])
    assert profit.captured(value, score, 0.5) == pytest.approx(0.6)
    assert profit.captured(value, score, 0.125) == pytest.approx(0.3)
    assert profit.captured(value, np.zeros(4), 0.25) == pytest.approx(0.25)
    assert profit.captured(np.zeros(4), score, 0.25) is None
    curve = profit.profit_curve(profit.saving(np.ones(4), value, 0.5), score, 12.0, (0, 0.25, 0.5, 0.75, 1))
    assert [point.profit for point in curve] == pytest.approx([0, 18, 6, 9, 2])
    assert profit.best_share(curve).share == 0.25


def test_order_of_rows_changes_no_profit() -> None:
    lot = np.random.default_rng(4)
    value, score = lot.gamma(1, 10, 50), np.round(lot.random(50), 1)
    mixed = lot.permutation(50)
    for share in (0.1, 0.33, 0.5):
        assert profit.captured(value, score, share) == pytest.approx(
            profit.captured(value[mixed], score[mixed], share)
        )
