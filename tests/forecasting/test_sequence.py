"""The sequence rungs among the others: what must hold of every forecast, and what their readouts may see."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from retinue.evaluation.folds import past_of, scrambled_after
from retinue.events.store import Store
from retinue.events.timeline import is_known
from retinue.forecasting.backtest import contenders
from retinue.forecasting.blend import Blend
from retinue.forecasting.ladder import champion
from retinue.forecasting.outlook import Law
from retinue.forecasting.rungs import Training, fit_rung, training_at
from retinue.forecasting.sequence import (
    FIRST_NAMES,
    Histories,
    SequencePredictor,
    readouts_at,
    readouts_of,
    season_of,
)
from retinue.forecasting.trees import Trees
from retinue.models.clocks import WIDTH, clocks_from, expected_orders, survival
from retinue.options import Encoder, Options, Rung
from retinue.schema import (
    CLV,
    CUSTOMER,
    CUSTOMER_ID,
    EXPECTED_ORDERS,
    FORECASTS,
    HORIZON_DAYS,
    MODEL,
    NEXT_ORDER_DAYS,
    P_CHURN,
    REALISED_ORDERS,
)
from retinue.sequences.resident import resident
from retinue.sequences.vocabulary import fit_vocabulary
from tests.forecasting.shops import START, shop

AT = START + timedelta(days=260)
HORIZONS = [10, 60, 200, 1_500]


def quick(**training: Any) -> Options:
    options = Options()
    asked = {"steps": 12, "check_every": 6, "readouts": 256, "buckets": 2} | training
    model = replace(options.model, width=16, heads=2)
    return replace(options, model=model, training=replace(options.training, **asked))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return shop(tmp_path_factory.mktemp("shop"), customers=200)


@pytest.fixture(scope="module")
def training(store: Store) -> Training:
    return training_at(store, AT, [60], quick())


def by_horizon(made: pl.DataFrame, name: str) -> np.ndarray[Any, Any]:
    return made[name].to_numpy().reshape(-1, made[HORIZON_DAYS].n_unique())


@pytest.mark.parametrize("rung", [Rung.sequence_gru, Rung.sequence_transformer])
def test_what_holds_of_every_forecast(training: Training, rung: Rung) -> None:
    # Fitted at the cutoff only: three more fits at past origins would tell nothing new here.
    alone = replace(training, grid=replace(training.grid, layout=replace(training.grid.layout, origins=())))  # type: ignore[type-var, union-attr]
    scorer = fit_rung(rung, alone)
    assert isinstance(scorer.predictor, SequencePredictor)
    made = scorer(training.buyers, HORIZONS)
    assert FORECASTS.check(made).height == training.buyers.height * len(HORIZONS)
    assert made[MODEL].unique().to_list() == [rung.value]
    p_churn, orders, clv = (by_horizon(made, name) for name in (P_CHURN, EXPECTED_ORDERS, CLV))
    assert (np.diff(p_churn) < 0).all()
    assert (np.diff(orders) > 0).all()
    assert (np.diff(clv) > 0).all()
    assert (orders >= 1 - p_churn).all()
    wait = by_horizon(made.with_columns(pl.col(NEXT_ORDER_DAYS).fill_null(np.inf)), NEXT_ORDER_DAYS)
    assert ((wait <= np.array(HORIZONS)) == (p_churn <= 0.5)).all()
    assert np.std(p_churn[:, 1]) > 0.01
    odds = scorer.predictor.log_odds(training.buyers, [60.0])
    np.testing.assert_allclose(1 / (1 + np.exp(odds[0])), p_churn[:, 1], rtol=1e-9)


def test_the_order_of_customers_changes_nothing(training: Training) -> None:
    fitted = training.predictor(Rung.sequence_gru)
    buyers = training.buyers
    mixed = buyers.sample(fraction=1.0, shuffle=True, seed=3)
    one, other = (
        pl.DataFrame({"who": rows[CUSTOMER_ID], "p": fitted.outlook(rows, [60], 0.0).p_churn[0]}).sort("who")
        for rows in (buyers, mixed)
    )
    np.testing.assert_allclose(one["p"], other["p"], rtol=1e-5)
    few = buyers.head(7)
    np.testing.assert_allclose(
        fitted.outlook(few, [60], 0.0).p_churn[0],
        one.join(few.rename({CUSTOMER_ID: "who"}), on="who")["p"],
        rtol=1e-5,
    )


def test_readouts_stop_where_the_network_stands(training: Training, store: Store) -> None:
    assert training.grid is not None
    grid, origin = training.grid, training.origins[0]
    first = training.first(origin)
    readouts = readouts_of(grid, first, origin, ("frequency", "recency_days"), 20.0)
    assert readouts.names == ("frequency", "recency_days", *FIRST_NAMES)
    assert readouts.end == grid.at(origin)
    later = [offset for offset in grid.features if offset > origin]
    assert len(readouts) == sum(grid.features[offset].height for offset in later)
    assert is_known(readouts.cutoff, grid.at(min(later))).all()
    tokens = Histories(store, AT).tokens
    vocabulary = fit_vocabulary(tokens, readouts.end)
    data = resident(tokens, readouts, vocabulary, season_of(tokens, readouts.end))
    assert data.truth is not None
    assert (
        int(data.truth.days.max()) == max(later) - origin
    )  # the longest window ends at the network's own cutoff


def test_counts_seen_are_those_that_evaluation_counts(training: Training, store: Store) -> None:
    assert training.grid is not None
    grid = training.grid
    readouts = readouts_of(grid, training.first(), 0, ("frequency",), 20.0)
    tokens = Histories(store, AT).tokens
    vocabulary = fit_vocabulary(tokens, AT)
    data = resident(tokens, readouts, vocabulary, season_of(tokens, AT))
    offset, days = grid.windows()[-1]
    batch = data.batch(np.arange(len(data.lengths)), days=days)
    rows = data.rows(np.arange(len(data.lengths)))
    here = readouts.cutoff[rows] == int(grid.at(offset).timestamp() * 1e6)
    came = grid.outcomes(offset, days)
    assert batch.targets is not None
    counted = batch.targets.orders[here, 0].numpy().sum()
    assert counted == came[REALISED_ORDERS].sum() > 0


def test_a_future_that_never_happened_changes_no_forecast(store: Store) -> None:
    past = past_of(store, AT)
    made = [
        training_at(each, AT, [60], quick(steps=4, check_every=4)).predictor(Rung.sequence_gru)
        for each in (past, scrambled_after(past))
    ]
    buyers = training_at(past, AT, [60], quick()).buyers
    one, other = (fitted.outlook(buyers, [60], 0.0) for fitted in made)
    np.testing.assert_array_equal(one.p_churn, other.p_churn)
    np.testing.assert_array_equal(one.orders, other.orders)


def test_too_little_past_leaves_the_law(tmp_path: Path) -> None:
    tiny = shop(tmp_path, customers=30)
    short = training_at(tiny, START + timedelta(days=40), [60], quick())
    assert short.grid is None
    assert isinstance(short.predictor(Rung.sequence_gru), Law)


def test_it_starts_from_the_first_forecast(training: Training) -> None:
    assert training.grid is not None
    first, buyers, days = training.first(), training.buyers, [14, 60, 250, 700]
    readouts = readouts_at([buyers], ("frequency",), first, AT, 20.0)
    assert readouts.anchor is not None
    clocks = clocks_from(
        torch.zeros(len(readouts), WIDTH), torch.zeros(()), torch.from_numpy(readouts.anchor)
    )
    said = first.outlook(buyers.sort(CUSTOMER), days, 0.0)
    h = torch.tensor(days, dtype=torch.float32)
    stay, orders = survival(clocks, h).numpy().T, expected_orders(clocks, h).numpy().T
    assert np.quantile(np.abs(stay - said.p_churn), 0.98) < 0.03
    np.testing.assert_allclose(orders.sum(1), said.orders.sum(1), rtol=0.03)
    value = np.exp(clocks.value_log_mean.numpy()) * 20.0
    np.testing.assert_allclose(value, said.values.mean, rtol=1e-5)


def test_auto_and_the_blend_try_them_only_where_asked(training: Training) -> None:
    assert training.deep == ()
    plain = training.predictor(Rung.blend)
    assert isinstance(plain, Blend)
    assert isinstance(plain.other, Trees)
    assert Rung.sequence_gru.value not in champion(training)[1][MODEL].to_list()
    options = replace(training.options, rungs=[Rung.auto, Rung.sequence_gru])
    asked = replace(training, options=options, kept={}, tried={})
    blend = asked.predictor(Rung.blend)
    assert isinstance(blend, Blend)
    assert isinstance(blend.other, SequencePredictor)
    assert isinstance(blend.one, Blend)
    assert isinstance(blend.one.other, Trees)
    assert 0 < blend.weight < 1
    chosen, scores = champion(asked)
    assert scores[MODEL].to_list()[-2:] == [Rung.sequence_gru.value, Rung.blend.value]
    assert chosen.value in scores[MODEL].to_list()


def test_without_a_past_to_weigh_them_by_all_members_weigh_the_same(training: Training) -> None:
    grid = training.grid
    assert grid is not None
    options = replace(training.options, rungs=[Rung.sequence_gru])
    alone = replace(
        training,
        options=options,
        grid=replace(grid, layout=replace(grid.layout, origins=())),
        kept={},
        tried={},
    )
    blend = alone.predictor(Rung.blend)
    assert isinstance(blend, Blend)
    assert isinstance(blend.one, Blend)
    assert isinstance(blend.one.one, Blend)
    assert [blend.weight, blend.one.weight, blend.one.one.weight] == pytest.approx([1 / 4, 1 / 3, 1 / 2])


def test_all_amounts_times_a_hundred_are_values_times_a_hundred(tmp_path: Path) -> None:
    made = {}
    for factor in (1.0, 100.0):
        one = shop(tmp_path / str(factor), customers=120)
        rows = one.scan().collect().with_columns(pl.col("amount") * factor)
        rows.write_parquet(one.shard_path(0))
        known = training_at(one, AT, [60], quick(steps=6, check_every=6))
        made[factor] = known.predictor(Rung.sequence_gru).outlook(known.buyers, [60], 0.1)
    np.testing.assert_allclose(made[1.0].p_churn, made[100.0].p_churn, rtol=1e-3)
    np.testing.assert_allclose(100 * made[1.0].spend, made[100.0].spend, rtol=1e-2)


def test_they_join_a_backtest_only_where_asked() -> None:
    assert not {"sequence_gru", "sequence_transformer"} & {each.name for each in contenders(Options())}
    asked = contenders(replace(Options(), rungs=[Rung.sequence_gru]))
    assert [(each.name, each.is_random) for each in asked] == [("sequence_gru", True)]
    assert Encoder[Rung.sequence_gru.value.removeprefix("sequence_")] is Encoder.gru
