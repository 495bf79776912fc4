"""A Ray cluster of two nodes on one machine: the tables are those of one process, also where a node dies on the way."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from retinue.cluster import HERE, OnRay
from retinue.config import resolve
from retinue.pipeline import advance
from retinue.runs import Stage
from retinue.schema import InputError
from retinue.score import run_scoring
from retinue.worlds.kinds import Kind, spec_of
from retinue.worlds.world import simulate

ray: Any = pytest.importorskip("ray", reason="Ray is not installed: pip install 'retinue[ray]'")
pytestmark = pytest.mark.filterwarnings(
    "ignore"
)  # Ray's own, of threads and files that it leaves to its daemons


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that only coordinates, and a node with two processors."""
    from ray.cluster_utils import Cluster

    made: Any = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 200_000_000}
    )
    made.add_node(num_cpus=2, object_store_memory=200_000_000)
    ray.init(address=made.address, log_to_driver=False, logging_level="error")
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of orders and refunds, visits, tickets and e-mails."""
    folder = tmp_path_factory.mktemp("ray") / "raw"
    folder.mkdir()
    for part in range(3):
        events = simulate(spec_of(Kind.rich, 300), 300, part).events
        told = events.drop("base", "customer").with_columns(
            pl.format("{}-{}", pl.lit(part), "customer_id").alias("customer_id")
        )
        told.write_parquet(folder / f"events-{part}.parquet")
    return folder


def words(raw: Path, output: Path, *more: str) -> list[str]:
    return [
        f"data.path={raw}", "data.time_zone=UTC", f"output={output}", "cutoff=2023-10-31", "horizon_days=[30,60]", "shards=4",
        "checkpoint=checkpoints/base", "segments.compare_days=0", *more,
    ]  # fmt: skip


def fill(asked: list[str]) -> None:
    advance(resolve(asked), Stage.features)
    run_scoring(resolve(asked))


@pytest.fixture(scope="module")
def here(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of it."""
    output = tmp_path_factory.mktemp("here") / "out"
    fill(words(raw, output))
    return output


def assert_same(output: Path, here: Path) -> None:
    """Events, tokens and forecasts to the last bit, features to 1e-9: Polars adds floats in no fixed order."""
    ours = sorted(path.relative_to(here) for path in here.rglob("*") if path.suffix in (".parquet", ".npy"))
    assert ours == sorted(
        path.relative_to(output) for path in output.rglob("*") if path.suffix in (".parquet", ".npy")
    )
    assert len([path for path in ours if path.parts[0] == "forecasts"]) == 4
    assert (output / "forecasts.html").read_bytes() == (here / "forecasts.html").read_bytes()
    for path in ours:
        if path.suffix == ".npy" or path.parts[0] == "events":
            assert (output / path).read_bytes() == (here / path).read_bytes(), path
        else:
            ours_and_theirs = pl.read_parquet(output / path), pl.read_parquet(here / path)
            is_exact = path.name != "features.parquet"
            assert_frame_equal(*ours_and_theirs, check_exact=is_exact, rel_tol=1e-9, abs_tol=1e-12)


def test_two_nodes_leave_the_tables_of_one_process(
    cluster: Any, raw: Path, here: Path, tmp_path: Path
) -> None:
    fill(words(raw, tmp_path / "out", "engine=ray"))
    assert_same(tmp_path / "out", here)


def slow(folder: Path, item: int) -> int:
    """Leaves a trace of where and how often it ran."""
    time.sleep(0.4)
    (folder / f"{item}-{ray.get_runtime_context().get_node_id()}-{os.getpid()}-{time.time_ns()}").touch()
    return item * item


def kill_once(node: Any, begun: Callable[[], bool], killed: threading.Event) -> threading.Thread:
    """Kills a node as soon as something has begun, or not at all within two minutes."""

    def wait() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if begun():
                for process in node.all_processes["raylet"]:
                    os.kill(process.process.pid, signal.SIGKILL)
                killed.set()
                return
            time.sleep(0.02)

    killer = threading.Thread(target=wait)
    killer.start()
    return killer


def test_work_of_a_node_that_dies_is_done_elsewhere_once(cluster: Any, tmp_path: Path) -> None:
    """The node is killed while it is known to work on something."""
    doomed, killed = cluster.add_node(num_cpus=2, object_store_memory=200_000_000), threading.Event()
    cluster.wait_for_nodes()
    killer = kill_once(doomed, lambda: any(doomed.node_id in p.name for p in tmp_path.iterdir()), killed)
    done = list(OnRay()(partial(slow, tmp_path), range(24)))
    killer.join()
    cluster.remove_node(doomed)
    assert killed.is_set(), "the second node never worked"
    assert done == [item * item for item in range(24)]


def test_a_node_that_dies_mid_run_loses_and_doubles_nothing(
    cluster: Any, raw: Path, here: Path, tmp_path: Path
) -> None:
    doomed, killed = cluster.add_node(num_cpus=2, object_store_memory=200_000_000), threading.Event()
    cluster.wait_for_nodes()
    output = tmp_path / "out"
    killer = kill_once(doomed, lambda: any(output.glob("tokens/shard-*/*.npy")), killed)
    fill(words(raw, output, "engine=ray"))
    killer.join()
    cluster.remove_node(doomed)
    assert killed.is_set()
    assert_same(output, here)


def refuse(item: int) -> int:
    raise InputError(f"item {item}: cannot be read")


def test_a_mistake_on_a_node_is_told_as_here(cluster: Any) -> None:
    for spread in (HERE, OnRay()):
        with pytest.raises(InputError, match="item 3: cannot be read"):
            list(spread(refuse, [3]))
    assert list(OnRay()(refuse, [])) == []
