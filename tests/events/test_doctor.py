"""The doctor tells what is wrong, worst first, and what each output can rest on."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from retinue.events.doctor import doctor
from retinue.events.store import Store
from retinue.schema import FINDING, LEVEL, QUALITY, TOPIC
from tests.events.files import orders_csv, prepared, write

DAY = date(2022, 1, 1)


def steady(customers: int = 120, days: int = 760, every: int = 38) -> list[str]:
    """Customers who join over the first half and come back with a steady rhythm."""
    rows = []
    for customer in range(customers):
        join = customer * days // (2 * customers)
        for order, day in enumerate(range(join, days, every)):
            rows.append(f"c{customer},{DAY + timedelta(days=day)},{10 + (customer + order) % 9}")
    return rows


def told(store: Store, horizon_days: int = 90, cutoff: datetime | None = None) -> pl.DataFrame:
    return QUALITY.check(doctor(store, horizon_days, cutoff))


def text(table: pl.DataFrame, topic: str) -> str:
    return "\n".join(table.filter(pl.col(TOPIC) == topic)[FINDING])


@pytest.fixture
def healthy(tmp_path: Path) -> Store:
    return prepared(orders_csv(tmp_path, steady()), tmp_path)


def test_healthy_data_support_every_output(healthy: Store) -> None:
    table = told(healthy)
    assert table.filter(pl.col(LEVEL) == "problem").is_empty()
    for output in ("churn", "orders", "clv", "segments"):
        assert text(table, output) == f"{output}: supported by these data."
    assert "120 of 120 buyers (100.0%) ordered on more than one day" in text(table, "repeat")
    assert "orders span 757 days up to the cutoff; the horizon is 90 days (8.4 times over)" in text(
        table, "span"
    )


def test_the_row_balance_is_shown(healthy: Store) -> None:
    rows = healthy.manifest.rows_in
    assert f"{rows:,} rows in = {rows:,} stored + 0 quarantined + 0 merged" in text(told(healthy), "rows")


def test_the_balance_counts_quarantine_and_duplicates(tmp_path: Path) -> None:
    rows = ["a,2024-01-01 10:00:00,1"] * 3 + ["b,2024-01-01 10:00:00,1", ",2024-01-01 10:00:00,1"]
    store = prepared(orders_csv(tmp_path, rows), tmp_path)
    assert "5 rows in = 2 stored + 1 quarantined + 2 merged as exact duplicates" in text(told(store), "rows")


def test_worst_comes_first(tmp_path: Path) -> None:
    levels = told(prepared(orders_csv(tmp_path, ["a,2024-01-01,1", ",2024-01-01,1"]), tmp_path))[
        LEVEL
    ].to_list()
    assert levels == sorted(levels, key=["problem", "warning", "fact"].index)
    assert set(levels) == {"problem", "warning", "fact"}


def test_a_horizon_longer_than_the_history_makes_forecasts_weak(healthy: Store) -> None:
    table = told(healthy, 800)
    assert "forecasts reach further than the history" in text(table, "span")
    assert "weak, since the history is shorter than the horizon" in text(table, "churn")
    assert "supported" in text(table, "segments")


def test_a_cutoff_hides_what_comes_after_it(healthy: Store) -> None:
    table = told(healthy, 90, datetime(2022, 2, 1, tzinfo=UTC))
    assert "orders span 31 days" in text(table, "span")
    assert "11 customers with 11 events" in text(table, "rows")
    assert "forecasts are checked against what came true" in text(table, "span")
    late = told(healthy, 90, healthy.observation_end - timedelta(days=89))
    assert "cannot be checked yet" in text(late, "span")


def test_without_amounts_clv_is_not_supported(tmp_path: Path) -> None:
    rows = [row.rsplit(",", 1)[0] for row in steady()]
    table = told(prepared(orders_csv(tmp_path, rows, "customer_id,event_time"), tmp_path))
    assert text(table, "clv") == "clv: not supported, since there are no amounts."
    assert "supported by" in text(table, "orders")


def test_outliers_are_flagged_and_kept(tmp_path: Path) -> None:
    store = prepared(
        orders_csv(tmp_path, [*steady(), "c1,2022-05-05,99999", "c2,2022-05-05,88888"]), tmp_path
    )
    assert "orders (0.11%) lie beyond 5 robust deviations" in text(told(store), "money")
    assert "the furthest 99,999.00 ('c1', 2022-05-05), 88,888.00 ('c2', 2022-05-05). They are kept." in text(
        told(store), "money"
    )
    assert store.manifest.rows_kept == store.manifest.rows_in


def test_a_base_that_starts_all_at_once_is_a_cohort_or_cut_off(tmp_path: Path) -> None:
    rows = [
        row for customer in range(50) for row in (f"c{customer},2022-01-01,5", f"c{customer},2022-09-01,5")
    ]
    assert "100% of all first orders fall into the first 20 days" in text(
        told(prepared(orders_csv(tmp_path, rows), tmp_path)), "span"
    )
    assert "first orders fall" not in text(told(prepared(orders_csv(tmp_path, steady()), tmp_path)), "span")


def test_silence_before_the_stated_end_is_noticed(tmp_path: Path) -> None:
    store = prepared(orders_csv(tmp_path, steady()), tmp_path, observation_end="2024-06-30")
    assert "the last event lies 156 days before the end of history" in text(told(store), "span")


@pytest.mark.parametrize(
    ("end", "verdict"),
    [
        ("2024-03-29", "churn: supported by these data."),
        ("2024-06-30", "churn: weak, since the data end 156 days before the cutoff."),
        (
            "2028-01-26",
            "churn: not supported, since the data end 1,461 days before the cutoff, more than half of the "
            "2,217 days since the first order.",
        ),
    ],
)
def test_data_that_end_long_before_the_cutoff_support_less(tmp_path: Path, end: str, verdict: str) -> None:
    table = told(prepared(orders_csv(tmp_path, steady()), tmp_path, observation_end=end))
    assert text(table, "churn") == verdict
    for output in ("orders", "clv"):
        assert text(table, output) == verdict.replace("churn", output)
    assert text(table, "segments") == "segments: supported by these data."


def test_one_of_a_kind_is_told_in_the_singular(tmp_path: Path) -> None:
    table = told(prepared(orders_csv(tmp_path, ["a,2024-01-01,1"]), tmp_path))
    said = "\n".join(table[FINDING])
    assert "1 customer with 1 event (order 1)." in said
    assert not re.search(r"\b1 (customers|buyers|orders|events|refunds|days)\b", said), said


def test_less_than_two_years_hold_no_season(tmp_path: Path) -> None:
    store = prepared(orders_csv(tmp_path, steady(days=200, every=9)), tmp_path)
    table = told(store).filter(pl.col(TOPIC) == "season")
    assert table[LEVEL].to_list() == ["warning"]
    assert "0.5 yearly cycles" in table[FINDING][0]


def test_refund_delays_are_read_from_linked_refunds(tmp_path: Path) -> None:
    rows = []
    for n in range(40):
        day = DAY + timedelta(days=n)
        rows += [f"c{n},{day},order,o{n},50", f"c{n},{day + timedelta(days=10)},refund,o{n},-20"]
    header = "customer_id,event_time,event_type,order_id,amount"
    table = told(prepared(orders_csv(tmp_path, rows, header), tmp_path))
    assert "40 refunds, 40 of them tied to their order; nine in ten come within 10.0 days" in text(
        table, "refunds"
    )


def test_consent_coverage(tmp_path: Path) -> None:
    rows = [f"c{n},2024-01-0{n + 1},order" for n in range(4)] + ["c1,2024-01-09,consent_given"]
    store = prepared(orders_csv(tmp_path, rows, "customer_id,event_time,event_type"), tmp_path)
    assert text(told(store), "consent") == "1 customer (25%) has said yes or no to being contacted."


def test_no_orders_at_all(tmp_path: Path) -> None:
    path = write(tmp_path / "visits.csv", ["customer_id,event_time", "a,2024-01-01", "b,2024-01-02"])
    table = told(prepared(path, tmp_path, event_type="visit"))
    assert "there is not one order" in text(table, "rows")
    assert "not supported" in text(table, "churn")


def test_clocks_moved_in_spring_are_told(tmp_path: Path) -> None:
    store = prepared(orders_csv(tmp_path, ["a,2021-03-28 01:30:00,1"]), tmp_path, time_zone="Europe/London")
    assert "1 times fall into the hour that clocks skip in spring" in text(told(store), "time")


def test_discounts_are_read_as_their_size(tmp_path: Path) -> None:
    store = prepared(
        orders_csv(tmp_path, ["a,2024-01-01,5,-2"], "customer_id,event_time,amount,discount"), tmp_path
    )
    assert store.scan().collect()["discount"].to_list() == [2.0]
    assert "1 discounts are negative" in text(told(store), "money")
