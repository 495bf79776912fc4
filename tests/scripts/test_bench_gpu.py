"""What bench_gpu does where there is a GPU, done with the CPU in its place: each section runs, and what must agree does."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from retinue.accel.engine import EngineChoice
from retinue.options import Engine

ROOT = Path(__file__).parents[2]
MARKS = ("@pytest.mark.gpu", "@on_devices")
HERE = EngineChoice(Engine.cpu, "a test")


@pytest.fixture(scope="module")
def bench() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        yield importlib.import_module("bench_gpu")


def test_every_test_that_waits_for_a_gpu_is_run(bench: Any) -> None:
    waiting = [
        path.relative_to(ROOT)
        for path in (ROOT / "tests").rglob("test_*.py")
        if any(line in MARKS for line in path.read_text(encoding="utf-8").splitlines())
    ]
    run = [Path(place) for place in (*bench.TESTS, *bench.TESTS_OF_CUDF)]
    assert len(waiting) > 5
    assert [path for path in waiting if not any(place in (path, *path.parents) for place in run)] == []


def test_features_hand_over_and_centroids_agree_with_the_cpu(bench: Any) -> None:
    assert bench.features(HERE, 3_000).row_count == 3
    assert bench.hand_over(HERE, 100).row_count == 2
    assert bench.centroids(HERE, 500, 3).row_count == 1


def test_runs_that_differ_are_told_apart(bench: Any) -> None:
    def run(**changes: pl.Expr) -> Any:
        keys = {"customer_id": ["a", "b"], "cutoff": [1, 1]}
        tables = {
            "features": pl.DataFrame(keys),
            "segments": pl.DataFrame(keys | {"segment": [1, 2]}),
            "forecasts": pl.DataFrame(
                keys | {"horizon_days": 90, "p_churn": [0.2, 0.4], "expected_orders": [1.0, 3.0]}
            ),
            "decisions": pl.DataFrame(keys | {"action": ["call", None]}),
        }
        changed = {
            name: table.with_columns(**{c: e for c, e in changes.items() if c in table.columns})
            for name, table in tables.items()
        }
        return type("Made", (), {"read": staticmethod(changed.__getitem__)})

    assert bench.apart(run(), run()) == ("100.00%", "0.0e+00", "1.00000", "100.00%")
    other = run(
        segment=pl.lit(2),
        p_churn=pl.col("p_churn") + 0.25,
        expected_orders=pl.lit(3.0),
        action=pl.lit("call"),
    )
    assert bench.apart(run(), other) == ("50.00%", "2.5e-01", "1.50000", "50.00%")
    with pytest.raises(AssertionError):
        bench.apart(run(), run(cutoff=pl.lit(2)))


def test_a_section_that_fails_or_comes_too_late_leaves_the_others_standing(bench: Any) -> None:
    said = io.StringIO()

    def broken() -> str:
        raise ValueError("no such thing")

    console = Console(file=said, width=100)
    assert bench.told({"one": broken, "two": lambda: "held"}, console, 60) == ["one"]
    assert bench.told({"three": broken}, console, -1) == []
    assert said.getvalue().splitlines() == [
        "one: FAILED, ValueError: no such thing",
        "held",
        "three: skipped, 0 s have passed",
    ]


@pytest.mark.slow
def test_every_stage_runs_twice_and_agrees(bench: Any) -> None:
    assert bench.stages(HERE, 300).row_count == 2
