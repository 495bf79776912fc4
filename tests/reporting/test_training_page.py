"""What a training run shows: scores by hand, charts that hold the numbers, a page, and an offline W&B run of it all."""

from __future__ import annotations

import json
import logging
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from retinue.options import Tracking
from retinue.reporting.charts_training import (
    decile_chart,
    horizon_chart,
    leaderboard,
    loss_chart,
    reliability_chart,
)
from retinue.reporting.tracking import TrainingRun, held_scores, track_forecasts
from retinue.reporting.training_page import training_charts, training_page
from retinue.reporting.words import Money
from retinue.training.checkpoint import CURVE_FILE, Trained
from retinue.training.held_out import ALIKE, HELD_OUT_FILE, NETWORK, SCHEMA
from retinue.training.objective import TERMS
from tests.reporting.test_tracking import FakeWandb

CARD = {
    "key": "k", "data_fingerprint": "f", "git_commit": None, "training_end": "1997-09-30", "readouts": 40,
    "customers": 20, "best_step": 3, "best_log_score": -0.5, "tokens_per_second": 1e4, "padding_waste": 0.1,
    "matmul_share": 0.25, "shape": {"encoder": "gru"},
}  # fmt: skip


def curve() -> pl.DataFrame:
    rows = [
        {"step": i + 1, "loss": 3.0 - i, **dict.fromkeys(TERMS, 1.0 - i / 4), "log_score": s}
        for i, s in enumerate((None, -0.9, -0.5))
    ]
    return pl.DataFrame(rows)


def held() -> pl.DataFrame:
    """Four customers at two horizons; the network ranks perfectly, all alike says the same of everybody."""
    orders, spend = [0.0, 0.0, 1.0, 3.0], [0.0, 0.0, 10.0, 50.0]
    said = {
        NETWORK: ([0.9, 0.7, 0.3, 0.1], [0.1, 0.5, 1.0, 2.0], [1.0, 5.0, 12.0, 42.0]),
        ALIKE: ([0.5] * 4, [1.0] * 4, [15.0] * 4),
    }
    frames = [
        pl.DataFrame(
            {
                "model": name, "horizon_days": days, "p_churn": risk, "expected_orders": count, "expected_spend": value,
                "log_score": [math.log(0.5 if name == ALIKE else 0.8)] * 4, "orders": orders, "spend": spend,
            }
        )
        for days in (30, 90)
        for name, (risk, count, value) in said.items()
    ]  # fmt: skip
    return pl.concat(frames).cast(SCHEMA)


def trained() -> Trained:
    return SimpleNamespace(card=dict(CARD), curve=curve())  # type: ignore[return-value]


def test_the_leaderboard_by_hand() -> None:
    board = leaderboard(held())
    assert board["model"].to_list() == ["Network", "All alike"] * 2
    first, second = board.head(2).to_dicts()
    assert first["readouts"] == 4
    assert first["log_score"] == pytest.approx(math.log(0.8))
    assert (first["auroc"], second["auroc"]) == (1.0, 0.5)
    assert first["brier"] == pytest.approx((0.1**2 + 0.3**2 + 0.3**2 + 0.1**2) / 4)
    assert first["orders_bias_percent"] == pytest.approx(100 * (3.6 / 4 - 1))
    assert first["spend_gini"] == pytest.approx(1.0)
    assert second["spend_gini"] == pytest.approx(0.0)
    assert first["spend_bias_percent"] == pytest.approx(0.0, abs=1e-4)
    assert second["orders_bias_percent"] == pytest.approx(0.0)


def test_the_charts_hold_the_numbers() -> None:
    horizons = horizon_chart(held())
    assert [t["name"] for t in horizons.traces] == ["Network", "All alike"]
    assert horizons.traces[0]["x"] == [30, 90]
    assert horizons.traces[1]["y"] == pytest.approx([math.log(0.5)] * 2)
    deciles = decile_chart(held(), Money(""))
    assert deciles.traces[0]["y"] == pytest.approx([42, 12, 5, 1])
    assert deciles.traces[1]["y"] == pytest.approx([50, 10, 0, 0])
    assert "90 days" in deciles.caption
    line = reliability_chart(held()).traces[1]
    assert line["name"] == "30 days"
    assert line["x"] == pytest.approx([0.1, 0.3, 0.7, 0.9])
    assert line["y"] == [0.0, 0.0, 1.0, 1.0]
    assert loss_chart(curve()).traces[0]["y"] == [1.0, 0.75, 0.5]


def test_a_long_curve_is_thinned_by_means() -> None:
    steps = pl.DataFrame({"step": range(1, 1_001)}).with_columns(
        pl.col("step").cast(pl.Float64).alias(n) for n in TERMS
    )
    trace = loss_chart(steps).traces[0]
    assert len(trace["x"]) == 59, "seventeen steps to a point"
    assert (trace["x"][-1], trace["y"][-1]) == (1_000, 993.5)


def test_the_page_tells_it_with_and_without_held_out_customers() -> None:
    page = training_page("shop", trained(), held())
    assert "Leaderboard" in page
    assert "25% of what the machine does" in page
    alone = training_page("shop", trained(), SCHEMA.to_frame())
    assert "Leaderboard" not in alone
    assert len(training_charts(trained(), SCHEMA.to_frame())) == 1


class Run(FakeWandb):
    """With artifacts, kept in memory."""

    class Artifact:
        def __init__(self, name: str, type: str, metadata: dict[str, Any]) -> None:
            self.name, self.type, self.metadata = name, type, metadata
            self.files: list[str] = []

        def add_file(self, path: str, name: str) -> None:
            assert Path(path).is_file()
            self.files.append(name)

        def new_file(self, name: str) -> Any:
            return open("/dev/null", "w", encoding="utf-8")

    def __init__(self, offline: bool = True) -> None:
        super().__init__()
        self.offline = offline
        self.made: list[Run.Artifact] = []
        self.used: list[Run.Artifact] = []
        self.steps: list[int | None] = []

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        super().log(values, step)
        self.steps.append(step)

    def log_artifact(self, artifact: Run.Artifact) -> None:
        self.made.append(artifact)

    def use_artifact(self, artifact: Run.Artifact) -> None:
        assert not self.offline, "W&B refuses it offline"
        self.used.append(artifact)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoints" / "sequence_gru"
    folder.mkdir(parents=True)
    held().write_parquet(folder / HELD_OUT_FILE)
    curve().write_parquet(folder / CURVE_FILE)
    return folder


@pytest.mark.parametrize("offline", [True, False])
def test_a_training_run_holds_curve_scores_plots_and_lineage(
    offline: bool, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(offline)
    monkeypatch.setitem(sys.modules, "wandb", run)
    tracking = Tracking.offline if offline else Tracking.online
    with TrainingRun(tracking, tmp_path, checkpoint, "my shop") as tracked:
        tracked.done(trained())
    assert run.steps == [1, 2, 3, None]
    assert run.logged["train/log_score"] == -0.5
    assert run.logged["train/value"] == 0.5
    assert run.summary["held_out/network/90/auroc"] == 1.0
    assert run.summary["matmul_share"] == 0.25
    assert run.summary["padding_waste"] == 0.1
    plots = {
        "training-loss",
        "training-score",
        "training-horizons",
        "training-reliability",
        "training-deciles",
    }
    assert plots <= set(run.logged)
    assert len(run.logged["leaderboard"].data) == 4
    events, made = run.made if offline else (run.used[0], run.made[0])
    assert (events.name, events.metadata) == ("events-my-shop", {"fingerprint": "f"})
    assert (made.type, made.files) == ("checkpoint", [CURVE_FILE, HELD_OUT_FILE])
    assert made.metadata["data_fingerprint"] == "f"
    assert run.finished


def test_a_training_is_heard_while_it_goes_on_and_each_step_once(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run()
    monkeypatch.setitem(sys.modules, "wandb", run)
    with TrainingRun(Tracking.offline, tmp_path, checkpoint, "shop") as tracked:
        tracked.heard(curve().head(1))
        assert run.steps == [1]
        tracked.heard(curve().head(2))
        assert run.steps == [1, 2]
        assert not run.finished
        tracked.done(trained())
    assert run.steps == [1, 2, 3, None]
    assert run.finished


def test_what_ends_a_training_ends_its_run_as_failed(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run()
    monkeypatch.setitem(sys.modules, "wandb", run)
    with pytest.raises(KeyboardInterrupt), TrainingRun(Tracking.offline, tmp_path, checkpoint, "shop"):
        raise KeyboardInterrupt
    assert run.finished
    assert run.exit_code == 1


def test_a_run_that_fails_midway_does_not_end_the_training(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run()
    monkeypatch.setitem(sys.modules, "wandb", run)
    monkeypatch.setattr(logging.getLogger("retinue"), "propagate", True)

    def lost(*_: object, **__: object) -> None:
        raise ConnectionError("the disk is full")

    with TrainingRun(Tracking.offline, tmp_path, checkpoint, "shop") as tracked:
        monkeypatch.setattr(run, "log", lost)
        tracked.heard(curve())
        tracked.done(trained())
    # an earlier test may have left another handler on the same logger
    assert {(record.levelname, record.getMessage()) for record in caplog.records} == {
        ("WARNING", caplog.records[0].getMessage())
    }
    assert "the disk is full" in caplog.text


def test_forecasts_name_their_checkpoint(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(offline=False)
    monkeypatch.setitem(sys.modules, "wandb", run)
    track_forecasts(Tracking.auto, tmp_path, checkpoint, "shop", {"checkpoint_key": "k"})
    assert not run.finished, "auto tracks trainings only"
    track_forecasts(Tracking.online, tmp_path, checkpoint, "shop", {"checkpoint_key": "k", "horizons": [90]})
    assert (run.used[0].name, run.used[0].files) == ("sequence_gru-shop", [CURVE_FILE, HELD_OUT_FILE])
    assert run.made[0].metadata["horizons"] == [90]


def test_a_run_of_its_own_accord_needs_no_wandb(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("retinue.reporting.tracking.find_spec", lambda name: None)
    with TrainingRun(Tracking.auto, tmp_path, checkpoint, "shop") as tracked:
        tracked.done(trained())
    assert not caplog.records
    assert not list(tmp_path.glob("wandb*"))


def test_scores_have_names_that_json_takes() -> None:
    scores = held_scores(leaderboard(held()))
    assert json.loads(json.dumps(scores)) == scores
    assert "held_out/all_alike/30/log_score" in scores
