"""What came true, and the scores that metrics.json holds."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from retinue.evaluation.realised import evaluate, realised
from retinue.schema import (
    AMOUNT,
    BASE,
    CUSTOMER,
    CUSTOMER_ID,
    CUTOFF,
    EVENT_TIME,
    EVENT_TYPE,
    FORECASTS,
    HORIZON_DAYS,
    KNOWN_TIME,
    ORDERS_SHAPE,
    REALISED,
    REALISED_ORDERS,
    REALISED_SPEND,
    SPEND_DEVIATION,
    UTC_TIME,
    InputError,
)

AT = datetime(2020, 1, 31, 23, 59, 59, 999999, UTC)


def events(*rows: tuple[str, str, str, float | None]) -> pl.LazyFrame:
    """customer, time, type, amount."""
    frame = pl.DataFrame(rows, schema=["id", "time", "type", "amount"], orient="row")
    time = pl.col("time").str.to_datetime("%Y-%m-%dT%H:%M", time_unit="us", time_zone="UTC")
    return frame.lazy().select(
        pl.lit("base").alias(BASE),
        pl.col("id").alias(CUSTOMER_ID),
        pl.col("id").str.len_bytes().cast(pl.Int64).alias(CUSTOMER),
        time.alias(EVENT_TIME),
        time.alias(KNOWN_TIME),
        pl.col("type").alias(EVENT_TYPE),
        pl.col("amount").cast(pl.Float64).alias(AMOUNT),
    )


STORY = events(
    ("a", "2020-01-05T10:00", "order", 10.0),
    ("a", "2020-02-01T00:00", "order", 20.0),
    ("a", "2020-02-01T23:00", "order", 5.0),
    ("a", "2020-02-03T09:00", "refund", -4.0),
    ("a", "2020-03-20T09:00", "order", 99.0),  # beyond the horizon
    ("bb", "2020-01-31T23:59", "order", None),
    ("bb", "2020-02-05T00:00", "visit", None),
    ("ccc", "2020-02-02T00:00", "order", 50.0),  # a new customer is nobody's forecast
    ("dddd", "2020-01-02T00:00", "visit", None),
    ("eeeee", "2020-01-02T00:00", "order", 7.0),
    ("eeeee", "2020-02-02T00:00", "order", None),
)


def test_realised_counts_order_days_and_net_spend_of_known_customers() -> None:
    table = REALISED.check(realised(STORY, AT, 30).collect())
    assert table.select(CUSTOMER_ID, REALISED_ORDERS, REALISED_SPEND).rows() == [
        ("a", 1.0, 21.0),
        ("bb", 0.0, 0.0),
        ("eeeee", 1.0, 0.0),
    ]


def test_days_are_local() -> None:
    table = realised(
        STORY, AT, 30, "Pacific/Auckland"
    ).collect()  # 13 hours ahead: 00:00 and 23:00 fall on two days
    assert table[REALISED_ORDERS].to_list() == [2.0, 0.0, 1.0]


def test_the_last_instant_of_the_horizon_counts() -> None:
    end = datetime(2020, 2, 10, 12, 0, tzinfo=UTC)
    story = events(
        ("a", "2020-02-10T12:00", "order", 1.0),
        ("a", "2020-02-20T12:00", "order", 2.0),
        ("a", "2020-02-20T12:01", "order", 4.0),
    )
    assert realised(story, end, 10).collect()[REALISED_SPEND].to_list() == [2.0]


def test_a_base_without_amounts_has_no_spend() -> None:
    assert realised(STORY.drop(AMOUNT), AT, 30).collect()[REALISED_SPEND].to_list() == [0.0, 0.0, 0.0]


def forecasts(**columns: list[Any]) -> pl.DataFrame:
    size = len(columns["p_churn"])
    told: dict[str, list[Any]] = {
        "customer_id": [f"c{i}" for i in range(size)],
        "cutoff": [AT] * size,
        "horizon_days": [30] * size,
        "model": ["bg_nbd"] * size,
        "expected_orders": [1.0] * size,
        "expected_spend": [10.0] * size,
        "clv": [8.0] * size,
        "clv_lower": [0.0] * size,
        "clv_upper": [16.0] * size,
        "next_order_days": [None] * size,
        "orders_shape": [1.0] * size,
        "spend_deviation": [5.0] * size,
    }
    optional = {str(column): column.dtype for column in (ORDERS_SHAPE, SPEND_DEVIATION)}
    return pl.DataFrame(told | columns, schema_overrides={**FORECASTS.schema, **optional}).select(
        *FORECASTS.schema, *optional
    )


def truth(orders: list[float], spend: list[float]) -> pl.DataFrame:
    return pl.DataFrame(
        {CUSTOMER_ID: [f"c{i}" for i in range(len(orders))], REALISED_ORDERS: orders, REALISED_SPEND: spend}
    ).select(
        CUSTOMER_ID,
        pl.lit(AT, UTC_TIME).alias(CUTOFF),
        pl.lit(30, pl.Int32).alias(HORIZON_DAYS),
        pl.col(REALISED_ORDERS, REALISED_SPEND).cast(pl.Float64),
    )


def test_scores_by_hand() -> None:
    said = forecasts(p_churn=[0.9, 0.2, 0.5], expected_orders=[0.1, 2.0, 1.0], expected_spend=[1.0, 30.0, 9.0],
                     clv=[0.5, 15.0, 4.5], clv_lower=[0.0, 0.0, 0.0], clv_upper=[1.0, 20.0, 9.0])  # fmt: skip
    scores = evaluate(said, truth([0, 3, 1], [0.0, 41.0, 5.0]))
    assert scores["customers"] == 3
    assert scores["churn"]["auroc"] == 1
    assert scores["churn"]["brier"] == pytest.approx((0.01 + 0.04 + 0.25) / 3)
    assert scores["orders"]["bias_percent"] == pytest.approx(100 * (3.1 / 4 - 1))
    assert scores["orders"]["rmse"] == pytest.approx(((0.01 + 1 + 0) / 3) ** 0.5)
    assert scores["value"]["gini"] == pytest.approx(1)
    assert scores["value"]["mae_of_mean"] == pytest.approx((1 + 11 + 4) / 3)
    assert scores["value"]["coverage_90"] == pytest.approx(
        2 / 3
    )  # in units of spend: [0, 2], [0, 40], [0, 18]
    assert scores["value"]["width_90"] == pytest.approx((2 + 40 + 18) / 3)
    assert scores["all_zero"]["value"]["mae"] == pytest.approx(46 / 3)
    assert scores["all_zero"]["orders"]["bias_percent"] == -100
    assert scores["undefined"] == {}


def test_undefined_scores_are_null_with_their_reason_and_never_nan() -> None:
    said = forecasts(p_churn=[0.9, 0.2]).drop(ORDERS_SHAPE, SPEND_DEVIATION)
    scores = evaluate(said, truth([0, 0], [0.0, 0.0]))
    assert scores["churn"]["auroc"] is None
    assert scores["undefined"]["churn.auroc"] == "only one class came true"
    assert scores["undefined"]["value.crps"] == "the forecasts do not give the distribution"
    assert {"orders.bias_percent", "value.gini", "value.spearman"} <= scores["undefined"].keys()
    json.dumps(scores, allow_nan=False)


def test_certain_forecasts_that_fail_have_finite_scores() -> None:
    said = forecasts(
        p_churn=[1.0, 0.0], expected_orders=[0.0, 1.0], expected_spend=[0.0, 10.0], clv=[0.0, 8.0]
    )
    json.dumps(evaluate(said, truth([2, 0], [30.0, 0.0])), allow_nan=False)


def test_a_margin_of_zero_says_nothing_of_spend() -> None:
    said = forecasts(p_churn=[0.4], clv=[0.0], clv_lower=[0.0], clv_upper=[0.0])
    assert evaluate(said, truth([1], [10.0]))["undefined"]["value.coverage_90"].startswith("clv is zero")


def test_customers_in_one_table_only_are_counted_not_scored() -> None:
    scores = evaluate(forecasts(p_churn=[0.5, 0.5, 0.5]), truth([1, 0], [3.0, 0.0]))
    assert (scores["customers"], scores["not_scored"]) == (2, 1)


def test_nothing_in_common_is_told() -> None:
    with pytest.raises(InputError, match="share 0 cutoffs and horizons"):
        evaluate(
            forecasts(p_churn=[0.5]), truth([1.0], [1.0]).with_columns(pl.lit("other").alias(CUSTOMER_ID))
        )
