"""Times of every common form, and what happens around the change of clocks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime

import polars as pl
import pytest

from retinue.events.clock import DATE, NAIVE, OFFSET, Clock, as_text, zone_checked
from retinue.schema import InputError


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


def clock(
    zone: str = "Europe/London", form: str | None = None, day_first: Callable[[], bool] = lambda: True
) -> Clock:
    return Clock(zone, zone, form, day_first)


@pytest.mark.parametrize(
    ("text", "time", "form"),
    [
        ("2020-01-05", utc(2020, 1, 5), DATE),
        ("2020-07-05", utc(2020, 7, 4, 23), DATE),
        (" 2020/1/5 ", utc(2020, 1, 5), DATE),
        ("20200105", utc(2020, 1, 5), DATE),
        ("20200105.0", utc(2020, 1, 5), DATE),
        ("2020-07-05 10:00:00", utc(2020, 7, 5, 9), NAIVE),
        ("2020-07-05T10:00", utc(2020, 7, 5, 9), NAIVE),
        ("2020-07-05T10:00:00.25", utc(2020, 7, 5, 9, 0, 0, 250_000), NAIVE),
        ("05/07/2020 9:30", utc(2020, 7, 5, 8, 30), NAIVE),
        ("2020-07-05T10:00:00Z", utc(2020, 7, 5, 10), OFFSET),
        ("2020-07-05 10:00:00+02:00", utc(2020, 7, 5, 8), OFFSET),
        ("2020-07-05 10:00:00-0330", utc(2020, 7, 5, 13, 30), OFFSET),
        ("1593943200", utc(2020, 7, 5, 10), OFFSET),
        ("1593943200.5", utc(2020, 7, 5, 10, 0, 0, 500_000), OFFSET),
        ("1593943200000", utc(2020, 7, 5, 10), OFFSET),
        ("1593943200000000", utc(2020, 7, 5, 10), OFFSET),
        ("1593943200000000000", utc(2020, 7, 5, 10), OFFSET),
    ],
)
def test_a_time_in_text_is_read(text: str, time: datetime, form: int) -> None:
    row = clock().read(pl.Series([text, "2021-01-01"])).row(0, named=True)
    assert row["time"] == time
    assert row["form"] == form


@pytest.mark.parametrize("text", ["soon", "", "2020-02-30", "2020-01-05 25:00:00", "20201305", "12", None])
def test_what_is_no_time_is_null(text: str | None) -> None:
    read = clock().read(pl.Series([text], dtype=pl.String))
    assert read.select("time", "form").row(0) == (None, None)


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_native_times_of_any_unit_agree_with_text(unit: str) -> None:
    naive = pl.Series(["2020-07-05 10:00"]).str.to_datetime().cast(pl.Datetime(unit))  # type: ignore[arg-type]
    assert clock().read(naive)["time"][0] == datetime(2020, 7, 5, 9, tzinfo=UTC)
    aware = naive.dt.replace_time_zone("America/New_York")
    assert clock().read(aware)["time"][0] == datetime(2020, 7, 5, 14, tzinfo=UTC)


def test_native_dates_and_whole_numbers() -> None:
    assert clock().read(pl.Series([date(2020, 7, 5)]))["time"][0] == datetime(2020, 7, 4, 23, tzinfo=UTC)
    assert clock().read(pl.Series([20200105]))["time"][0] == datetime(2020, 1, 5, tzinfo=UTC)
    assert clock().read(pl.Series([20200105.0, None]))["time"].to_list() == [
        datetime(2020, 1, 5, tzinfo=UTC),
        None,
    ]


def test_the_hour_that_comes_twice_is_read_as_its_first_and_the_one_that_never_was_as_an_hour_later() -> None:
    read = clock().read(pl.Series(["2021-10-31 01:30:00", "2021-03-28 01:30:00"]))
    assert read["time"].to_list() == [
        datetime(2021, 10, 31, 0, 30, tzinfo=UTC),
        datetime(2021, 3, 28, 1, 30, tzinfo=UTC),
    ]
    assert read["shifted"].to_list() == [False, True]


def test_midnight_is_no_clock() -> None:
    texts = ["2020-07-05", "2020-07-05 00:00:00", "2020-07-05 00:00:01"]
    assert clock().read(pl.Series(texts))["clock"].to_list() == [False, False, True]


def test_day_and_month_are_asked_for_only_where_they_are_in_doubt() -> None:
    def never() -> bool:
        raise AssertionError

    clock(day_first=never).read(pl.Series(["2020-07-05", "soon"]))
    read = clock("UTC", day_first=lambda: False).read(pl.Series(["7/5/2020"]))
    assert read["time"][0] == datetime(2020, 7, 5, tzinfo=UTC)


def test_a_stated_format_rules() -> None:
    read = clock("UTC", "%d.%m.%y %H:%M").read(pl.Series(["05.07.20 10:00", "2020-07-05"]))
    assert read["time"].to_list() == [datetime(2020, 7, 5, 10, tzinfo=UTC), None]
    assert clock("UTC", "%d.%m.%y").read(pl.Series(["05.07.20"]))["form"][0] == DATE
    offset = clock("UTC", "%d.%m.%Y %H:%M %z").read(pl.Series(["05.07.2020 10:00 +0200"]))
    assert offset.row(0)[:2] == (datetime(2020, 7, 5, 8, tzinfo=UTC), OFFSET)


def test_ids_of_any_type_as_text() -> None:
    assert as_text(pl.Series([17850.0, 1.5, None])).to_list() == ["17850", "1.5", None]
    assert as_text(pl.Series([17850, None])).to_list() == ["17850", None]


def test_an_unknown_zone_is_told() -> None:
    with pytest.raises(InputError, match=r"data\.time_zone=Europe/Lundon: there is no such zone"):
        zone_checked("Europe/Lundon", "data.time_zone")
