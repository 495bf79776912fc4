"""Every run ends: each forecaster and each menu, on the base of the demo and the small one of the tests, within 300 s."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from retinue.options import Rung
from tests.stages.runs import orders, words

MOST_SECONDS = 300
MENUS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "actions").glob("*.yaml"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "orders.parquet"
    orders().write_parquet(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("menu", MENUS)
@pytest.mark.parametrize("forecaster", [rung.value for rung in Rung])
@pytest.mark.parametrize("base", ["small", "cdnow"])
def test_a_run_ends(base: str, forecaster: str, menu: str, small: Path, tmp_path: Path) -> None:
    cdnow = ["run", "data=cdnow", "cutoff=1997-09-30", "horizon_days=273", f"output={tmp_path / 'out'}"]
    chosen = words(small, tmp_path / "out") if base == "small" else cdnow
    command = [*chosen, f"forecaster={forecaster}", f"actions={menu}", "budget=2000"]
    done = subprocess.run(
        [sys.executable, "-m", "retinue.cli", *command],
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").is_file()
