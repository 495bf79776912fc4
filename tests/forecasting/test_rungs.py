"""All rungs through one signature: what must hold of each, who wins where, and the figures on real data."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from retinue.evaluation.folds import past_of, scrambled_after
from retinue.events.store import Store
from retinue.forecasting.blend import Blend, best_weight, mixed_trials
from retinue.forecasting.ladder import STATISTICAL, champion
from retinue.forecasting.outlook import Law
from retinue.forecasting.rungs import Training, fit_rung, training_at
from retinue.forecasting.trees import Dispersion, Trees
from retinue.options import Options, Rung
from retinue.schema import (
    CLV,
    CLV_LOWER,
    CLV_UPPER,
    CUSTOMER,
    CUSTOMER_ID,
    EXPECTED_ORDERS,
    FORECASTS,
    FREQUENCY,
    HORIZON_DAYS,
    MODEL,
    NEXT_ORDER_DAYS,
    P_CHURN,
    InputError,
)
from tests.forecasting.shops import START, shop, stored

AT = START + timedelta(days=260)
ROUNDING = 1e-12
RUNGS = (*STATISTICAL, Rung.xgboost, Rung.blend)
HORIZONS = [10, 60, 200, 1_500]  # far beyond what any window of the grid reaches


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    return training_at(shop(tmp_path_factory.mktemp("shop"), customers=400), AT, [60], Options())


def by_horizon(made: pl.DataFrame, name: str) -> np.ndarray[Any, Any]:
    return made[name].to_numpy().reshape(-1, made[HORIZON_DAYS].n_unique())


@pytest.mark.parametrize("rung", RUNGS)
def test_invariants_of_every_rung(training: Training, rung: Rung) -> None:
    scorer = fit_rung(rung, training)
    made = scorer(training.buyers, HORIZONS)
    assert FORECASTS.check(made).height == training.buyers.height * len(HORIZONS)
    assert made[MODEL].unique().to_list() == [rung.value]
    p_churn, orders, clv = (by_horizon(made, name) for name in (P_CHURN, EXPECTED_ORDERS, CLV))
    assert (np.diff(p_churn) <= ROUNDING).all()
    assert (np.diff(orders) >= -ROUNDING).all()
    assert (np.diff(clv) >= -ROUNDING).all()
    assert (orders >= 1 - p_churn).all()
    assert (by_horizon(made, CLV_LOWER) <= clv).all()
    assert (clv <= by_horizon(made, CLV_UPPER)).all()
    wait = by_horizon(made.with_columns(pl.col(NEXT_ORDER_DAYS).fill_null(np.inf)), NEXT_ORDER_DAYS)
    off_edge = np.abs(p_churn - 0.5) > 0.005  # the wait is read on a ladder of days
    assert ((wait <= np.array(HORIZONS)) == (p_churn <= 0.5))[off_edge].all()
    assert scorer(training.buyers, [60]).equals(made.filter(pl.col(HORIZON_DAYS) == 60))


def test_trees_did_learn_here(training: Training) -> None:
    trees = training.predictor(Rung.xgboost)
    assert isinstance(trees, Trees)
    assert all(member.count is not None for member in trees.boosted.members)


def test_trees_start_half_way_between_own_rate_and_the_best_law(training: Training) -> None:
    trees = training.predictor(Rung.xgboost)
    assert isinstance(trees, Trees)
    own, law = (training.predictor(rung) for rung in (Rung.own_rate, training.best_law))
    first, low, high = (
        each.outlook(training.buyers, [60], 0.0).orders[0] for each in (trees.first, law, own)
    )
    assert np.allclose(first, np.sqrt(low * high), rtol=1e-6)


def test_a_shape_that_follows_the_mean() -> None:
    p_churn, orders = (
        np.array([0.5, 0.5, 0.0, 1.0]),
        np.array([0.5, 2.0, 10.0, 0.0]),
    )  # 0, 3 and 9 beyond the first
    shape = Dispersion(2.0, 0.5).shape(p_churn, orders)
    assert shape[1:3] == pytest.approx([2 * np.sqrt(3), 6.0])
    assert np.isfinite(shape).all()
    assert (shape > 0).all()


def test_the_blend_learns_its_weight_only_from_what_had_come_true(training: Training) -> None:
    assert training.grid is not None
    inner, origins = training.grid.layout.inner_days, training.origins
    assert len(origins) > 1
    for offset in (0, *origins):
        blend = training.predictor(Rung.blend, offset)
        assert isinstance(blend, Blend)
        closed = [origin for origin in origins if origin >= offset + inner]
        law, base, trees = (
            [training.trial(rung, origin) for origin in closed]
            for rung in (training.best_law, Rung.zero_shot, Rung.xgboost)
        )
        assert isinstance(blend.one, Blend)
        assert blend.one.weight == best_weight(law, base)
        assert blend.weight == best_weight(mixed_trials(law, base, blend.one.weight), trees, 1 / 3)
    assert training.predictor(Rung.blend, origins[-1]).weight == 1 / 3  # type: ignore[attr-defined]


def test_the_blend_leaves_the_base_model_out_of_a_base_that_it_does_not_know(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Training, "unlikeness", 1.5)
    blend = replace(training, kept={}, tried={}).predictor(Rung.blend)
    assert isinstance(blend, Blend)
    assert isinstance(blend.one, Law)
    assert isinstance(blend.other, Trees)


def test_totals_have_an_interval(training: Training) -> None:
    scorer = fit_rung(Rung.pareto_nbd, training)
    totals = scorer.totals(scorer(training.buyers, [60]))
    for total in totals.values():
        assert total["lower"] is not None
        assert total["upper"] is not None
        assert total["expected"] is not None
        assert 0 < total["lower"] < total["expected"] < total["upper"]


def small(folder: Path) -> Store:
    return shop(folder, customers=250, seed=3)


def test_a_scrambled_future_changes_no_forecast(tmp_path: Path) -> None:
    past = past_of(small(tmp_path), AT)
    one, other = (
        fit_rung(Rung.blend, fitted)(fitted.buyers, [60])
        for fitted in (training_at(store, AT, [60], Options()) for store in (past, scrambled_after(past)))
    )
    assert_frame_equal(one, other, rel_tol=1e-9, abs_tol=1e-12)


def test_shards_and_the_order_of_rows_change_no_forecast(tmp_path: Path) -> None:
    store = small(tmp_path / "one")
    events = store.scan().collect()
    parted = Store(tmp_path / "two", replace(store.manifest, shards=2))
    parted.folder.mkdir()
    for shard in range(2):
        events.filter(pl.col(CUSTOMER) % 2 == shard).reverse().write_parquet(parted.shard_path(shard))
    one, other = (
        fit_rung(Rung.blend, fitted)(fitted.buyers, [60])
        for fitted in (training_at(each, AT, [60], Options()) for each in (store, parted))
    )
    assert_frame_equal(one, other, rel_tol=1e-9, abs_tol=1e-12)


def on_and_off(folder: Path, customers: int = 450, days: int = 300) -> Store:
    """Regular buyers who pause for months at a time, and say so."""
    lot = np.random.default_rng(0)
    rows = []
    for who in range(customers):
        day, value = lot.uniform(0, 60), lot.lognormal(3, 0.3)
        while day < days:
            until = day + lot.exponential(40)
            while day < min(until, days):
                rows.append((who, day, day, "order", value * lot.lognormal(0, 0.2)))
                day += 4 + lot.exponential(3)
            rows.append((who, min(day, until), min(day, until), "subscription_pause", 0.0))
            day = until + lot.exponential(120)
    frame = pl.DataFrame(rows, schema=["customer", "event", "known", "event_type", "amount"], orient="row")
    return stored(frame.filter(pl.col("event") < days), folder, days)


def test_trees_or_blend_win_where_more_than_rate_and_silence_tells(tmp_path: Path) -> None:
    rung, scores = champion(training_at(on_and_off(tmp_path), AT, [30], Options()))
    assert rung in (Rung.xgboost, Rung.blend)
    won = scores.filter(pl.col("chosen"))
    assert won[MODEL].to_list() == [rung.value]
    assert won["lead"].item() > 2 * won["lead_error"].item()


def test_a_base_too_small_for_trees_still_has_every_rung(tmp_path: Path) -> None:
    training = training_at(shop(tmp_path, customers=12), AT, [60], Options())
    assert training.grid is None
    tables = [fit_rung(rung, training)(training.buyers, [60]) for rung in RUNGS]
    assert all(table[P_CHURN].is_between(0, 1).all() for table in tables)
    assert (
        tables[RUNGS.index(Rung.xgboost)].drop(MODEL).equals(tables[RUNGS.index(Rung.pareto_nbd)].drop(MODEL))
    )


def test_a_base_where_nobody_has_ordered_has_no_forecasts(training: Training) -> None:
    nobody = training.buyers.with_columns(pl.lit(None, pl.Int64).alias(FREQUENCY))
    empty = Training(training.buyers.head(0), None, Options())
    assert fit_rung(Rung.xgboost, empty)(nobody, [30]).height == 0


def test_two_cutoffs_at_once_are_refused(training: Training) -> None:
    scorer = fit_rung(Rung.own_rate, training)
    later = training.buyers.with_columns(pl.col("cutoff") + pl.duration(days=1))
    with pytest.raises(InputError, match="several cutoffs"):
        scorer(pl.concat([training.buyers, later]), [30])


def test_customers_of_the_table_only_are_forecast(training: Training) -> None:
    some = training.buyers.sample(fraction=0.3, seed=1)
    made = fit_rung(Rung.blend, training)(some, [60])
    assert made[CUSTOMER_ID].to_list() == sorted(some[CUSTOMER_ID])
    whole = fit_rung(Rung.blend, training)(training.buyers, [60])
    mine = whole.filter(pl.col(CUSTOMER_ID).is_in(some[CUSTOMER_ID].implode()))
    assert mine[P_CHURN].to_list() == pytest.approx(made[P_CHURN].to_list(), rel=1e-6)  # float32 states
