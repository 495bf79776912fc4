"""Value × risk."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.decisions import quadrant_moves, quadrant_table, quadrants
from retinue.options import DecisionOptions
from retinue.schema import FORECASTS, InputError

CUTOFF = datetime(2014, 12, 31, tzinfo=UTC)
MONEY = DecisionOptions(value_threshold=100.0)


def forecasts(rows: list[tuple[float, float]], horizon_days: int = 365) -> pl.DataFrame:
    """One customer per (p_churn, clv)."""
    columns = {
        "customer_id": [f"c{i:03d}" for i in range(len(rows))],
        "cutoff": [CUTOFF] * len(rows),
        "horizon_days": [horizon_days] * len(rows),
        "model": ["bg_nbd"] * len(rows),
        "p_churn": [p for p, _ in rows],
        "expected_orders": [1.0] * len(rows),
        "expected_spend": [clv for _, clv in rows],
        "clv": [clv for _, clv in rows],
        "clv_lower": [0.0] * len(rows),
        "clv_upper": [clv for _, clv in rows],
        "next_order_days": [None] * len(rows),
    }
    return pl.DataFrame(columns, schema=FORECASTS.schema)


def test_the_four_corners() -> None:
    table = forecasts([(0.9, 20.0), (0.1, 180.0), (0.9, 5.0), (0.1, 18.0)])
    decided = quadrants(table, MONEY)
    assert decided["value_if_retained"].to_list() == pytest.approx([200.0, 200.0, 50.0, 20.0])
    assert decided["quadrant"].to_list() == ["save", "advocate", "let_go", "nurture"]
    assert decided["value_at_stake"].to_list() == pytest.approx([180.0, 20.0, 45.0, 2.0])


def test_both_thresholds_belong_to_the_high_side() -> None:
    decided = quadrants(
        forecasts([(0.75, 25.0), (0.75, 24.999), (0.7499, 25.01)]),
        DecisionOptions(risk_threshold=0.75, value_threshold=100.0),
    )
    assert decided["quadrant"].to_list() == ["save", "let_go", "advocate"]


def test_the_risk_in_clv_does_not_hide_a_valuable_customer() -> None:
    """By clv alone the customer at risk would be the least valuable of all."""
    decided = quadrants(forecasts([(0.95, 50.0), (0.1, 90.0), (0.1, 80.0), (0.1, 70.0)]), DecisionOptions())
    assert decided["quadrant"].to_list() == ["save", "nurture", "nurture", "nurture"]


def test_certain_churn_makes_no_fortune_and_losses_no_value() -> None:
    decided = quadrants(
        forecasts([(1.0, 1.0), (0.2, -50.0), (0.0, 0.0)]), DecisionOptions(value_threshold=0.0)
    )
    assert decided["value_if_retained"].to_list() == pytest.approx([1000.0, 0.0, 0.0])
    assert decided["quadrant"].to_list() == ["save", "nurture", "nurture"]


def test_only_the_longest_horizon_decides() -> None:
    both = pl.concat([forecasts([(0.9, 20.0)], 30), forecasts([(0.1, 180.0)], 365)])
    decided = quadrants(both, MONEY)
    assert decided.select("horizon_days", "quadrant").rows() == [(365, "advocate")]


def test_each_cutoff_has_its_own_quantile() -> None:
    now = forecasts([(0.0, 1.0), (0.0, 2.0), (0.0, 3.0)])
    later = now.with_columns(pl.col("cutoff").dt.offset_by("1d"), pl.col("clv") * 100)
    alone = quadrants(now, DecisionOptions(value_quantile=0.9))
    together = quadrants(pl.concat([now, later]), DecisionOptions(value_quantile=0.9))
    assert alone["quadrant"].to_list() == ["nurture", "nurture", "advocate"]
    assert together.filter(pl.col("cutoff") == CUTOFF).equals(alone)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (pl.concat([forecasts([(0.5, 1.0)])] * 2), "repeat a customer"),
        (forecasts([(float("nan"), 1.0)]), "'p_churn' has 1 values"),
        (forecasts([(0.5, float("inf"))]), "'clv' has 1 values"),
        (forecasts([(0.5, 1.0)]).drop("clv"), "column 'clv' is missing"),
    ],
)
def test_bad_forecasts_are_named(table: pl.DataFrame, said: str) -> None:
    with pytest.raises(InputError, match=said):
        quadrants(table, DecisionOptions())


CUSTOMERS = st.lists(st.tuples(st.floats(0, 1), st.floats(-100, 1e5)), min_size=1, max_size=30)
RANK = {"nurture": (0, 0), "let_go": (0, 1), "advocate": (1, 0), "save": (1, 1)}


@given(rows=CUSTOMERS, quantile=st.floats(0, 1), risk=st.floats(0, 1))
def test_everybody_is_in_one_quadrant_and_the_table_adds_up(
    rows: list[tuple[float, float]], quantile: float, risk: float
) -> None:
    table = forecasts(rows)
    decided = quadrants(table, DecisionOptions(risk_threshold=risk, value_quantile=quantile))
    assert decided["customer_id"].to_list() == table["customer_id"].to_list()
    summary = quadrant_table(table, decided)
    assert summary["quadrant"].to_list() == ["save", "advocate", "let_go", "nurture"]
    assert summary["customers"].sum() == len(rows)
    assert summary["share"].sum() == pytest.approx(1.0)
    assert summary["expected_churners"].sum() == pytest.approx(sum(p for p, _ in rows), abs=1e-9)
    assert summary["clv"].sum() == pytest.approx(sum(clv for _, clv in rows), abs=1e-6)
    assert summary["value_at_stake"].sum() == pytest.approx(decided["value_at_stake"].sum(), abs=1e-6)
    assert (decided["value_at_stake"] >= 0).all()


@given(p=st.floats(0, 0.999), riskier=st.floats(0, 0.999), value=st.floats(1e-6, 1e4))
def test_more_risk_never_moves_anybody_out_of_danger(p: float, riskier: float, value: float) -> None:
    """At the same value if retained, more risk raises the stake and lowers neither side."""
    low, high = sorted((p, riskier))
    decided = quadrants(
        forecasts([(low, value * (1 - low)), (high, value * (1 - high))]),
        DecisionOptions(value_threshold=value / 2),
    )
    before, after = (RANK[name] for name in decided["quadrant"])
    assert after[0] == before[0]
    assert after[1] >= before[1]
    assert decided["value_at_stake"][1] >= decided["value_at_stake"][0] - 1e-9


@given(rows=CUSTOMERS, seed=st.integers(0, 1000))
def test_row_order_changes_nothing(rows: list[tuple[float, float]], seed: int) -> None:
    table = forecasts(rows)
    shuffled = table.sample(fraction=1.0, shuffle=True, seed=seed)
    assert quadrants(shuffled, DecisionOptions()).equals(quadrants(table, DecisionOptions()))


def at(rows: list[tuple[float, float]], days_before: int) -> pl.DataFrame:
    return forecasts(rows).with_columns(pl.col("cutoff") - timedelta(days=days_before))


def test_who_crosses_a_threshold_moves_and_is_told_why() -> None:
    """Falls silent; orders; loses value at the same risk; moves on its own side of both thresholds; is new."""
    then = at([(0.3, 140.0), (0.9, 20.0), (0.1, 95.0), (0.2, 40.0)], 60)
    now = at([(0.8, 30.0), (0.2, 160.0), (0.1, 80.0), (0.6, 30.0), (0.9, 90.0)], 0)
    features = pl.DataFrame(
        {"customer_id": [f"c{i:03d}" for i in range(5)], "days_since_last": [95.0, 12.0, 30.0, 70.0, 2.0]}
    )
    moved = quadrant_moves(then, now, features, MONEY)
    assert moved.drop("dimension").rows() == [
        ("c000", "advocate", "save", "risk 30.0 % → 80.0 %, high from 70.0 %; no order for 95 days"),
        ("c001", "save", "advocate", "risk 90.0 % → 20.0 %, high from 70.0 %; an order since then"),
        (
            "c002", "advocate", "nurture",
            "value if retained 105.56 → 88.89, high from 100.0 (then 100.0); an order since then",
        ),
    ]  # fmt: skip


@given(
    st.lists(
        st.tuples(st.floats(0, 0.99), st.floats(0, 500), st.floats(0, 0.99), st.floats(0, 500)), min_size=1
    )
)
def test_exactly_those_whose_quadrant_is_another_move(rows: list[tuple[float, float, float, float]]) -> None:
    then, now = at([row[:2] for row in rows], 90), at([row[2:] for row in rows], 0)
    moved = quadrant_moves(then, now, now.select("customer_id"), MONEY)
    before, after = (quadrants(table, MONEY)["quadrant"] for table in (then, now))
    assert moved["customer_id"].to_list() == then.filter(before != after)["customer_id"].to_list()
    assert moved["why"].str.contains("high from").all()


def test_without_earlier_forecasts_nobody_moves() -> None:
    now = forecasts([(0.5, 10.0)])
    assert quadrant_moves(now.head(0), now, now.select("customer_id"), MONEY).is_empty()
