"""The door as a new user finds it: short help, whole tables, and no long imports for short work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from retinue.cli import main
from retinue.help import COMMANDS
from tests.stages.runs import orders, words

HEAVY = ("torch", "sklearn", "plotly", "pytorch_lightning", "xgboost", "scipy")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_what_people_change_and_the_rest_on_request(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    short = capsys.readouterr().out
    assert len(short.splitlines()) < 60
    assert main([command, "--help=all"]) == 0
    whole = capsys.readouterr().out
    assert whole.count("=") > short.count("=")
    assert f"retinue {command} --help=all" in short


def test_a_run_has_no_options_of_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help=all"]) == 0
    shown = capsys.readouterr().out
    assert "pretraining." not in shown
    assert "training.steps" not in shown
    assert "data.columns.customer_id" in shown


@pytest.mark.parametrize("command", ["prepare", "doctor", "features"])
def test_short_work_imports_nothing_long(command: str, tmp_path: Path) -> None:
    orders(60).write_parquet(tmp_path / "orders.parquet")
    asked = [command, *words(tmp_path / "orders.parquet", tmp_path / "out")[1:]]
    program = (
        f"import sys; from retinue.cli import main; code = main({asked!r}); "
        f"print(code, [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "0 []"


def test_tables_in_a_pipe_are_whole_and_days_are_the_shoppers(tmp_path: Path) -> None:
    """A cutoff of 30 June in São Paulo is 1 July in UTC; numbers and names are never cut short."""
    orders(120).with_columns(pl.col("value") * 1_000_000).write_parquet(tmp_path / "orders.parquet")
    asked = words(tmp_path / "orders.parquet", tmp_path / "out", "data.local_zone=America/Sao_Paulo")
    done = subprocess.run(
        [sys.executable, "-m", "retinue.cli", "forecast", *asked[1:]],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert "…" not in done.stdout
    assert "2014-06-30" in done.stdout
    assert "2014-07-01" not in done.stdout
    spend = (
        pl.read_parquet(tmp_path / "out" / "forecasts.parquet")
        .filter(horizon_days=90)["expected_spend"]
        .sum()
    )
    assert f"{spend:,.0f}" in done.stdout


def test_scripts_get_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    orders(120).write_parquet(tmp_path / "orders.parquet")
    asked = words(tmp_path / "orders.parquet", tmp_path / "out")[1:]
    assert main(["doctor", *asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["folder"] == str(tmp_path / "out")
    assert {row["level"] for row in found["quality"]} >= {"fact"}
    assert main(["forecast", *asked, "forecaster=pareto_nbd", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    made = pl.read_parquet(tmp_path / "out" / "forecasts.parquet")
    by_horizon = {row["horizon_days"]: row["clv"] for row in found["forecasts_summary"]}
    for days, clv in by_horizon.items():
        assert clv == pytest.approx(made.filter(horizon_days=days)["clv"].sum())
    assert sorted(by_horizon) == [90, 180]
    assert main(["backtest", *asked, "--json"]) == 1
    assert "--json: is known of" in " ".join(capsys.readouterr().err.split())
