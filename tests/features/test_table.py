from __future__ import annotations

import os
import random
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from retinue.features import build, features_at
from retinue.features import frames as features_frames
from retinue.features import table as features_table
from retinue.features.query import CATALOGUE, COMPARING
from retinue.schema import CUSTOMER_ID, CUTOFF
from tests.features.histories import CUTOFF as MOMENT
from tests.features.histories import ZONE, history, table
from tests.features.stores import stored

EVENTS = table(history(5, customers=40))
MOMENTS = [MOMENT, MOMENT - timedelta(days=90)]


def built(folder: Path, shards: int, frame: pl.DataFrame = EVENTS) -> pl.DataFrame:
    return pl.read_parquet(
        build(stored(frame, folder / "store", shards), MOMENTS, folder / "features.parquet")
    )


def test_the_table_is_the_query_at_every_cutoff_sorted(tmp_path: Path) -> None:
    got = built(tmp_path, shards=3)
    wanted = pl.concat([features_at(EVENTS.lazy(), moment, ZONE).collect() for moment in MOMENTS])
    assert_frame_equal(got, wanted.sort(CUSTOMER_ID, CUTOFF), rel_tol=1e-9, abs_tol=1e-12)
    assert got.select(CUSTOMER_ID, CUTOFF).is_duplicated().sum() == 0


@pytest.mark.parametrize("shards", [1, 7])
def test_the_number_of_shards_changes_nothing(tmp_path: Path, shards: int) -> None:
    assert_frame_equal(built(tmp_path / "a", shards), built(tmp_path / "b", 3), rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_rows_changes_nothing(seed: int) -> None:
    rows = history(seed)
    shuffled = random.Random(seed).sample(rows, len(rows))
    got, wanted = (features_at(table(r).lazy(), MOMENT, ZONE).collect() for r in (shuffled, rows))
    assert_frame_equal(got, wanted, rel_tol=1e-9, abs_tol=1e-12)


def test_the_streaming_engine_says_the_same() -> None:
    query = features_at(EVENTS.lazy(), MOMENT, ZONE)
    assert_frame_equal(query.collect(engine="streaming"), query.collect(), rel_tol=1e-9, abs_tol=1e-12)


def test_the_number_of_threads_changes_nothing(tmp_path: Path) -> None:
    store = stored(EVENTS, tmp_path / "store", 2)
    code = (
        "import sys; from pathlib import Path; from datetime import datetime; from retinue.events.store import Store;"
        "from retinue.features import build;"
        f"moment = datetime.fromisoformat({MOMENT.isoformat()!r});"
        f"build(Store.open(Path({str(store.folder)!r})), [moment], Path(sys.argv[1]))"
    )
    tables = []
    for threads in ("1", "2"):
        path = tmp_path / f"{threads}.parquet"
        subprocess.run(
            [sys.executable, "-c", code, str(path)],
            check=True,
            env=os.environ | {"POLARS_MAX_THREADS": threads},
        )
        tables.append(pl.read_parquet(path))
    assert_frame_equal(*tables, rel_tol=1e-9, abs_tol=1e-12)


def test_ranges_of_customers_are_put_together_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = built(tmp_path / "a", 3)
    monkeypatch.setattr(features_table, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(features_table, "ONE_ID_IN", 3)
    assert_frame_equal(built(tmp_path / "b", 3), whole, rel_tol=1e-9, abs_tol=1e-12)


def test_a_failed_build_leaves_nothing_behind(tmp_path: Path) -> None:
    store, path = stored(EVENTS, tmp_path / "store", 3), tmp_path / "out" / "features.parquet"

    def stop(done: int, shards: int) -> None:
        assert shards == 3
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(store, MOMENTS, path, stop)
    assert list(path.parent.iterdir()) == []


def test_a_cutoff_before_every_event_gives_an_empty_table(tmp_path: Path) -> None:
    store = stored(EVENTS, tmp_path / "store", 2)
    path = build(store, [MOMENT - timedelta(days=5000)], tmp_path / "features.parquet")
    assert pl.read_parquet(path).shape[0] == 0


def test_only_families_that_compare_customers_read_sums_over_the_base(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = stored(EVENTS, tmp_path / "store", 2)
    alone = [feature for feature in CATALOGUE if feature.family not in COMPARING]
    both = build(store, MOMENTS, tmp_path / "all.parquet", features=CATALOGUE)

    def refuse(*_: object) -> None:
        raise AssertionError("sums over the base were asked for")

    monkeypatch.setattr(features_frames, "whole_of", refuse)
    monkeypatch.setattr(features_table, "whole_of", refuse)
    path = build(store, MOMENTS, tmp_path / "alone.parquet", features=alone)
    names = [feature.name for feature in alone]
    assert_frame_equal(pl.read_parquet(path, columns=names), pl.read_parquet(both, columns=names))
