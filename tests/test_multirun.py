"""Several values of an option, one run for each combination."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinue import cli
from retinue.config import combinations
from retinue.worlds import Kind, simulate, spec_of


def test_every_combination_in_order() -> None:
    found = combinations(["model=gru,transformer", "training.steps=10", "seed=range(0,2)"])
    assert [name for name, _ in found] == [
        "model=gru,seed=0", "model=gru,seed=1", "model=transformer,seed=0", "model=transformer,seed=1",
    ]  # fmt: skip
    assert found[2][1] == ["model=transformer", "training.steps=10", "seed=0"]


def test_lists_and_paths_are_one_value() -> None:
    words = ["cutoff=[1997-06-30,1997-09-30]", "data.path=a,b.csv", "not a word"]
    assert combinations(words) == [("", words)]


def test_each_run_has_a_folder_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    simulate(spec_of(Kind.bg_nbd), 60, seed=0).events.write_parquet(tmp_path / "events.parquet")
    words = ["data=files", f"data.path={tmp_path}/events.parquet", f"output={tmp_path}/out"]
    assert cli.main(["prepare", "--multirun", *words, "shards=1,2"]) == 0
    made = sorted(path.name for path in (tmp_path / "out" / "multirun").iterdir())
    assert made == ["shards=1", "shards=2"]
    for place, shards in enumerate(made, start=1):
        events = tmp_path / "out" / "multirun" / shards / "events"
        assert len(list(events.glob("shard-*.parquet"))) == place
    assert "prepare: 2 of 2: shards=2" in capsys.readouterr().out
