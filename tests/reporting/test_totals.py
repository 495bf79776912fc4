"""The totals of the headline and their intervals, on customers whose variance is known."""

import math

import polars as pl
import pytest

from retinue.options import DecisionOptions
from retinue.reporting.tables import (
    as_wide_as,
    high_value_from,
    scored_customers,
    total_churners,
    total_spend,
    total_value,
)
from retinue.schema import (
    CLV,
    CLV_LOWER,
    CLV_UPPER,
    EXPECTED_SPEND,
    P_CHURN,
    QUADRANT,
    SPEND_DEVIATION,
    VALUE_IF_RETAINED,
)
from tests.reporting.factory import report_tables

Z = 1.6448536269514722


def customers(p: list[float], clv: list[float], half_width: float = 0.0) -> pl.DataFrame:
    return pl.DataFrame({P_CHURN: p, CLV: clv, EXPECTED_SPEND: clv}).with_columns(
        (pl.col(CLV) - half_width).alias(CLV_LOWER), (pl.col(CLV) + half_width).alias(CLV_UPPER)
    )


def test_variances_of_customers_add_up() -> None:
    """100 customers who come back with probability ½ and then bring 20: mean 1,000, variance 100 × 20² / 4."""
    value = total_value(customers([0.5] * 100, [10.0] * 100))
    assert value.mean == 1000
    assert value.upper - value.mean == pytest.approx(Z * math.sqrt(100 * 400 / 4))
    assert value.lower == pytest.approx(2000 - value.upper)


def test_the_own_interval_counts_where_it_is_wider() -> None:
    value = total_value(customers([0.0, 0.0], [100.0, 100.0], half_width=Z * 30))
    assert value.upper - value.mean == pytest.approx(Z * math.sqrt(2 * 900))


def test_the_spread_given_at_least_one_order_counts_where_it_is_known() -> None:
    """Zero or (mean 20, deviation 8), each with ½: variance 400/4 + 64/2."""
    known = customers([0.5] * 50, [10.0] * 50).with_columns(pl.lit(8.0).alias(SPEND_DEVIATION))
    value = total_value(known)
    assert value.upper - value.mean == pytest.approx(Z * math.sqrt(50 * (100 + 32)))


def test_the_interval_of_gross_value_stays_above_zero_and_that_of_a_loss_need_not() -> None:
    assert total_value(customers([0.9], [10.0], half_width=10.0)).lower == 0
    loss = total_value(customers([0.5], [-10.0], half_width=5.0))
    assert loss.lower < loss.mean == -10 < loss.upper


def test_certain_churn_adds_no_spread() -> None:
    value = total_value(customers([1.0], [0.0]))
    assert (value.mean, value.lower, value.upper) == (0, 0, 0)


def test_spend_is_not_discounted_and_its_spread_is_its_own() -> None:
    """clv is 9.5 of every 10 spent; 100 customers who bring 20 or nothing."""
    scored = customers([0.5] * 100, [9.5] * 100).with_columns(pl.lit(10.0).alias(EXPECTED_SPEND))
    spend = total_spend(scored, None, 90)
    assert (spend.mean, spend.from_past) == (1000, False)
    assert spend.upper - spend.mean == pytest.approx(Z * math.sqrt(100 * 400 / 4))
    known = scored.with_columns(pl.lit(8.0).alias(SPEND_DEVIATION))
    assert total_spend(known, None, 90).upper - 1000 == pytest.approx(Z * math.sqrt(100 * (100 + 32)))
    wide = customers([0.0], [5.0], half_width=Z * 3).with_columns(pl.lit(10.0).alias(EXPECTED_SPEND))
    assert total_spend(wide, None, 90).upper - 10 == pytest.approx(Z * 6)


def test_past_misses_stand_in_place_of_independent_luck() -> None:
    scored = customers([0.5] * 100, [9.5] * 100).with_columns(pl.lit(10.0).alias(EXPECTED_SPEND))
    metrics = {"totals": {"90": {"spend": {"expected": 1000.0, "lower": 800.0, "upper": 1250.0}}}}
    spend = total_spend(scored, metrics, 90)
    assert (spend.mean, spend.lower, spend.upper, spend.from_past) == (1000, 800, 1250, True)
    worth = as_wide_as(total_value(scored), spend)
    assert (worth.lower, worth.upper) == pytest.approx((760, 1187.5))
    assert not total_spend(scored, metrics, 365).from_past
    unknown = {"totals": {"90": {"spend": {"expected": 1000.0, "lower": None, "upper": None}}}}
    alone = total_spend(scored, unknown, 90)
    assert not alone.from_past
    assert as_wide_as(total_value(scored), alone) == total_value(scored)


def test_expected_churners_are_the_sum_of_risks() -> None:
    churners = total_churners(customers([0.2] * 100, [1.0] * 100))
    assert churners.mean == pytest.approx(20)
    assert churners.upper - churners.mean == pytest.approx(Z * math.sqrt(100 * 0.16))
    assert total_churners(customers([0.99], [1.0])).upper == 1


def test_one_row_per_customer_at_the_leading_horizon() -> None:
    tables = report_tables(60)
    scored = scored_customers(tables)
    assert scored.height == tables.features.height
    assert scored[QUADRANT].null_count() == 0


def test_the_value_line_is_the_least_value_that_was_called_high() -> None:
    scored = scored_customers(report_tables(60))
    line = high_value_from(scored, DecisionOptions())
    assert line is not None
    high = scored[QUADRANT].is_in(["save", "advocate"])
    assert ((scored[VALUE_IF_RETAINED] >= line) == high).all()
    assert high_value_from(scored, DecisionOptions(value_threshold=42.0)) == 42.0
    assert high_value_from(scored.head(0), DecisionOptions()) is None
