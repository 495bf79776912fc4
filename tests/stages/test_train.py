"""`retinue train` from files to a checkpoint, and what the second time costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retinue.accel.processes import process_rank
from retinue.cli import main
from retinue.training import fit as fitting
from tests.stages.runs import training_words


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    quick = ("training.steps=6", "training.readouts=512")
    return training_words(tmp_path_factory.mktemp("train"), "cutoff=2014-06-30", "horizon_days=60", *quick)


def test_it_leaves_a_checkpoint_and_keeps_it(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", *words]) == 0
    said = capsys.readouterr().out
    assert "held-out log score" in said
    folder = Path(said.strip().splitlines()[-1].split("checkpoint is in ")[1])
    assert folder.name == "sequence_gru"
    card = json.loads((folder / "card.json").read_text())
    assert card["training_end"].startswith("2014-06-30")
    assert card["shape"]["width"] == 16
    assert (folder / "rung.json").is_file()
    origins = list(folder.glob("origin-*/card.json"))
    assert origins
    assert all(json.loads(path.read_text())["training_end"] < card["training_end"] for path in origins)

    def never(*_: object) -> None:
        raise AssertionError("it trained")

    monkeypatch.setattr(fitting, "run_steps", never)
    assert main(["train", *words]) == 0


def test_too_little_history_is_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    early = [*words, "cutoff=2013-01-20"]
    assert main(["train", *early]) == 1
    assert "too few to train a network on" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, 0),
        ({"RANK": "3", "LOCAL_RANK": "1"}, 3),
        ({"LOCAL_RANK": "1"}, 1),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "5"}, 5),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, 0),
    ],
)
def test_which_process_this_is(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], rank: int
) -> None:
    for name in ("RANK", "LOCAL_RANK", "SLURM_NTASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert process_rank() == rank
