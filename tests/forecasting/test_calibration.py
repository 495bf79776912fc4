"""Levels, intervals and weights from past origins, on made-up trials whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from retinue.forecasting.blend import best_weight, mixed
from retinue.forecasting.calibration import Correction, correction_of, moved, proven, shrunk, total_factor
from retinue.forecasting.intervals import NAMES, ends, fit_levels, groups, spend_distribution
from retinue.forecasting.outlook import Array, Outlook, Values, corrected, median_wait
from retinue.forecasting.trials import Trial, lead

ROWS = 6_000


def outlook(p_zero: Array, mean: Array, cv: float, shape: float = 1.0) -> Outlook:
    """Two orders in expectation given one; spend given an order has this mean and coefficient of variation."""
    orders = 2 * (1 - p_zero)
    per_order = mean / 2
    square = mean**2 * (1 + cv**2) / (4 + 1 + 1 / shape)  # E[N²] of 1 + NegBinomial(1, shape)
    values = Values(per_order, square, np.zeros_like(mean))
    rows = p_zero[None]
    one = np.ones_like(rows)
    return Outlook(rows, orders[None], shape * one, one, values)


def trial(seed: int, p_zero: float = 0.4, cv: float = 0.8, said_cv: float = 0.8, level: float = 1.0) -> Trial:
    """Spend drawn from the model itself with `cv`; forecast with `said_cv`; realised × level."""
    lot = np.random.default_rng(seed)
    mean = lot.gamma(4, 10, ROWS)
    truth = outlook(np.full(ROWS, p_zero), mean, cv)
    drawn = spend_distribution(truth, 0).quantile(lot.random(ROWS)) * level
    beyond = lot.negative_binomial(1.0, 0.5, ROWS)
    orders = np.where(drawn > 0, 1.0 + beyond, 0.0)
    buyers = pl.DataFrame(
        {"T_days": lot.integers(10, 300, ROWS), "frequency": lot.integers(0, 2, ROWS), "net_spend_ever": mean}
    )
    return Trial(90, buyers, np.arange(ROWS), orders, drawn, outlook(np.full(ROWS, p_zero), mean, said_cv))


def covered(one: Trial, level: Array) -> float:
    outcome = spend_distribution(one.outlook, 0)
    lower, upper = (outcome.quantile(end) for end in ends(level, outcome.p_zero))
    return float(((lower <= one.spend) & (one.spend <= upper)).mean())


@pytest.mark.parametrize("p_zero", [0.01, 0.4])
def test_a_model_that_is_right_keeps_its_level(p_zero: float) -> None:
    levels = fit_levels([trial(s, p_zero) for s in range(3)], new_days=90)
    assert levels.by_group == pytest.approx(np.full(len(NAMES), 0.9), abs=0.025)
    fresh = trial(9, p_zero)
    assert covered(fresh, levels.of(fresh.buyers)) == pytest.approx(0.9, abs=0.015)


@pytest.mark.parametrize("p_zero", [0.01, 0.4])
def test_a_model_too_sure_of_itself_is_widened_until_it_covers(p_zero: float) -> None:
    levels = fit_levels([trial(s, p_zero, said_cv=0.5) for s in range(3)], new_days=90)
    fresh = trial(9, p_zero, said_cv=0.5)
    assert covered(fresh, np.full(ROWS, 0.9)) < 0.885
    assert (levels.by_group > 0.9).all()
    assert covered(fresh, levels.of(fresh.buyers)) == pytest.approx(0.9, abs=0.02)


def test_many_zeros_do_not_pass_for_good_coverage() -> None:
    levels = fit_levels([trial(s, p_zero=0.97) for s in range(3)], new_days=90)
    assert (
        levels.by_group > 0.85
    ).all()  # [0, 0] holds 97 %; a level of less would tell nothing at other horizons


def test_groups_are_newness_repeat_and_third_of_spend() -> None:
    buyers = pl.DataFrame(
        {"T_days": [10, 200, 200], "frequency": [0, 0, 3], "net_spend_ever": [1.0, 50.0, 900.0]}
    )
    assert [NAMES[i] for i in groups(buyers, 90)] == [
        "new, bought once, low spend",
        "known, bought once, middle spend",
        "known, came again, high spend",
    ]


def test_agreement_between_origins_is_believed_and_discord_is_not() -> None:
    assert shrunk([0.1, 0.1, 0.1]) == pytest.approx(0.1)
    assert shrunk([0.3, -0.3, 0.0]) == 0.0
    assert shrunk([0.1, 0.2, 0.3]) == pytest.approx(0.2 * (1 - 0.01 / 3 / 0.04))
    assert shrunk([0.1, float("nan"), 0.1]) == 0.0


def test_level_is_corrected_from_three_windows_and_never_from_two() -> None:
    high = [trial(s, level=1.5) for s in range(3)]
    assert correction_of(high, 2.9) is None
    assert correction_of(high[:2], 3.0) is None
    found = correction_of(high, 3.0)
    assert found is not None
    assert found.log_orders + found.log_value == pytest.approx(np.log(1.5), abs=0.05)
    assert moved(high[0].outlook, found).spend.sum() == pytest.approx(high[0].spend.sum(), rel=0.05)


@pytest.mark.parametrize(
    ("misses", "made"),
    [
        ([0.2, 0.2, 0.2], 0.2),
        ([0.15, 0.2, 0.25], 0.2 * (1 - 0.0025 / 3 / 0.04)),
        ([0.0, 0.14, 0.27], 0.0),  # the older misses are of days when less was known
        ([-0.1, 0.2, 0.2], 0.0),  # or of another season
        ([0.3, -0.1, 0.1], 0.0),  # the older ones agree on nothing, so that nothing is proven
        ([float("nan"), 0.2, 0.2], 0.0),
    ],
)
def test_a_correction_must_have_helped_at_the_latest_origin(misses: list[float], made: float) -> None:
    assert proven(misses) == pytest.approx(made, abs=1e-12)


def test_totals_get_an_interval_from_the_misses_of_origins() -> None:
    exact, wild = (
        [trial(s, level=by) for s, by in enumerate(levels)] for levels in ((1, 1, 1), (0.7, 1.0, 1.4))
    )
    assert total_factor(exact[:1], "spend") is None
    narrow, wide = total_factor(exact, "spend"), total_factor(wild, "spend")
    assert narrow is not None
    assert wide is not None
    assert 1.0 < narrow < 1.1 < 1.5 < wide


def test_corrections_keep_orders_above_the_chance_of_one() -> None:
    p_churn, orders = np.array([[0.9, 0.5], [0.8, 0.4]]), np.array([[0.1, 1.0], [0.2, 2.0]])
    moved_churn, moved_orders = corrected(p_churn, orders, 2.0, -5.0)
    assert (moved_churn < p_churn).all()
    assert (np.diff(moved_churn, axis=0) < 0).all()
    assert (np.diff(moved_orders, axis=0) > 0).all()
    assert (moved_orders >= 1 - moved_churn).all()
    same = corrected(p_churn, orders, 0.0, 0.0)
    assert same[0] == pytest.approx(p_churn)
    assert same[1] == pytest.approx(orders)


def test_waits_are_where_the_odds_turn_even() -> None:
    days = [1.0, 10.0, 100.0]
    odds = np.array([[-3.0, 1.0, -9.0], [-1.0, 2.0, -8.0], [1.0, 3.0, -7.0]])
    wait = median_wait(days, odds)
    assert wait[0] == pytest.approx(10**1.5)
    assert wait[1] == pytest.approx(0.5 / (1 / (1 + np.exp(-1.0))))
    assert np.isnan(wait[2])


def test_the_weight_goes_to_the_better_member_but_not_all_of_it() -> None:
    good = trial(0)
    bad = replace(good, outlook=moved(good.outlook, Correction(log_odds=2.0, log_orders=1.0)))
    assert best_weight([good], [bad]) == pytest.approx(0.25)
    assert best_weight([bad], [good]) == pytest.approx(0.75)
    assert best_weight([], []) == 0.5
    half = mixed(good.outlook, bad.outlook, 0.5)
    assert (half.p_churn <= good.outlook.p_churn).all()
    assert (half.p_churn >= bad.outlook.p_churn).all()
    assert half.spend == pytest.approx(np.sqrt(good.outlook.spend * bad.outlook.spend))


def test_a_lead_is_clear_only_beyond_two_errors() -> None:
    good = [trial(s) for s in range(3)]
    bad = [replace(t, outlook=moved(t.outlook, Correction(log_odds=1.0))) for t in good]
    assert lead(good, bad).wins
    assert not lead(bad, good).wins
    assert not lead(good, good).wins
