"""Odd and broken bases through the whole way: a right result with a line in the quality report, or one clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retinue.cli import main

Frame = pl.DataFrame


def shop(customers: int = 60, orders: int = 3) -> Frame:
    """A small plain base: whole days, no order ids."""
    rng = np.random.default_rng(3)
    who = np.repeat(np.arange(customers), orders)
    days = rng.integers(0, 600, len(who))
    value = np.round(rng.gamma(2, 20, len(who)), 2)
    return pl.DataFrame({"cid": [f"c{w}" for w in who], "value": value, "day": days}).with_columns(
        day=pl.date(2013, 1, 1) + pl.duration(days="day")
    )


def run(frame: Frame, folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    """Exit code and everything said on stderr."""
    frame.write_parquet(folder / "orders.parquet")
    return run_file(folder / "orders.parquet", folder, capsys, *more)


def run_file(path: Path, folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    columns = [
        f"data.columns.{a}={b}"
        for a, b in (("customer_id", "cid"), ("event_time", "day"), ("amount", "value"))
    ]
    code = main(
        [
            "run",
            "data=files",
            f"data.path={path}",
            *columns,
            "horizon_days=180",
            f"output={folder / 'out'}",
            *more,
        ]
    )
    return code, capsys.readouterr().err


def forecasts(folder: Path) -> Frame:
    return pl.read_parquet(folder / "out" / "forecasts.parquet")


def quality(folder: Path) -> str:
    return " ".join(pl.read_parquet(folder / "out" / "quality.parquet")["finding"].to_list())


def one_of(frame: Frame, customer: str = "c1") -> Frame:
    return frame.filter(pl.col("cid") == customer)


RIGHT: dict[str, tuple[Callable[[], Frame], str]] = {
    "one customer only": (lambda: one_of(shop()), "1 customer"),
    "one event only": (lambda: one_of(shop()).head(1), "1 customer"),
    "all customers one-time": (lambda: shop(80, 1), "came back on another day"),
    "negative and zero orders": (
        lambda: shop().with_columns(
            value=pl.when(pl.int_range(pl.len()) % 5 == 0).then(-7.0).otherwise("value")
        ),
        "refund",
    ),
    "nothing but zero amounts": (lambda: shop().with_columns(value=pl.lit(0.0)), "an amount of exactly zero"),
    "naive times": (
        lambda: shop().with_columns(
            day=pl.col("day").cast(pl.Datetime("us")) + pl.duration(hours=9, minutes=5)
        ),
        "UTC",
    ),
    "times in the future": (
        lambda: pl.concat([shop(), shop(3).with_columns(day=pl.date(2120, 1, 1))]),
        "future",
    ),
    "numbers as ids": (
        lambda: shop().with_columns(cid=pl.col("cid").str.slice(1).cast(pl.Float64)),
        "60 customers",
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_odd_bases_end_right_with_a_line_in_the_report(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, says = RIGHT[name]
    code, err = run(make(), tmp_path, capsys)
    assert code == 0, err
    assert says in quality(tmp_path)
    table = forecasts(tmp_path)
    numbers = table.select("p_churn", "expected_orders", "expected_spend", "clv", "clv_lower", "clv_upper")
    assert table.height > 0
    assert numbers.null_count().sum_horizontal().item() == 0
    assert numbers.select(pl.all().is_finite().all()).row(0) == (True,) * 6
    assert table["p_churn"].is_between(0, 1).all()
    assert (table["clv_lower"] <= table["clv"]).all()
    assert (table["clv"] <= table["clv_upper"]).all()
    assert "<html" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("cid,day,value\n", "no rows"),
        ("who,day,value\na,2014-01-01,3\n", "'cid'"),
        ("cid,day,value\na,2014-01-01,lots\nb,2014-01-02,none\n", "'value'"),
        ("cid,day,day\na,2014-01-01,2014-01-01\n", "'day'"),
        ("cid,day,value\na,2014-01-01T10:00,1\nb,2014-01-01T10:00+02:00,2\n", "'day'"),
    ],
    ids=[
        "empty",
        "header only",
        "wrong column name",
        "text in amounts",
        "duplicated columns",
        "mixed time zones",
    ],
)
def test_broken_files_end_in_one_line_that_names_the_file(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "orders.csv"
    path.write_text(text)
    code, err = run_file(path, tmp_path, capsys)
    assert code == 1
    last = err.strip().splitlines()[-1]
    assert last.startswith("error ")
    assert says in last
    assert "orders.csv" in last
    assert not (tmp_path / "out" / "events").exists()


def test_a_truncated_parquet_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "orders.parquet"
    shop().write_parquet(path)
    path.write_bytes(path.read_bytes()[:-200])
    code, err = run_file(path, tmp_path, capsys)
    assert code == 1
    assert "orders.parquet" in err.strip().splitlines()[-1]


def test_ids_of_mixed_types_are_told_apart_as_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "orders.jsonl"
    path.write_text(
        "".join(
            f'{{"cid": {cid}, "day": "2014-0{m}-01", "value": 5}}\n'
            for m in range(1, 7)
            for cid in ("7", '"7x"', '"a"')
        )
    )
    code, err = run_file(path, tmp_path, capsys)
    assert code == 0, err
    assert forecasts(tmp_path)["customer_id"].to_list() == ["7", "7x", "a"]


@pytest.mark.slow
def test_a_million_events_of_one_customer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = pl.datetime(2013, 1, 1)
    many = pl.select(pl.int_range(1_000_000).alias("n")).select(
        cid=pl.lit("whale"),
        value=(pl.col("n") % 90).cast(pl.Float64) + 1,
        day=start + pl.duration(seconds=pl.col("n") * 50),
    )
    few = shop(50).with_columns(pl.col("day").cast(pl.Datetime("us")))
    code, err = run(pl.concat([many, few.select("cid", "value", "day")]), tmp_path, capsys)
    assert code == 0, err
    assert "whale" in quality(tmp_path)
    whale = forecasts(tmp_path).filter(pl.col("customer_id") == "whale")
    assert whale["p_churn"].item() < 0.05


def test_a_cutoff_before_every_order_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """cases/orders_after_cutoff.csv: it ended in the evaluation."""
    rows = [f"c{n},2022-0{n % 5 + 1}-05,visit,0" for n in range(40)] + [
        f"c{n},2022-07-05,order,5" for n in range(40)
    ]
    (tmp_path / "orders.csv").write_text("customer_id,event_time,event_type,amount\n" + "\n".join(rows))
    words = [
        f"data.path={tmp_path / 'orders.csv'}",
        "cutoff=2022-05-31",
        "horizon_days=30",
        f"output={tmp_path / 'out'}",
    ]
    assert main(["run", *words]) == 1
    assert "cutoff=2022-05-31: not one order lies by it" in " ".join(capsys.readouterr().err.split())
    assert main(["run", *[word.replace("05-31", "08-31") for word in words]]) == 0
