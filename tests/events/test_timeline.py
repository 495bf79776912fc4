"""The one file that compares times with a cutoff, at its edges."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from retinue.events.timeline import future, history, horizon_end, instant, is_observed, lies_after
from retinue.schema import EVENT_TIME, KNOWN_TIME, UTC_TIME, InputError

CUTOFF = datetime(2024, 6, 30, 22, 59, 59, 999_999, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def events(*times: datetime, known: datetime | None = None) -> pl.LazyFrame:
    frame = pl.DataFrame({EVENT_TIME: times}, schema={EVENT_TIME: UTC_TIME})
    return frame.with_columns(pl.lit(known, UTC_TIME).fill_null(pl.col(EVENT_TIME)).alias(KNOWN_TIME)).lazy()


def test_a_date_means_the_end_of_that_day_in_the_zone() -> None:
    assert instant("2024-06-30", "Europe/London") == CUTOFF
    assert instant("2024-06-30", "UTC") == CUTOFF + timedelta(hours=1)


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
    assert future(table, CUTOFF, 30).collect()[EVENT_TIME].to_list() == [CUTOFF + TICK]


def test_event_at_the_end_of_the_horizon_is_future_and_one_tick_later_is_not() -> None:
    end = horizon_end(CUTOFF, 30)
    assert future(events(end, end + TICK), CUTOFF, 30).collect()[EVENT_TIME].to_list() == [end]


def test_what_was_not_known_at_the_cutoff_is_not_history() -> None:
    table = events(CUTOFF - timedelta(days=9), known=CUTOFF + TICK)
    assert history(table, CUTOFF).collect().is_empty()
    assert history(table, CUTOFF + TICK).collect().height == 1


def test_the_horizon_is_observed_to_its_last_tick() -> None:
    end = horizon_end(CUTOFF, 30)
    assert is_observed(end, CUTOFF, 30)
    assert not is_observed(end - TICK, CUTOFF, 30)


def test_lies_after_leaves_the_instant_itself_out() -> None:
    assert events(CUTOFF, CUTOFF + TICK).select(lies_after(CUTOFF)).collect().to_series().to_list() == [
        False,
        True,
    ]
