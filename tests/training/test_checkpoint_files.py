"""A checkpoint's files are believed only as they were saved, and no memory is taken for what they claim."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest

from retinue.config import shipped_base_model
from retinue.schema import InputError
from retinue.training.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The weights that come with retinue, saved anew, so that card and weights carry digests."""
    save_checkpoint(load_checkpoint(shipped_base_model()), tmp_path / "copy")
    return tmp_path / "copy"


def edited(folder: Path, **shape: Any) -> None:
    card = json.loads((folder / "card.json").read_text())
    card["shape"] |= shape
    (folder / "card.json").write_text(json.dumps(card))


def test_what_is_saved_loads(folder: Path) -> None:
    assert load_checkpoint(folder).card["shape"] == load_checkpoint(shipped_base_model()).card["shape"]
    shutil.move(folder, folder.with_name("moved"))
    load_checkpoint(folder.with_name("moved"))


@pytest.mark.parametrize(
    "shape", [{"width": 20_000}, {"layers": 10**6}, {"kinds": 10**10}, {"code_sizes": [10**11]}]
)
def test_sizes_are_checked_before_memory_is_taken(shape: dict[str, Any], folder: Path) -> None:
    edited(folder, **shape)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=rf"{next(iter(shape))}|width"):
        load_checkpoint(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "KiB"


def test_a_card_or_weights_that_were_changed_are_named(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    whole = weights.read_bytes()
    changed = bytearray(whole)
    changed[-5] ^= 0xFF
    weights.write_bytes(changed)
    with pytest.raises(InputError, match=r"weights\.safetensors is not as it was saved"):
        load_checkpoint(folder)
    weights.write_bytes(whole)
    edited(folder, dropout=0.9)
    with pytest.raises(InputError, match=r"card\.json is not as it was saved"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["card.json", "weights.safetensors", "curve.parquet"])
@pytest.mark.parametrize("kept", [0, 20])
def test_a_file_that_is_cut_is_one_line(name: str, kept: int, folder: Path) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="cannot be read"):
        load_checkpoint(folder)
