"""The whole way, as a user walks it: resume, kill, another order of rows, other shards, other threads, mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from retinue.cli import main
from tests.stages.kill_runs import kill_runs
from tests.stages.runs import assert_same_tables, orders, retinue, words


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    orders().write_parquet(folder / "orders.parquet")
    done = retinue(*words(folder / "orders.parquet", folder / "out"))
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_leaves_the_tables_of_the_contract(finished: Path) -> None:
    from retinue.schema import DECISIONS, FORECASTS, SEGMENTS

    out = finished / "out"
    forecasts = FORECASTS.check(pl.read_parquet(out / "forecasts.parquet"))
    assert forecasts["horizon_days"].unique().sort().to_list() == [90, 180]
    SEGMENTS.check(pl.read_parquet(out / "segments.parquet"))
    DECISIONS.check(pl.read_parquet(out / "decisions.parquet"))
    assert pl.read_parquet(out / "features.parquet").height >= forecasts["customer_id"].n_unique()
    assert "<html" in (out / "report.html").read_text()
    metrics = json.loads((out / "metrics.json").read_text())
    assert 0.5 < metrics["realised"]["180"]["churn"]["auroc"] <= 1


def test_running_again_does_nothing_and_a_new_option_runs_only_what_follows(finished: Path) -> None:
    out = finished / "out"
    again = retinue(*words(finished / "orders.parquet", out))
    assert again.stderr.count("unchanged, kept") == 7, again.stderr
    before = (out / "report.html").read_text()
    changed = retinue(*words(finished / "orders.parquet", out, "value.margin_rate=0.5"))
    kept = [line.split()[-3].rstrip(":") for line in changed.stderr.splitlines() if "unchanged, kept" in line]
    assert kept == ["prepare", "doctor", "features", "segment"], changed.stderr
    assert (out / "report.html").read_text() != before
    assert retinue(*words(finished / "orders.parquet", out)).returncode == 0


def test_a_deleted_table_is_made_again(finished: Path) -> None:
    out = finished / "out"
    before = pl.read_parquet(out / "segments.parquet")
    (out / "segments.parquet").unlink()
    assert retinue(*words(finished / "orders.parquet", out)).returncode == 0
    assert pl.read_parquet(out / "segments.parquet").equals(before)


def test_order_of_rows_shards_and_threads_change_nothing(finished: Path, tmp_path: Path) -> None:
    shuffled = orders().sample(fraction=1.0, shuffle=True, seed=5)
    shuffled.write_parquet(tmp_path / "orders.parquet")
    command = words(tmp_path / "orders.parquet", tmp_path / "out", "shards=7")
    one_thread = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = retinue(*command, **one_thread)
    assert done.returncode == 0, done.stderr
    assert_same_tables(finished / "out", tmp_path / "out")


def test_killed_runs_resume_to_the_same_tables(tmp_path: Path) -> None:
    assert len(kill_runs(tmp_path, kills=3)) == 3


@pytest.mark.slow
def test_thirty_killed_runs_resume_to_the_same_tables(tmp_path: Path) -> None:
    assert len(kill_runs(tmp_path, kills=30, seed=1)) == 30


def test_two_runs_in_one_folder_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import fcntl

    orders(20).write_parquet(tmp_path / "orders.parquet")
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert main(words(tmp_path / "orders.parquet", tmp_path / "out")) == 1
    assert "another run is writing there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["cutoff=2100-01-01"], "cutoff"),
        (["cutoff=1999-01-01"], "cutoff"),
        (["cutoff=yesterday"], "must be a date"),
        (["data.path=missing.parquet"], "missing.parquet"),
        (["data.columns.customer_id=who"], "'who'"),
        (["segments.previous=missing.json"], "missing.json"),
        (["data.time_zone=Mars/Base"], "Mars/Base"),
        (["seed=-1"], "seed=-1"),
    ],
)
def test_mistakes_end_in_one_line(
    finished: Path, tmp_path: Path, more: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(words(finished / "orders.parquet", tmp_path / "out", *more))
    err = capsys.readouterr().err
    assert code == 1
    assert says in err.strip().splitlines()[-1]
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("*unfinished*"))
