"""Planted groups are found, named, kept and placed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from retinue.options import SegmentOptions
from retinue.schema import SEGMENT_PROFILES, SEGMENTS, InputError
from retinue.segments import SegmentModel, assign, fit_segments, profiles
from tests.segments.planted import BARGAIN, CPU, CUTOFF, LOST, LOYAL, ONCE, OPTIONS, base

FOUR = ((LOYAL, 300), (BARGAIN, 300), (ONCE, 500), (LOST, 200))


@pytest.fixture(scope="module")
def features() -> pl.DataFrame:
    return base(*FOUR)


@pytest.fixture(scope="module")
def model(features: pl.DataFrame) -> SegmentModel:
    return fit_segments(features, OPTIONS, 0, CPU)


def test_planted_groups_are_recovered(features: pl.DataFrame, model: SegmentModel) -> None:
    placed = features.join(assign(model, features, OPTIONS), on="customer_id")
    assert len(model.ids) == 4
    assert adjusted_rand_score(placed["group"], placed["segment"]) > 0.99


def test_names_say_who_it_is(features: pl.DataFrame, model: SegmentModel) -> None:
    placed = features.join(assign(model, features, OPTIONS), on="customer_id")
    names = dict(placed.group_by("group").agg(pl.col("segment_name").mode().first()).rows())
    assert names == {
        0: "Frequent big spenders, active",
        1: "Occasional bargain buyers, active",
        2: "One-time small spenders, long gone",
        3: "Frequent big spenders, long gone",
    }


def test_the_table_keeps_its_contract(features: pl.DataFrame, model: SegmentModel) -> None:
    placed = SEGMENTS.check(assign(model, features.sample(fraction=1.0, shuffle=True, seed=5), OPTIONS))
    assert placed["customer_id"].to_list() == sorted(features["customer_id"].to_list())


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_row_order_and_threads_change_nothing(seed: int) -> None:
    table = base((LOYAL, 60), (ONCE, 90), seed=2)
    options = SegmentOptions(max_segments=3, bootstraps=2)
    straight = fit_segments(table, options, 0, CPU)
    with threadpool_limits(2):
        shuffled = fit_segments(table.sample(fraction=1.0, shuffle=True, seed=seed), options, 0, CPU)
    assert shuffled == straight


def test_a_saved_model_predicts_the_same(features: pl.DataFrame, model: SegmentModel, tmp_path: Path) -> None:
    model.save(tmp_path / "segment_model.json")
    loaded = SegmentModel.load(tmp_path / "segment_model.json")
    assert loaded == model
    assert loaded.predict(features).equals(model.predict(features))


def test_prediction_is_the_nearest_centroid(features: pl.DataFrame, model: SegmentModel) -> None:
    matrix = model.scaler.transform(features)
    distances = np.array([[np.sum((row - c) ** 2) for c in model.matrix] for row in matrix])
    slow = [model.ids[int(i)] for i in distances.argmin(axis=1)]
    assert model.predict(features)["segment"].to_list() == slow


def test_a_tie_goes_to_the_lowest_identity(features: pl.DataFrame, model: SegmentModel) -> None:
    row = model.centroids[0]
    twins = SegmentModel(
        **{**vars(model), "centroids": (row, row), "ids": (3, 8), "names": ("a", "b"), "sets_apart": ("", "")}
    )
    assert set(twins.predict(features)["segment"]) == {3}


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "cannot be read"), ("[1]", "schema_version=None"), ('{"schema_version": 0}', "schema_version=0")],
)
def test_a_broken_model_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(InputError, match=said):
        SegmentModel.load(tmp_path / "m.json")


def test_a_model_file_without_a_field_is_named(model: SegmentModel, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    model.save(path)
    kept = json.loads(path.read_text())
    del kept["ids"]
    path.write_text(json.dumps(kept))
    with pytest.raises(InputError, match="'ids'"):
        SegmentModel.load(path)
    with pytest.raises(InputError, match="cannot be read"):
        SegmentModel.load(tmp_path / "absent.json")


@pytest.mark.parametrize(
    "table",
    [
        base((LOYAL, 1)),
        base((LOYAL, 39)),
        base((LOYAL, 300), noise=0.0),
        base((LOYAL, 100)).select("customer_id", "customer", "cutoff"),
        base((LOYAL, 100)).with_columns(
            orders_ever=pl.lit(None, dtype=pl.Float64), frequency=pl.lit(None, dtype=pl.Float64)
        ),
    ],
    ids=["one customer", "below twice the minimum", "all identical", "keys only", "nobody ever ordered"],
)
def test_a_base_that_cannot_be_cut_up_is_one_segment(table: pl.DataFrame) -> None:
    model = fit_segments(table, OPTIONS, 0, CPU)
    placed = assign(model, table, OPTIONS)
    described = profiles(model, table, placed)
    assert model.names == ("All customers",)
    assert placed["segment_name"].n_unique() == 1
    assert described["customers"].to_list() == [len(table)]


def test_a_small_base_says_why_it_is_whole() -> None:
    small = fit_segments(base((LOYAL, 15), (ONCE, 24)), OPTIONS, 0, CPU)
    assert [trial["rejected"] for trial in small.search] == ["the base is too small to be cut up"]
    large = fit_segments(base((LOYAL, 20), (ONCE, 20)), OPTIONS, 0, CPU)
    assert len(large.ids) == 2


def test_customers_without_an_order_stand_apart(features: pl.DataFrame, model: SegmentModel) -> None:
    visitors = features.head(5).with_columns(
        orders_ever=pl.lit(0.0),
        customer_id="v" + pl.col("customer_id"),
        frequency=pl.lit(None, dtype=pl.Float64),
    )
    everybody = pl.concat([features, visitors])
    assert fit_segments(everybody, OPTIONS, 0, CPU) == model
    placed = assign(model, everybody, OPTIONS).filter(pl.col("customer_id").str.starts_with("v"))
    assert placed["segment"].to_list() == [0] * 5
    assert set(placed["segment_name"]) == {"Not ordered yet"}


def test_an_empty_table_is_named() -> None:
    with pytest.raises(InputError, match="no customers"):
        fit_segments(base((LOYAL, 1)).clear(), OPTIONS, 0, CPU)


def test_nulls_and_absent_columns_pull_nowhere(features: pl.DataFrame, model: SegmentModel) -> None:
    absent = model.scaler.transform(features.drop("discount_share"))
    empty = model.scaler.transform(features.with_columns(discount_share=pl.lit(None, dtype=pl.Float64)))
    column = model.scaler.columns.index("discount_share")
    assert not absent[:, column].any()
    np.testing.assert_array_equal(absent, empty)


def test_unknown_numeric_columns_stand_in_for_the_usual_ones() -> None:
    random = np.random.default_rng(0)
    table = base((LOYAL, 200)).select("customer_id", "customer", "cutoff")
    half = np.arange(200) % 2
    table = table.with_columns(
        fitness=pl.Series(half * 5.0 + random.normal(size=200) * 0.1),
        mood=pl.Series(half * 3.0 + random.normal(size=200) * 0.1),
    )
    model = fit_segments(table, OPTIONS, 0, CPU)
    placed = table.join(model.predict(table), on="customer_id")
    assert model.scaler.columns == ("fitness", "mood")
    assert adjusted_rand_score((table["fitness"] > 2.5).to_list(), placed["segment"]) == 1.0


def test_profiles_tell_sizes_and_typical_figures(features: pl.DataFrame, model: SegmentModel) -> None:
    placed = assign(model, features, OPTIONS)
    described = SEGMENT_PROFILES.check(profiles(model, features, placed))
    assert described["customers"].sum() == len(features)
    assert described["share"].sum() == pytest.approx(1.0)
    assert described["spend_share"].sum() == pytest.approx(1.0)
    best = described.row(0, named=True)
    members = features.join(placed, on="customer_id").filter(pl.col("segment") == best["segment"])
    assert best["orders_ever"] == members["orders_ever"].median()
    assert best["net_spend_ever"] == members["net_spend_ever"].median()
    assert f"{len(members):,} customers" in best["description"]
    assert f"{best['net_spend_ever']:,.0f} spent" in best["description"]
    bargain = described.filter(pl.col("segment_name").str.contains("bargain"))
    assert "more discounts" in bargain["sets_apart"].item()


def test_the_model_says_when_and_on_whom_it_was_fitted(model: SegmentModel) -> None:
    assert model.cutoff == CUTOFF.isoformat()
    assert model.customers == 1300
    assert model.search[0]["segments"] == 2
