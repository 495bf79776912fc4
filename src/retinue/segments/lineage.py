"""Identity from fit to fit: which new segment is which old one, and what became of the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from scipy.optimize import linear_sum_assignment

from retinue.schema import (
    CHANGE,
    CUSTOMER_ID,
    CUTOFF,
    FIT,
    LINEAGE,
    OTHER_SEGMENT,
    OVERLAP,
    SEGMENT,
    SEGMENT_NAME,
)
from retinue.segments.model import SegmentModel
from retinue.segments.scaling import Matrix

SAME_MEMBERS = 1 / 3
MOST_MEMBERS = 0.5
SAME_PLACE = 0.5
WEIGHT_OF_MEMBERS = 0.75


@dataclass(frozen=True)
class Matching:
    """How the segments of two fits go together.

    `heirs` maps old identities to the new model's rows; the shared-member counts are (old segments, new
    segments), in the models' own order.
    """

    heirs: dict[int, int]
    shared: Matrix
    jaccard: Matrix

    @property
    def from_old(self) -> Matrix:
        """Share of each new segment's shared members that came from each old one, (old, new)."""
        shares: Matrix = self.shared / np.maximum(self.shared.sum(axis=0, keepdims=True), 1.0)
        return shares

    @property
    def to_new(self) -> Matrix:
        """Share of each old segment's shared members that went to each new one, (old, new)."""
        shares: Matrix = self.shared / np.maximum(self.shared.sum(axis=1, keepdims=True), 1.0)
        return shares


def match(
    previous: SegmentModel, new: SegmentModel, members_before: pl.DataFrame, members_new: pl.DataFrame
) -> Matching:
    """Optimal one-to-one matching on shared members (Jaccard) and nearness of centroids (Kuhn 1955).

    A pair is accepted where the shared members are more than half of the mean size of the two (Dice 1945; a
    Jaccard above 1/3), or, if the two fits share no customer at all, where the centroids lie within half a
    scaled unit of each other.

    Args:
        previous: the earlier model.
        new: the later model; its identities are not looked at beyond `members_new`.
        members_before: customer_id, cutoff, segment by the earlier model.
        members_new: the same by the later model.
    """
    shared, either = _overlap(previous, new, members_before, members_new)
    jaccard = shared / np.maximum(either, 1.0)
    distance = centroid_distances(previous, new)
    score = WEIGHT_OF_MEMBERS * jaccard + (1 - WEIGHT_OF_MEMBERS) * np.exp(-distance)
    rows, columns = linear_sum_assignment(-np.round(score, 9))
    by_members = bool(shared.sum() > 0)
    accepted = jaccard > SAME_MEMBERS if by_members else distance <= SAME_PLACE
    heirs = {previous.ids[i]: int(j) for i, j in zip(rows, columns, strict=True) if accepted[i, j]}
    return Matching(heirs, shared, jaccard)


def _overlap(
    previous: SegmentModel, new: SegmentModel, members_before: pl.DataFrame, members_new: pl.DataFrame
) -> tuple[Matrix, Matrix]:
    keys = [str(CUSTOMER_ID)]
    if members_before[CUTOFF].n_unique() > 1 or members_new[CUTOFF].n_unique() > 1:
        keys.append(str(CUTOFF))
    both = members_before.join(members_new, on=keys, suffix="_new")
    counts = {
        (old, later): count
        for old, later, count in both.group_by(SEGMENT, f"{SEGMENT}_new")
        .len()
        .sort(SEGMENT, f"{SEGMENT}_new")
        .rows()
    }
    shared = np.array([[counts.get((i, j), 0) for j in new.ids] for i in previous.ids], dtype=np.float64)
    either = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0, keepdims=True) - shared
    return shared, either


def centroid_distances(previous: SegmentModel, new: SegmentModel) -> Matrix:
    """Root mean square distance over common features in the earlier model's units, (old, new), or inf."""
    old, later = previous.scaler, new.scaler
    common = [
        (old.columns.index(name), later.columns.index(name))
        for name in old.columns
        if name in later.columns
        and old.logs[old.columns.index(name)] == later.logs[later.columns.index(name)]
    ]
    if not common:
        return np.full((len(previous.ids), len(new.ids)), np.inf)
    i, j = (list(side) for side in zip(*common, strict=True))
    stretch = np.array(later.scales)[j] / np.array(later.weights)[j]
    unscaled = new.matrix[:, j] * stretch + np.array(later.centers)[j]
    moved = (unscaled - np.array(old.centers)[i]) / np.array(old.scales)[i] * np.array(old.weights)[i]
    apart = previous.matrix[:, i][:, None, :] - moved[None, :, :]  # (old, new, features)
    distance: Matrix = np.sqrt((apart**2).mean(axis=2))
    return distance


def identities(matching: Matching, previous: SegmentModel, segments: int) -> tuple[int, ...]:
    """Identity of each row of the new model: an heir keeps the old one, others get numbers never used."""
    owner = {row: old for old, row in matching.heirs.items()}
    fresh = iter(range(previous.next_id, previous.next_id + segments))
    return tuple(owner[row] if row in owner else next(fresh) for row in range(segments))


def changes(matching: Matching, previous: SegmentModel, new: SegmentModel) -> list[dict[str, Any]]:
    """Rows of the lineage table for the later fit; `new` bears its final identities."""
    rows: list[dict[str, Any]] = []
    for j, segment in enumerate(new.ids):
        if segment in matching.heirs:
            overlap = float(matching.jaccard[previous.ids.index(segment), j])
            rows.append(_row(new, "kept", segment, new.names[j], None, overlap))
            continue
        share, parent = _largest(matching.from_old[:, j], previous.ids)
        if share > MOST_MEMBERS:
            rows.append(_row(new, "split", segment, new.names[j], parent, share))
        else:
            rows.append(_row(new, "birth", segment, new.names[j], None, None))
    return rows + list(_ends(matching, previous, new))


def _ends(matching: Matching, previous: SegmentModel, new: SegmentModel) -> Iterator[dict[str, Any]]:
    for i, segment in enumerate(previous.ids):
        if segment in matching.heirs:
            continue
        share, heir = _largest(matching.to_new[i], new.ids)
        if share > MOST_MEMBERS:
            yield _row(new, "merge", segment, previous.names[i], heir, share)
        else:
            yield _row(new, "death", segment, previous.names[i], None, None)


def _largest(shares: Matrix, ids: tuple[int, ...]) -> tuple[float, int]:
    best = int(np.argmax(shares))
    return float(shares[best]), ids[best]


def _row(
    new: SegmentModel, change: str, segment: int, name: str, other: int | None, overlap: float | None
) -> dict[str, Any]:
    return {
        str(FIT): new.fit, str(CUTOFF): new.cutoff, str(CHANGE): change, str(SEGMENT): segment,
        str(SEGMENT_NAME): name, str(OTHER_SEGMENT): other,
        str(OVERLAP): None if overlap is None else round(overlap, 9),
    }  # fmt: skip


def first_births(new: SegmentModel) -> list[dict[str, Any]]:
    """Lineage rows of a base's first fit."""
    return [_row(new, "birth", i, name, None, None) for i, name in zip(new.ids, new.names, strict=True)]


def lineage(model: SegmentModel) -> pl.DataFrame:
    """All changes over all fits as the lineage table, oldest first."""
    rows = [{**row, CUTOFF: datetime.fromisoformat(row[CUTOFF])} for row in model.lineage]
    return LINEAGE.check(pl.DataFrame(rows, schema=LINEAGE.schema))
