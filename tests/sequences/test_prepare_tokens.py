"""`retinue prepare` leaves tokens beside the events, and makes them again when they are gone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retinue.cli import main
from retinue.sequences.tokens import TokenStore
from tests.stages.runs import orders, words


def test_prepare_leaves_tokens_and_makes_lost_ones_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    orders(30).write_parquet(tmp_path / "orders.parquet")
    command = ["prepare", *words(tmp_path / "orders.parquet", tmp_path / "out", "shards=3")[1:]]
    assert main(command) == 0
    store = TokenStore.open(tmp_path / "out" / "tokens")
    before = store.read()
    assert store.shards == 3
    assert set(before.kinds) == {"order", "refund", "visit"}
    assert before.names[:2] == ("amount", "quantity")
    assert before.fields == ("category", "channel")
    lost = store.folder / "shard-00001" / "kind.npy"
    lost.unlink()
    assert main(command) == 0
    np.testing.assert_array_equal(TokenStore.open(store.folder).read().kind, before.kind)
    written = lost.stat().st_mtime_ns
    assert main(command) == 0
    assert lost.stat().st_mtime_ns == written
