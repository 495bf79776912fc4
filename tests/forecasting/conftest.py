"""The small shop and its networks, made once."""

from __future__ import annotations

import pytest

from retinue.forecasting.rungs import Scorer
from retinue.forecasting.saved import SavedRung
from retinue.options import Encoder, ModelOptions
from tests.forecasting.nets import Base, made_base, made_rung


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return made_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def gru(base: Base, tmp_path_factory: pytest.TempPathFactory) -> tuple[Scorer, SavedRung]:
    return made_rung(base, tmp_path_factory.mktemp("gru"), ModelOptions(width=16, layers=2))


@pytest.fixture(scope="session")
def contextual(base: Base, tmp_path_factory: pytest.TempPathFactory) -> tuple[Scorer, SavedRung]:
    model = ModelOptions(width=16, context=True)
    return made_rung(base, tmp_path_factory.mktemp("context"), model, loudness=0.1)


@pytest.fixture(scope="session")
def transformer(base: Base, tmp_path_factory: pytest.TempPathFactory) -> tuple[Scorer, SavedRung]:
    model = ModelOptions(Encoder.transformer, width=16, heads=2)
    return made_rung(base, tmp_path_factory.mktemp("transformer"), model)
