"""Lines become orders, refunds find their order, duplicates merge: against a slow loop and in worked examples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retinue.events.cleaning import CLOCK, SAME_A, SAME_B
from retinue.events.orders import Grouping, to_events
from retinue.events.timeline import history
from retinue.schema import (
    AMOUNT,
    CATEGORIES,
    CATEGORY,
    CUSTOMER_ID,
    EVENT_TIME,
    EVENT_TYPE,
    KNOWN_TIME,
    LINES,
    ORDER_ID,
    PRODUCT,
    QUANTITY,
)
from tests.events.files import events_of, notes_of, orders_csv, prepared

HEADER = "customer_id,event_time,event_type,order_id,amount,category,product"
START = datetime(2024, 1, 1, tzinfo=UTC)


class Line(NamedTuple):
    """One raw row."""

    customer: str
    seconds: int
    kind: str
    order: str
    amount: int
    category: str
    product: str

    def text(self) -> str:
        time = f"{START + timedelta(seconds=self.seconds):%Y-%m-%dT%H:%M:%SZ}"
        return f"{self.customer},{time},{self.kind},{self.order},{self.amount},{self.category},{self.product}"

    @property
    def stored_kind(self) -> str:
        return "refund" if self.kind == "order" and self.amount < 0 else self.kind


lines = st.builds(
    Line,
    customer=st.sampled_from("abc"),
    seconds=st.sampled_from([1, 2, 60, 86_400, 90_000, 200_000, 4_000_000, 8_000_000]),
    kind=st.sampled_from(["order", "order", "order", "refund", "visit"]),
    order=st.sampled_from(["", "", "o1", "o2"]),
    amount=st.integers(-3, 5),
    category=st.sampled_from(["", "x", "y"]),
    product=st.sampled_from(["p", "q"]),
)


def merged(rows: Sequence[Line]) -> list[Line]:
    """Equal rows once; those with a date alone and no order id may be two purchases of one day, and stay."""
    seen = Counter(rows)
    return [row for row in seen for _ in range(1 if row.order or row.seconds % 86_400 else seen[row])]


def run_of(row: Line, rows: Sequence[Line]) -> int:
    """How often the order number has begun again by this row: 0 for the first time."""
    times = sorted(
        other.seconds for other in rows
        if (other.customer, other.order, other.stored_kind) == (row.customer, row.order, "order")
    )  # fmt: skip
    begins = [late for early, late in pairwise(times) if late - early > 30 * 86_400]
    return sum(begin <= row.seconds for begin in begins)


def reference(rows: Sequence[Line]) -> list[tuple[Any, ...]]:
    """The slow loop: dictionaries, one row after the other; ids of refunds are left as they came."""
    groups: dict[tuple[Any, ...], list[Line]] = defaultdict(list)
    others: list[tuple[Any, ...]] = []
    once = merged(rows)
    for line in once:
        row = line
        if row.order and row.stored_kind != "visit" and (run := run_of(row, once)):
            row = row._replace(order=f"{row.order} ({run + 1})")
        if row.stored_kind == "refund":
            row = row._replace(kind="refund", amount=-abs(row.amount))
        if row.stored_kind == "visit":
            others.append(
                (row.customer, row.seconds, "visit", row.order, float(row.amount), None, None, row.product)
            )
            continue
        bucket = (
            row.seconds if not row.order else "once" if row.stored_kind == "order" else row.seconds // 86_400
        )
        groups[row.customer, row.stored_kind, row.order, bucket].append(row)
    events = others
    for (customer, kind, order, _), members in groups.items():
        top = min(members, key=lambda r: (-abs(r.amount), r.category or "~", r.product))
        categories = len({r.category for r in members if r.category}) or None
        seconds, amount = min(r.seconds for r in members), float(sum(r.amount for r in members))
        events.append((customer, seconds, kind, order, amount, len(members), categories, top.product))
    return sorted(events, key=repr)


def stored(events: pl.DataFrame) -> list[tuple[Any, ...]]:
    seconds = (pl.col(EVENT_TIME) - START).dt.total_seconds()
    columns = [
        CUSTOMER_ID,
        seconds,
        EVENT_TYPE,
        pl.col(ORDER_ID).fill_null(""),
        AMOUNT,
        LINES,
        CATEGORIES,
        PRODUCT,
    ]
    return sorted(events.select(columns).rows(), key=repr)


def without_refund_ids(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted([(*row[:3], "" if row[2] == "refund" else row[3], *row[4:]) for row in rows], key=repr)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(lines, min_size=1, max_size=14), shards=st.integers(1, 5), data=st.data())
def test_orders_agree_with_the_slow_loop_in_any_row_order_and_any_shards(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Line], shards: int, data: st.DataObject
) -> None:
    # one row that fills every column, so that none is dropped as absent
    rows = [*rows, Line("z", 5, "order", "o9", 5, "x", "p")]
    folder = tmp_path_factory.mktemp("orders")
    store = prepared(orders_csv(folder, [row.text() for row in rows], HEADER), folder)
    events = events_of(store)
    assert without_refund_ids(stored(events)) == without_refund_ids(reference(rows))
    manifest = store.manifest
    assert (
        manifest.rows_in
        == len(rows)
        == manifest.rows_kept + manifest.rows_quarantined + manifest.rows_duplicate
    )
    assert manifest.rows_duplicate == len(rows) - len(merged(rows))
    shuffled = data.draw(st.permutations(rows))
    again = prepared(orders_csv(folder, [row.text() for row in shuffled], HEADER), folder, shards)
    assert events_of(again).equals(events)


def test_shards_hold_whole_customers_in_order_of_time(tmp_path: Path) -> None:
    rows = [f"c{n % 23},2024-01-{n % 28 + 1:02d},{n}" for n in range(400)]
    store = prepared(orders_csv(tmp_path, rows), tmp_path, shards=4)
    for shard in range(4):
        events = store.scan(shard).collect()
        assert (events["customer"] % 4 == shard).all()
        assert events.equals(events.sort("customer", EVENT_TIME, maintain_order=True))
    assert store.scan().collect()["customer"].n_unique() == 23


def test_lines_of_an_order_id_are_one_order_named_after_its_largest_line(tmp_path: Path) -> None:
    rows = ["a,2024-01-01 10:05:00,order,o1,3,tea,p1", "a,2024-01-01 10:00:00,order,o1,9,mugs,p2"]
    event = events_of(prepared(orders_csv(tmp_path, rows, HEADER), tmp_path)).row(0, named=True)
    assert event[EVENT_TIME] == datetime(2024, 1, 1, 10, tzinfo=UTC)
    assert (event[AMOUNT], event[LINES], event[CATEGORIES], event[CATEGORY], event[PRODUCT]) == (
        12.0,
        2,
        2,
        "mugs",
        "p2",
    )


def test_a_refund_is_named_after_the_line_that_takes_most_money_back(tmp_path: Path) -> None:
    rows = ["a,2024-01-01 10:00:00,refund,r1,-9,mugs,p2", "a,2024-01-01 10:00:00,refund,r1,-3,tea,p1"]
    event = events_of(prepared(orders_csv(tmp_path, rows, HEADER), tmp_path)).row(0, named=True)
    assert (event[AMOUNT], event[CATEGORY], event[PRODUCT]) == (-12.0, "mugs", "p2")


def test_refunds_of_one_order_on_different_days_stay_apart(tmp_path: Path) -> None:
    rows = [
        f"a,{time},refund,o1,-1,,"
        for time in ("2024-01-01 10:00:00", "2024-01-01 11:00:00", "2024-01-03 10:00:00")
    ]
    assert events_of(prepared(orders_csv(tmp_path, rows, HEADER), tmp_path))[AMOUNT].to_list() == [-2.0, -1.0]


def test_events_of_one_second_are_stored_in_the_same_order_whatever_the_order_of_rows(tmp_path: Path) -> None:
    rows = [f"a,2024-01-01 10:00:00,view,,,,p{n}" for n in range(9)]
    first = prepared(orders_csv(tmp_path, rows, HEADER), tmp_path).scan().collect()
    again = prepared(orders_csv(tmp_path, rows[::-1], HEADER), tmp_path).scan().collect()
    assert first.equals(again)
    assert first[PRODUCT].n_unique() == 9


def test_the_end_of_observation_is_the_end_of_the_shoppers_day(tmp_path: Path) -> None:
    store = prepared(
        orders_csv(tmp_path, ["a,2024-07-02 22:00:00,1"]), tmp_path, time_zone="America/New_York"
    )
    assert store.observation_end == datetime(2024, 7, 3, 3, 59, 59, 999_999, tzinfo=UTC)


def test_without_order_id_a_day_is_one_order_where_times_carry_no_clock(tmp_path: Path) -> None:
    store = prepared(orders_csv(tmp_path, ["a,2024-01-01,1", "a,2024-01-01,2", "a,2024-01-02,4"]), tmp_path)
    assert events_of(store)[AMOUNT].to_list() == [3.0, 4.0]
    assert not store.manifest.has_clock


def test_without_order_id_a_second_is_one_order_where_times_carry_a_clock(tmp_path: Path) -> None:
    rows = ["a,2024-01-01 09:00:00,1", "a,2024-01-01 09:00:00,2", "a,2024-01-01 09:00:01,4"]
    store = prepared(orders_csv(tmp_path, rows), tmp_path)
    assert events_of(store)[AMOUNT].to_list() == [3.0, 4.0]
    assert store.manifest.has_clock


def test_the_day_of_an_order_is_the_shoppers_day(tmp_path: Path) -> None:
    rows = ["a,2024-07-01,1", "a,2024-07-01,2", "a,2024-07-02,4"]
    store = prepared(orders_csv(tmp_path, rows), tmp_path, time_zone="America/New_York")
    events = events_of(store)
    assert events[AMOUNT].to_list() == [3.0, 4.0]
    assert events[EVENT_TIME][0] == datetime(2024, 7, 1, 4, tzinfo=UTC)
    assert store.observation_end == datetime(2024, 7, 3, 3, 59, 59, 999_999, tzinfo=UTC)


def test_equal_rows_without_clock_and_id_are_two_purchases_unless_told_otherwise(tmp_path: Path) -> None:
    path = orders_csv(tmp_path, ["a,2024-01-01,5", "a,2024-01-01,5"])
    kept = prepared(path, tmp_path)
    assert events_of(kept)[AMOUNT].to_list() == [10.0]
    assert "kept as two purchases" in notes_of(kept)
    assert "kept as two purchases" not in notes_of(
        prepared(orders_csv(tmp_path, ["a,2024-01-01,5"]), tmp_path)
    )
    path = orders_csv(tmp_path, ["a,2024-01-01,5", "a,2024-01-01,5"])
    merged = prepared(path, tmp_path, merge_duplicates=True)
    assert (events_of(merged)[AMOUNT].to_list(), merged.manifest.rows_duplicate) == ([5.0], 1)


def test_equal_rows_with_a_clock_are_one_unless_told_otherwise(tmp_path: Path) -> None:
    path = orders_csv(tmp_path, ["a,2024-01-01 10:00:00,5", "a,2024-01-01 10:00:00,5"])
    assert prepared(path, tmp_path).manifest.rows_duplicate == 1
    assert prepared(path, tmp_path, merge_duplicates=False).manifest.rows_duplicate == 0


def test_a_column_that_we_do_not_use_still_tells_two_rows_apart(tmp_path: Path) -> None:
    rows = ["a,2024-01-01 10:00:00,5,1", "a,2024-01-01 10:00:00,5,2"]
    path = orders_csv(tmp_path, rows, "customer_id,event_time,amount,line_number")
    assert prepared(path, tmp_path).manifest.rows_duplicate == 0


def test_duplicates_across_files_merge(tmp_path: Path) -> None:
    for name in ("jan.csv", "again.csv"):
        (tmp_path / name).write_text("customer_id,event_time,order_id,amount\na,2024-01-01,o1,5\n")
    store = prepared(tmp_path, tmp_path)
    assert (store.manifest.rows_in, store.manifest.rows_kept, store.manifest.rows_duplicate) == (2, 1, 1)


def test_a_refund_of_a_whole_order_within_a_day_takes_its_id_and_both_stay(tmp_path: Path) -> None:
    rows = [
        "a,2024-01-01 10:00:00,order,o1,50,,",
        "a,2024-01-01 10:20:00,order,C1,-50,,",  # the whole of o1
        "a,2024-01-01 10:30:00,order,C2,-50,,",  # o1 is cancelled already
        "a,2024-01-01 10:40:00,order,C3,-20,,",  # a part of it
        "b,2024-01-01 10:50:00,order,C4,-50,,",  # another customer
        "a,2024-01-05 10:00:00,order,o2,70,,",
        "a,2024-01-07 10:00:00,order,C5,-70,,",  # later than a day
        "a,2024-01-08 10:00:00,refund,o2,-70,,",  # says its order itself
    ]
    store = prepared(orders_csv(tmp_path, rows, HEADER), tmp_path)
    refunds = events_of(store).filter(pl.col(EVENT_TYPE) == "refund").sort(EVENT_TIME)
    assert refunds[ORDER_ID].to_list() == ["o1", "C2", "C3", "C4", "C5", "o2"]
    assert "1 of 6 refunds undo a whole order" in notes_of(store)


def test_an_order_is_known_when_its_last_line_is(tmp_path: Path) -> None:
    rows = ["a,2024-01-01,o1,1,2024-01-02", "a,2024-01-01,o1,1,2024-02-01", "b,2024-01-01,o2,1,"]
    header = "customer_id,event_time,order_id,amount,known_time"
    events = events_of(prepared(orders_csv(tmp_path, rows, header), tmp_path))
    assert events[KNOWN_TIME].to_list() == [
        datetime(2024, 2, 1, tzinfo=UTC),
        datetime(2024, 1, 1, tzinfo=UTC),
    ]


def test_sums_are_null_where_no_line_has_a_value() -> None:
    grouping = Grouping(
        ("base", "customer_id", "customer", "event_time", "known_time", "event_type", "amount", "quantity"),
        None, "UTC",
    )  # fmt: skip
    rows = pl.DataFrame(
        {
            "base": "base", "customer_id": ["a", "a", "b"], "customer": [1, 1, 2], "event_time": [START] * 3,
            "known_time": [START] * 3, "event_type": "order", "amount": [1.0, 2.0, 3.0], "quantity": [4.0, None, None],
            SAME_A: [1, 2, 3], SAME_B: [1, 2, 3], CLOCK: True,
        }
    )  # fmt: skip
    events = to_events(rows, grouping).events
    assert events[AMOUNT].to_list() == [3.0, 3.0]
    assert events[QUANTITY].to_list() == [4.0, None]
    assert Counter(events[EVENT_TYPE].to_list()) == {"order": 2}


@pytest.mark.parametrize("later", ["b,2025-02-03 10:30:00,,9,", "b,2025-02-03,o9,9,mugs"])
def test_one_later_row_with_a_clock_or_an_order_id_changes_no_earlier_event(
    tmp_path: Path, later: str
) -> None:
    header = "customer_id,event_time,order_id,amount,category"
    past = [
        "a,2024-01-01,,5,",
        "a,2024-01-01,,5,",
        "a,2024-01-01,,2,",
        "a,2024-01-02,,1,",
        "b,2024-01-02,,-3,",
    ]
    cutoff = datetime(2024, 12, 31, tzinfo=UTC)
    alone = prepared(orders_csv(tmp_path, past, header), tmp_path).scan().collect()
    among = prepared(orders_csv(tmp_path, [*past, later], header), tmp_path).scan().collect()
    known = history(among.lazy(), cutoff).collect()
    assert among.height == known.height + 1
    assert known.select(alone.columns).equals(alone)
    new = [name for name in known.columns if name not in alone.columns]
    assert all(known[name].null_count() == known.height for name in new), new
    assert sorted(alone[AMOUNT]) == [-3.0, 1.0, 12.0]


def test_each_row_answers_for_its_own_clock(tmp_path: Path) -> None:
    rows = ["a,2024-01-01,5", "a,2024-01-01,5", "a,2024-01-02 10:00:00,7", "a,2024-01-02 10:00:00,7"]
    store = prepared(orders_csv(tmp_path, rows), tmp_path)
    assert events_of(store)[AMOUNT].to_list() == [10.0, 7.0]
    assert store.manifest.rows_duplicate == 1
