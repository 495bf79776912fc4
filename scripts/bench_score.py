"""Batch scoring of a made base: customers per second in all and in the network alone, and the most memory it took.

python scripts/bench_score.py [customers] [width | folder of a base model]
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import torch
from tests.forecasting.shops import START, shop

from retinue.events.store import Store
from retinue.forecasting.base_model import BaseModel, load_base_model
from retinue.forecasting.clocked import reader_of
from retinue.forecasting.rungs import NOW, training_at
from retinue.forecasting.saved import SavedRung, load_rung, save_predictor
from retinue.forecasting.scoring import Scoring, score
from retinue.forecasting.sequence import SequencePredictor, fit_sequence
from retinue.models.clocks import ANCHOR
from retinue.options import ModelOptions, Options, Rung, TrainingOptions
from retinue.sequences.batches import Batch
from retinue.sequences.tokens import TokenStore, write_tokens

EVENTS, DAYS, PER_SHARD = 10, 720, 200_000
CUTOFF = START + timedelta(days=DAYS)


def write_base(folder: Path, customers: int) -> Store:
    """Ten orders of each customer over two years, in shards of 200,000 customers."""
    about = shop(folder / "small", customers=2).manifest
    shards = -(-customers // PER_SHARD)
    for shard in range(shards):
        lot = np.random.default_rng(shard)
        who = np.repeat(np.arange(shard, customers, shards), EVENTS)
        day = lot.uniform(0, DAYS, len(who))
        events = pl.DataFrame({"customer": who, "day": day, "amount": lot.lognormal(3, 0.5, len(who))})
        time_of = (
            pl.lit(START) + pl.duration(seconds=(pl.col("day") * 86_400).cast(pl.Int64))
        ).dt.cast_time_unit("us")
        events.select(
            pl.lit("made").alias("base"), pl.format("c{}", "customer").alias("customer_id"), "customer",
            time_of.alias("event_time"), time_of.alias("known_time"), pl.lit("order").alias("event_type"), "amount",
        ).sort("customer", "event_time").write_parquet(folder / f"shard-{shard:05d}.parquet")  # fmt: skip
    manifest = replace(
        about, shards=shards, customers=customers, events=customers * EVENTS, event_types={"order": customers * EVENTS},
        observation_end=CUTOFF.isoformat(),
    )  # fmt: skip
    store = Store(folder, manifest)
    store.write_manifest()
    return store


def write_rung(folder: Path, width: int) -> SavedRung:
    """A network of the usual size, hardly trained: scoring takes as long whatever it has learnt."""
    store = shop(folder / "school", customers=600, days=DAYS)
    options = Options(model=ModelOptions(width=width), training=TrainingOptions(steps=5, readouts=256))
    training = training_at(store, CUTOFF - timedelta(days=1), [90], options)
    assert training.grid is not None
    assert training.histories is not None
    found = fit_sequence(
        training.first(), training.grid, training.histories.tokens, NOW, options, folder / "rung"
    )
    assert isinstance(found, SequencePredictor)
    save_predictor(found, Rung.sequence_gru, folder / "rung")
    return load_rung(folder / "rung")


def network_rate(rung: SavedRung | BaseModel, customers: int = 16_384) -> tuple[float, float]:
    """Customers per second, and per second of one core, from tensors to clocks, ten tokens each."""
    network, shape = rung.trained.network, rung.trained.network.shape
    tokens = customers * EVENTS
    batch = Batch(
        kind=torch.ones(tokens, dtype=torch.int64), codes=torch.zeros(tokens, len(shape.code_sizes), dtype=torch.int64),
        numbers=torch.rand(tokens, len(shape.number_edges)), gaps=torch.rand(tokens, 3), age=torch.rand(tokens),
        calendar=torch.rand(tokens, 6), cu_seqlens=torch.arange(0, tokens + 1, EVENTS, dtype=torch.int32),
        at=torch.arange(EVENTS - 1, tokens, EVENTS), silence=torch.rand(customers, 4),
        cutoff_calendar=torch.rand(customers, 6), features=torch.rand(customers, len(shape.feature_edges)),
        base=torch.zeros(customers, dtype=torch.int64), group=torch.zeros(customers, dtype=torch.int64),
        anchor=torch.zeros(customers, ANCHOR),
    )  # fmt: skip
    best, reader = [float("inf")] * 2, reader_of(network)
    with torch.inference_mode():
        for _ in range(4):
            began = time.perf_counter(), time.process_time()
            network.read(reader.states_at(batch), batch)
            took = time.perf_counter() - began[0], time.process_time() - began[1]
            best = [min(pair) for pair in zip(best, took, strict=True)]
    return customers / best[0], customers / best[1]


def main(customers: int, which: str) -> None:
    """Prints one line per figure."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rung = write_rung(folder, int(which)) if which.isdigit() else load_base_model(Path(which))
        width = rung.trained.network.shape.width
        wall, core = network_rate(rung)
        print(
            f"network alone, {EVENTS} events each, width {width}: {wall:,.0f} customers/s, {core:,.0f} per core second"
        )
        (folder / "events").mkdir()
        store = write_base(folder / "events", customers)
        began = time.perf_counter()
        tokens: TokenStore = write_tokens(store, folder / "tokens")
        print(f"tokens: {customers / (time.perf_counter() - began):,.0f} customers/s")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        began, used = time.perf_counter(), time.process_time()
        score(Scoring(rung, store, tokens, [CUTOFF], [90]), folder / "out")
        wall, core = (customers / took for took in (time.perf_counter() - began, time.process_time() - used))
        print(
            f"scoring, features and all: {wall:,.0f} customers/s, {core:,.0f} per core second; {customers / wall:,.1f} s"
        )
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"most memory: {most:.2f} GiB (before scoring {before:.2f} GiB)")


if __name__ == "__main__":
    asked = [*sys.argv[1:], *["200000", "64"][len(sys.argv) - 1 :]]
    main(int(asked[0]), asked[1])
