from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

from retinue.features import CATALOGUE, Family, available_at, build, catalogue_markdown, features_at
from retinue.features.query import AGGREGATES
from retinue.schema import AMOUNT, CUSTOMER, CUSTOMER_ID, CUTOFF, EVENT_TIME, EVENTS, ORDER
from tests.features.histories import CUTOFF as MOMENT
from tests.features.histories import ZONE, event, history, table
from tests.features.stores import stored

ROOT = Path(__file__).parents[2]


def test_every_declared_feature_is_a_column_and_every_column_is_declared() -> None:
    got = features_at(table(history(0)).lazy(), MOMENT, ZONE).collect_schema()
    assert dict(got) == {CUSTOMER_ID: pl.String, CUSTOMER: pl.Int64, CUTOFF: CUTOFF.dtype} | {
        feature.name: feature.dtype for feature in CATALOGUE
    }


def test_names_are_unique_and_every_family_has_features_and_a_query() -> None:
    assert len({feature.name for feature in CATALOGUE}) == len(CATALOGUE)
    assert {feature.family for feature in CATALOGUE} == set(Family) == set(AGGREGATES)


def test_families_do_not_overwrite_each_others_aggregates() -> None:
    """A name that two families share would reach the second feature with the first family's numbers."""
    from retinue.features.frames import Frames

    frames = Frames(table([]).lazy(), MOMENT, ZONE)
    names = [
        n for query in AGGREGATES.values() for n in query(frames).collect_schema().names() if n != CUSTOMER
    ]
    shared = {"month_start"}  # none but the join key of the cohorts may be met twice
    assert {name for name in names if names.count(name) > 1} <= shared


def test_a_feature_that_is_never_null_says_so_rightly() -> None:
    never = [feature.name for feature in CATALOGUE if feature.null == "never"]
    for seed in range(5):
        got = features_at(table(history(seed)).lazy(), MOMENT, ZONE).select(never).collect()
        assert {name for name in never if got[name].null_count()} == set()


def test_families_and_features_can_be_picked() -> None:
    got = features_at(table(history(0)).lazy(), MOMENT, ZONE, [Family.btyd]).collect_schema().names()
    assert got[3:] == [
        "frequency", "recency_days", "T_days", "valued_transactions", "monetary_value", "days_since_last",
        "days_since_first_event",
    ]  # fmt: skip


def test_what_a_base_lacks_is_left_out_with_a_reason(tmp_path: Path) -> None:
    frame = table(history(0)).filter(pl.col("event_type") == ORDER).select(*EVENTS.columns, AMOUNT)
    days = pl.col(EVENT_TIME).dt.convert_time_zone(ZONE).dt.truncate("1d").dt.convert_time_zone("UTC")
    store = stored(frame.with_columns(days), tmp_path, shards=1)
    kept, left_out = available_at(store.scan(), MOMENT, ZONE)
    names = {feature.name for feature in kept}
    assert {"frequency", "monetary_value", "net_spend_30d", "gap_mean_days", "cohort_repeat_rate"} <= names
    reasons = {gone.feature.name: str(gone) for gone in left_out}
    assert reasons["units_30d"] == "units_30d is left out: events have no column quantity."
    assert reasons["refunds_30d"] == "refunds_30d is left out: there are no events of type refund."
    assert reasons["evening_share"] == "evening_share is left out: event times carry no time of day."
    assert len(kept) + len(left_out) == len(CATALOGUE)
    got = features_at(store.scan(), MOMENT, ZONE, features=kept).collect()
    assert got.columns[3:] == [feature.name for feature in kept]


def test_rows_after_the_cutoff_change_no_column(tmp_path: Path) -> None:
    """Later refunds, a later clock, later values in columns that were empty: the table keeps its columns."""
    days = [MOMENT - timedelta(days=n, microseconds=-1) for n in range(1, 20)]
    past = [event(ORDER, day, n % 3, amount=5.0) for n, day in enumerate(days)]
    later = [
        event("refund", MOMENT + timedelta(hours=9), 1, amount=-5.0),
        event(
            ORDER,
            MOMENT + timedelta(hours=10),
            2,
            amount=5.0,
            quantity=2.0,
            category="x",
            lines=1,
            channel="web",
        ),
        event(
            ORDER,
            days[3] + timedelta(hours=1),
            2,
            known_time=MOMENT + timedelta(hours=1),
            order_id="o1",
            cost=1.0,
        ),
    ]
    made = []
    for name, rows in (("alone", past), ("among", past + later)):
        store = stored(table(rows), tmp_path / name, shards=2)
        made.append(
            pl.read_parquet(build(store, [MOMENT - timedelta(days=9), MOMENT], tmp_path / f"{name}.parquet"))
        )
    assert_frame_equal(*made)
    assert not {"refunds_30d", "units_30d", "evening_share"} & set(made[0].columns)
    assert "net_spend_30d" in made[0].columns
    wide = available_at(table(past + later).lazy(), MOMENT + timedelta(days=1), ZONE)[0]
    assert {"refunds_30d", "units_30d", "evening_share"} <= {feature.name for feature in wide}


def test_what_forecasts_are_made_from_is_there_before_the_first_order() -> None:
    visits = table(
        [event("visit", MOMENT - timedelta(days=1)), event(ORDER, MOMENT + timedelta(days=1), amount=1.0)]
    )
    names = {feature.name for feature in available_at(visits.lazy(), MOMENT, ZONE)[0]}
    assert {"frequency", "recency_days", "T_days"} <= names
    assert "net_spend_30d" not in names


def test_the_docs_page_is_the_catalogue() -> None:
    assert (ROOT / "docs" / "features.md").read_text(encoding="utf-8") == catalogue_markdown()


def test_the_room_needs_neither_torch_nor_hydra() -> None:
    """The GPU plan's environment holds polars and cudf-polars only."""
    heavy = ["torch", "hydra", "sklearn", "scipy"]
    code = f"import sys, retinue.features; print([m for m in {heavy} if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.strip() == "[]"


def test_protected_attributes_are_out_of_reach() -> None:
    """Not by name, not by a column that events happen to carry."""
    sources = [
        path.read_text(encoding="utf-8") for path in (ROOT / "src" / "retinue" / "features").glob("*.py")
    ]
    assert not [source for source in sources if ".protected(" in source or "protected.parquet" in source]
    events = table(history(0)).with_columns(pl.lit("f").alias("gender"))
    assert (
        features_at(events.lazy(), MOMENT, ZONE).collect_schema().names()
        == features_at(table(history(0)).lazy(), MOMENT, ZONE).collect_schema().names()
    )
