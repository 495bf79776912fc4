from __future__ import annotations

import importlib.util

import pytest

from tests.parity.options import checks, faults


@pytest.mark.skipif(
    importlib.util.find_spec("cudf_polars") is None, reason="cudf-polars is not installed: see make gpu-plan"
)
def test_cudf_polars_and_rmm_are_as_accel_takes_them() -> None:
    assert len(list(checks())) == 8
    assert faults() == []
