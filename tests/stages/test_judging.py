"""Backtest and ledger as a user walks them: files left, ledger kept from run to run, the report's section."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from retinue.config import resolve
from retinue.judge import run_backtest, run_ledger
from retinue.options import Options
from retinue.pipeline import Run
from retinue.schema import BACKTEST, MATURED, RECONCILED, InputError
from tests.stages.runs import orders, words


def asked(folder: Path, *more: str) -> Options:
    path = folder / "orders.parquet"
    if not path.exists():
        orders(120).write_parquet(path)
    return resolve([*words(path, folder / "out", "segments.bootstraps=2")[1:], *more])


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run, list[pl.DataFrame]]:
    """One run per quarter, the last of them twice."""
    folder = tmp_path_factory.mktemp("ledger")
    kept = []
    for cutoff in ("2013-12-31", "2014-03-31", "2014-03-31"):
        run, found = run_ledger(
            asked(folder, f"cutoff={cutoff}", "forecaster=bg_nbd", "horizon_days=[90,400]")
        )
        kept.append(found.kept)
    return folder, run, kept


def test_the_ledger_outlives_the_run_and_never_doubles(ledgers: tuple[Path, Run, list[pl.DataFrame]]) -> None:
    _, run, kept = ledgers
    assert kept[0].height < kept[1].height == kept[2].height
    assert len(list(run.options.ledger_folder.glob("*.parquet"))) == 2
    matured = MATURED.check(run.read("matured"))
    assert matured["horizon_days"].unique().to_list() == [90], "400 days have not passed"
    assert matured["cutoff"].n_unique() == 2
    assert matured["segment_name"].null_count() == 0
    pooled = RECONCILED.check(run.read("reconciled")).filter(
        pl.col("cutoff").is_null() & (pl.col("dimension") == "all")
    )
    assert pooled["customers"].to_list() == [matured.height]
    assert run.read("drift").height > 10


def test_the_report_gets_its_section(ledgers: tuple[Path, Run, list[pl.DataFrame]]) -> None:
    _, run, _ = ledgers
    report = (run.folder / "report.html").read_text()
    assert report.count('id="time"') == 1
    assert report.count('data-figure="ledger-spend-90"') == 1
    assert "ledger-spend-400" not in report
    assert 'id="verdict"' in (run.folder / "ledger.html").read_text()


def test_a_backtest_leaves_its_table_and_page(tmp_path: Path) -> None:
    words_of = [*_without_cutoff(tmp_path), "rungs=[own_rate]", "origins=1", "horizon_days=60"]
    run, found = run_backtest(resolve(words_of))
    assert BACKTEST.check(run.read("backtest")).equals(found.scores)
    assert found.sentinels["passed"].all(), found.sentinels.rows()
    assert "Who wins" in (run.folder / "backtest.html").read_text()
    assert not (run.folder / "forecasts.parquet").exists()


def _without_cutoff(folder: Path) -> list[str]:
    orders(120).write_parquet(folder / "orders.parquet")
    return [
        w
        for w in words(folder / "orders.parquet", folder / "out")[1:]
        if not w.startswith(("cutoff", "horizon"))
    ]


def test_a_future_that_the_data_do_not_hold_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs the whole future"):
        run_backtest(asked(tmp_path, "horizon_days=400"))
    with pytest.raises(InputError, match="origins=4"):
        run_backtest(resolve([*_without_cutoff(tmp_path), "horizon_days=720"]))
