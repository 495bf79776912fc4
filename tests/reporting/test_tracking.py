"""A Weights & Biases run only where one was asked for, with what the backtest found in it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retinue.config import Tracking, resolve
from retinue.evaluation.comparison import ALL_ZERO, Entry, Folds, compare
from retinue.evaluation.outcomes import Outcomes, all_zero
from retinue.forecasting.backtest import Backtest
from retinue.reporting.tracking import summary, track
from retinue.schema import SENTINELS, InputError


@pytest.fixture
def found() -> Backtest:
    lot = np.random.default_rng(0)
    orders, said = lot.poisson(1.0, 60).astype(float), lot.random(60)
    unknown = np.full(60, np.nan)
    rows = Outcomes(
        np.zeros(60, np.int64), np.arange(60), said, 2 * said, 20 * said, orders, 10 * orders, *[unknown] * 7
    )  # fmt: skip
    entries = (Entry("bg_nbd", (rows,)), Entry(ALL_ZERO, (all_zero(rows),)))
    folds = Folds([datetime(2020, 1, 1, tzinfo=UTC)], 30, lot.random(60) < 0.3)
    return Backtest(compare(entries, folds), SENTINELS.schema.to_frame(), entries, folds)


class FakeWandb:
    """What we use of the package, remembered."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.summary: dict[str, float] = {}
        self.logged: dict[str, Any] = {}
        self.finished = False

    def init(self, **asked: Any) -> FakeWandb:
        self.asked = asked
        return self

    def Table(self, columns: list[str], data: list[Any]) -> Any:  # noqa: N802
        return SimpleNamespace(columns=columns, data=data)

    def Html(self, page: str, inject: bool) -> Any:  # noqa: N802
        return page

    def log(self, values: dict[str, Any]) -> None:
        self.logged |= values

    def finish(self) -> None:
        self.finished = True


def test_off_needs_nothing(found: Backtest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert resolve([]).tracking is Tracking.off
    track(Tracking.off, tmp_path, "shop", found)


def test_a_missing_package_is_one_line(
    found: Backtest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"tracking=offline: the package wandb is not installed"):
        track(resolve(["tracking=offline"]).tracking, tmp_path, "shop", found)


def test_a_run_holds_scores_table_and_page(
    found: Backtest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    (tmp_path / "backtest.html").write_text("<html>")
    track(Tracking.offline, tmp_path, "shop", found)
    assert fake.asked["mode"] == "offline"
    assert fake.asked["dir"] == str(tmp_path)
    assert fake.summary == summary(found)
    assert fake.summary["bg_nbd/churn.brier_error"] > 0
    assert "bg_nbd/orders.log_score" not in fake.summary, "undefined scores are left out"
    assert len(fake.logged["backtest"].data) == found.scores.height
    assert fake.logged["page"] == "<html>"
    assert fake.finished
