"""Identity from fit to fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from retinue.schema import LINEAGE, InputError
from retinue.segments import SegmentModel, assign, fit_segments, lineage, match, migration
from retinue.segments.lineage import centroid_distances, changes, identities
from tests.segments.planted import BARGAIN, CPU, LOST, LOYAL, ONCE, OPTIONS, WHALE, base

THREE = ((LOYAL, 300), (BARGAIN, 300), (ONCE, 400))
BEFORE = base(*THREE)


@pytest.fixture(scope="module")
def first() -> SegmentModel:
    return fit_segments(BEFORE, OPTIONS, 0, CPU)


def members(model: SegmentModel, table: pl.DataFrame, group: int) -> int:
    """Identity of the segment that most of a planted group is in."""
    placed = table.join(model.predict(table), on="customer_id")
    return int(placed.filter(pl.col("group") == group)["segment"].mode().item())


def changed(model: SegmentModel) -> dict[int, tuple[str, int | None]]:
    rows = lineage(model).filter(pl.col("fit") == model.fit)
    return {row["segment"]: (row["change"], row["other_segment"]) for row in rows.iter_rows(named=True)}


def test_first_fit_is_all_births(first: SegmentModel) -> None:
    table = LINEAGE.check(lineage(first))
    assert table["change"].to_list() == ["birth"] * 3
    assert (first.ids, first.next_id, first.fit) == ((1, 2, 3), 4, 1)


def test_a_small_change_keeps_identities_and_names(first: SegmentModel) -> None:
    later = base(*THREE, seed=9).with_columns(pl.col("net_spend_ever") * 1.05)
    second = fit_segments(later, OPTIONS, 1, CPU, first)
    for group in range(3):
        assert members(second, later, group) == members(first, BEFORE, group)
    assert dict(zip(second.ids, second.names, strict=True)) == dict(zip(first.ids, first.names, strict=True))
    assert {change for change, _ in changed(second).values()} == {"kept"}
    assert lineage(second).height == 6


def test_a_segment_keeps_the_name_it_had_unless_it_moved(first: SegmentModel) -> None:
    known = replace(first, names=("Our regulars", "Our strays", "Our hunters"))
    second = fit_segments(BEFORE.with_columns(pl.col("net_spend_ever") * 1.05), OPTIONS, 0, CPU, known)
    assert second.names == known.names
    moved = replace(known, centroids=(tuple(x - 1.0 for x in known.centroids[0]), *known.centroids[1:]))
    third = fit_segments(BEFORE, OPTIONS, 0, CPU, moved)
    assert third.ids == known.ids
    assert third.names == (first.names[0], *known.names[1:])


def test_a_fit_lies_at_no_distance_from_itself() -> None:
    table = BEFORE.with_columns(weekend_share=(pl.col("customer") % 7 < 3 + pl.col("group")) / 2)
    model = fit_segments(table, OPTIONS, 0, CPU)
    distances = centroid_distances(model, model)
    assert "weekend_share" in model.scaler.columns
    assert distances.diagonal().tolist() == pytest.approx([0.0] * len(model.ids), abs=1e-9)
    assert (distances + np.eye(len(model.ids)) > 0.5).all()


def test_the_order_of_centroids_does_not_carry_the_identity(first: SegmentModel) -> None:
    turned = replace(first, centroids=first.centroids[::-1], ids=(1, 2, 3))
    matching = match(first, turned, first.predict(BEFORE), turned.predict(BEFORE))
    assert identities(matching, first, 3) == first.ids[::-1]


def test_without_shared_customers_the_place_carries_the_identity(first: SegmentModel) -> None:
    turned = replace(first, centroids=first.centroids[::-1])
    others = BEFORE.with_columns(customer_id="x" + pl.col("customer_id"))
    matching = match(first, turned, first.predict(BEFORE), turned.predict(others))
    assert identities(matching, first, 3) == first.ids[::-1]
    far = replace(first, centroids=tuple(tuple(x + 2.0 for x in row) for row in first.centroids))
    assert not match(first, far, first.predict(BEFORE), far.predict(others)).heirs


def test_a_new_group_is_a_split_or_birth_with_a_number_never_used(first: SegmentModel) -> None:
    later = base(*THREE, (WHALE, 250))
    second = fit_segments(later, OPTIONS, 0, CPU, first)
    assert len(second.ids) == 4
    newcomer = members(second, later, 3)
    assert newcomer == 4
    assert changed(second)[newcomer][0] in {"birth", "split"}
    assert len(set(second.names)) == 4
    third = fit_segments(BEFORE, OPTIONS, 0, CPU, second)
    assert 4 not in third.ids
    fourth = fit_segments(later, OPTIONS, 0, CPU, third)
    assert members(fourth, later, 3) == 5


def test_a_split_names_its_parent(first: SegmentModel) -> None:
    later = base((LOYAL, 180), (BARGAIN, 300), (ONCE, 400), (LOST, 120))
    merged = replace(first, scaler=first.scaler)
    second = fit_segments(later, OPTIONS, 0, CPU, merged)
    parent = members(first, later, 0)
    assert members(first, later, 3) == parent
    assert members(second, later, 0) == parent
    assert changed(second)[members(second, later, 3)] == ("split", parent)


def test_a_merge_names_the_heir() -> None:
    both = base((LOYAL, 300), (BARGAIN, 200), (ONCE, 400))
    three = fit_segments(both, OPTIONS, 0, CPU)
    two = fit_segments(both, replace(OPTIONS, max_segments=2), 0, CPU, three)
    gone = set(three.ids) - set(two.ids)
    assert len(two.ids) == 2
    assert len(gone) == 1
    change, heir = changed(two)[gone.pop()]
    assert change == "merge"
    assert heir in two.ids


def test_a_segment_that_scatters_dies(first: SegmentModel) -> None:
    placed = first.predict(BEFORE)
    thirds = [first.ids[i % 3] for i in range(len(BEFORE))]
    scattered = placed.with_columns(pl.Series("segment", thirds, dtype=pl.Int32))
    matching = match(first, first, placed, scattered)
    assert matching.heirs == {}
    rows = changes(matching, first, replace(first, ids=(4, 5, 6)))
    assert [row["change"] for row in rows] == ["birth"] * 3 + ["death"] * 3


def test_migration_counts_every_customer_once(first: SegmentModel) -> None:
    before = assign(first, BEFORE.head(900), OPTIONS)
    moved = BEFORE.tail(950).with_columns(pl.col("days_since_last") + 4000.0)
    after = assign(first, moved, OPTIONS)
    table = migration(before, after)
    for dimension in ("segment", "lifecycle"):
        part = table.filter(pl.col("dimension") == dimension)
        assert part["customers"].sum() == 1000
        assert part.group_by("from").agg(pl.col("share").sum())["share"].to_list() == pytest.approx(
            [1.0] * part["from"].n_unique()
        )
        assert part.filter(pl.col("from") == "not there yet")["customers"].sum() == 100
        assert part.filter(pl.col("to") == "no longer there")["customers"].sum() == 50
    lapsed = table.filter(
        pl.col("dimension") == "lifecycle", pl.col("from") == "active", pl.col("to") == "lapsed"
    )
    assert lapsed["customers"].item() == len(BEFORE.head(900).tail(850).filter(pl.col("group") < 2))


def test_migration_wants_one_cutoff_at_a_time(first: SegmentModel) -> None:
    placed = assign(first, BEFORE, OPTIONS)
    with pytest.raises(InputError, match="'after' holds 1,000 customers more than once"):
        migration(placed, pl.concat([placed, placed]))
