"""The ledger: kept once, never before its time, nothing mixed, and a verdict that follows from it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retinue.evaluation.drift import bin_edges, bin_shares, feature_drift, feature_profiles, psi
from retinue.evaluation.reconciliation import reconcile, verdict, windows
from retinue.events.store import Manifest, Store
from retinue.forecasting.ledger import About, Ledger, drift_since, mature, next_maturity
from retinue.schema import CLV_LOWER, CLV_UPPER, CUTOFF, EXPECTED_SPEND, FORECASTS, T_DAYS

JAN, FEB = (datetime(2020, month, 31 if month == 1 else 29, 23, 59, 59, 999_999, UTC) for month in (1, 2))
PEOPLE = [f"c{i:02d}" for i in range(20)]


def store(folder: Path, end: datetime, spend: float = 10.0) -> Store:
    """Everybody orders on 10 January; the even ones again on 10 February and on 10 March, for `spend` each."""
    rows = [(i, datetime(2020, 1, 10, 12, tzinfo=UTC), 5.0) for i in range(20)]
    rows += [
        (i, datetime(2020, month, 10, 12, tzinfo=UTC), spend) for i in range(0, 20, 2) for month in (2, 3)
    ]
    events = pl.DataFrame(
        {
            "base": "b",
            "customer_id": [PEOPLE[i] for i, _, _ in rows],
            "customer": [i for i, _, _ in rows],
            "event_time": [at for _, at, _ in rows],
            "known_time": [at for _, at, _ in rows],
            "event_type": "order",
            "amount": [money for _, _, money in rows],
        }
    ).with_columns(pl.col("event_time", "known_time").dt.cast_time_unit("us"))
    events = events.filter(pl.col("event_time") < end).sort("customer", "event_time")
    folder.mkdir(parents=True, exist_ok=True)
    events.write_parquet(folder / "shard-00000.parquet")
    facts = dict.fromkeys(Manifest.__dataclass_fields__, 0) | {
        "shards": 1, "columns": [], "event_types": {"order": events.height}, "first_event": "2020-01-10T12:00:00+00:00",
        "observation_end": end.isoformat(), "local_zone": "UTC", "time_zone": "UTC", "currency": "", "notes": [],
    }  # fmt: skip
    return Store(folder, Manifest(**facts))  # type: ignore[arg-type]


def forecasts(at: datetime, horizons: list[int], spend: float = 6.0) -> pl.DataFrame:
    """Later names are worth more; the same at every horizon."""
    worth = spend * np.arange(20) / 9.5
    rows = [
        (who, at, days, "bg_nbd", 0.4, 0.6, float(value), float(value), 0.0, 2.0 * float(value), None)
        for who, value in zip(PEOPLE, worth, strict=True)
        for days in horizons
    ]
    return FORECASTS.check(pl.DataFrame(rows, schema=FORECASTS.schema, orient="row"))


def about(at: datetime, end: datetime, age: int = 21) -> About:
    features = pl.DataFrame(
        {"customer_id": PEOPLE, "customer": range(20), "cutoff": [at] * 20, "T_days": [float(age)] * 20}
    ).with_columns(pl.col("cutoff").dt.cast_time_unit("us"), orders_ever=pl.Series(range(20)))
    return About(features, None, end, "UTC")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    kept = Ledger(tmp_path / "ledger")
    assert kept.append("first", forecasts(JAN, [28, 56]), about(JAN, JAN))
    return kept


def test_a_run_is_kept_once(ledger: Ledger) -> None:
    assert not ledger.append("first", forecasts(JAN, [28, 56], 99.0), about(JAN, JAN))
    assert ledger.append("second", forecasts(FEB, [28]), about(FEB, FEB))
    kept = ledger.read()
    assert kept.group_by("run", "sequence").len().sort("sequence").rows() == [
        ("first", 1, 40),
        ("second", 2, 20),
    ]
    assert kept.filter(pl.col("run") == "first")[EXPECTED_SPEND].max() == pytest.approx(12.0)
    assert kept.columns == list(ledger.read().columns)


def test_groups_are_fixed_when_written(ledger: Ledger) -> None:
    """Of twenty, the two of most expected spend are the first tenth; ages put everybody into the first quarter."""
    month = ledger.read().filter(pl.col("horizon_days") == 28)
    assert month.filter(pl.col("decile") == 1)["customer_id"].to_list() == ["c18", "c19"]
    assert month["decile"].value_counts()["count"].to_list() == [2] * 10
    assert month.filter(pl.col("value_tier") == "top 10 %").height == 2
    assert month.filter(pl.col("value_tier") == "lower half").height == 10
    assert month["cohort"].unique().to_list() == ["2020 Q1"]
    assert month["segment_name"].null_count() == 20


def test_nothing_matures_before_its_window_has_closed(ledger: Ledger, tmp_path: Path) -> None:
    closes = JAN + timedelta(days=28)
    early = store(tmp_path / "early", closes - timedelta(seconds=1))
    assert mature(ledger.read(), early).is_empty()
    assert next_maturity(ledger.read(), early) == closes
    on_time = store(tmp_path / "on_time", closes)
    matured = mature(ledger.read(), on_time)
    assert matured["horizon_days"].unique().to_list() == [28]
    assert matured["realised_spend"].sum() == 100.0
    assert not matured["hindsight"].any()
    late = mature(ledger.read(), store(tmp_path / "late", JAN + timedelta(days=56)))
    spend = late.group_by("horizon_days").agg(pl.col("realised_spend").sum()).sort("horizon_days")
    assert spend.rows() == [(28, 100.0), (56, 200.0)]


def test_the_last_forecast_in_time_counts(ledger: Ledger, tmp_path: Path) -> None:
    """A second one before the window closed takes the first one's place; one in hindsight does not."""
    ledger.append("corrected", forecasts(JAN, [28], 8.0), about(JAN, JAN + timedelta(days=1)))
    ledger.append("too late", forecasts(JAN, [28], 10.0), about(JAN, JAN + timedelta(days=28)))
    matured = mature(ledger.read(), store(tmp_path / "events", JAN + timedelta(days=28)))
    standing = matured.group_by("run").agg(pl.col("superseded").any(), pl.col("hindsight").any()).sort("run")
    assert standing.rows() == [("corrected", False, False), ("first", True, False), ("too late", True, True)]
    assert windows(reconcile(matured))[0].predicted_spend == pytest.approx(160.0)


def test_reconciliation_worked(ledger: Ledger, tmp_path: Path) -> None:
    """Ten of twenty order for 10 each: churn .5 against .4, orders 10 against 12, spend 100 against 120."""
    ledger.append("second", forecasts(FEB, [28]), about(FEB, FEB))
    matured = mature(ledger.read(), store(tmp_path / "events", FEB + timedelta(days=28)))
    table = reconcile(matured)
    whole = table.filter((pl.col("dimension") == "all") & (pl.col("horizon_days") == 28))
    assert whole["cutoff"].to_list() == [JAN, FEB, None]
    assert whole["predicted_spend"].to_list() == pytest.approx([120.0, 120.0, 240.0])
    assert whole["realised_spend"].to_list() == pytest.approx([100.0, 100.0, 200.0])
    assert whole["realised_churn"].to_list() == pytest.approx([0.5] * 3)
    assert whole["predicted_orders"].to_list() == pytest.approx([12.0, 12.0, 24.0])
    gap = np.where(np.arange(20) % 2 == 0, 10.0, 0.0) - 6.0 * np.arange(20) / 9.5
    assert whole["spend_gap_error"][0] == pytest.approx(gap.std(ddof=1) * np.sqrt(20))
    assert whole["spend_gap_error"][2] == pytest.approx(2 * gap.std(ddof=1) * np.sqrt(20))
    by_size = table.filter(
        (pl.col("dimension") == "value tier") & (pl.col("horizon_days") == 28) & pl.col("cutoff").is_null()
    )
    assert by_size.select("group", "customers").rows() == [
        ("lower half", 20),
        ("next 40 %", 16),
        ("top 10 %", 4),
    ]
    sums = table.group_by("dimension", "horizon_days", "cutoff").agg(pl.col("realised_spend").sum())
    assert (
        sums.group_by("horizon_days", "cutoff")
        .agg(pl.col("realised_spend").n_unique())["realised_spend"]
        .max()
        == 1
    )


def test_the_verdict_weighs_money(ledger: Ledger, tmp_path: Path) -> None:
    empty = feature_drift(ledger.profiles("first").head(0), about(FEB, FEB).features)
    assert verdict(reconcile(mature(ledger.read(), store(tmp_path / "young", JAN))), empty, 0.0).pays is None
    rich = mature(ledger.read(), store(tmp_path / "rich", JAN + timedelta(days=28), spend=1_000.0))
    rich = pl.concat(
        [rich.with_columns(customer_id=pl.format("{}-{}", "customer_id", pl.lit(i))) for i in range(30)]
    )
    table = reconcile(rich)
    assert verdict(table, empty, 0.0).miscalibrated
    cost = verdict(table, empty, 0.0).cost
    assert 30 * 10_000 * 0.3 < cost < 30 * 10_000
    assert verdict(table, empty, cost * 0.9).pays
    assert not verdict(table, empty, cost * 1.1).pays


def test_population_stability_worked() -> None:
    """Halves that become ¼ and ¾: ¼·ln ½·(-1) + ¼·ln 1.5. Unknown values are a bin of their own."""
    edges = bin_edges(np.array([1.0, 1, 2, 2]), 2)
    assert edges.tolist() == [1.0]
    before, after = bin_shares(np.array([1.0, 1, 2, 2]), edges), bin_shares(np.array([1.0, 2, 5, 2]), edges)
    assert before.tolist() == [0.0, 0.5, 0.5]
    assert after.tolist() == [0.0, 0.25, 0.75]
    assert psi(before, after) == pytest.approx(0.25 * np.log(2) + 0.25 * np.log(1.5))
    assert psi(before, before) == 0.0
    assert bin_shares(np.array([np.nan, 1.0]), edges).tolist() == [0.5, 0.5, 0.0]
    assert bin_edges(np.full(5, np.nan)).size == 0


def test_drift_is_against_the_last_earlier_cutoff(ledger: Ledger) -> None:
    """Ages move from 21 to 50 days and leave their bin; orders stay."""
    now = about(FEB, FEB, 50).features.with_columns(orders_ever=pl.Series(range(20)))
    found = drift_since(ledger, ledger.read(), now)
    assert dict(found.select("feature", "psi").iter_rows())["orders_ever"] == pytest.approx(0.0)
    assert drift_since(ledger, ledger.read(), about(JAN, JAN).features).is_empty()
    moved = now.with_columns(orders_ever=pl.col("orders_ever") + 10)
    assert (
        dict(drift_since(ledger, ledger.read(), moved).select("feature", "psi").iter_rows())["orders_ever"]
        > 0.25
    )


def test_profiles_hold_shares_of_one(ledger: Ledger) -> None:
    profiles = feature_profiles(about(JAN, JAN).features, "x")
    assert profiles["shares"].list.sum().to_list() == pytest.approx([1.0] * profiles.height)
    assert {str(T_DAYS), "orders_ever"} == set(profiles["feature"])
    assert {str(CUTOFF), str(CLV_LOWER), str(CLV_UPPER)}.isdisjoint(profiles["feature"])
