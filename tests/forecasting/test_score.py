"""Forecasts of whole bases: the figures that must hold on CDNOW, the invariants, and odd bases."""

from __future__ import annotations

from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from retinue.evaluation.realised import evaluate, realised
from retinue.forecasting.score import forecast
from retinue.options import Options, Rung, ValueOptions
from retinue.schema import (
    AMOUNT,
    BASE,
    CLV,
    CLV_LOWER,
    CLV_UPPER,
    CUSTOMER,
    CUSTOMER_ID,
    CUTOFF,
    EVENT_TIME,
    EVENT_TYPE,
    EXPECTED_ORDERS,
    EXPECTED_SPEND,
    FORECASTS,
    FREQUENCY,
    HORIZON_DAYS,
    KNOWN_TIME,
    MARGIN_RATE,
    MODEL,
    NET_SPEND_EVER,
    ORDER,
    P_CHURN,
    RECENCY_DAYS,
    REFUND_VALUE_EVER,
    T_DAYS,
    UTC_TIME,
    InputError,
)
from tests.models.bases import cdnow_file

RUNGS = (Rung.bg_nbd, Rung.mbg_nbd, Rung.pareto_nbd)
AT = datetime(1997, 9, 30, 23, 59, 59, 999999, UTC)
END = date(1997, 9, 30)


@cache
def cdnow_days(path: Path) -> pl.DataFrame:
    words = [line.split() for line in path.read_text().splitlines()[1:]]
    rows = pl.DataFrame(
        {"id": [w[0] for w in words], "day": [w[1] for w in words], "spend": [float(w[3]) for w in words]}
    )
    return rows.with_columns(pl.col("day").str.to_date("%Y%m%d"))


def features_of(days: pl.DataFrame) -> pl.DataFrame:
    first, last = pl.col("day").min(), pl.col("day").max()
    return (
        days.filter(pl.col("day") <= END)
        .group_by("id")
        .agg(
            (pl.col("day").n_unique() - 1).cast(pl.Int64).alias(FREQUENCY),
            (last - first).dt.total_days().alias(RECENCY_DAYS),
            (END - first).dt.total_days().alias(T_DAYS),
            pl.col("spend").sort().sum().alias(NET_SPEND_EVER),
        )
        .sort("id")
        .select(
            pl.col("id").alias(CUSTOMER_ID),
            pl.col("id").cast(pl.Int64).alias(CUSTOMER),
            pl.lit(AT, UTC_TIME).alias(CUTOFF),
            FREQUENCY,
            RECENCY_DAYS,
            T_DAYS,
            NET_SPEND_EVER,
            pl.lit(0.0).alias(REFUND_VALUE_EVER),
        )
    )


def events_of(days: pl.DataFrame) -> pl.LazyFrame:
    time = pl.col("day").cast(UTC_TIME)
    return days.lazy().select(
        pl.lit("base").alias(BASE),
        pl.col("id").alias(CUSTOMER_ID),
        pl.col("id").cast(pl.Int64).alias(CUSTOMER),
        time.alias(EVENT_TIME),
        time.alias(KNOWN_TIME),
        pl.lit(ORDER).alias(EVENT_TYPE),
        pl.col("spend").alias(AMOUNT),
    )


@cache
def cdnow_scores(rung: Rung) -> dict[str, Any]:
    days = cdnow_days(cdnow_file("CDNOW_master.txt"))
    made = forecast(features_of(days), Options(), rung, [273])
    return evaluate(made, realised(events_of(days), AT, 273).collect())


def test_bg_nbd_on_cdnow_master() -> None:
    scores = cdnow_scores(Rung.bg_nbd)
    assert scores["customers"] == 23_570
    assert scores["churn"]["auroc"] >= 0.745
    assert scores["orders"]["rmse"] <= 1.74


def test_pareto_nbd_on_cdnow_master() -> None:
    scores = cdnow_scores(Rung.pareto_nbd)
    assert scores["churn"]["auroc"] >= 0.760
    assert scores["value"]["gini"] >= 0.715
    assert scores["orders"]["rmse"] <= 1.74
    assert (
        0.84 <= scores["value"]["coverage_90"] <= 0.94
    )  # of the bare model; fit_rung sets levels on past origins
    assert scores["value"]["crps"] < 0.7 * scores["all_zero"]["value"]["crps"]


def small_base(customers: int = 250, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    T = rng.integers(1, 400, customers)
    x = np.minimum(rng.poisson(rng.gamma(0.5, 1 / 40, customers) * T), T)
    last = np.where(x > 0, np.maximum(x, (T * rng.random(customers)).astype(int)), 0)
    spend = (x + 1) * rng.gamma(5, 4, customers)
    back = np.where(rng.random(customers) < 0.2, 0.3 * spend, 0.0)
    return pl.DataFrame(
        {
            CUSTOMER_ID: [f"c{i:04d}" for i in range(customers)],
            CUSTOMER: np.arange(customers),
            FREQUENCY: x,
            RECENCY_DAYS: last,
            T_DAYS: T,
            NET_SPEND_EVER: spend - back,
            REFUND_VALUE_EVER: back,
        }
    ).with_columns(pl.lit(AT, UTC_TIME).alias(CUTOFF))


def plain(margin: float = 1.0, rate: float = 0.1) -> Options:
    return Options(value=ValueOptions(margin_rate=margin, discount_rate_yearly=rate))


def by_horizon(made: pl.DataFrame, name: str) -> np.ndarray[Any, Any]:
    """(customers, horizons)."""
    return made[name].to_numpy().reshape(-1, made[HORIZON_DAYS].n_unique())


@pytest.mark.parametrize("rung", RUNGS)
def test_invariants_across_horizons(rung: Rung) -> None:
    made = forecast(small_base(), plain(0.4), rung, [365, 30, 182, 1_095])
    assert made.select(CUSTOMER_ID, CUTOFF, HORIZON_DAYS).rows() == sorted(
        made.select(CUSTOMER_ID, CUTOFF, HORIZON_DAYS).rows()
    )
    assert made[MODEL].unique().to_list() == [rung.value]
    assert made.null_count().drop("next_order_days").sum_horizontal().item() == 0
    assert (np.diff(by_horizon(made, P_CHURN)) <= 0).all()
    assert (np.diff(by_horizon(made, EXPECTED_ORDERS)) >= 0).all()
    assert (np.diff(by_horizon(made, CLV)) >= 0).all()
    inside = made.select(
        (
            (pl.col(CLV_LOWER) >= 0) & (pl.col(CLV_LOWER) <= pl.col(CLV)) & (pl.col(CLV) <= pl.col(CLV_UPPER))
        ).all(),
        (pl.col(CLV) <= 0.4 * pl.col(EXPECTED_SPEND)).all(),
        (pl.col(EXPECTED_ORDERS) >= 1 - pl.col(P_CHURN)).all(),
    )
    assert inside.row(0) == (True, True, True)


def test_order_of_rows_and_company_of_other_horizons_change_nothing() -> None:
    base = small_base()
    straight = forecast(base, plain(), Rung.pareto_nbd, [90, 365])
    shuffled = forecast(base.sample(fraction=1, shuffle=True, seed=3), plain(), Rung.pareto_nbd, [365])
    assert straight.filter(pl.col(HORIZON_DAYS) == 365).equals(shuffled)


def test_every_cutoff_is_a_fit_of_its_own() -> None:
    one, other = (
        small_base(seed=1),
        small_base(seed=2).with_columns(pl.lit(datetime(1998, 1, 1, tzinfo=UTC), UTC_TIME).alias(CUTOFF)),
    )
    both = forecast(pl.concat([other, one]), plain(), Rung.bg_nbd, [90])
    assert both.filter(pl.col(CUTOFF) == AT).equals(forecast(one, plain(), Rung.bg_nbd, [90]))


def test_money_scales_with_its_unit_and_churn_does_not() -> None:
    base = small_base()
    cents = base.with_columns(pl.col(NET_SPEND_EVER, REFUND_VALUE_EVER) * 100)
    one, hundred = (forecast(rows, plain(), Rung.bg_nbd, [365]) for rows in (base, cents))
    for name in (CLV, CLV_LOWER, CLV_UPPER, EXPECTED_SPEND):
        assert (100 * one[name]).to_list() == pytest.approx(hundred[name].to_list(), rel=1e-9)
    assert one[P_CHURN].equals(hundred[P_CHURN])


def test_refunds_lower_the_value_of_those_who_send_back() -> None:
    base = small_base()
    returns = base.with_columns(  # same gross value, half of it sent back by the first customer
        pl.when(pl.col(CUSTOMER) == 0).then(0.5).otherwise(1.0).alias("kept")
    ).with_columns(
        (pl.col(NET_SPEND_EVER) * pl.col("kept")).alias(NET_SPEND_EVER),
        (pl.col(REFUND_VALUE_EVER) + pl.col(NET_SPEND_EVER) * (1 - pl.col("kept"))).alias(REFUND_VALUE_EVER),
    )
    before, after = (forecast(rows, plain(), Rung.bg_nbd, [365])[EXPECTED_SPEND] for rows in (base, returns))
    assert after[0] < 0.9 * before[0]
    assert after[0] >= 0
    assert after[1:].to_list() == pytest.approx(before[1:].to_list(), rel=0.01)


def test_own_margin_wins_where_it_is_known() -> None:
    own = pl.when(pl.col(CUSTOMER) == 0).then(0.2).alias(MARGIN_RATE)
    made = forecast(small_base().with_columns(own), plain(0.5, 0.0), Rung.bg_nbd, [90])
    rates = (made[CLV] / made[EXPECTED_SPEND]).to_list()
    assert rates[:2] == pytest.approx([0.2, 0.5])


def test_discounting_takes_about_half_the_rate_over_a_year() -> None:
    made = forecast(small_base(), plain(1.0, 0.1), Rung.pareto_nbd, [365])
    share = (made[CLV] / made[EXPECTED_SPEND]).to_numpy()
    assert ((share > 0.94) & (share < 0.98)).all()


def test_a_base_without_amounts_is_worth_nothing_and_keeps_its_model() -> None:
    for base in (small_base().drop(NET_SPEND_EVER, REFUND_VALUE_EVER),
                 small_base().with_columns(pl.lit(None, pl.Float64).alias(NET_SPEND_EVER))):  # fmt: skip
        made = forecast(base, plain(), Rung.pareto_nbd, [365])
        assert made.select(pl.col(EXPECTED_SPEND, CLV, CLV_LOWER, CLV_UPPER).abs().max()).row(0) == (
            0,
            0,
            0,
            0,
        )
        assert made[MODEL][0] == "pareto_nbd"


def test_customers_who_never_ordered_have_no_forecast() -> None:
    never = pl.when(pl.col(CUSTOMER) > 5).then(pl.col(FREQUENCY, RECENCY_DAYS, T_DAYS))
    made = forecast(small_base().with_columns(never), plain(), Rung.bg_nbd, [30, 90])
    assert made.height == 2 * 244
    nobody = forecast(
        small_base().with_columns(pl.lit(None, pl.Int64).alias(FREQUENCY)), plain(), Rung.bg_nbd, [30]
    )
    assert FORECASTS.check(nobody).height == 0


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("row", [(0, 0, 0), (0, 0, 500), (5, 400, 500), (900, 900, 900)])
def test_one_customer_is_a_base(rung: Rung, row: tuple[int, int, int]) -> None:
    one = small_base(1).with_columns(
        *(pl.lit(v).alias(n) for n, v in zip((FREQUENCY, RECENCY_DAYS, T_DAYS), row, strict=True))
    )
    made = forecast(one, plain(), rung, [30, 365])
    assert (
        made.select(pl.col(P_CHURN, EXPECTED_ORDERS, CLV, CLV_UPPER).is_finite().all()).row(0) == (True,) * 4
    )


def test_impossible_histories_are_told() -> None:
    values = ((FREQUENCY, 1), (RECENCY_DAYS, 9), (T_DAYS, 3))
    wrong = small_base(1).with_columns(*(pl.lit(value).alias(name) for name, value in values))
    with pytest.raises(InputError, match=r"customer 'c0000' has frequency 1, recency_days 9, T_days 3"):
        forecast(wrong, plain(), Rung.bg_nbd, [30])
    with pytest.raises(InputError, match="column 'T_days' is missing"):
        forecast(small_base(3).drop(T_DAYS), plain(), Rung.bg_nbd, [30])
