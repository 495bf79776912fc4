"""Retention, repeat rate and silence on bases small enough to count by hand, and against slow loops."""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from retinue.reporting import ActivityTables, activity_tables
from retinue.reporting.activity import (
    COHORT,
    COHORT_CUSTOMERS,
    DAYS_SINCE_FIRST,
    HALF_YEAR,
    MONTHS_SINCE,
    OBSERVED,
    ORDERED,
    REPEAT_SHARE,
    SILENT_CUSTOMERS,
    SILENT_FROM,
    SILENT_TO,
)
from retinue.schema import CUSTOMER, EVENT_TIME, KNOWN_TIME, REFUND
from tests.reporting.factory import CUTOFF_AT, event_table, simulated_events, store_of

Cells = dict[tuple[date, int], tuple[int, int]]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def tables(
    events: pl.DataFrame, folder: Path, cutoff: datetime = CUTOFF_AT, zone: str = "UTC", shards: int = 1
) -> ActivityTables:
    return activity_tables(store_of(events, folder, shards), cutoff, zone)


def cells(made: ActivityTables) -> Cells:
    columns = (COHORT, MONTHS_SINCE, COHORT_CUSTOMERS, ORDERED)
    return {(c, m): (n, k) for c, m, n, k in made.retention.select(columns).iter_rows()}


THREE = [
    ("a", 1, at("2014-01-10")),
    ("a", 1, at("2014-02-20")),
    ("a", 1, at("2014-02-25")),
    ("b", 2, at("2014-01-31T23:30")),
    ("c", 3, at("2014-02-01")),
    ("c", 3, at("2014-03-05")),
]


def test_retention_counts_customers_of_a_month_once(tmp_path: Path) -> None:
    made = cells(tables(event_table(THREE), tmp_path, at("2014-03-31T23:59:59.999999")))
    january, february = date(2014, 1, 1), date(2014, 2, 1)
    assert made == {
        (january, 0): (2, 2), (january, 1): (2, 1), (january, 2): (2, 0),
        (february, 0): (1, 1), (february, 1): (1, 1),
    }  # fmt: skip


def test_a_month_that_is_not_over_is_left_out(tmp_path: Path) -> None:
    made = cells(tables(event_table(THREE), tmp_path, at("2014-03-31T23:59:59.999998")))
    assert (date(2014, 1, 1), 2) not in made
    assert (date(2014, 1, 1), 1) in made


def test_months_are_those_of_the_shoppers(tmp_path: Path) -> None:
    made = cells(tables(event_table(THREE), tmp_path, at("2014-03-31T23:59:59.999999"), "Europe/Berlin"))
    assert made[date(2014, 2, 1), 0] == (2, 2)


def test_an_order_at_the_cutoff_counts_and_what_is_later_or_known_later_does_not(tmp_path: Path) -> None:
    cutoff = at("2014-06-30T12:00")
    rows = [("a", 1, at("2014-06-01")), ("a", 1, cutoff), ("a", 1, cutoff + timedelta(microseconds=1))]
    late = event_table([("b", 2, at("2014-05-01"))]).with_columns(
        pl.lit(cutoff + timedelta(days=1)).alias(KNOWN_TIME)
    )
    refund = event_table([("c", 3, at("2014-05-01"))], REFUND)
    made = tables(pl.concat([event_table(rows), late, refund]), tmp_path, cutoff)
    assert made.recency[SILENT_CUSTOMERS].to_list() == [1]
    assert made.recency.row(0)[:2] == (0, 1)


def test_the_future_changes_nothing(tmp_path: Path) -> None:
    events, cutoff = simulated_events(80, 3), at("2014-03-10")
    whole = tables(events, tmp_path / "whole", cutoff)
    cut = tables(events.filter(pl.col(EVENT_TIME) <= cutoff), tmp_path / "cut", cutoff)
    for a, b in zip(vars(whole).values(), vars(cut).values(), strict=True):
        assert_frame_equal(a, b)


@pytest.mark.parametrize("shards", [2, 7])
def test_shards_and_order_of_rows_change_nothing(tmp_path: Path, shards: int) -> None:
    events = simulated_events(120, 4)
    one = tables(events, tmp_path / "one")
    many = tables(events.sample(fraction=1.0, shuffle=True, seed=1), tmp_path / "many", shards=shards)
    for a, b in zip(vars(one).values(), vars(many).values(), strict=True):
        assert_frame_equal(a, b, check_exact=True)


def test_retention_equals_a_slow_loop(tmp_path: Path) -> None:
    events = simulated_events(150, 8)
    days = defaultdict(set)
    for who, moment in events.select(CUSTOMER, EVENT_TIME).iter_rows():
        days[who].add(moment.date())
    expected: dict[tuple[date, int], list[int]] = {}
    for seen in days.values():
        first = min(seen).replace(day=1)
        months = {(d.year - first.year) * 12 + d.month - first.month for d in seen}
        for month in range((2014 - first.year) * 12 + 12 - first.month + 1):
            cell = expected.setdefault((first, month), [0, 0])
            cell[0] += 1
            cell[1] += month in months
    assert cells(tables(events, tmp_path)) == {key: tuple(cell) for key, cell in expected.items()}


def test_customers_not_observed_any_longer_are_not_counted_as_never(tmp_path: Path) -> None:
    """Four join on one day with a cutoff 40 days on, and four join 20 days later: half come back after 10 days.

    One of the early ones comes back on day 30, when only the 2 early ones that stayed away are at risk.
    """
    first = at("2014-07-01")
    rows = []
    for i in range(8):
        start = first + timedelta(days=20 * (i >= 4))
        rows.append((f"c{i}", i, start))
        if i % 2 == 0:
            rows.append((f"c{i}", i, start + timedelta(days=10)))
    rows.append(("c1", 1, first + timedelta(days=30)))
    made = tables(event_table(rows), tmp_path, first + timedelta(days=40)).repeat
    curve = {
        d: (round(s, 12), n) for d, s, n in made.select(DAYS_SINCE_FIRST, REPEAT_SHARE, OBSERVED).iter_rows()
    }
    assert curve == {0: (0, 8), 7: (0, 8), 14: (0.5, 8), 21: (0.5, 4), 28: (0.5, 4), 35: (0.75, 4)}


def test_repeat_rate_equals_the_plain_share_where_all_are_observed(tmp_path: Path) -> None:
    events = simulated_events(200, 9).filter(pl.col(EVENT_TIME) < at("2014-01-01"))
    repeat = tables(events, tmp_path, at("2015-12-31")).repeat
    waits: dict[str, list[float]] = {"2013 H1": [], "2013 H2": []}
    for _, mine in events.group_by(CUSTOMER):
        seen = sorted(set(mine[EVENT_TIME].dt.date().to_list()))
        waits["2013 H1" if seen[0].month <= 6 else "2013 H2"].append(
            (seen[1] - seen[0]).days if len(seen) > 1 else float("inf")
        )
    for half, day, share in repeat.select(HALF_YEAR, DAYS_SINCE_FIRST, REPEAT_SHARE).iter_rows():
        assert share == pytest.approx(sum(w <= day for w in waits[half]) / len(waits[half]), abs=1e-12)


def test_recency_bands_hold_everyone_once(tmp_path: Path) -> None:
    events = simulated_events(150, 8)
    recency = tables(events, tmp_path).recency
    assert recency[SILENT_CUSTOMERS].sum() == events[CUSTOMER].n_unique()
    assert recency[SILENT_FROM].to_list() == [0, *recency[SILENT_TO].to_list()[:-1]]
    last = events.group_by(CUSTOMER).agg(pl.col(EVENT_TIME).max())[EVENT_TIME]
    silent = [(CUTOFF_AT.date() - moment.date()).days for moment in last]
    low, high, n = recency.row(1)
    assert n == sum(low <= s < high for s in silent)


def test_a_base_without_orders_has_empty_tables(tmp_path: Path) -> None:
    made = tables(event_table([("a", 1, at("2014-05-01"))], REFUND), tmp_path)
    assert [frame.height for frame in vars(made).values()] == [0, 0, 0]
