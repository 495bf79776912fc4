"""The predictive distribution: hand-computed probabilities, its moments, and its scores."""

from __future__ import annotations

import numpy as np
import pytest

from retinue.models.predictive import HurdleLogNormal, orders_log_score, pinball, spend_given_order


def test_orders_add_up_to_one_and_keep_their_mean() -> None:
    n = np.arange(0, 400, dtype=float)
    chance = np.exp(orders_log_score(n, np.full(400, 0.4), np.full(400, 3.0), np.full(400, 1.7)))
    assert chance.sum() == pytest.approx(1, abs=1e-10)
    assert chance[0] == pytest.approx(0.4)
    assert chance @ n == pytest.approx(3.0, rel=1e-8)


def test_orders_by_hand() -> None:
    # N | N ≥ 1 = 1 + NB with mean 1 and shape 1, a geometric with halves: P(N = 3) = .5 × ½ × ¼
    score = orders_log_score(np.array([3.0]), np.array([0.5]), np.array([1.0]), np.array([1.0]))
    assert np.exp(score[0]) == pytest.approx(0.5 * 0.125)


def test_certain_rows_have_finite_scores() -> None:
    score = orders_log_score(
        np.array([0.0, 2.0]), np.array([0.0, 1.0]), np.array([5.0, 0.0]), np.array([1.0, 1.0])
    )
    assert np.isfinite(score).all()
    assert (score < -30).all()


def test_spend_moments_agree_with_simulation() -> None:
    rng = np.random.default_rng(0)
    draws = 400_000
    n = 1 + rng.negative_binomial(1.5, 1.5 / (1.5 + 2.0), draws)  # mean 3
    rate = rng.gamma(9.0, 1 / 40.0, draws)
    spend = rng.gamma(4.0 * n) / rate  # value per order Gamma(4, rate)
    inverse = 40.0**2 / (8 * 7)
    mean, deviation = spend_given_order(
        *(np.array([v]) for v in (0.5, 1.5, 1.5, 16 * inverse, 4 * inverse, 4 * 40 / 8))
    )
    assert mean[0] == pytest.approx(spend.mean(), rel=0.01)
    assert deviation[0] == pytest.approx(spend.std(), rel=0.02)


def test_quantile_and_cdf_are_inverse_above_the_mass_at_zero() -> None:
    outcome = HurdleLogNormal(
        np.array([0.0, 0.3, 0.94]), np.array([10.0, 20.0, 5.0]), np.array([3.0, 40.0, 1.0])
    )
    for level in (0.31, 0.5, 0.9, 0.95, 0.99):
        value = outcome.quantile(level)
        inside = value > 0
        assert outcome.cdf(value)[inside] == pytest.approx(level, rel=1e-9)
        assert (outcome.p_zero[~inside] >= level).all()


def test_no_value_is_the_point_zero() -> None:
    outcome = HurdleLogNormal(np.array([0.2]), np.array([0.0]), np.array([0.0]))
    assert outcome.quantile(0.95)[0] == 0
    assert outcome.cdf(np.array([0.0]))[0] == 1
    assert outcome.cdf(np.array([-1.0]))[0] == 0


def test_crps_agrees_with_its_definition_by_pairs() -> None:
    outcome = HurdleLogNormal(np.array([0.4]), np.array([30.0]), np.array([20.0]))
    levels = (np.arange(4_000) + 0.5) / 4_000
    draws = np.concatenate([outcome.quantile(level) for level in levels])
    for came in (0.0, 12.0, 90.0):
        pairs = np.abs(draws - came).mean() - 0.5 * np.abs(draws[:, None] - draws[None, :]).mean()
        assert outcome.crps(np.array([came]))[0] == pytest.approx(pairs, rel=0.01)


def test_pinball_by_hand() -> None:
    assert pinball(np.array([10.0, 0.0]), np.array([4.0, 4.0]), 0.9).tolist() == pytest.approx([5.4, 0.4])
