"""A small shop in three shards, and networks for it whose weights are loud, so that every input shows in a forecast."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import torch

from retinue.events.store import Store
from retinue.features.query import available_at, features_at
from retinue.forecasting.calibration import Correction, Recalibrated
from retinue.forecasting.intervals import NAMES, Levels
from retinue.forecasting.rungs import NOW, Scorer, Training, training_at
from retinue.forecasting.saved import SavedRung, load_rung, save_rung
from retinue.forecasting.scoring import Scoring
from retinue.forecasting.sequence import SequencePredictor, fit_sequence
from retinue.options import Encoder, ModelOptions, Options, Rung, TrainingOptions
from retinue.sequences.tokens import TokenStore, write_tokens
from retinue.training.checkpoint import save_checkpoint
from tests.forecasting.shops import START, shop
from tests.sequences.made import resharded

CUTOFF = START + timedelta(days=240)
HORIZONS = [30, 90]


@dataclass(frozen=True)
class Base:
    """The shop, its tokens, and what can be learnt at the cutoff."""

    store: Store
    tokens: TokenStore
    training: Training
    features: pl.DataFrame


def made_base(folder: Path) -> Base:
    """160 customers with a channel and visits, in three shards."""
    one = shop(folder / "one", customers=160)
    rows = (
        one.scan()
        .collect()
        .with_columns(
            pl.when(pl.col("customer") % 4 > 0)
            .then(pl.format("ch{}", pl.col("customer") % 3))
            .alias("channel")
        )
    )
    visits = rows.filter(pl.col("customer") % 2 == 0).with_columns(
        pl.lit("visit").alias("event_type"), pl.lit(None, pl.Float64).alias("amount"),
        pl.col("event_time") + pl.duration(hours=7), pl.col("known_time") + pl.duration(hours=7),
    )  # fmt: skip
    pl.concat([rows, visits]).sort("customer", "event_time").write_parquet(one.shard_path(0))
    about = replace(
        one.manifest, columns=["amount", "channel"], event_types={"order": 1, "refund": 1, "visit": 1}
    )
    store = resharded(Store(one.folder, about), folder / "three", 3)
    options = Options(training=TrainingOptions(steps=3, readouts=64, buckets=1, check_every=3))
    training = training_at(store, CUTOFF, HORIZONS, options)
    kept = available_at(store.scan(), CUTOFF, "UTC")[0]
    features = features_at(store.scan(), CUTOFF, "UTC", features=kept).collect()
    return Base(store, write_tokens(store, folder / "tokens"), training, features)


def made_rung(
    base: Base, folder: Path, model: ModelOptions, loudness: float = 0.2
) -> tuple[Scorer, SavedRung]:
    """A hardly trained network with loud weights, a correction and uneven interval levels; and as it is read back."""
    assert base.training.grid is not None
    assert base.training.histories is not None
    options = replace(base.training.options, model=model)
    tokens = base.training.histories.tokens
    found = fit_sequence(base.training.first(), base.training.grid, tokens, NOW, options)
    assert isinstance(found, SequencePredictor)
    lot = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in found.trained.network.parameters():
            weight.add_(torch.randn(weight.shape, generator=lot), alpha=loudness)
    save_checkpoint(found.trained, folder)
    levels = Levels(np.linspace(0.75, 0.95, len(NAMES)), 60)
    rung = Rung.sequence_gru if model.encoder is Encoder.gru else Rung.sequence_transformer
    scorer = Scorer(rung, Recalibrated(found, Correction(0.2, -0.1, 0.05)), levels, options, ())
    save_rung(scorer, base.training.buyers, folder)
    return scorer, load_rung(folder)


def scoring_of(base: Base, rung: SavedRung) -> Scoring:
    """At the cutoff."""
    return Scoring(rung, base.store, base.tokens, [CUTOFF], HORIZONS)
