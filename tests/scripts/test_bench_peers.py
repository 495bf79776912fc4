"""What the peers are given, what is read from them, and the table; no peer is needed."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from retinue.accel.engine import choose_engine
from retinue.evaluation.realised import realised
from retinue.forecasting.grid import Grid, grid_at
from retinue.forecasting.trees import usable
from retinue.models.btyd import Histories
from retinue.models.statistics import statistics_of
from retinue.options import Engine
from scripts import bench_peer, bench_peers
from tests.forecasting.shops import START, shop

WEEK = bench_peer.WEEK
BG_WEEKS = {"r": 0.25, "alpha": 4.5, "a": 0.8, "b": 2.4}
PARETO_WEEKS = {"r": 0.55, "alpha": 10.6, "s": 0.6, "beta": 11.7}


def buyers(**money: list[float | None]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "customer_id": ["a", "b", "c"],
            "frequency": [0.0, 3.0, 1.0],
            "recency_days": [0.0, 90.0, 20.0],
            "T_days": [50.0, 100.0, 200.0],
            **money,
        }
    )


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    store = shop(tmp_path_factory.mktemp("peers"))
    made = grid_at(store, START + timedelta(days=240), [60], choose_engine(Engine.cpu))
    assert made is not None
    return made


def test_a_peers_one_time_buyer_can_only_wait() -> None:
    base = statistics_of(buyers())
    fitted = bench_peer.law("bg_nbd", BG_WEEKS, WEEK)
    said, broken = bench_peer.said_by(base, fitted, np.ones(3), np.full(3, 10.0), days=70)
    weeks = 4.5 + 50 / 7
    assert said.p_churn[0] == pytest.approx((weeks / (weeks + 10)) ** 0.25, rel=1e-12)
    assert said.spend.tolist() == [10.0, 10.0, 10.0]
    assert broken == 0


def test_a_peers_weeks_become_days() -> None:
    assert bench_peer.law("bg_nbd", BG_WEEKS, WEEK).parameters.tolist() == pytest.approx(
        [0.25, 31.5, 0.8, 2.4]
    )
    pareto = bench_peer.law("pareto_nbd", PARETO_WEEKS, WEEK)
    assert pareto.parameters.tolist() == pytest.approx([0.55, 74.2, 0.6, 81.9])


@pytest.mark.parametrize(("model", "found"), [("bg_nbd", BG_WEEKS), ("pareto_nbd", PARETO_WEEKS)])
def test_no_order_is_a_ratio_of_likelihoods(model: str, found: dict[str, float]) -> None:
    base = statistics_of(buyers())
    fitted = bench_peer.law(model, found, WEEK)
    said, _ = bench_peer.said_by(base, fitted, np.ones(3), np.ones(3), days=70)
    x, t_x, T = base.distinct.columns[:, base.place]
    logs = [fitted.log_likelihood(Histories(x, t_x, end)) for end in (T + 70, T)]
    np.testing.assert_allclose(said.p_churn, torch.exp(logs[0] - logs[1]).numpy(), rtol=1e-9)


def test_a_nan_of_a_peer_is_read_from_its_parameters_and_counted() -> None:
    base = statistics_of(buyers())
    fitted = bench_peer.law("bg_nbd", BG_WEEKS, WEEK)
    orders = np.array([np.nan, 2.0, 2.0])
    said, broken = bench_peer.said_by(base, fitted, orders, np.full(3, 5.0), days=70)
    x, t_x, T = base.distinct.columns[:, base.place]
    meant = fitted.orders(Histories(x, t_x, T), torch.tensor([70.0], dtype=torch.float64))[0, 0]
    assert said.orders.tolist() == pytest.approx([float(meant), 2.0, 2.0])  # a one-time buyer is alive
    assert said.spend.tolist() == pytest.approx([5 * float(meant), 10.0, 10.0])
    assert broken == 1
    assert bench_peer.named("lifetimes:bg_nbd", broken) == "lifetimes:bg_nbd (1 NaN)"
    assert bench_peer.named("lifetimes:bg_nbd", 0) == "lifetimes:bg_nbd"


def test_peers_get_net_values_of_orders_with_a_known_amount() -> None:
    pytest.importorskip("pandas", reason="pandas comes with the extra demo")
    money: dict[str, list[float | None]] = {
        "net_spend_ever": [30.0, 80.0, None],
        "refund_value_ever": [30.0, 10.0, None],
        "valued_transactions": [1.0, 4.0, 0.0],
    }
    frame = bench_peer.frame_of(statistics_of(buyers(**money)), WEEK)
    assert frame["n"].tolist() == [1, 4, 0]
    assert frame["z"].tolist() == [30.0, 20.0, 0.0]
    assert frame["frequency"].tolist() == [0, 3, 1]
    assert frame["recency"].tolist() == pytest.approx([0, 90 / 7, 20 / 7])
    refunded = buyers(net_spend_ever=[-5.0, 80.0, 10.0], valued_transactions=[1.0, 4.0, 2.0])
    assert bench_peer.frame_of(statistics_of(refunded), 1.0)["n"].tolist() == [0, 4, 2]


def test_examples_are_windows_that_had_closed(grid: Grid) -> None:
    columns = usable(grid.features[min(grid.features)])
    of = bench_peer.examples_of(grid, columns)
    windows = [(at, days) for at in sorted(grid.features) for days in grid.layout.horizons if days <= at]
    days = np.concatenate([np.full(grid.features[at].height, days) for at, days in windows])
    came = pl.concat([grid.outcomes(at, days) for at, days in windows])
    assert len({days for _, days in windows}) > 1
    np.testing.assert_allclose(of.matrix[:, -1], np.log(days), rtol=1e-6)
    np.testing.assert_array_equal(of.orders, came["realised_orders"].to_numpy())
    np.testing.assert_array_equal(of.spend, came["realised_spend"].to_numpy())
    held = came.with_columns(held=of.held_out).group_by("customer_id").agg(pl.col("held").n_unique())
    assert held["held"].max() == 1
    assert 0.05 < of.held_out.mean() < 0.4


def test_many_examples_are_thinned(grid: Grid) -> None:
    columns = usable(grid.features[min(grid.features)])
    every = len(bench_peer.examples_of(grid, columns).orders)
    assert 0.3 < len(bench_peer.examples_of(grid, columns, every // 2).orders) / every < 0.7


def test_all_zero_is_scored_like_any_other(tmp_path: Path) -> None:
    store = shop(tmp_path)
    found = bench_peer.measured("all_zero", bench_peer.Task(store, START + timedelta(days=200), 60))
    assert found["churn"]["auroc"] == 0.5
    assert found["orders"]["bias_percent"] == -100
    assert found["value"]["gini"] == 0
    assert found["orders"]["log_score"] is None
    assert bench_peers.cells("lifetimes:bg_nbd", found | {"model": "lifetimes:bg_nbd (1 NaN)"}, {})[
        0
    ].endswith("NaN)")
    assert bench_peers.cells("retinue:auto", found | {"model": "blend"}, {})[0] == "retinue:auto (blend)"
    row = bench_peers.cells("all_zero", found, {})
    assert dict(zip(bench_peers.HEADER, row, strict=True))["log score"] == ""


def test_a_peer_that_is_not_there_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench_peer, "find_spec", lambda name: None)
    task = bench_peer.Task(shop(tmp_path), START + timedelta(days=200), 60)
    found = bench_peer.measured("pymc-marketing:bg_nbd", task)
    assert found == {"skipped": "pymc-marketing is not installed; pip install 'retinue[bench]' brings it"}
    row = bench_peers.cells("pymc-marketing:bg_nbd", found, {})
    assert len(row) == len(bench_peers.HEADER)
    assert row[1] == found["skipped"]


def test_the_table_says_which_method_failed_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "Traceback\nValueError: no such thing\n")

    monkeypatch.setattr(subprocess, "run", run)
    found = bench_peers.measured("lightgbm", Path("nowhere"), bench_peers.BASES[0], 1.0)
    table = bench_peers.markdown([bench_peers.cells("lightgbm", found, {})])
    assert table.splitlines()[-1].startswith("| lightgbm | failed: ValueError: no such thing |")
    assert {line.count("|") for line in table.splitlines()} == {len(bench_peers.HEADER) + 1}


def test_leads_are_paired_by_customer() -> None:
    rival = {"log_scores": [-2.0, -5.0]}
    # leads of 1 and 3: mean 2, deviation √2, error 1
    assert bench_peers.below({"log_scores": [-1.0, -2.0]}, rival) == "+2.0000 ± 1.0000 (+2.0 se)"
    assert bench_peers.below({"log_scores": None}, rival) == bench_peers.below(rival, rival) == ""


def test_whose_spend_halved_is_foretold_by_who_knows_it(tmp_path: Path) -> None:
    store = shop(tmp_path)
    task = bench_peer.Task(store, START + timedelta(days=200), 60)
    buyers = bench_peer.summaries(task)
    truth = realised(store.scan(), task.at, 60, store.local_zone).collect()
    spend = buyers.join(truth, on="customer_id", how="left", maintain_order="left")[
        "realised_spend"
    ].to_numpy()
    sure = bench_peer.Said((spend <= 0).astype(float), spend, spend)
    wrong = bench_peer.Said((spend > 0).astype(float), -spend, -spend)
    found = [
        bench_peer.halved_auroc(task, bench_peer.table_of(buyers, 60, "made", said), truth)
        for said in (sure, wrong)
    ]
    assert found == [1.0, 0.0]
