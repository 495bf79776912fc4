"""Who moves between two cutoffs: those whose features crossed a boundary, and no others."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from retinue.options import SegmentOptions
from retinue.schema import MOVES
from retinue.segments.fit import assign, fit_segments
from retinue.segments.lifecycle import stages
from retinue.segments.moves import moves
from tests.segments.planted import CPU

EARLIER, LATER = datetime(2014, 9, 30, tzinfo=UTC), datetime(2014, 12, 31, tzinfo=UTC)
OPTIONS = SegmentOptions(max_segments=4, bootstraps=2)


def features(cutoff: datetime, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    count = 400
    big = rng.random(count) < 0.5
    frequency = np.where(big, rng.integers(15, 30, count), rng.integers(1, 4, count))
    return pl.DataFrame(
        {
            "customer_id": [f"c{i:04d}" for i in range(count)], "customer": np.arange(count),
            "cutoff": [cutoff] * count, "frequency": frequency,
            "recency_days": frequency * np.where(big, 12, 40), "T_days": 900 + np.arange(count),
            "days_since_last": rng.integers(0, 60, count).astype(float), "orders_ever": frequency + 1.0,
            "net_spend_ever": frequency * np.where(big, 80.0, 20.0), "suppressed": np.zeros(count),
        },
        schema_overrides={"cutoff": pl.Datetime("us", "UTC")},
    )  # fmt: skip


def changed(rows: pl.DataFrame, **columns: dict[str, float]) -> pl.DataFrame:
    """The table a quarter later, with some customers' columns set."""
    for name, values in columns.items():
        rows = rows.with_columns(
            pl.col("customer_id")
            .replace_strict(values, default=pl.col(name), return_dtype=rows.schema[name])
            .alias(name)
        )
    return rows.with_columns(pl.lit(LATER).cast(pl.Datetime("us", "UTC")).alias("cutoff"))


def moved(later: pl.DataFrame) -> pl.DataFrame:
    earlier = features(EARLIER)
    model = fit_segments(earlier, OPTIONS, 0, CPU)
    sides = [(table, assign(model, table, OPTIONS)) for table in (earlier, later)]
    return MOVES.check(moves(model, sides[0], sides[1], OPTIONS))


def test_nobody_moves_whose_features_stay() -> None:
    assert moved(changed(features(EARLIER))).is_empty()


def test_who_falls_silent_cools_and_the_reason_is_the_silence() -> None:
    found = moved(changed(features(EARLIER), days_since_last={"c0007": 2_000.0}))
    stage = found.filter(pl.col("dimension") == "lifecycle").to_dicts()
    assert [(row["customer_id"], row["to"]) for row in stage] == [("c0007", "lapsed")]
    assert stage[0]["why"].startswith("silent for 2,000 days")
    assert stage[0]["why"].endswith("own norm: above 6×")


def test_who_buys_much_more_changes_segment_and_the_reason_is_what_moved() -> None:
    small = features(EARLIER).filter(pl.col("frequency") < 4)["customer_id"][0]
    found = moved(
        changed(
            features(EARLIER),
            orders_ever={small: 31.0},
            net_spend_ever={small: 2_500.0},
            frequency={small: 30},
        )
    )
    segment = found.filter(pl.col("dimension") == "segment").to_dicts()
    assert [row["customer_id"] for row in segment] == [small]
    assert "→" in segment[0]["why"]
    assert "31" in segment[0]["why"] or "2,500" in segment[0]["why"]


def test_a_withdrawal_suppresses() -> None:
    found = moved(changed(features(EARLIER), suppressed={"c0003": 1.0}))
    assert found.select("customer_id", "to", "why").rows() == [
        ("c0003", "suppressed", "consent was withdrawn")
    ]


@pytest.mark.parametrize("seed", range(5))
def test_moves_are_just_the_differences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    who = [f"c{i:04d}" for i in rng.choice(400, 60, replace=False)]
    later = changed(
        features(EARLIER), days_since_last=dict(zip(who, rng.integers(0, 900, 60).astype(float), strict=True))
    )
    earlier = features(EARLIER)
    model = fit_segments(earlier, OPTIONS, 0, CPU)
    found = moved(later).filter(pl.col("dimension") == "lifecycle")["customer_id"].to_list()
    gap = model.typical_gap_days
    other = stages(earlier, OPTIONS, gap) != stages(later, OPTIONS, gap)
    assert found == earlier.filter(other)["customer_id"].sort().to_list()
    assert set(found) <= set(who)
