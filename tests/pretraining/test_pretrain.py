"""Pretraining from end to end: it is kept, goes on after a stop, and what is saved is what was judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from retinue.options import Options
from retinue.pretraining import fit
from retinue.pretraining.pretrained import LAW, Pretrained, load_pretrained
from retinue.schema import InputError
from retinue.training.checkpoint import CARD
from retinue.training.watch import LAST, Watch
from tests.pretraining import on_processes
from tests.pretraining.conftest import TINY

ROOT = Path(__file__).parents[2]


def test_what_is_saved_says_what_it_is_and_is_not_made_twice(tiny_folder: Path, tiny: Pretrained) -> None:
    card = json.loads((tiny_folder / CARD).read_text())
    assert set(card["held_out"]) == {"prior", "contract", "two_state"}
    assert card["weights"] == sum(
        p.numel() for p in (*tiny.trained.network.parameters(), *tiny.law.parameters())
    )
    assert card["options"]["pretraining"]["steps"] == TINY.steps
    assert tiny.trained.curve["step"].to_list() == [1, 2, 3, 4]
    assert not (tiny_folder / LAST).exists()
    before = (tiny_folder / CARD).stat().st_mtime_ns
    again = fit.pretrain(Options(pretraining=TINY), tiny_folder)
    assert (tiny_folder / CARD).stat().st_mtime_ns == before
    for one, other in zip(again.law.parameters(), tiny.law.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_run_that_was_stopped_goes_on_as_if_it_never_had(
    tiny_folder: Path, tiny: Pretrained, few_edges: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Watch._look

    def stop(self: Watch, *told: object) -> None:
        look(self, *told)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(Watch, "_look", stop)
    with pytest.raises(KeyboardInterrupt):
        fit.pretrain(Options(pretraining=TINY), tmp_path)
    monkeypatch.setattr(Watch, "_look", look)
    assert (tmp_path / LAST).is_file()
    assert (tmp_path / LAW).is_file()
    found = fit.pretrain(Options(pretraining=TINY), tmp_path)
    assert found.trained.curve.equals(tiny.trained.curve)
    for one, other in zip(found.trained.network.parameters(), tiny.trained.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_another_seed_is_another_model(tiny: Pretrained, few_edges: None, tmp_path: Path) -> None:
    found = fit.pretrain(Options(pretraining=replace(TINY, steps=2), seed=1), tmp_path)
    assert not torch.equal(found.law.out.bias, tiny.law.out.bias)


def test_a_broken_folder_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no card"):
        load_pretrained(tmp_path)
    for path in tiny_folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / LAW).write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"law\.safetensors cannot be read"):
        load_pretrained(tmp_path)


def test_a_step_has_a_base_for_every_pass(tmp_path: Path) -> None:
    options = on_processes.asked(["trainer.accumulate=6"])
    with pytest.raises(InputError, match=r"pretraining\.bases=5: must be at least"):
        fit.pretrain(options, tmp_path)


def test_pieces_teach_what_the_whole_step_does(few_edges: None, tmp_path: Path) -> None:
    whole, cut = (
        fit.pretrain(
            on_processes.asked([f"trainer.accumulate={n}", "trainer.recompute=true"]), tmp_path / str(n)
        )
        for n in (1, 2)
    )
    expected, found = whole.trained.curve["loss"].to_list(), cut.trained.curve["loss"].to_list()
    assert found == pytest.approx(expected, abs=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("trainer.strategy=ddp",), ("trainer.strategy=fsdp", "trainer.accumulate=2")]
)
def test_two_processes_learn_what_one_does(words: tuple[str, ...], few_edges: None, tmp_path: Path) -> None:
    alone = fit.pretrain(on_processes.asked([]), tmp_path / "1").trained
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    asked = [sys.executable, *launch, "-m", "tests.pretraining.on_processes", str(tmp_path / "2"), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join((str(ROOT), *sys.path))}
    done = subprocess.run(
        asked, check=False, cwd=ROOT, env=environment, timeout=300, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    two = load_pretrained(tmp_path / "2").trained
    assert two.curve["loss"].to_list() == pytest.approx(alone.curve["loss"].to_list(), abs=2e-4)
    assert two.card["best_log_score"] == pytest.approx(alone.card["best_log_score"], abs=2e-4)
