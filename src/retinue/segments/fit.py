"""Fitting the segments of a base, and placing its customers in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from retinue.accel.engine import EngineChoice
from retinue.options import SegmentOptions
from retinue.schema import (
    CUSTOMER,
    CUSTOMER_ID,
    CUTOFF,
    FEATURES,
    LIFECYCLE,
    SEGMENT,
    SEGMENT_NAME,
    SEGMENTS,
    InputError,
)
from retinue.segments.choice import Problem, choose_centroids
from retinue.segments.lifecycle import stages, typical_gap_days
from retinue.segments.lineage import Matching, centroid_distances, changes, first_births, identities, match
from retinue.segments.model import EVERYONE_NAME, NOT_ORDERED, NOT_ORDERED_NAME, SegmentModel, nearest_rows
from retinue.segments.naming import distinct_names, plain_name, portraits, sets_apart
from retinue.segments.scaling import Matrix, Scaler, fit_scaler
from retinue.segments.traits import Choice, Role, choose_traits, never_ordered, with_orders

MOVED = 0.75
SMALL_NOTE = "the base is too small to be cut up"


def fit_segments(
    features: pl.DataFrame,
    options: SegmentOptions,
    seed: int,
    engine: EngineChoice,
    previous: SegmentModel | None = None,
) -> SegmentModel:
    """Segments of the customers with an order, with the identities of the previous fit where they live on.

    Args:
        features: features table at one or more cutoffs; row order does not matter.
        options: number, sizes and stability of segments.
        seed: of starts and resamples.
        engine: where k-means runs.
        previous: the base's last model.

    Raises:
        InputError: the features lack a key or are empty.
    """
    buyers = _buyers(features)
    choices = choose_traits(buyers) if len(buyers) >= 2 * options.min_customers else []
    standing = 0 if previous is None else len(previous.ids)
    columns, logs = tuple(c.column for c in choices), tuple(c.trait.log for c in choices)
    weights = tuple(c.trait.weight for c in choices)
    scaler = fit_scaler(buyers, columns, logs, weights)
    centroids, search = _cut_up(buyers, scaler, choices, _Search(options, seed, engine, standing))
    model = SegmentModel(
        scaler=scaler,
        traits=tuple(choice.trait.name for choice in choices),
        centroids=tuple(tuple(float(x) for x in row) for row in centroids),
        ids=tuple(range(1, len(centroids) + 1)),
        names=("",) * len(centroids),
        sets_apart=("",) * len(centroids),
        typical_gap_days=typical_gap_days(buyers),
        cutoff=_last_cutoff(features),
        customers=len(buyers),
        seed=seed,
        fit=1 if previous is None else previous.fit + 1,
        next_id=len(centroids) + 1,
        search=search,
    )
    model = _by_spend(model, choices)
    model = _named(model, buyers, choices, options)
    return (
        replace(model, lineage=first_births(model))
        if previous is None
        else _next(model, buyers, choices, previous)
    )


def _buyers(features: pl.DataFrame) -> pl.DataFrame:
    """Customers with an order in a fixed order, so that the input's row order shows nowhere."""
    FEATURES.check(features)
    if features.is_empty():
        raise InputError("segments: the features table has no customers. Check cutoff and data.path.")
    table = with_orders(features)
    return table.filter(~never_ordered(table)).sort(CUSTOMER, CUSTOMER_ID, CUTOFF)


def _last_cutoff(features: pl.DataFrame) -> str:
    last = features[CUTOFF].max()
    assert isinstance(last, datetime)
    return last.isoformat()


@dataclass(frozen=True)
class _Search:
    options: SegmentOptions
    seed: int
    engine: EngineChoice
    standing: int


def _cut_up(
    buyers: pl.DataFrame, scaler: Scaler, choices: list[Choice], search: _Search
) -> tuple[Matrix, list[dict[str, Any]]]:
    if not choices:
        note = {
            "segments": 1,
            "stability": None,
            "unexplained": 1.0,
            "smallest_share": 1.0,
            "rejected": SMALL_NOTE,
        }
        return np.zeros((1, 0)), [note]
    matrix = np.concatenate(list(scaler.chunks(buyers)))

    def sizes(centroids: Matrix) -> npt.NDArray[np.int64]:
        return np.bincount(nearest_rows(matrix, centroids), minlength=len(centroids))

    tells = np.array([choice.trait.role is not Role.habit for choice in choices])
    return choose_centroids(
        Problem(matrix, tells, sizes, search.options, search.seed, search.engine, search.standing)
    )


def _by_spend(model: SegmentModel, choices: list[Choice]) -> SegmentModel:
    """The first identities in order of value: the best customers are segment 1."""
    value = [i for i, choice in enumerate(choices) if choice.trait.role is Role.value]
    order = sorted(
        range(len(model.ids)), key=lambda row: (-round(sum(model.centroids[row][i] for i in value), 6), row)
    )
    return replace(model, centroids=tuple(model.centroids[row] for row in order))


def _named(
    model: SegmentModel, buyers: pl.DataFrame, choices: list[Choice], options: SegmentOptions
) -> SegmentModel:
    """The model with a plain name of its own for each segment."""
    if len(model.ids) == 1:
        return replace(model, names=(EVERYONE_NAME,))
    placed = buyers.with_columns(model.predict(buyers)[SEGMENT])
    people = portraits(placed, model.ids, choices, model.typical_gap_days)
    names = [plain_name(portrait, options) for portrait in people]
    sizes = np.array([float((placed[SEGMENT] == i).sum()) for i in model.ids])
    return replace(
        model,
        names=tuple(distinct_names(names, model.matrix, choices, {NOT_ORDERED_NAME, EVERYONE_NAME})),
        sets_apart=tuple(sets_apart(model.matrix, sizes, choices)),
    )


def _next(
    model: SegmentModel, buyers: pl.DataFrame, choices: list[Choice], previous: SegmentModel
) -> SegmentModel:
    """The model with the identities of the previous fit and the lineage so far."""
    members_before = previous.predict(buyers)
    matching = match(previous, model, members_before, model.predict(buyers))
    ids = identities(matching, previous, len(model.ids))
    names = _lasting_names(model, choices, previous, matching)
    model = _by_identity(
        replace(model, ids=ids, names=names, next_id=max(previous.next_id, *(i + 1 for i in ids)))
    )
    matching = match(previous, model, members_before, model.predict(buyers))
    return replace(model, lineage=[*previous.lineage, *changes(matching, previous, model)])


def _lasting_names(
    model: SegmentModel, choices: list[Choice], previous: SegmentModel, matching: Matching
) -> tuple[str, ...]:
    """A segment that stayed where it was keeps its name; the others get names that differ from those."""
    distance = centroid_distances(previous, model)
    lasting = len(previous.ids) > 1 and len(model.ids) > 1
    kept = {
        row: previous.name_of(old)
        for old, row in matching.heirs.items()
        if lasting and distance[previous.ids.index(old), row] <= MOVED
    }
    others = [row for row in range(len(model.ids)) if row not in kept]
    taken = {*kept.values(), NOT_ORDERED_NAME}
    fresh = distinct_names([model.names[row] for row in others], model.matrix[others], choices, taken)
    names = kept | dict(zip(others, fresh, strict=True))
    return tuple(names[row] for row in range(len(model.ids)))


def _by_identity(model: SegmentModel) -> SegmentModel:
    """Rows in order of identity, so that a tie goes to the lowest."""
    order = sorted(range(len(model.ids)), key=lambda row: model.ids[row])
    return replace(
        model,
        centroids=tuple(model.centroids[row] for row in order),
        ids=tuple(model.ids[row] for row in order),
        names=tuple(model.names[row] for row in order),
        sets_apart=tuple(model.sets_apart[row] for row in order),
    )


def assign(model: SegmentModel, features: pl.DataFrame, options: SegmentOptions) -> pl.DataFrame:
    """Every customer's segment and lifecycle stage as the segments table, sorted by customer_id and cutoff.

    Args:
        model: the fit; its typical gap is the norm of one-time buyers, at any cutoff.
        features: features table, any row order.
        options: lifecycle thresholds.

    Raises:
        InputError: the features lack a key, or the lifecycle ratios do not ascend.
    """
    FEATURES.check(features)
    named = {NOT_ORDERED: NOT_ORDERED_NAME} | dict(zip(model.ids, model.names, strict=True))
    placed = model.predict(features).with_columns(
        pl.col(SEGMENT).replace_strict(named, return_dtype=pl.String).alias(SEGMENT_NAME),
        stages(features, options, model.typical_gap_days).alias(LIFECYCLE),
    )
    return SEGMENTS.check(placed.select(SEGMENTS.schema.names()).sort(CUSTOMER_ID, CUTOFF))
