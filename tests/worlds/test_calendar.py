"""Calendar effects: what clocks say, and that orders obey them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from math import exp

import numpy as np
import polars as pl
import pytest

from retinue.schema import CUSTOMER_ID, EVENT_TIME, FIRST_ORDER_TIME, LIFETIME_DAYS, ORDER_RATE, InputError
from retinue.worlds import Kind, Spec, simulate, spec_of
from retinue.worlds.clock import Curve, clock
from retinue.worlds.spec import Arrivals, Calendar, Customers, Holiday, Process, Spread

START = datetime(2022, 1, 1, tzinfo=UTC)


def test_curve_and_its_inverse() -> None:
    curve = Curve.of(-2, np.array([0.5, 2.0, 1.0, 4.0]))  # days -2, -1, 0, 1
    assert curve(np.array([-2.0, -1.0, 0.0, 0.5, 1.0, 1.5, 3.0])).tolist() == [
        -2.5,
        -2.0,
        0.0,
        0.5,
        1.0,
        3.0,
        9.0,
    ]
    days = np.array([-1.7, -0.2, 0.9, 1.3, 7.0])
    assert curve.day(curve(days)) == pytest.approx(days)
    assert curve.day(np.array([np.inf])).tolist() == [np.inf]


def test_a_holiday_in_january_is_led_up_to_in_december() -> None:
    factors = clock(Calendar(holidays=(Holiday(1, 2, 3.0, 3),)), START, 0, 366).business.factor
    assert factors[:3].tolist() == [2.5, 3.0, 1.0]  # 1 to 3 January 2022
    assert factors[363:366].tolist() == [1.5, 2.0, 2.5]  # 30 December 2022 to 1 January 2023


def usual(calendar: Calendar, start: date, day: int) -> float:
    """The slow reference: the factor of one day, read off the calendar by hand."""
    today = start + timedelta(days=day)
    factor = exp(calendar.trend_yearly * day / 365.25)
    factor *= calendar.week_of_year[min((today.timetuple().tm_yday - 1) // 7, 51)]
    factor *= calendar.day_of_week[today.weekday()]
    for holiday in calendar.holidays:
        for year in (today.year, today.year + 1):
            ahead = (date(year, holiday.month, holiday.day) - today).days
            if 0 <= ahead <= holiday.lead_days:
                factor *= 1 + (holiday.lift - 1) * (1 - ahead / (holiday.lead_days + 1))
    if calendar.regime_day is not None and day >= calendar.regime_day:
        factor *= calendar.regime_rate
    return factor


@pytest.mark.parametrize(
    "process", [Process.pareto_nbd, Process.bg_nbd, Process.mbg_cnbd_k, Process.two_state]
)
def test_orders_follow_the_calendar_day_by_day(process: Process) -> None:
    calendar = spec_of(Kind.seasonal).calendar
    calendar.trend_yearly, calendar.regime_day, calendar.regime_rate = 0.4, 300, 0.5
    # two_state: so long a first spell that all are active throughout
    who = Customers(Spread(1 / 8), never_churn=1.0, on_days=1e9)
    spec = Spec(process, 500, customers=who, calendar=calendar, arrivals=Arrivals(arrival_days=0), cutoffs=())
    factors = np.array([usual(calendar, spec.start.date(), day) for day in range(500)])
    day = (simulate(spec, 2_000, 4).events[EVENT_TIME] - spec.start).dt.total_days().to_numpy()
    counts = np.bincount(day, minlength=500)
    counts[0] -= 2_000  # first orders
    expected = 2_000 / 8 * factors
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square == pytest.approx(500, abs=5 * np.sqrt(2 * 500))


def test_a_regime_shift_multiplies_losses() -> None:
    for process, limit in ((Process.pareto_nbd, 0.03), (Process.bg_nbd, 0.03), (Process.mbg_cnbd_k, 0.03)):
        who = Customers(Spread(1 / 10), Spread(1 / 400), regularity=Spread(2.0))
        spec = Spec(process, 400, customers=who, arrivals=Arrivals(arrival_days=0), cutoffs=())
        calm = simulate(spec, 8_000, 1).customers
        spec.calendar = Calendar(regime_day=200, regime_dropout=3.0)
        world = simulate(spec, 8_000, 1)
        if process is not Process.pareto_nbd:  # there, the last order is the fatal one
            last = world.events.group_by(CUSTOMER_ID).agg(pl.col(EVENT_TIME).max().alias("last"))
            gone = world.customers.filter(pl.col(LIFETIME_DAYS) < 300).join(last, on=CUSTOMER_ID)
            lifetime = (gone["last"] - gone[FIRST_ORDER_TIME]).dt.total_microseconds() / 86_400e6
            assert (lifetime - gone[LIFETIME_DAYS]).abs().max() < 1e-6  # type: ignore[operator]
        kept = [
            (t[LIFETIME_DAYS].fill_null(9e9) > d).mean() for t in (calm, world.customers) for d in (199, 300)
        ]
        assert kept[2] == pytest.approx(kept[0], abs=limit)
        assert kept[3] < 0.85 * kept[1]  # type: ignore[operator]
        if process is Process.pareto_nbd:
            assert kept[3] == pytest.approx(exp(-(200 + 3 * 100) / 400), abs=0.01)


def test_arrivals_grow_and_cohorts_drift() -> None:
    arrivals = Arrivals(growth_yearly=0.7, rate_drift_yearly=-0.5)
    spec = Spec(days=730, arrivals=arrivals, cutoffs=())
    world = simulate(spec, 40_000, 1)
    late = (world.customers[FIRST_ORDER_TIME] - spec.start).dt.total_days() / 365.25
    first, second = world.customers.filter(late < 1), world.customers.filter(late >= 1)
    assert len(second) / len(first) == pytest.approx(exp(0.7), rel=0.04)
    assert second[ORDER_RATE].mean() / first[ORDER_RATE].mean() == pytest.approx(exp(-0.5), rel=0.04)  # type: ignore[operator]


def test_seasonal_arrivals_follow_the_season() -> None:
    calendar = Calendar(day_of_week=(1.0, 1.0, 1.0, 1.0, 1.0, 3.0, 1.0))
    spec = Spec(days=70, calendar=calendar, arrivals=Arrivals(seasonal=True), cutoffs=())
    weekday = simulate(spec, 20_000, 1).customers[FIRST_ORDER_TIME].dt.weekday()
    assert (weekday == 6).mean() == pytest.approx(3 / 9, abs=0.02)


@pytest.mark.parametrize("days", [1, 365, 5_000])
def test_however_long_a_world_ends_where_it_should(days: int) -> None:
    """The holiday and the Saturdays of 2023 are the same in a world of one year and of fourteen."""
    spec = Spec(days=days)
    assert spec.start + timedelta(days=days) == datetime(2024, 1, 1, tzinfo=UTC)
    calendar = Calendar(day_of_week=(1.0,) * 5 + (2.0, 1.0), holidays=(Holiday(12, 31, 3.0, 0),))
    factors = clock(calendar, spec.start, 0, days).business.factor
    late_december = [2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 3.0]  # 23 to 31
    assert factors[-9:].tolist() == late_december[-days:]


def test_a_world_is_over_by_today() -> None:
    ends = {spec_of(kind, days).start + timedelta(days=days) for kind in Kind for days in (30, 3_650)}
    assert max(ends) < datetime.now(UTC)


def test_a_last_day_with_a_clock_is_refused() -> None:
    with pytest.raises(InputError, match="last_day=2023-06-30 12:00:00"):
        Spec(last_day=datetime(2023, 6, 30, 12))  # noqa: DTZ001


def test_a_calendar_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(InputError, match="has 51 weekly and 0 daily factors"):
        Calendar(week_of_year=(1.0,) * 51)


def test_ids_are_unique() -> None:
    ids = simulate(Spec(days=10), 1_500, 1).customers[CUSTOMER_ID]
    assert ids.n_unique() == 1_500
    assert ids.equals(ids.sort())
    assert pl.Series(ids).str.len_chars().n_unique() == 1
