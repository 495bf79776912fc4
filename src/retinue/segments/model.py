"""The segment model: a small JSON file of ours, and the one matrix product that places a customer."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from retinue.events.store import write_text
from retinue.schema import CUSTOMER_ID, CUTOFF, SCHEMA_VERSION, SEGMENT, InputError
from retinue.segments.scaling import Matrix, Scaler
from retinue.segments.traits import never_ordered, with_orders

NOT_ORDERED = 0
NOT_ORDERED_NAME = "Not ordered yet"
EVERYONE_NAME = "All customers"


@dataclass(frozen=True)
class SegmentModel:
    """Centroids in scaled units with identities, names and lineage; row i of each belongs together.

    `search` says for each number of segments tried how stable it was and why it was not taken; `lineage`
    holds the rows of the lineage table over all fits; identities below `next_id` are taken for ever.
    """

    scaler: Scaler
    traits: tuple[str, ...]
    centroids: tuple[tuple[float, ...], ...]
    ids: tuple[int, ...]
    names: tuple[str, ...]
    sets_apart: tuple[str, ...]
    typical_gap_days: float
    cutoff: str
    customers: int
    seed: int
    fit: int
    next_id: int
    search: list[dict[str, Any]] = field(default_factory=list)
    lineage: list[dict[str, Any]] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    def predict(self, features: pl.DataFrame) -> pl.DataFrame:
        """Segment of each customer, in row order: the nearest centroid, the lowest identity on a tie.

        Customers without an order get segment 0, which has no centroid.

        Returns:
            customer_id, cutoff, segment.
        """
        table = with_orders(features)
        ids = np.array(self.ids, dtype=np.int32)
        nearest = [ids[nearest_rows(m, self.matrix)] for m in self.scaler.chunks(table)]
        segment = pl.Series(SEGMENT, np.concatenate(nearest) if nearest else np.empty(0, np.int32), pl.Int32)
        placed = table.select(CUSTOMER_ID, CUTOFF).with_columns(segment)
        return placed.with_columns(
            pl.when(never_ordered(table))
            .then(pl.lit(NOT_ORDERED, dtype=pl.Int32))
            .otherwise(pl.col(SEGMENT))
            .alias(SEGMENT)
        )

    @property
    def matrix(self) -> Matrix:
        """Centroids (segments, features) in scaled units; a base of one segment may have no features."""
        return np.array(self.centroids, dtype=np.float64).reshape(len(self.ids), len(self.scaler.columns))

    def name_of(self, segment: int) -> str:
        """Plain name of an identity that this model holds."""
        return NOT_ORDERED_NAME if segment == NOT_ORDERED else self.names[self.ids.index(segment)]

    def save(self, path: Path) -> None:
        """Writes the model whole or not at all, as JSON that a person can read."""
        write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False), path)

    @classmethod
    def load(cls, path: Path) -> SegmentModel:
        """The model as saved.

        Raises:
            InputError: the file is absent, is not a segment model, or is of another schema version.
        """
        cure = "Give the segment_model.json of an earlier run, or leave segments.previous out."
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"segment model: {path} cannot be read ({type(error).__name__}). {cure}"
            ) from error
        version = kept.get("schema_version") if isinstance(kept, dict) else None
        if version != SCHEMA_VERSION:
            raise InputError(
                f"segment model: {path} has schema_version={version}, must be {SCHEMA_VERSION}. {cure}"
            )
        try:
            scaler = Scaler(**{name: tuple(values) for name, values in kept.pop("scaler").items()})
            centroids = tuple(tuple(row) for row in kept.pop("centroids"))
            kept |= {name: tuple(kept[name]) for name in ("traits", "ids", "names", "sets_apart")}
            return cls(scaler=scaler, centroids=centroids, **kept)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"segment model: {path} lacks or misnames a field ({error}). {cure}") from error


def nearest_rows(matrix: Matrix, centroids: Matrix) -> Matrix:
    """Index of the nearest centroid of each row, the first where several are as near to 1e-9.

    One product: the squared distance up to the row's own norm is |c|² - 2 x·c.

    Args:
        matrix: (rows, features).
        centroids: (segments, features).
    """
    points = torch.from_numpy(np.ascontiguousarray(matrix))
    centers = torch.from_numpy(np.ascontiguousarray(centroids))
    distance = (centers * centers).sum(1) - 2.0 * points @ centers.T  # (rows, segments)
    nearest: Matrix = torch.round(distance, decimals=9).argmin(1).numpy()
    return nearest
