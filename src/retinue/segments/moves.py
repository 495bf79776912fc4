"""Who changed place between two cutoffs, and which feature carried them over the boundary."""

from __future__ import annotations

import numpy as np
import polars as pl

from retinue.options import SegmentOptions
from retinue.schema import (
    CUSTOMER_ID,
    DIMENSION,
    FROM_GROUP,
    LIFECYCLE,
    MOVES,
    SEGMENT_NAME,
    TO_GROUP,
    WHY,
)
from retinue.segments.lifecycle import silence
from retinue.segments.model import SegmentModel
from retinue.segments.traits import with_orders

MOST_NAMED = 2


def moves(
    model: SegmentModel,
    before: tuple[pl.DataFrame, pl.DataFrame],
    now: tuple[pl.DataFrame, pl.DataFrame],
    options: SegmentOptions,
) -> pl.DataFrame:
    """The `moves` table: customers there at both cutoffs whose lifecycle stage or segment is another, with the reason.

    A stage changes only where silence (or age, or consent) crosses its threshold, a segment only where the features it is made
    of do: who has the same features is where they were.

    Args:
        model: that placed both.
        before: features and segments of the earlier cutoff, by the same model.
        now: the same of the later one.
        options: the thresholds of the stages.
    """
    features, segments = zip(before, now, strict=True)
    both = segments[0].join(segments[1], on=CUSTOMER_ID, suffix=" now")
    parts = []
    for dimension, column in (("lifecycle", LIFECYCLE), ("segment", SEGMENT_NAME)):
        changed = both.filter(pl.col(column) != pl.col(f"{column} now"))
        who = changed.select(CUSTOMER_ID)
        sides = [who.join(frame, on=CUSTOMER_ID, how="left", maintain_order="left") for frame in features]
        why = (
            _stage_reasons(sides[1], changed[f"{LIFECYCLE} now"], options, model.typical_gap_days)
            if column == LIFECYCLE
            else _segment_reasons(model, sides[0], sides[1])
        )
        parts.append(
            changed.select(
                CUSTOMER_ID,
                pl.lit(dimension).alias(DIMENSION),
                pl.col(column).alias(FROM_GROUP),
                pl.col(f"{column} now").alias(TO_GROUP),
                pl.Series(WHY, why, dtype=pl.String),
            )
        )
    return MOVES.check(pl.concat(parts).sort(CUSTOMER_ID, DIMENSION))


def _stage_reasons(
    features: pl.DataFrame, stages: pl.Series, options: SegmentOptions, typical_gap: float
) -> list[str]:
    """What put each customer into the stage of now."""
    from_on = {
        "cooling": options.cooling_ratio,
        "dormant": options.dormant_ratio,
        "lapsed": options.lapsed_ratio,
    }
    ratios = silence(features, typical_gap)
    table = with_orders(features)
    days = (
        table["days_since_last"] if "days_since_last" in table.columns else pl.Series([None] * table.height)
    )
    told = []
    for stage, ratio, silent in zip(stages, ratios, days, strict=True):
        of = (
            f"silent for {silent:,.0f} days, {ratio:.1f}× own norm"
            if silent is not None and ratio is not None
            else "silent"
        )
        match stage:
            case "suppressed":
                told.append("consent was withdrawn")
            case "active":
                told.append(f"{of}: within {options.cooling_ratio:g}×")
            case "new":
                told.append(f"first order less than {options.new_days} days ago")
            case _:
                told.append(f"{of}: above {from_on[stage]:g}×")
    return told


def _segment_reasons(model: SegmentModel, before: pl.DataFrame, now: pl.DataFrame) -> list[str]:
    """The features that moved most, in the units that segments are made in."""
    columns = model.scaler.columns
    if not now.height:
        return []
    sides = [with_orders(frame) for frame in (before, now)]
    scaled = [np.vstack(list(model.scaler.chunks(frame))) for frame in sides]
    apart = np.abs(scaled[1] - scaled[0])
    order = np.argsort(-apart, axis=1, kind="stable")[:, :MOST_NAMED]
    known = [
        frame.select(
            (pl.col(name) if name in frame.columns else pl.lit(None)).cast(pl.Float64).alias(name)
            for name in columns
        ).to_dicts()
        for frame in sides
    ]
    told = []
    for row, places in enumerate(order):
        names = [columns[place] for place in places if apart[row, place] > 0]
        clauses = [
            f"{name} {_number(known[0][row][name])} → {_number(known[1][row][name])}" for name in names
        ]
        told.append("; ".join(clauses) or "orders came to be known")
    return told


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.3g}" if abs(value) < 1_000 else f"{value:,.0f}"
