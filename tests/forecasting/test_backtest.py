"""The backtest: folds that know no future, a judge that catches those who peek, and errors that mean something."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from retinue.accel.engine import EngineChoice
from retinue.config import resolve
from retinue.evaluation.comparison import ALL_ZERO
from retinue.evaluation.folds import check_origins, past_of, rolling_origins, scrambled_after
from retinue.evaluation.realised import evaluate, realised
from retinue.events.store import Store
from retinue.forecasting.backtest import (
    FUTURE_SCRAMBLED,
    LABELS_PERMUTED,
    Backtest,
    Contender,
    Fold,
    backtest,
    contender,
    contenders,
)
from retinue.options import Engine, Options, Rung
from retinue.reporting.backtest_page import build_backtest_page
from retinue.reporting.charts_backtest import captured_chart, profit_chart
from retinue.reporting.words import Money
from retinue.schema import BACKTEST, FORECASTS, InputError
from tests.forecasting.shops import START, shop

DAYS = 45
CPU = EngineChoice(Engine.cpu, "a test")


def options(*words: str) -> Options:
    return resolve(["segments.new_days=30", "seeds=3", *words])


def rate_of(fold: Fold, noise: float, seed: int) -> pl.DataFrame:
    """Each customer's own rate, with noise of its own for each seed."""
    lot = np.random.default_rng(seed)
    age = pl.col("T_days").cast(pl.Float64)
    expected = (pl.col("frequency") + 0.6) / (age + 15) * fold.horizon_days
    table = fold.features.with_columns(
        expected_orders=expected * np.exp(noise * lot.normal(size=fold.features.height))
    )
    return table.select(
        "customer_id",
        "cutoff",
        pl.lit(fold.horizon_days, pl.Int32).alias("horizon_days"),
        pl.lit("rate").alias("model"),
        (-pl.col("expected_orders")).exp().alias("p_churn"),
        "expected_orders",
        (pl.col("expected_orders") * 20).alias("expected_spend"),
        (pl.col("expected_orders") * 20).alias("clv"),
        pl.lit(0.0).alias("clv_lower"),
        (pl.col("expected_orders") * 60).alias("clv_upper"),
        pl.lit(None, pl.Float64).alias("next_order_days"),
        pl.lit(1.0).alias("orders_shape"),
        (pl.col("expected_orders") * 10 + 5).alias("spend_deviation"),
    )


RATE = Contender("rate", lambda fold, seed: rate_of(fold, 0.0, seed))
NOISY = Contender("noisy", lambda fold, seed: rate_of(fold, 0.5, seed), is_random=True)
TWIN = Contender("twin", lambda fold, seed: rate_of(fold, 0.0, seed))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return shop(tmp_path_factory.mktemp("shop"))


def origins(store: Store, count: int = 3) -> list[datetime]:
    return rolling_origins(START, store.observation_end, DAYS, count, "UTC")


@pytest.fixture(scope="module")
def found(store: Store) -> Backtest:
    return backtest(store, origins(store), DAYS, [RATE, NOISY, TWIN], options())


def score(
    found: Backtest, model: str, metric: str, origin: datetime | None = None, population: str = "all"
) -> dict[str, float]:
    at = pl.col("origin").is_null() if origin is None else pl.col("origin") == origin
    rows = found.scores.filter(
        at & (pl.col("model") == model) & (pl.col("metric") == metric) & (pl.col("population") == population)
    )
    assert rows.height == 1
    return rows.row(0, named=True)


def test_origins_leave_every_future_observed() -> None:
    end = START + timedelta(days=300)
    assert rolling_origins(START, end, 60, 3, "UTC") == [START + timedelta(days=d) for d in (120, 180, 240)]
    squeezed = rolling_origins(START, end, 200, 3, "UTC")
    assert squeezed[-1] == START + timedelta(days=100)
    assert squeezed[0] == START + timedelta(days=50)
    assert rolling_origins(START, end, 60, 1, "UTC") == [START + timedelta(days=240)]
    with pytest.raises(InputError, match="origins=4"):
        rolling_origins(START, end, 290, 4, "UTC")
    with pytest.raises(InputError, match="before cutoff"):
        check_origins([start := START + timedelta(days=250)], end, 60, "UTC")
    check_origins([start], end, 50, "UTC")


def test_the_past_holds_no_future_and_the_scrambled_store_another(store: Store) -> None:
    origin = origins(store)[0]
    past, mixed = past_of(store, origin), scrambled_after(past_of(store, origin))
    whole, known, other = (one.scan().collect() for one in (store, past, mixed))
    late = (whole["event_time"] <= origin) & (whole["known_time"] > origin)
    assert late.any(), "the shop has refunds that were not known yet"
    assert known["known_time"].max() <= origin  # type: ignore[operator]
    assert past.manifest.events == known.height < whole.height
    same = other.filter((pl.col("event_time") <= origin) & (pl.col("known_time") <= origin))
    assert same.equals(known)
    future = other.filter((pl.col("event_time") > origin) | (pl.col("known_time") > origin))
    assert future.height > 0.5 * (whole.height - known.height) / 3
    assert future.join(whole, on=["customer", "event_time"], how="semi").height < 0.2 * future.height


def test_scores_are_those_of_evaluate(store: Store, found: Backtest) -> None:
    origin = origins(store)[1]
    made = rate_of(Fold(past_of(store, origin), DAYS, options(), CPU), 0.0, 0)
    truth = realised(store.scan(), origin, DAYS, "UTC").collect()
    expected = evaluate(FORECASTS.check(made), truth)
    for metric in (
        "churn.auroc",
        "churn.brier",
        "orders.rmse",
        "orders.log_score",
        "value.gini",
        "value.coverage_90",
    ):
        group, name = metric.split(".")
        assert score(found, "rate", metric, origin)["score"] == pytest.approx(expected[group][name], rel=1e-9)
    assert score(found, ALL_ZERO, "value.mae_of_mean", origin)["score"] == pytest.approx(
        expected["all_zero"]["value"]["mae"]
    )


def test_the_table_keeps_its_contract(store: Store, found: Backtest) -> None:
    BACKTEST.check(found.scores)
    assert found.scores["origin"].drop_nulls().unique().sort().to_list() == origins(store)
    counts = {p: score(found, "rate", "churn.brier", None, p)["customers"] for p in ("all", "new", "known")}
    assert counts["all"] == counts["new"] + counts["known"]
    assert min(counts.values()) > 0
    keys = ["population", "origin", "model", "metric"]
    assert found.scores.select(keys).is_unique().all()


def test_pooled_means_weigh_rows_and_ranks_weigh_origins(store: Store, found: Backtest) -> None:
    parts = [score(found, "rate", "churn.brier", origin) for origin in origins(store)]
    weight = np.array([part["customers"] for part in parts], float)
    mean = float(np.dot(weight, [part["score"] for part in parts]) / weight.sum())
    assert score(found, "rate", "churn.brier")["score"] == pytest.approx(mean)
    ginis = [score(found, "rate", "value.gini", origin)["score"] for origin in origins(store)]
    assert score(found, "rate", "value.gini")["score"] == pytest.approx(np.mean(ginis))


def test_differences_are_paired(found: Backtest) -> None:
    for metric in ("churn.brier", "value.gini", "orders.rmse"):
        noisy, twin = score(found, "noisy", metric), score(found, "twin", metric)
        assert noisy["seeds"] == 3
        assert noisy["versus_simplest"] == pytest.approx(noisy["score"] - twin["score"])
        assert 0 < noisy["versus_simplest_error"] < noisy["score_error"]
        assert (twin["versus_simplest"], twin["versus_simplest_error"]) == (0.0, 0.0)
    gap = score(found, "noisy", "churn.brier")
    assert gap["versus_simplest"] > 2 * gap["versus_simplest_error"], "noise costs, and is seen to"


def test_saying_nothing_is_never_best(found: Backtest) -> None:
    assert ALL_ZERO not in found.scores["best"].unique().to_list()
    assert score(found, ALL_ZERO, "value.gini")["score"] == pytest.approx(0.0, abs=1e-12)
    assert score(found, ALL_ZERO, "orders.bias_percent")["score"] == pytest.approx(-100.0)


def test_sentinels_hold_for_honest_rungs(found: Backtest) -> None:
    assert found.sentinels.height == 6
    assert found.sentinels["passed"].all(), found.sentinels.rows()


def test_a_rung_that_peeks_is_caught(store: Store) -> None:
    """It counts all orders that its store holds, without a look at the cutoff."""

    def peek(fold: Fold, seed: int) -> pl.DataFrame:
        seen = fold.store.scan().group_by("customer_id").len().collect()
        made = rate_of(fold, 0.0, seed).join(seen, on="customer_id", how="left", maintain_order="left")
        return made.with_columns(expected_orders=pl.col("len").cast(pl.Float64)).drop("len")

    caught = backtest(store, origins(store, 1), DAYS, [Contender("peek", peek)], options())
    held = dict(caught.sentinels.select("sentinel", "passed").iter_rows())
    assert held == {FUTURE_SCRAMBLED: False, LABELS_PERMUTED: True}


def test_even_a_peeking_rung_sees_only_the_past_in_a_fold(store: Store) -> None:
    origin = origins(store)[0]
    fold = Fold(past_of(store, origin), DAYS, options(), CPU)
    assert fold.store.scan().select(pl.col("known_time").max()).collect().item() <= origin
    assert fold.store.observation_end == origin


def test_a_rung_of_the_ladder_runs_and_sees_no_future(store: Store) -> None:
    one = backtest(store, origins(store, 1), DAYS, [contender(Rung.bg_nbd)], options())
    assert one.sentinels["passed"].all(), one.sentinels.rows()
    assert 0.5 < score(one, "bg_nbd", "churn.auroc")["score"] < 1


def test_a_rung_that_leaves_customers_out_is_told(store: Store) -> None:
    lazy = Contender("lazy", lambda fold, seed: rate_of(fold, 0.0, seed).head(3))
    with pytest.raises(InputError, match=r"lazy left .* customers without a forecast"):
        backtest(store, origins(store, 1), DAYS, [lazy], options())


def test_rungs_are_chosen_by_name_and_stand_simplest_first() -> None:
    assert [rung.name for rung in contenders(options("rungs=[auto,pareto_nbd,bg_nbd]"))] == [
        "bg_nbd",
        "pareto_nbd",
        "auto",
    ]
    everyone = contenders(options())
    assert everyone[0].name == "own_rate"
    assert [rung.name for rung in everyone if rung.is_random] == ["xgboost", "blend", "auto"]


def test_seeds_share_what_chance_does_not_touch(store: Store) -> None:
    fold = Fold(past_of(store, origins(store)[-1]), DAYS, options(), CPU)
    law = fold.training(0).predictor(Rung.bg_nbd)
    assert fold.training(1).predictor(Rung.bg_nbd) is law
    assert fold.training(1).options.seed == 1
    assert fold.training(1).grid is fold.training(0).grid


def test_the_page_is_whole_and_the_same_twice(found: Backtest) -> None:
    page = build_backtest_page("a <b> shop", "EUR", "UTC", found)
    assert page == build_backtest_page("a <b> shop", "EUR", "UTC", found)
    assert "a &lt;b&gt; shop: backtest" in page
    assert "All sentinels held." in page
    assert 'http-equiv="Content-Security-Policy"' in page
    assert page.count('class="chart"') == 7
    assert "profit over all origins (EUR)" in page
    assert "at which treating everyone just pays" in page
    gini = score(found, "noisy", "value.gini")
    assert f"{gini['score']:.3f} ± {gini['score_error']:.3f}" in page


def test_a_dearer_contact_is_on_the_page_and_earns_less(found: Backtest) -> None:
    dear = replace(found, value=replace(found.value, contact_cost=1_000.0, save_share=0.25))
    page = build_backtest_page("shop", "EUR", "UTC", dear)
    assert "a contact costs €1,000, and keeps 25% of those who would leave" in page
    cheap, costly = (profit_chart(each, Money("EUR")).traces[0] for each in (found, dear))
    assert costly["y"][0] == cheap["y"][0] == 0
    assert costly["y"][-1] < cheap["y"][-1]
    assert (sum(costly["marker"]["size"]), costly["marker"]["size"][0]) == (9, 9), "it would treat nobody"


def test_no_two_lines_of_a_chart_look_the_same(found: Backtest) -> None:
    eight = replace(found, entries=tuple(replace(found.entries[0], model=f"model {i}") for i in range(8)))
    lines = [trace["line"] for trace in captured_chart(eight, Money("")).traces]
    assert len({(str(line["color"]), line["dash"]) for line in lines}) == 8


def test_seeds_share_the_trials_of_laws(store: Store) -> None:
    fold = Fold(past_of(store, origins(store)[-1]), DAYS, options(), CPU)
    first = fold.training(0)
    assert first.origins, "there are past origins to try rungs at"
    tried = first.trials(Rung.bg_nbd)
    drawn = first.trials(Rung.xgboost)
    again = fold.training(1)
    assert all(again.trial(Rung.bg_nbd, trial.offset) is trial for trial in tried)
    assert not any(again.trial(Rung.xgboost, trial.offset) is trial for trial in drawn)


def test_a_broken_sentinel_is_shouted(found: Backtest) -> None:
    broken = replace(found, sentinels=found.sentinels.with_columns(passed=pl.lit(False)))
    assert "trust no score on this page" in build_backtest_page("shop", "EUR", "UTC", broken)
    assert UTC is found.folds.origins[0].tzinfo
