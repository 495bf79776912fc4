"""The one file that compares times with a cutoff, at its edges."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from retinue.events.timeline import (
    days_before,
    future,
    had_been_observed,
    has_clock,
    history,
    horizon_end,
    instant,
    is_observed,
    lies_after,
)
from retinue.schema import EVENT_TIME, KNOWN_TIME, UTC_TIME, InputError

CUTOFF = datetime(2024, 6, 30, 22, 59, 59, 999_999, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def events(*times: datetime, known: datetime | None = None) -> pl.LazyFrame:
    frame = pl.DataFrame({EVENT_TIME: times}, schema={EVENT_TIME: UTC_TIME})
    return frame.with_columns(pl.lit(known, UTC_TIME).fill_null(pl.col(EVENT_TIME)).alias(KNOWN_TIME)).lazy()


def test_a_date_means_the_end_of_that_day_in_the_zone() -> None:
    assert instant("2024-06-30", "Europe/London") == CUTOFF
    assert instant("2024-06-30", "UTC") == CUTOFF + timedelta(hours=1)


@pytest.mark.parametrize("text", ["20140101", "2014-W01-3", "2014W013"])
def test_every_iso_form_of_a_date_means_the_end_of_that_day(text: str) -> None:
    assert instant(text, "Europe/London") == instant("2014-01-01", "Europe/London")


def test_a_clock_means_that_instant() -> None:
    assert instant("2024-06-30T18:00", "Europe/London") == datetime(2024, 6, 30, 17, tzinfo=UTC)
    assert instant("2024-06-30T18:00+02:00", "Europe/London") == datetime(2024, 6, 30, 16, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2024-02-30", "30.6.2024", "soon"])
def test_what_is_no_time_is_told_with_its_option(text: str) -> None:
    with pytest.raises(InputError, match=r"data\.observation_end=.*must be a date such as 2014-12-31"):
        instant(text, "UTC", "data.observation_end")


def test_event_at_the_cutoff_is_history_and_one_tick_later_is_future() -> None:
    table = events(CUTOFF, CUTOFF + TICK)
    assert history(table, CUTOFF).collect()[EVENT_TIME].to_list() == [CUTOFF]
    assert future(table, CUTOFF, 30, "UTC").collect()[EVENT_TIME].to_list() == [CUTOFF + TICK]


def test_event_at_the_end_of_the_horizon_is_future_and_one_tick_later_is_not() -> None:
    end = horizon_end(CUTOFF, 30, "UTC")
    assert future(events(end, end + TICK), CUTOFF, 30, "UTC").collect()[EVENT_TIME].to_list() == [end]


def test_what_was_not_known_at_the_cutoff_is_not_history() -> None:
    table = events(CUTOFF - timedelta(days=9), known=CUTOFF + TICK)
    assert history(table, CUTOFF).collect().is_empty()
    assert history(table, CUTOFF + TICK).collect().height == 1


def test_the_horizon_is_observed_to_its_last_tick() -> None:
    end = horizon_end(CUTOFF, 30, "UTC")
    assert is_observed(end, CUTOFF, 30, "UTC")
    assert not is_observed(end - TICK, CUTOFF, 30, "UTC")


def test_lies_after_leaves_the_instant_itself_out() -> None:
    assert events(CUTOFF, CUTOFF + TICK).select(lies_after(CUTOFF)).collect().to_series().to_list() == [
        False,
        True,
    ]


def local_midnights(first: date, days: int, zone: str) -> list[datetime]:
    """How date-only rows are stored: the first instant of each local day."""
    every = (first + timedelta(days=n) for n in range(days))
    return [datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC) for day in every]


@pytest.mark.parametrize("day", ["2024-10-20", "2024-03-24", "2024-07-01"])
@pytest.mark.parametrize("horizon_days", [7, 30])
def test_a_horizon_holds_exactly_its_number_of_local_dates_across_clock_changes(
    day: str, horizon_days: int
) -> None:
    zone, first = "Europe/London", date.fromisoformat(day)
    cutoff = instant(day, zone)
    rows = events(*local_midnights(first - timedelta(days=2), 60, zone))
    ahead = (
        future(rows, cutoff, horizon_days, zone).collect()[EVENT_TIME].dt.convert_time_zone(zone).dt.date()
    )
    assert ahead.to_list() == [first + timedelta(days=n) for n in range(1, horizon_days + 1)]


@pytest.mark.parametrize("day", ["2024-10-20", "2024-03-24"])
def test_the_end_of_a_horizon_is_the_end_of_a_local_day_and_leads_back(day: str) -> None:
    zone = "Europe/London"
    cutoff, last = instant(day, zone), instant(str(date.fromisoformat(day) + timedelta(days=14)), zone)
    assert horizon_end(cutoff, 14, zone) == last
    assert days_before(last, 14, zone) == cutoff
    assert horizon_end(cutoff, 0, zone) == cutoff
    assert is_observed(last, cutoff, 14, zone)
    assert not is_observed(last - TICK, cutoff, 14, zone)
    ends = pl.DataFrame({"end": [last - TICK, last]}, schema={"end": UTC_TIME})
    assert ends.select(had_been_observed("end", cutoff, 14, zone)).to_series().to_list() == [False, True]


@pytest.mark.parametrize(
    "end", ["2024-10-27T00:30+00:00", "2024-10-27T01:30+00:00", "2024-04-01T00:30+00:00"]
)
def test_a_window_laid_back_from_an_end_is_observed_whatever_the_clocks_do(end: str) -> None:
    at = datetime.fromisoformat(end)
    for days in range(1, 40):
        assert is_observed(at, days_before(at, days, "Europe/London"), days, "Europe/London")


@pytest.mark.parametrize("zone", ["UTC", "Europe/London", "America/Sao_Paulo", "Asia/Beirut"])
def test_a_date_has_no_clock_even_where_midnight_is_skipped_or_met_twice(zone: str) -> None:
    rows = local_midnights(date(2018, 1, 1), 365, zone)
    assert not events(*rows).select(has_clock(zone).any()).collect().item()
    assert events(*(row + timedelta(hours=3) for row in rows)).select(has_clock(zone).all()).collect().item()
