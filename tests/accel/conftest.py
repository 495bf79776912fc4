"""The GPU, where there is one."""

from __future__ import annotations

import pytest

from retinue.accel.engine import (
    EngineChoice,
    choose_engine,
)
from retinue.options import Engine
from retinue.schema import InputError


@pytest.fixture
def gpu() -> EngineChoice:
    """The GPU engine, or a skip that says what is missing: a machine may have torch's GPU without cuDF."""
    try:
        return choose_engine(Engine.gpu)
    except InputError as error:
        pytest.skip(str(error))
