"""A base model that has hardly learnt, made once, and a base for it to read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from retinue.options import Options, PretrainingOptions
from retinue.pretraining import fit
from retinue.pretraining.pretrained import Pretrained, load_pretrained

TINY = PretrainingOptions(
    steps=4, bases=3, customers=24, width=16, law_bases=16, law_steps=6, judged=4, check_every=2, workers=0
)


@pytest.fixture(scope="session")
def few_edges() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "EDGE_BASES", 6)
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, few_edges: None) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    fit.pretrain(Options(pretraining=TINY), folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Pretrained:
    return load_pretrained(tiny_folder)
