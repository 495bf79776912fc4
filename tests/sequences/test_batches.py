"""A batch is checked once, and moves as a whole."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from retinue.schema import InputError
from retinue.sequences.batches import Batch
from retinue.sequences.resident import resident
from tests.forecasting.shops import shop
from tests.sequences.made import at, learnt, readouts_at, tokens_of


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    folder: Path = tmp_path_factory.mktemp("batches")
    store = shop(folder / "events", customers=20, days=100)
    tokens = tokens_of(store, folder / "tokens")
    made = resident(tokens, readouts_at(store, [at(60)], at(99)), *learnt(tokens, at(99)))
    return made.batch(np.arange(5))


@pytest.mark.parametrize("name", ["codes", "gaps", "silence", "calendar", "features", "age"])
def test_a_wrong_shape_is_named(batch: Batch, name: str) -> None:
    wrong = getattr(batch, name)[:-1]
    with pytest.raises(InputError, match=f"batch: {name} must have shape"):
        replace(batch, **{name: wrong}).check()


def test_a_wrong_target_is_named(batch: Batch) -> None:
    assert batch.targets is not None
    with pytest.raises(InputError, match="targets: gross"):
        replace(batch, targets=replace(batch.targets, gross=batch.targets.gross[:, 0])).check()
    with pytest.raises(InputError, match="targets: next_kind"):
        replace(batch, targets=replace(batch.targets, next_kind=batch.targets.next_kind[1:])).check()


def test_every_tensor_moves(batch: Batch) -> None:
    moved = replace(batch, anchor=torch.zeros(len(batch.at), 2)).to("meta")
    assert moved.targets is not None
    for part in (moved, moved.targets):
        for field in fields(part):
            if field.name != "targets":
                assert getattr(part, field.name).device == torch.device("meta"), field.name
    assert replace(batch, targets=None).to("cpu").targets is None
