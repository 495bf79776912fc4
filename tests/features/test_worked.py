"""Histories of a few rows whose features can be told by eye."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import log
from typing import Any

import pytest

from retinue.features import features_at
from tests.features.histories import Event, event, table

CUTOFF = datetime(2024, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


def at(month: int, day: int, hour: int = 12, year: int = 2024) -> datetime:
    return datetime(year, month, day, hour, tzinfo=UTC)


def only(*events: Event, zone: str = "UTC") -> dict[str, Any]:
    rows = features_at(table(events).lazy(), CUTOFF, zone).collect().to_dicts()
    assert len(rows) == 1
    return rows[0]


def test_orders_of_one_day_are_one_transaction() -> None:
    row = only(
        event("order", at(1, 1, 9), amount=10.0),
        event("order", at(1, 31, 9), amount=20.0),
        event("order", at(1, 31, 20), amount=40.0),
        event("order", at(3, 1), amount=30.0),
        event("refund", at(3, 5), amount=-30.0),
    )
    assert (row["frequency"], row["recency_days"], row["T_days"]) == (2.0, 60.0, 365.0)
    assert row["monetary_value"] == 45.0  # of 60 and 30; neither the first order nor the refund counts
    assert (row["orders_ever"], row["net_spend_ever"], row["refund_value_ever"]) == (4.0, 70.0, 30.0)
    assert (row["gap_mean_days"], row["gap_std_days"], row["gap_cv"]) == (30.0, 0.0, 0.0)
    assert row["silence_ratio"] == 305 / 30
    assert row["refund_rate_value"] == 0.3


def test_a_day_is_a_day_of_the_shoppers() -> None:
    """22:30 and 23:30 UTC are one evening in London in winter, and two days in Berlin."""
    events = (event("order", at(1, 1, 22)), event("order", at(1, 1, 23)))
    assert only(*events)["frequency"] == 0.0
    assert only(*events, zone="Europe/Berlin")["frequency"] == 1.0


def test_a_visitor_who_never_ordered_has_no_btyd_and_no_cohort() -> None:
    row = only(event("visit", at(12, 30)))
    unknown = (
        "frequency",
        "recency_days",
        "T_days",
        "monetary_value",
        "days_since_last",
        "average_order_value",
    )
    assert [row[name] for name in unknown] == [None] * 6
    assert (row["orders_ever"], row["net_spend_ever"], row["days_since_first_event"]) == (0.0, 0.0, 1.0)
    assert (row["lifetime_stage"], row["acquisition_month"], row["cohort_repeat_rate"]) == (
        "prospect",
        None,
        None,
    )


def test_orders_of_unknown_amount_have_unknown_spend() -> None:
    row = only(event("order", at(12, 30)), event("order", at(1, 1), amount=5.0))
    assert (row["net_spend_7d"], row["net_spend_ever"], row["average_order_value"]) == (None, 5.0, 5.0)


def test_an_exposure_is_answered_by_an_order_within_a_week() -> None:
    row = only(
        event("campaign", at(5, 1)),
        event("order", at(5, 8)),
        event("campaign", at(6, 1)),
        event("order", at(6, 8) + timedelta(microseconds=1)),
        event("campaign", at(12, 30)),
    )
    assert (row["campaign_exposures_ever"], row["orders_after_exposure"]) == (3.0, 1.0)
    assert row["campaign_response_rate"] == 0.5  # the third is too young to tell
    assert row["days_since_last_response"] == 237.0


def test_a_cart_is_abandoned_without_an_order_that_day_or_the_next() -> None:
    row = only(
        event("cart", at(5, 1)), event("order", at(5, 2)),
        event("cart", at(6, 1)), event("order", at(6, 3)),
        event("cart", at(12, 31)),
    )  # fmt: skip
    assert row["cart_abandonment"] == 0.5


def test_the_first_resolution_answers_the_first_ticket() -> None:
    row = only(
        event("ticket_opened", at(5, 1), severity=0.2),
        event("ticket_opened", at(5, 2), severity=0.9),
        event("ticket_resolved", at(5, 3)),
    )
    assert (row["open_tickets"], row["unresolved_severe_ticket"], row["resolution_hours"]) == (1.0, 1.0, 48.0)


def test_a_subscription_runs_until_it_is_cancelled() -> None:
    started = [
        event("subscription_start", at(9, 1)),
        event("subscription_renew", at(10, 1)),
        event("subscription_renew", at(11, 1)),
    ]
    running, ended = only(*started), only(*started, event("subscription_cancel", at(11, 15)))
    assert (running["subscription_active"], ended["subscription_active"]) == (1.0, 0.0)
    assert running["days_to_renewal"] == pytest.approx(30.5 - 60.5, abs=1e-6)
    assert ended["days_to_renewal"] is None
    assert ended["subscription_months"] == pytest.approx(75 / (365.25 / 12))


def test_baskets_spread_over_categories() -> None:
    row = only(
        *(event("order", at(m, 1), category=c) for m, c in ((1, "a"), (2, "a"), (11, "b"), (12, None)))
    )
    assert row["basket_diversity"] == pytest.approx(-(2 / 3 * log(2 / 3) + 1 / 3 * log(1 / 3)))
    assert (row["top_category_share"], row["category_concentration"]) == (2 / 3, 1 / 3)
    assert (row["categories_ever"], row["categories_180d"], row["holiday_season_share"]) == (2.0, 1.0, 0.5)


def test_a_price_is_held_against_its_category_in_the_base() -> None:
    cheap, dear = (
        event("order", at(1, 1), i, amount=a, quantity=2.0, category="a") for i, a in ((1, 10.0), (2, 40.0))
    )
    got = features_at(table([cheap, dear]).lazy(), CUTOFF).collect()
    assert got["price_level"].to_list() == pytest.approx([0.5, 2.0])  # the geometric mean unit price is 10


def test_a_customer_is_held_against_those_of_the_same_month() -> None:
    again = [event("order", at(1, d), 1) for d in (1, 5, 9, 13)]
    others = [event("order", at(1, 20), 2), event("order", at(2, 1), 3)]
    got = features_at(table(again + others).lazy(), CUTOFF).collect()
    assert got["cohort_repeat_rate"].to_list() == [0.5, 0.5, 0.0]
    assert got["cohort_mean_frequency"].to_list() == [1.5, 1.5, 0.0]
    assert got["frequency_to_cohort"].to_list() == [2.0, 0.0, None]


def test_the_peak_season_is_the_month_with_most_orders() -> None:
    """Every whole month of two years has one order, March and November two; December 2024 is not over at the cutoff."""
    months = [at(m, 3, year=y) for y in (2023, 2024) for m in range(1, 13)]
    extra = [at(m, 5, year=y) for y in (2023, 2024) for m in (3, 11)] + [at(12, d) for d in range(4, 30)]
    orders = [event("order", when) for when in months + extra]
    assert only(*orders)["days_to_peak_season"] == 60.0  # 31 December 2024 to 1 March 2025
    assert only(*orders[6:12])["days_to_peak_season"] is None  # half a year says nothing of the year
