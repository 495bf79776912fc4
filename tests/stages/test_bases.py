"""Several brands in one file: a run of each by itself, and a page that compares them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from retinue.cli import main
from tests.stages.runs import orders, words


def brands(folder: Path) -> Path:
    """cases/two_brands.csv: two brands that share customer ids, and rows without a brand."""
    north = orders(120, seed=1).with_columns(pl.lit("north").alias("brand"))
    south = orders(90, seed=2).with_columns(pl.lit(" south ").alias("brand"), pl.col("value") * 10)
    rest = orders(60, seed=3).with_columns(pl.lit(None, pl.String).alias("brand"))
    path = folder / "orders.parquet"
    pl.concat([north, south, rest]).write_parquet(path)
    return path


def test_each_brand_is_what_it_is_alone_and_a_page_compares_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = brands(tmp_path)
    asked = words(
        path,
        tmp_path / "out",
        "data.columns.base=brand",
        "forecaster=pareto_nbd",
        f"ledger={tmp_path / 'ledger'}",
    )
    assert main(asked) == 0
    shown = capsys.readouterr().out
    assert f"bases: {tmp_path / 'out' / 'bases.html'}" in shown
    for name, count, seed, factor in (("north", 120, 1, 1), ("south", 90, 2, 10), ("base", 60, 3, 1)):
        alone = tmp_path / f"{name}.parquet"
        orders(count, seed=seed).with_columns(pl.col("value") * factor).write_parquet(alone)
        assert main([*words(alone, tmp_path / name), "forecaster=pareto_nbd"]) == 0
        ours, theirs = (
            pl.read_parquet(folder / "forecasts.parquet")
            for folder in (tmp_path / "out" / f"base={name}", tmp_path / name)
        )
        keys = ["customer_id", "horizon_days"]
        both = ours.join(theirs, on=keys, validate="1:1")
        assert both.height == ours.height == theirs.height
        assert (both["expected_spend"] - both["expected_spend_right"]).abs().max() < 1e-6  # type: ignore[operator]
        assert (tmp_path / "out" / f"base={name}" / "report.html").is_file()
        assert list((tmp_path / "ledger" / f"base={name}").glob("*.parquet"))
    page = (tmp_path / "out" / "bases.html").read_text()
    for name in ("north", "south", "base"):
        assert f"base={name}/report.html" in page
    capsys.readouterr()
    assert main(asked) == 0
    assert "done in" not in capsys.readouterr().err


def test_a_column_that_names_no_bases_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = brands(tmp_path)
    assert main(words(path, tmp_path / "out", "data.columns.base=cid")) == 1
    assert "has more than 100 values" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
