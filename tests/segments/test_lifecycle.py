"""Stages against one's own norm."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.options import SegmentOptions
from retinue.schema import InputError
from retinue.segments.lifecycle import STAGES, silence, stages, typical_gap_days

OPTIONS = SegmentOptions()


def table(**columns: Sequence[float | None]) -> pl.DataFrame:
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.Float64))


def test_typical_gap_counts_each_repeat_buyer_once() -> None:
    buyers = table(frequency=[1.0, 100.0, 2.0, 0.0], recency_days=[30.0, 100.0, 120.0, 0.0])
    assert typical_gap_days(buyers) == 30.0
    assert typical_gap_days(buyers.tail(1)) == 90.0


def test_own_norm_is_shrunk_towards_the_base() -> None:
    buyers = table(
        frequency=[0.0, 1.0, 8.0], recency_days=[0.0, 10.0, 80.0], days_since_last=[60.0, 60.0, 60.0]
    )
    # norms with a typical gap of 40: 40; (10 + 2·40) / 3 = 30; (80 + 80) / 10 = 16
    assert silence(buyers, 40.0).to_list() == pytest.approx([1.5, 2.0, 3.75])


def test_stages_at_their_edges() -> None:
    days = [60.0, 60.1, 120.0, 120.1, 240.0, 240.1]
    buyers = table(frequency=[0.0] * 6, recency_days=[0.0] * 6, days_since_last=days, T_days=[300.0] * 6)
    expected = ["active", "cooling", "cooling", "dormant", "dormant", "lapsed"]
    assert stages(buyers, OPTIONS, 40.0).to_list() == expected


def test_the_young_are_new_however_silent() -> None:
    buyers = table(
        frequency=[0.0, 0.0], recency_days=[0.0, 0.0], days_since_last=[89.0, 90.0], T_days=[89.0, 90.0]
    )
    assert stages(buyers, OPTIONS, 10.0).to_list() == ["new", "lapsed"]


def test_who_never_ordered_is_judged_by_the_first_event() -> None:
    visitors = table(
        frequency=[None] * 3, recency_days=[None] * 3, days_since_last=[None] * 3, T_days=[None] * 3,
        days_since_first_event=[5.0, 1000.0, None],
    )  # fmt: skip
    assert stages(visitors, OPTIONS, 40.0).to_list() == ["new", "lapsed", "new"]


def test_suppressed_above_all_where_a_flag_says_so() -> None:
    buyers = pl.DataFrame(
        {"frequency": [0.0] * 3, "recency_days": [0.0] * 3, "days_since_last": [9.0] * 3, "T_days": [9.0] * 3}
    )
    flags = [True, False, None]
    expected = ["suppressed", "new", "new"]
    assert stages(buyers.with_columns(suppressed=pl.Series(flags)), OPTIONS, 40.0).to_list() == expected
    assert (
        stages(buyers.with_columns(consent_withdrawn=pl.Series(flags)), OPTIONS, 40.0).to_list() == expected
    )
    consent = buyers.with_columns(consent=pl.Series([False, True, None]))
    assert stages(consent, OPTIONS, 40.0).to_list() == expected


def test_ratios_must_ascend() -> None:
    buyers = table(frequency=[0.0], recency_days=[0.0], days_since_last=[9.0], T_days=[9.0])
    with pytest.raises(InputError, match="must ascend"):
        stages(buyers, SegmentOptions(dormant_ratio=1.0), 40.0)


@given(
    frequency=st.integers(0, 50), gap=st.floats(0.5, 400), older=st.floats(0, 2000), longer=st.floats(0, 2000),
    typical=st.floats(1, 400),
)  # fmt: skip
def test_a_longer_silence_never_brings_anybody_back(
    frequency: int, gap: float, older: float, longer: float, typical: float
) -> None:
    short, long = sorted((older, longer))
    buyers = table(
        frequency=[float(frequency)] * 2,
        recency_days=[frequency * gap] * 2,
        days_since_last=[short, long],
        T_days=[5000.0] * 2,
    )
    before, after = stages(buyers, OPTIONS, typical).to_list()
    assert STAGES.index(before) <= STAGES.index(after)
