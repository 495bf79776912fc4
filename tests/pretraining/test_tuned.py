"""Fine-tuning: it starts where the base model stands, learns what the base has besides, and is asked like any rung."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from retinue.events.store import Store
from retinue.forecasting import rungs, tuned
from retinue.forecasting.rungs import Training, fit_rung, training_at
from retinue.forecasting.saved import load_rung, save_rung
from retinue.forecasting.scoring import Scoring
from retinue.forecasting.streaming import StreamingState
from retinue.forecasting.tuned import TunedPredictor
from retinue.forecasting.zero_shot import ZeroShot
from retinue.options import Options, Rung, TrainingOptions
from retinue.pretraining.pretrained import Pretrained
from retinue.schema import CUSTOMER, CUSTOMER_ID, EVENT_TYPE, InputError
from retinue.sequences.tokens import TokenStore, write_tokens
from retinue.training.checkpoint import Trained
from retinue.training.fit import Task
from tests.forecasting.nets import CUTOFF, HORIZONS, made_base

ENDS = ["clv_lower", "clv_upper"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, TokenStore]:
    """The shop with channels and visits, a third of which are of a type that nobody knows."""
    folder = tmp_path_factory.mktemp("tuned")
    store = made_base(folder).store
    fitting = (pl.col(EVENT_TYPE) == "visit") & (pl.col(CUSTOMER) % 3 == 0)
    kind = pl.when(fitting).then(pl.lit("fitting_room")).otherwise(pl.col(EVENT_TYPE))
    for shard in range(store.manifest.shards):
        rows = pl.read_parquet(store.shard_path(shard)).with_columns(kind.alias(EVENT_TYPE))
        rows.write_parquet(store.shard_path(shard))
    types = {**store.manifest.event_types, "fitting_room": 1}
    other = Store(store.folder, replace(store.manifest, event_types=types))
    other.write_manifest()
    return other, write_tokens(other, folder / "tokens")


@pytest.fixture(autouse=True)
def folder_of(tiny: Pretrained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rungs, "base_model", lambda _: tiny)


def training_of(base: tuple[Store, TokenStore], **asked: object) -> Training:
    steps = replace(TrainingOptions(readouts=256, buckets=1, check_every=2, tune_steps=2), **asked)  # type: ignore[arg-type]
    return training_at(base[0], CUTOFF, HORIZONS, Options(init="somewhere", training=steps))


def test_before_the_first_step_it_says_what_the_base_model_says(
    base: tuple[Store, TokenStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Task] = []

    def untaught(task: Task, options: Options, out: object, heard: object, start: torch.nn.Module) -> Trained:
        told.append(task)
        return Trained(start.eval(), task.vocabulary, task.season, {}, pl.DataFrame())  # type: ignore[arg-type]

    monkeypatch.setattr(tuned, "fit_network", untaught)
    training = training_of(base)
    found, zero = training.predictor(Rung.sequence_gru), training.predictor(Rung.zero_shot)
    assert isinstance(found, TunedPredictor)
    assert isinstance(zero, ZeroShot)
    vocabulary = told[0].vocabulary
    assert vocabulary.kinds[-1] == "fitting_room"
    assert vocabulary.fields == ("channel",)
    assert len(found.columns) > 20
    assert found.trained.network.readout.features.lower.shape[0] > len(zero.trained.feature_names)
    one, other = (each.outlook(training.buyers, HORIZONS, 0.1) for each in (found, zero))
    np.testing.assert_allclose(one.p_churn, other.p_churn, rtol=1e-5)
    np.testing.assert_allclose(one.orders, other.orders, rtol=1e-5)
    np.testing.assert_allclose(one.spend, other.spend, rtol=1e-5)
    assert told[0].readouts.end == CUTOFF
    assert int(told[0].readouts.cutoff.max()) < int(CUTOFF.timestamp() * 1e6)


def test_it_learns_and_stays_near(base: tuple[Store, TokenStore]) -> None:
    def moved(proximity: float) -> float:
        training = training_of(base, proximity=proximity, tune_steps=6, tune_learning_rate=1e-2)
        found = training.predictor(Rung.sequence_gru)
        zero = training.predictor(Rung.zero_shot)
        assert isinstance(found, TunedPredictor)
        assert isinstance(zero, ZeroShot)
        begun = zero.trained.network.encoder.state_dict()
        ended = found.trained.network.encoder.state_dict()
        return float(sum((ended[name] - begun[name]).square().sum() for name in begun))

    free, held = moved(0.0), moved(100.0)
    assert free > 0
    assert held < free / 2


def test_it_is_kept_and_scores_shard_by_shard(base: tuple[Store, TokenStore], tmp_path: Path) -> None:
    store, tokens = base
    training = replace(training_of(base), checkpoints=tmp_path)
    scorer = fit_rung(Rung.sequence_gru, training)
    save_rung(scorer, training.buyers, tmp_path)
    rung = load_rung(tmp_path)
    scoring = Scoring(rung, store, tokens, [CUTOFF], HORIZONS)
    parts = [scoring.shard(shard) for shard in range(store.manifest.shards)]
    found, wanted = pl.concat(parts).sort(CUSTOMER_ID, "horizon_days"), scorer(training.buyers, HORIZONS)
    assert_frame_equal(found.drop(ENDS), wanted.drop(ENDS), rel_tol=1e-4, abs_tol=1e-6)
    with pytest.raises(InputError, match="cannot stream"):
        StreamingState(rung, "UTC")


def test_too_short_a_past_leaves_the_base_model(
    base: tuple[Store, TokenStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuned, "LEAST_READOUTS", 10**6)
    assert isinstance(training_of(base).predictor(Rung.sequence_gru), ZeroShot)
