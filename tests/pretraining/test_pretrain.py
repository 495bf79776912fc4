"""Pretraining from end to end: it is kept, goes on after a stop, and what is saved is what was judged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from retinue.config import Options
from retinue.pretraining import fit
from retinue.pretraining.pretrained import LAW, Pretrained, load_pretrained
from retinue.schema import InputError
from retinue.training.checkpoint import CARD
from retinue.training.watch import LAST, Watch
from tests.pretraining.conftest import TINY


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
