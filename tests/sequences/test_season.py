"""Business time: recovered on made seasons, even where nothing is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.sequences.season import Season

FIRST = int(np.datetime64("2015-01-01").astype(int))


def made(days: int, level: float, weekday: np.ndarray, seed: int = 0, growth: float = 0.0) -> np.ndarray:
    """Order days of a base with an Advent of 2.5 times the usual trade and a growing level."""
    lot = np.random.default_rng(seed)
    span = FIRST + np.arange(days)
    date = span.astype("datetime64[D]")
    month_day = (date - date.astype("datetime64[Y]")).astype(int)
    advent = np.where(month_day >= 329, 2.5, 1.0)
    rate = level * weekday[(span + 3) % 7] * advent * np.exp(growth * np.arange(days) / 365)
    return np.repeat(span, lot.poisson(rate))


EVEN = np.ones(7)
BUSY_SATURDAY = np.array([0.8, 0.8, 0.8, 0.8, 1.0, 2.0, 0.8])


def test_weekdays_are_found() -> None:
    season = Season.fit(made(200, 50, BUSY_SATURDAY), FIRST + 199)
    np.testing.assert_allclose(season.weekday, BUSY_SATURDAY / BUSY_SATURDAY.mean(), rtol=0.06)
    assert season.weekday.mean() == pytest.approx(1)
    np.testing.assert_array_equal(season.week, np.ones(52))  # less than a year: no say on weeks


def test_advent_is_found_more_surely_with_each_year_in_spite_of_growth() -> None:
    found = []
    for years in (1.5, 3, 5):
        season = Season.fit(made(int(365 * years), 60, EVEN, growth=0.3), FIRST + int(365 * years) - 1)
        cutoff = FIRST + 365 * 6 + 1 + 329 + 1  # the 26th of November of a later year
        found.append(float(season.business_days(cutoff, 28) / 28))
    true = 2.5 / (1 + 1.5 * 36 / 365)
    assert found[0] < found[1] < found[2]
    assert found[0] > 1.4
    assert found[2] == pytest.approx(true, rel=0.1)


def test_growth_alone_is_no_season() -> None:
    span = FIRST + np.arange(700)
    orders = np.repeat(span, np.random.default_rng(1).poisson(40 * np.exp(np.arange(700) / 365)))
    season = Season.fit(orders, FIRST + 699)
    assert abs(season.week - 1).max() < 0.12


def test_few_orders_say_little() -> None:
    orders = np.repeat(FIRST + 5, 6)
    assert abs(Season.fit(orders, FIRST + 13).weekday - 1).max() < 0.3
    np.testing.assert_array_equal(Season.fit(np.zeros(0), FIRST).weekday, EVEN)


def test_later_orders_change_nothing() -> None:
    orders = made(800, 20, BUSY_SATURDAY)
    end = FIRST + 500
    known, all_told = Season.fit(orders[orders <= end], end), Season.fit(orders, end)
    np.testing.assert_array_equal(known.week, all_told.week)
    np.testing.assert_array_equal(known.weekday, all_told.weekday)


def test_a_year_lasts_a_year_and_json_gives_the_season_back() -> None:
    season = Season.fit(made(1100, 30, BUSY_SATURDAY), FIRST + 1099)
    assert season.business_days(FIRST + 365, 365) == pytest.approx(365, rel=0.01)
    again = Season.from_dict(json.loads(json.dumps(season.as_dict())))
    np.testing.assert_array_equal(again.week, season.week)
    np.testing.assert_array_equal(again.weekday, season.weekday)


def test_an_even_season_counts_days() -> None:
    np.testing.assert_allclose(
        Season.even().business_days(FIRST + 0.75, np.array([0, 0.5, 1, 30])), [0, 0.5, 1, 30]
    )


@given(
    start=st.floats(0, 30_000),
    days=st.lists(st.floats(0, 1_000), min_size=1, max_size=6),
    factors=st.lists(st.floats(0.1, 5), min_size=7, max_size=7),
)
def test_business_time_rises_and_adds_up(start: float, days: list[float], factors: list[float]) -> None:
    week = np.resize(np.array(factors), 52)
    season = Season(np.array(factors), week)
    horizons = np.sort(np.array([0.0, *days]))
    spent = season.business_days(start, horizons)
    assert spent[0] == 0
    assert (np.diff(spent) >= 0).all()
    daily = [season.factor(np.array([int(np.floor(start)) + i]))[0] for i in range(3)]
    share = start - np.floor(start)
    assert season.business_days(start, 2.0) == pytest.approx(
        (1 - share) * daily[0] + daily[1] + share * daily[2]
    )
