"""Contracts are checked at the door."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime

import polars as pl
import pytest

from retinue.schema import AMOUNT, CUSTOMER_ID, CUTOFF, LIFECYCLE, SEGMENT, SEGMENT_NAME, SEGMENTS, InputError


def segments() -> pl.DataFrame:
    return pl.DataFrame(
        {
            CUSTOMER_ID: ["a", "b"],
            CUTOFF: [datetime(2014, 12, 31, tzinfo=UTC)] * 2,
            SEGMENT: [1, 2],
            SEGMENT_NAME: ["x", "y"],
            LIFECYCLE: ["new", "active"],
        },
        schema=SEGMENTS.schema,
    )


def test_a_good_table_passes_unchanged() -> None:
    frame = segments()
    assert SEGMENTS.check(frame) is frame


def test_missing_column_wrong_dtype_and_null_are_named() -> None:
    with pytest.raises(InputError, match="'lifecycle' is missing"):
        SEGMENTS.check(segments().drop(LIFECYCLE))
    with pytest.raises(InputError, match="'segment' is Int64, the contract says Int32"):
        SEGMENTS.check(segments().with_columns(pl.col(SEGMENT).cast(pl.Int64)))
    with pytest.raises(InputError, match="'segment_name' has 1 nulls"):
        SEGMENTS.check(
            segments().with_columns(pl.when(pl.col(SEGMENT) == 1).then(SEGMENT_NAME).alias(SEGMENT_NAME))
        )


def test_a_column_is_its_name_and_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(AMOUNT))
    assert (again, again.dtype, again.unit) == ("amount", pl.Float64(), AMOUNT.unit)
