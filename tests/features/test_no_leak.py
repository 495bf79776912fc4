from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from retinue.features import CATALOGUE, Family, features_at
from retinue.schema import CUSTOMER_ID, KNOWN_EVENT_TYPES
from tests.features.histories import CUTOFF, ZONE, Event, event, history, table

BASE = history(3)
OF_OTHERS = {f.name for f in CATALOGUE if f.family in {Family.cohort, Family.calendar}} | {"price_level"}


def features(events: list[Event]) -> pl.DataFrame:
    return features_at(table(events).lazy(), CUTOFF, ZONE).collect()


WANTED = features(BASE)
happenings = st.tuples(
    st.sampled_from(KNOWN_EVENT_TYPES), st.integers(1, 9), st.integers(1, 400 * 86_400_000_000), st.booleans()
)


@settings(max_examples=25, deadline=None)
@given(st.lists(happenings, min_size=1, max_size=6))
def test_events_after_the_cutoff_or_known_after_it_change_nothing(
    more: list[tuple[str, int, int, bool]],
) -> None:
    later = []
    for kind, customer, microseconds, known_late in more:
        shift = timedelta(microseconds=microseconds)
        times = (CUTOFF - shift, CUTOFF + shift) if known_late else (CUTOFF + shift, CUTOFF - shift)
        values = {
            "amount": 1e6,
            "quantity": 1e3,
            "category": "a",
            "discount": 9.0,
            "rating": 5.0,
            "channel": "web",
        }
        later.append(event(kind, times[0], customer, known_time=times[1], **values))
    assert_frame_equal(features(BASE + later), WANTED, rel_tol=1e-9, abs_tol=1e-12)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 8))
def test_another_customers_events_change_only_what_speaks_of_the_base(seed: int, customer: int) -> None:
    mine = [e for e in BASE if e["customer"] == customer]
    others = [
        e | {"customer": 100 + e["customer"], "customer_id": f"x{e['customer']}"} for e in history(seed)
    ]
    alone, among = (
        features(rows).filter(pl.col(CUSTOMER_ID) == f"c{customer}") for rows in (mine, mine + others)
    )
    assert_frame_equal(alone.drop(OF_OTHERS), among.drop(OF_OTHERS), rel_tol=1e-9, abs_tol=1e-12)


def test_an_event_at_the_cutoff_is_history_and_one_just_after_is_not() -> None:
    tick = timedelta(microseconds=1)
    at, after = (features([event("order", CUTOFF + shift)]) for shift in (timedelta(0), tick))
    assert at.select("frequency", "T_days", "orders_7d").row(0) == (0.0, 0.0, 1.0)
    assert after.is_empty()


@pytest.mark.parametrize("days", [7, 30, 90, 180, 365])
def test_a_window_holds_its_days_and_no_microsecond_more(days: int) -> None:
    edge, inside = CUTOFF - timedelta(days=days), CUTOFF - timedelta(days=days) + timedelta(microseconds=1)
    got = features([event("order", edge, 1), event("order", inside, 2)])
    assert got[f"orders_{days}d"].to_list() == [0.0, 1.0]


def test_a_refund_known_later_does_not_reach_back() -> None:
    order = event("order", CUTOFF - timedelta(days=9), amount=50.0)
    refund = event("refund", CUTOFF - timedelta(days=8), amount=-50.0, known_time=CUTOFF + timedelta(days=1))
    assert features([order, refund])["net_spend_ever"].to_list() == [50.0]
