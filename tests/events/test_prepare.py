"""The store as a whole: formats, folders, mapping, pseudonyms, codes, rename into place, fingerprints."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from retinue.events import cleaning
from retinue.events import prepare as preparing
from retinue.events.prepare import fingerprint, prepare
from retinue.events.store import Store
from retinue.options import DataOptions
from retinue.schema import (
    AMOUNT,
    BASE,
    CUSTOMER,
    CUSTOMER_ID,
    EVENT_TYPE,
    EVENTS,
    QUARANTINE,
    VALUES,
    InputError,
)
from tests.events.files import events_of, options, orders_csv, prepared, write

ROWS = [("a", "2024-01-01", 5.0), ("b", "2024-01-02", 7.5), ("a", "2024-02-01", 9.0)]


def as_csv(path: Path) -> None:
    write(path, ["cid;day;value", *[";".join(map(str, row)) for row in ROWS]])


def as_json(path: Path) -> None:
    write(path, [json.dumps({"cid": c, "day": d, "value": v}) for c, d, v in ROWS])


def as_parquet(path: Path) -> None:
    frame = pl.DataFrame(ROWS, schema=["cid", "day", "value"], orient="row")
    frame.with_columns(pl.col("day").str.to_date()).write_parquet(path)


COLUMNS = {"customer_id": "cid", "event_time": "day", "amount": "value"}


@pytest.mark.parametrize(
    ("name", "writer"),
    [
        ("o.csv", as_csv),
        ("o.txt", as_csv),
        ("o.jsonl", as_json),
        ("o.ndjson", as_json),
        ("o.parquet", as_parquet),
    ],
)
def test_every_format_gives_the_same_events(
    tmp_path: Path, name: str, writer: Callable[[Path], None]
) -> None:
    writer(tmp_path / name)
    events = events_of(prepared(tmp_path / name, tmp_path, columns=COLUMNS))
    assert events.select(CUSTOMER_ID, AMOUNT).rows() == [("a", 5.0), ("a", 9.0), ("b", 7.5)]
    EVENTS.check(events)


def test_file_glob_and_folder_agree(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for part, rows in (("1", ROWS[:1]), ("2", ROWS[1:])):
        write(folder / f"part{part}.csv", ["cid,day,value", *[",".join(map(str, row)) for row in rows]])
    (folder / "_SUCCESS").touch()
    (folder / "notes.md").write_text("not ours")
    by_folder = events_of(prepared(folder, tmp_path, columns=COLUMNS))
    by_glob = events_of(prepared(folder / "part*.csv", tmp_path, columns=COLUMNS))
    assert by_folder.equals(by_glob)
    assert by_folder.height == 3


def test_one_file_per_event_type(tmp_path: Path) -> None:
    orders = orders_csv(tmp_path, ["a,2024-01-01 10:00:00,5"])
    visits = write(tmp_path / "visits.csv", ["customer_id,event_time,device", "a,2024-01-01 09:00:00,phone"])
    told = options(paths={"order": str(orders), "visit": str(visits)})
    store = prepare(told, tmp_path / "store")
    assert store.manifest.event_types == {"order": 1, "visit": 1}
    assert events_of(store)["device"].to_list() == ["phone", None]
    assert "brand" not in store.manifest.columns


def test_a_column_of_types_and_the_spelling_of_known_ones(tmp_path: Path) -> None:
    rows = ["a,2024-01-01,Order,5", "a,2024-01-02,Wishlist_Add,", "a,2024-01-02,,"]
    store = prepared(orders_csv(tmp_path, rows, "customer_id,event_time,event_type,amount"), tmp_path)
    assert store.manifest.event_types == {"Wishlist_Add": 1, "order": 1}
    assert store.quarantine()["reason"].to_list() == ["no event type"]


def test_columns_without_a_value_are_absent(tmp_path: Path) -> None:
    store = prepared(
        orders_csv(tmp_path, ["a,2024-01-01,5,"], "customer_id,event_time,amount,brand"), tmp_path
    )
    assert "brand" not in store.manifest.columns
    assert store.scan().collect_schema().names() == store.manifest.columns


def test_customer_codes_are_frozen() -> None:
    frame = pl.DataFrame({BASE: ["base", "base", "shop"], CUSTOMER_ID: ["17850", "ä", "17850"]})
    assert cleaning.customer_code(frame).to_list() == GOLDEN_CODES


GOLDEN_CODES = [6778089137450960448, 5478131525032354555, 2067572545742981681]


def test_two_customers_with_one_code_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning, "_MASK", 1)
    with pytest.raises(
        InputError, match=r"customers '.*' and '.*' get the same 63-bit code\. Set data\.base"
    ):
        prepared(orders_csv(tmp_path, [f"c{n},2024-01-01,1" for n in range(5)]), tmp_path)


def test_bases_keep_the_same_id_apart(tmp_path: Path) -> None:
    rows = ["a,2024-01-01,5,uk", "a,2024-01-01,6,de"]
    store = prepared(orders_csv(tmp_path, rows, "customer_id,event_time,amount,base"), tmp_path)
    assert store.manifest.customers == 2
    assert store.scan().collect().select(BASE, AMOUNT).sort(BASE).rows() == [("de", 6.0), ("uk", 5.0)]


def test_pseudonyms_replace_ids_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_SECRET", "one long secret")
    rows = [*["anna7,2024-01-01,5"] * 30, "berta8,2024-01-02,free"]
    store = prepared(orders_csv(tmp_path, rows), tmp_path, pseudonym_key="SHOP_SECRET")
    assert store.quarantine().height == 1
    for path in store.folder.rglob("*"):
        content = pl.read_parquet(path).write_ndjson() if path.suffix == ".parquet" else path.read_text()
        assert "anna7" not in content
        assert "berta8" not in content
    name = events_of(store)[CUSTOMER_ID][0]
    assert len(name) == 32
    assert (
        f'"{cleaning.pseudonyms(pl.Series(["berta8"]), b"one long secret")[0]}"'
        in store.quarantine()[VALUES][0]
    )
    monkeypatch.setenv("SHOP_SECRET", "another")
    other = prepared(orders_csv(tmp_path, rows), tmp_path, pseudonym_key="SHOP_SECRET")
    assert events_of(other)[CUSTOMER_ID][0] != name
    monkeypatch.delenv("SHOP_SECRET")
    with pytest.raises(InputError, match=r"pseudonym_key=SHOP_SECRET: there is no such environment variable"):
        prepared(orders_csv(tmp_path, rows), tmp_path, pseudonym_key="SHOP_SECRET")


def test_quarantine_keeps_the_row_whole(tmp_path: Path) -> None:
    store = prepared(orders_csv(tmp_path, ["a,2024-01-01,5", ' ,2024-01-01,"6"']), tmp_path)
    table = QUARANTINE.check(store.quarantine())
    assert table.rows() == [
        ("orders.csv", 3, "no customer id", '{"customer_id":" ","event_time":"2024-01-01","amount":"6"}')
    ]


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    store = prepared(orders_csv(tmp_path, ["a,2024-01-01,5", "", "b,2024-01-01,6", ""]), tmp_path)
    assert (store.manifest.rows_in, store.manifest.rows_quarantined) == (2, 0)


def test_batches_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = orders_csv(tmp_path, [f"c{n % 1000},2024-01-{n % 28 + 1:02d},{n % 50}" for n in range(25_000)])
    whole = prepared(path, tmp_path)
    events = events_of(whole)
    monkeypatch.setattr("retinue.events.reading.BATCH_CELLS", 1)
    pieces = prepared(path, tmp_path, shards=3)
    assert events_of(pieces).equals(events)
    assert pieces.manifest.rows_in == whole.manifest.rows_in == 25_000


def test_many_shards_wait_for_rows_so_that_parts_are_not_tiny(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three batches of 10,000 rows: one part a batch, or one for two of them; the events are the same."""
    path = orders_csv(tmp_path, [f"c{n % 1000},2024-01-{n % 28 + 1:02d},{n % 50}" for n in range(25_000)])
    monkeypatch.setattr("retinue.events.reading.BATCH_CELLS", 1)
    names: set[str] = set()
    write_parts = preparing._write_parts

    def seen(rows: pl.DataFrame, parts: Path, shards: int, name: str) -> None:
        names.add(name)
        write_parts(rows, parts, shards, name)

    monkeypatch.setattr(preparing, "_write_parts", seen)
    each = events_of(prepared(path, tmp_path, shards=3))
    assert sorted(names) == ["000000-000000", "000000-000001", "000000-000002"]
    names.clear()
    monkeypatch.setattr(preparing, "ROWS_PER_PART", 5_000)
    assert events_of(prepared(path, tmp_path, shards=3)).equals(each)
    assert sorted(names) == ["000000-000000", "000000-000001"]


def test_a_mistake_in_several_files_is_shown_where_it_stands_first(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, day in (("a", "soon"), ("b", "later")):
        write(tmp_path / "in" / f"{name}.csv", ["customer_id,event_time,amount", f"x,{day},5"])
    with pytest.raises(InputError, match=r"2 missing or unreadable times \(first: 'soon', a.csv row 2\)"):
        prepare(options(tmp_path / "in"), tmp_path / "store")


def test_the_number_of_shards_follows_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "ROWS_PER_SHARD", 100)
    frame = pl.DataFrame({"customer_id": range(250), "event_time": ["2024-01-01"] * 250})
    frame.write_parquet(tmp_path / "o.parquet")
    assert prepared(tmp_path / "o.parquet", tmp_path, shards=0).manifest.shards == 3


def test_a_failed_run_leaves_the_old_store_and_a_killed_one_is_cleared_away(tmp_path: Path) -> None:
    old = prepared(orders_csv(tmp_path, ["a,2024-01-01,5"]), tmp_path)
    with pytest.raises(InputError):
        prepared(orders_csv(tmp_path, ["a,soon,5"]), tmp_path)
    assert Store.open(tmp_path / "store") == old
    leftover = tmp_path / ".store.unfinished" / "parts"
    leftover.mkdir(parents=True)
    (leftover / "rubbish.parquet").touch()
    prepared(orders_csv(tmp_path, ["b,2024-01-01,5"]), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["orders.csv", "store"]
    assert events_of(Store.open(tmp_path / "store"))[CUSTOMER_ID].to_list() == ["b"]


def test_nothing_stands_in_the_folder_before_the_store_is_whole(tmp_path: Path) -> None:
    seen: list[bool] = []

    def look(text: str, share: float) -> None:
        assert 0.0 <= share <= 1.0
        seen.append((tmp_path / "store").exists())

    prepare(options(orders_csv(tmp_path, ["a,2024-01-01,5"])), tmp_path / "store", report=look)
    assert seen
    assert not any(seen)
    names = sorted(path.name for path in (tmp_path / "store").iterdir())
    assert names == ["manifest.json", "quarantine.parquet", "shard-00000.parquet"]


def test_the_fingerprint_follows_input_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = orders_csv(tmp_path, ["a,2024-01-01,5"])
    about = path.stat()
    first = fingerprint(options(path), 0)
    assert fingerprint(options(path), 0) == first
    assert fingerprint(options(path), 2) != first
    assert fingerprint(options(path, time_zone="Europe/London"), 0) != first
    path.write_text(path.read_text().replace(",5", ",6"))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert path.stat().st_size == about.st_size
    assert fingerprint(options(path), 0) != first
    write(tmp_path / "more.csv", ["customer_id,event_time", "a,2024-01-01"])
    assert fingerprint(options(tmp_path), 0) != fingerprint(options(path), 0)
    monkeypatch.setenv("SHOP_SECRET", "one")
    keyed = fingerprint(options(path, pseudonym_key="SHOP_SECRET"), 0)
    monkeypatch.setenv("SHOP_SECRET", "two")
    assert fingerprint(options(path, pseudonym_key="SHOP_SECRET"), 0) != keyed


def test_default_options_are_told_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.path"):
        fingerprint(DataOptions(), 0)


def test_money_of_types_other_than_orders_keeps_its_sign(tmp_path: Path) -> None:
    rows = ["a,2024-01-01,order,5", "a,2024-01-02,points_redeemed,-3"]
    events = events_of(
        prepared(orders_csv(tmp_path, rows, "customer_id,event_time,event_type,amount"), tmp_path)
    )
    assert events.select(EVENT_TYPE, AMOUNT).rows() == [("order", 5.0), ("points_redeemed", -3.0)]
    assert events[CUSTOMER].n_unique() == 1


def test_with_a_key_nothing_is_left_in_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither columns that are not mapped, nor bad cells, nor lines that were set aside."""
    monkeypatch.setenv("SHOP_SECRET", "a long secret of the shop")
    rows = [f"c{n},2024-01-{n % 28 + 1:02d},{n},c{n}@mail.test" for n in range(60)]
    rows += [
        "ann@mail.test,never 4711,5,ann@mail.test",
        "bob@mail.test,2024-01-05,Bob 0815,x",
        "eve@mail.test,2024-01-05",
    ]
    path = orders_csv(tmp_path, rows, "customer_id,event_time,amount,email")
    store = prepared(path, tmp_path, pseudonym_key="SHOP_SECRET", max_bad_share=0.5)
    assert store.manifest.rows_quarantined == 3
    written = "".join(store.quarantine()["values"]) + (store.folder / "manifest.json").read_text()
    for clear in ("mail.test", "never", "4711", "Bob", "0815", "ann@", "eve@"):
        assert clear not in written, clear
    assert "xxxxx 9999" in written
    with pytest.raises(InputError) as caught:
        prepared(path, tmp_path, pseudonym_key="SHOP_SECRET", max_bad_share=0.0)
    assert not any(clear in str(caught.value) for clear in ("mail.test", "never", "Bob"))
