"""What is told where there is no Ray; the cluster itself is tested in stages/test_ray.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinue import cluster
from retinue.cli import main
from retinue.cluster import HERE, spread_of
from retinue.options import Engine


def test_here_work_is_done_in_order_when_it_is_asked_for() -> None:
    done: list[int] = []

    def work(item: int) -> int:
        done.append(item)
        return -item

    results = spread_of(Engine.auto)(work, [3, 1, 2])
    assert done == []
    assert next(iter(results)) == -3
    assert done == [3]
    assert list(results) == [-1, -2]
    assert spread_of(Engine.cpu) is HERE


@pytest.mark.parametrize("package", ["ray", "pyarrow"])
def test_without_ray_one_line_says_so(
    package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None if name == package else object())
    (tmp_path / "orders.csv").write_text("customer_id,event_time,amount\na,2024-01-01,5\n")
    words = ["prepare", f"data.path={tmp_path}/orders.csv", f"output={tmp_path}/out", "engine=ray"]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "engine=ray: Ray is not installed. Run: pip install 'retinue[ray]'" in " ".join(said.split())
    assert "Traceback" not in said
    assert not (tmp_path / "out" / "events").exists()
