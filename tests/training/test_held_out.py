"""What is said of held-out customers: the horizons they were watched for, beside what evaluation counts, in money."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from retinue.models.clocks import WIDTH, neutral_raw
from retinue.models.network import Network
from retinue.sequences.resident import Resident, resident
from retinue.training.fit import fit_network, new_network
from retinue.training.held_out import ALIKE, HELD_OUT_FILE, NETWORK, SCHEMA, held_out
from tests.training.made import CUTOFFS, END, readouts, small, task, tokens


@pytest.fixture(scope="module")
def held() -> Resident:
    made = task()
    assert made.inner is not None
    return resident(made.tokens, made.inner, made.vocabulary, made.season)


def untrained(neutral: torch.Tensor) -> Network:
    torch.manual_seed(0)
    return new_network(task(), small().model, neutral)


def test_only_horizons_that_were_seen_whole(held: Resident) -> None:
    table = held_out(untrained(neutral_raw(0.02, 0.3)), held, neutral_raw(0.02, 0.3), 1.0)
    assert table.schema == SCHEMA
    seen = readouts(tokens())
    inner = seen.customer % 4 == 0
    for days in (7, 30, 90, 180):
        last = sum((END - cutoff).days >= days for cutoff in CUTOFFS)
        moments = np.unique(seen.cutoff)[:last]
        expected = int((inner & np.isin(seen.cutoff, moments)).sum())
        rows = table.filter((pl.col("horizon_days") == days) & (pl.col("model") == NETWORK))
        assert rows.height == expected > 0
    assert table.filter(pl.col("horizon_days") == 365).is_empty(), "nobody was watched for a year"


def test_an_untrained_network_says_what_is_said_of_all_alike(held: Resident) -> None:
    neutral = neutral_raw(0.05, 0.2)
    table = held_out(untrained(neutral), held, neutral, 20.0)
    network, alike = (table.filter(pl.col("model") == name).drop("model") for name in (NETWORK, ALIKE))
    for name in network.columns:
        np.testing.assert_allclose(network[name], alike[name], rtol=1e-5)
    trained = untrained(neutral)
    with torch.no_grad():
        next(p for name, p in trained.named_parameters() if name == "readout.out.2.bias").add_(
            torch.full((WIDTH,), 0.5)
        )
    assert held_out(trained, held, neutral, 20.0).filter(model=NETWORK)["p_churn"].mean() != pytest.approx(
        alike["p_churn"].mean(), rel=1e-3
    )


def test_spend_is_in_account_currency(held: Resident) -> None:
    neutral = neutral_raw(0.05, 0.2)
    one, ten = (held_out(untrained(neutral), held, neutral, unit) for unit in (1.0, 10.0))
    for name in ("spend", "expected_spend"):
        np.testing.assert_allclose(10 * one[name].to_numpy(), ten[name], rtol=1e-5)
    assert (one["spend"] > 0).any()


def test_the_log_score_is_that_of_the_counts_beside_it(held: Resident) -> None:
    neutral = neutral_raw(0.05, 0.2)
    rows = held_out(untrained(neutral), held, neutral, 1.0).filter(orders=0.0)
    assert rows.height > 10
    np.testing.assert_allclose(rows["log_score"].exp(), rows["p_churn"], rtol=1e-4)


def test_training_leaves_the_table_and_its_speed(tmp_path: Path) -> None:
    trained = fit_network(task(), replace(small(steps=10), seed=1), tmp_path)
    table = pl.read_parquet(tmp_path / HELD_OUT_FILE)
    assert set(table["model"]) == {NETWORK, ALIKE}
    assert trained.card["matmul_share"] > 0
