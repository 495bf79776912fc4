"""The token store: order, columns, and that nothing but the events shapes it."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retinue.events.store import Store
from retinue.schema import InputError
from retinue.sequences.tokens import Tokens, TokenStore, calendar_of, write_tokens
from tests.forecasting.shops import shop, stored
from tests.sequences.made import resharded, tokens_of

STORY = pl.DataFrame(
    [
        (7, 0.5, 0.5, "order", 10.0),
        (7, 4.0, 9.0, "refund", -10.0),  # known late: behind the order of day 6
        (7, 6.25, 6.25, "order", 30.0),
        (9, 2.0, 2.0, "visit", None),
    ],
    schema=["customer", "event", "known", "event_type", "amount"],
    orient="row",
)


def same(left: Tokens, right: Tokens) -> bool:
    columns = [f.name for f in fields(Tokens) if isinstance(getattr(left, f.name), np.ndarray)]
    assert len(columns) == 11
    return all(
        np.array_equal(getattr(left, c), getattr(right, c), equal_nan=c in ("numbers", "money"))
        for c in columns
    )


def test_tokens_come_in_the_order_in_which_they_could_be_known(tmp_path: Path) -> None:
    tokens = tokens_of(stored(STORY, tmp_path / "events", 10), tmp_path / "tokens")
    assert tokens.customer.tolist() == [7, 9]
    assert tokens.offsets.tolist() == [0, 3, 4]
    assert [tokens.kinds[k] for k in tokens.kind] == ["order", "order", "refund", "visit"]
    np.testing.assert_allclose(np.expm1(tokens.log_gap), [0, 5.75, 2.75, 0], rtol=1e-6)
    np.testing.assert_array_equal(tokens.money, [10, 30, -10, np.nan])
    np.testing.assert_array_equal(tokens.numbers[:, 0], np.array([10, 30, -10, np.nan], np.float32))
    assert (tokens.day - tokens.day[0]).tolist() == [0, 6, 4, 2]
    assert tokens.lengths.tolist() == [3, 1]
    assert tokens.owner.tolist() == [0, 0, 0, 1]


def test_calendar_turns_with_the_week_and_the_year() -> None:
    monday_1_january_2018 = np.datetime64("2018-01-01").astype(int)
    waves = calendar_of(
        np.array([monday_1_january_2018, monday_1_january_2018 + 7, monday_1_january_2018 + 365])
    )
    np.testing.assert_allclose(waves[0], [0, 1, 0, 1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(waves[1, :2], [0, 1], atol=1e-6)  # a Monday again
    np.testing.assert_allclose(waves[2, 2:], [0, 1, 0, 1], atol=1e-6)  # a New Year again, a Tuesday
    np.testing.assert_allclose(waves[2, :2], [np.sin(2 * np.pi / 7), np.cos(2 * np.pi / 7)], atol=1e-6)


def test_shards_and_order_of_rows_change_nothing(tmp_path: Path) -> None:
    store = shop(tmp_path / "one", customers=40, days=120)
    one = tokens_of(store, tmp_path / "a")
    assert same(one, tokens_of(resharded(store, tmp_path / "five", 5), tmp_path / "b"))


def test_one_shard_is_mapped_and_holds_its_own_customers(tmp_path: Path) -> None:
    store = resharded(shop(tmp_path / "one", customers=40, days=120), tmp_path / "three", 3)
    found = write_tokens(store, tmp_path / "tokens")
    part = found.read([1])
    assert isinstance(part.available, np.memmap)
    assert set(part.customer % 3) == {1}
    assert TokenStore.open(tmp_path / "tokens").read([1]).customer.tolist() == part.customer.tolist()
    with pytest.raises(InputError, match="shard=3"):
        found.read([3])


def test_an_unfinished_or_outdated_store_is_refused(tmp_path: Path) -> None:
    store = stored(STORY, tmp_path / "events", 10)
    with pytest.raises(InputError, match="retinue prepare"):
        TokenStore.open(tmp_path / "tokens")
    write_tokens(store, tmp_path / "tokens")
    path = tmp_path / "tokens" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 0}))
    with pytest.raises(InputError, match="schema 0"):
        TokenStore.open(tmp_path / "tokens")


def test_fewer_shards_leave_no_old_ones_and_an_empty_shard_is_read(tmp_path: Path) -> None:
    store = stored(STORY, tmp_path / "events", 10)
    many = write_tokens(resharded(store, tmp_path / "many", 8), tmp_path / "tokens")
    assert many.read([3]).customer.tolist() == []
    assert many.read().customer.tolist() == [7, 9]
    write_tokens(store, tmp_path / "tokens")
    assert [p.name for p in (tmp_path / "tokens").glob("shard-*")] == ["shard-00000"]


def test_labels_have_stable_hashes_and_null_is_none(tmp_path: Path) -> None:
    store = stored(STORY, tmp_path / "events", 10)
    rows = store.scan().collect().with_columns(channel=pl.Series(["web", None, "store", "web"]))
    rows.write_parquet(store.shard_path(0))
    told = json.loads((store.folder / "manifest.json").read_text()) | {"columns": ["amount", "channel"]}
    (store.folder / "manifest.json").write_text(json.dumps(told))
    tokens = tokens_of(Store.open(store.folder), tmp_path / "tokens")
    assert tokens.fields == ("channel",)
    by_time = dict(zip((tokens.day - tokens.day[0]).tolist(), tokens.codes[:, 0].tolist(), strict=True))
    assert by_time[0] == by_time[2] == WEB
    assert by_time[4] == 0
    assert by_time[6] not in (0, WEB)


WEB = 1_672_320_671  # of "web"; a checkpoint's vocabulary would not fit other hashes
