"""A Weights & Biases run only where one was asked for, with what the backtest found in it."""

from __future__ import annotations

import json
import logging
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retinue.config import as_yaml, resolve
from retinue.evaluation.comparison import ALL_ZERO, Entry, Folds, compare
from retinue.evaluation.outcomes import Outcomes, all_zero
from retinue.forecasting.backtest import Backtest
from retinue.options import Tracking, ValueOptions
from retinue.reporting.tracking import summary, track
from retinue.schema import SENTINELS


def a_backtest() -> Backtest:
    lot = np.random.default_rng(0)
    orders, said = lot.poisson(1.0, 60).astype(float), lot.random(60)
    unknown = np.full(60, np.nan)
    rows = Outcomes(
        np.zeros(60, np.int64), np.arange(60), said, 2 * said, 20 * said, orders, 10 * orders, *[unknown] * 7
    )  # fmt: skip
    entries = (Entry("bg_nbd", (rows,)), Entry(ALL_ZERO, (all_zero(rows),)))
    folds = Folds([datetime(2020, 1, 1, tzinfo=UTC)], 30, lot.random(60) < 0.3)
    return Backtest(compare(entries, folds), SENTINELS.schema.to_frame(), entries, folds, ValueOptions())


@pytest.fixture
def found() -> Backtest:
    return a_backtest()


class FakeWandb:
    """What we use of the package, remembered."""

    errors = SimpleNamespace(Error=ConnectionError)
    Settings = dict
    plot = SimpleNamespace(line_series=lambda **words: words)

    def __init__(self, unreachable: bool = False) -> None:
        self.unreachable = unreachable
        self.asked: dict[str, Any] = {}
        self.summary: dict[str, float] = {}
        self.logged: dict[str, Any] = {}
        self.finished = False

    def init(self, **asked: Any) -> FakeWandb:
        if self.unreachable:
            raise ConnectionError("no answer\nfrom the server.")
        self.asked = asked
        return self

    def Table(self, columns: list[str], data: list[Any]) -> Any:  # noqa: N802
        return SimpleNamespace(columns=columns, data=data)

    def Html(self, page: str, inject: bool) -> Any:  # noqa: N802
        return page

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        self.logged |= values

    def finish(self, exit_code: int = 0) -> None:
        self.finished, self.exit_code = True, exit_code


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("retinue"), "propagate", True)  # the command line turns it off
    return caplog


def test_off_needs_nothing(found: Backtest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert resolve([]).tracking is Tracking.auto
    for unasked in (Tracking.off, Tracking.auto):
        track(unasked, tmp_path, "shop", found)
    assert not list(tmp_path.iterdir())


def test_without_the_package_the_backtest_stands(
    found: Backtest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    track(resolve(["tracking=offline"]).tracking, tmp_path, "shop", found)
    assert [record.levelname for record in told.records] == ["WARNING"]
    assert "tracking=offline: the package wandb is not installed" in told.text


def test_out_of_reach_the_backtest_stands(
    found: Backtest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(unreachable=True))
    track(Tracking.online, tmp_path, "shop", found)
    assert "tracking=online: no answer from the server. Use tracking=offline" in told.text


def test_a_run_holds_scores_table_and_page(
    found: Backtest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    (tmp_path / "backtest.html").write_text("<html>")
    (tmp_path / "config.yaml").write_text(as_yaml(resolve(["seed=7"])))
    track(Tracking.offline, tmp_path, "shop", found)
    assert fake.asked["mode"] == "offline"
    assert fake.asked["dir"] == str(tmp_path)
    assert fake.asked["config"]["seed"] == 7
    assert fake.summary == summary(found)
    assert fake.summary["bg_nbd/churn.brier_error"] > 0
    assert "bg_nbd/orders.log_score" not in fake.summary, "undefined scores are left out"
    assert len(fake.logged["backtest"].data) == found.scores.height
    assert fake.logged["page"] == "<html>"
    assert fake.logged["backtest-profit"]["keys"] == ["BG/NBD", "All zero", "with hindsight"]
    assert fake.logged["by_origin/bg_nbd/value.gini"] == pytest.approx(fake.summary["bg_nbd/value.gini"])
    assert fake.finished


REAL = """
import json, sys
from pathlib import Path
from retinue.options import Tracking
from retinue.reporting.tracking import track
from tests.reporting.test_tracking import a_backtest, records
folder = Path(sys.argv[1])
track(Tracking(sys.argv[2]), folder, "shop", a_backtest())
import wandb
from wandb.proto.wandb_internal_pb2 import Record
wandb.teardown()  # the service writes the last of the file
kept = {"config": {}, "summary": {}}
for path in folder.glob("wandb/offline-run-*/run-*.wandb"):
    for data in records(path.read_bytes()):
        record = Record.FromString(data)
        for name, items in (("config", record.run.config.update), ("summary", record.summary.update)):
            kept[name] |= {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}
print(json.dumps(kept))
"""


def records(file: bytes) -> Iterator[bytes]:
    """Of a LevelDB log behind a header of 7 bytes: blocks of 32 KiB; check sum (4), length (2), kind (1), data."""
    at, held = 7, b""
    while at < len(file):
        left = -at % 32_768 or 32_768
        if left < 7:
            at += left
            continue
        size, kind = struct.unpack_from("<4xHB", file, at)
        held += file[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield held
            held = b""


def really(folder: Path, mode: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, at home in the folder: the package starts a service and writes caches."""
    own = {
        name: str(folder / "home")
        for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR")
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", REAL, str(folder), mode],
        env=kept | own, cwd=root, capture_output=True, text=True, timeout=120, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip


needs_wandb = pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed (extra tracking)")


@needs_wandb
def test_a_real_offline_run_holds_it_all(found: Backtest, tmp_path: Path) -> None:
    (tmp_path / "backtest.html").write_text("<html>a page")
    (tmp_path / "config.yaml").write_text(as_yaml(resolve(["seed=7"])))
    kept = json.loads(really(tmp_path, "offline").stdout.splitlines()[-1])
    assert kept["config"]["seed"] == 7
    for name, value in summary(found).items():
        assert kept["summary"][name] == pytest.approx(value)
    (media,) = tmp_path.glob("wandb/offline-run-*/files/media")
    tables = {path.name.split("_0_")[0]: json.loads(path.read_text()) for path in media.glob("table/*.json")}
    assert tables["backtest"]["columns"] == found.scores.columns
    assert len(tables["backtest"]["data"]) == found.scores.height
    assert tables["sentinels"]["columns"] == found.sentinels.columns
    assert {"backtest-profit_table", "backtest-captured_table", "backtest-reliability_table"} <= set(tables)
    assert [path.read_text() for path in media.glob("html/*.html")] == ["<html>a page"]


@needs_wandb
def test_online_without_a_key_the_backtest_stands(tmp_path: Path) -> None:
    (tmp_path / "backtest.html").write_text("<html>a page")
    done = really(tmp_path, "online")
    assert "tracking=online: " in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, "one line, no traceback"
