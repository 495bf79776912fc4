"""Bad input ends in one clear line that names field, row and cure, or in a correct result with a quality line."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from retinue.events.doctor import doctor
from retinue.events.prepare import prepare
from retinue.events.store import Store
from retinue.options import Source
from retinue.schema import (
    AMOUNT,
    CURE,
    CUSTOMER_ID,
    EVENT_TIME,
    EVENT_TYPE,
    FINDING,
    LEVEL,
    REASON,
    ROW,
    VALUES,
    InputError,
)
from tests.events.files import events_of, notes_of, options, orders_csv, prepared, write

GOOD = [f"c{n % 7},2024-01-{n % 28 + 1:02d},{n}.5" for n in range(60)]


def refused(path: Path, folder: Path, *parts: str, **rest: object) -> None:
    with pytest.raises(InputError) as caught:
        prepared(path, folder, **rest)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message
    assert not (folder / "store").exists()
    assert not list(folder.glob(".store*"))


def test_no_such_file(tmp_path: Path) -> None:
    refused(tmp_path / "orders.csv", tmp_path, "data.path=", "orders.csv", "no such file")


@pytest.mark.parametrize("name", ["orders.csv", "orders.parquet", "orders.jsonl"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    refused(tmp_path / name, tmp_path, name, "empty (0 bytes)", "Export it again")


def test_header_only(tmp_path: Path) -> None:
    refused(orders_csv(tmp_path, []), tmp_path, "orders.csv", "a header but no rows")


def test_parquet_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "orders.parquet"
    pl.DataFrame(schema={"customer_id": pl.String, "event_time": pl.Date}).write_parquet(path)
    refused(path, tmp_path, "orders.parquet", "no rows")


def test_wrong_column_name(tmp_path: Path) -> None:
    path = orders_csv(tmp_path, GOOD, "cust_id,event_time,amount")
    refused(
        path, tmp_path, "orders.csv", "no column 'customer_id'", "cust_id, event_time, amount", "'cust_id'?"
    )
    refused(
        path,
        tmp_path,
        "no column 'custid'",
        "data.columns.customer_id",
        "'cust_id'?",
        columns={"customer_id": "custid"},
    )


def test_text_in_amounts(tmp_path: Path) -> None:
    path = orders_csv(tmp_path, [*GOOD, *[f"c{n},2024-01-05,free" for n in range(10)]])
    refused(
        path,
        tmp_path,
        "column 'amount' has 10 non-numeric values",
        "first: 'free', orders.csv row 62",
        "['free']",
    )
    assert prepared(path, tmp_path, null_values=["free"]).manifest.rows_kept == 70


@pytest.mark.parametrize("text", ['"1,5"', "5/2", "$1.2.3"])
def test_money_written_otherwise_is_never_called_unknown(tmp_path: Path, text: str) -> None:
    rows = [*GOOD, *[f"c{n},2024-01-05,{text}" for n in range(10)]]
    with pytest.raises(InputError, match=r"plain decimals such as 1234\.56") as told:
        prepared(orders_csv(tmp_path, rows), tmp_path)
    assert "null_values" not in str(told.value)
    few = prepared(orders_csv(tmp_path, [*GOOD, f"c1,2024-01-05,{text}"]), tmp_path)
    cures = [str(note[CURE]) for note in few.manifest.notes if "unusable numbers" in note[FINDING]]
    assert len(cures) == 1
    assert "plain decimals" in cures[0]
    assert "null_values" not in cures[0]


@pytest.mark.parametrize("source", ["files", "online_retail"])
def test_an_empty_path_is_no_path(tmp_path: Path, source: str) -> None:
    with pytest.raises(InputError, match=r"data\.path=: no path was given"):
        prepare(options("", source=Source[source]), tmp_path / "store")


def test_one_column_cannot_be_both_customer_and_time(tmp_path: Path) -> None:
    path = orders_csv(tmp_path, GOOD)
    columns = {"customer_id": "event_time"}
    refused(path, tmp_path, "column 'event_time' cannot be both customer_id and event_time", columns=columns)


def test_a_little_text_in_amounts_is_quarantined(tmp_path: Path) -> None:
    store = prepared(orders_csv(tmp_path, [*GOOD, "c1,2024-01-05,free"]), tmp_path)
    row = store.quarantine().row(0, named=True)
    assert (row[ROW], row[REASON]) == (62, "non-numeric amount")
    assert '"free"' in row[VALUES]
    assert "1 rows (1.6% of the rows) are quarantined: non-numeric amount" in notes_of(store)
    assert "column 'amount' has 1 unusable numbers (first: 'free', orders.csv row 62)" in notes_of(store)


def test_unreadable_times(tmp_path: Path) -> None:
    path = orders_csv(tmp_path, [*GOOD, *["c1,yesterday,5"] * 9])
    refused(
        path,
        tmp_path,
        "column 'event_time' has 9 missing or unreadable times",
        "'yesterday'",
        "row 62",
        "time_format",
    )


def test_times_whose_day_and_month_cannot_be_told(tmp_path: Path) -> None:
    path = orders_csv(tmp_path, ["a,05/07/2024,1", "b,06/07/2024,2"])
    refused(path, tmp_path, "'event_time'", "'05/07/2024'", "data.time_format='%d/%m/%Y'")
    events = events_of(prepared(path, tmp_path, time_format="%d/%m/%Y"))
    assert events[EVENT_TIME][0] == datetime(2024, 7, 5, tzinfo=UTC)


@pytest.mark.parametrize(("clear", "month"), [("25/07/2024", 7), ("07/25/2024", 5)])
def test_one_clear_row_settles_day_and_month_for_all(tmp_path: Path, clear: str, month: int) -> None:
    rows = ["a,05/07/2024,1"] * 3 + [f"b,{clear},2"]
    events = events_of(prepared(orders_csv(tmp_path, rows), tmp_path))
    assert events.filter(pl.col(CUSTOMER_ID) == "a")[EVENT_TIME].dt.month().to_list() == [month]


def test_naive_times_are_read_as_utc_and_said_so(tmp_path: Path) -> None:
    path = orders_csv(tmp_path, ["a,2024-07-01 10:00:00,1", "b,2024-07-02 11:00:00,2"])
    store = prepared(path, tmp_path)
    assert events_of(store)[EVENT_TIME][0] == datetime(2024, 7, 1, 10, tzinfo=UTC)
    note = next(n for n in store.manifest.notes if "without a zone" in n[str(FINDING)])
    assert note[str(LEVEL)] == "warning"
    assert (
        "column 'event_time' has 2 times without a zone (first: '2024-07-01 10:00:00', orders.csv row 2)"
        in note["finding"]
    )
    assert "data.time_zone=Europe/London" in note["cure"]
    told = prepared(path, tmp_path, time_zone="Europe/London")
    assert events_of(told)[EVENT_TIME][0] == datetime(2024, 7, 1, 9, tzinfo=UTC)
    assert "without a zone" not in notes_of(told)


def test_mixed_time_zones(tmp_path: Path) -> None:
    rows = ["a,2024-07-01 10:00:00,1", "b,2024-07-02T11:00:00Z,2", "b,2024-07-03T11:00:00+02:00,2"]
    refused(
        orders_csv(tmp_path, rows), tmp_path, "'event_time'", "1 times without a zone", "2024-07-01",
        "2 with an offset",
        "row 3", "data.time_zone",
    )  # fmt: skip


def test_different_offsets_are_fine(tmp_path: Path) -> None:
    rows = ["a,2024-07-02T11:00:00Z,2", "b,2024-07-03T11:00:00+02:00,2"]
    events = events_of(prepared(orders_csv(tmp_path, rows), tmp_path))
    assert events[EVENT_TIME].to_list() == [
        datetime(2024, 7, 2, 11, tzinfo=UTC),
        datetime(2024, 7, 3, 9, tzinfo=UTC),
    ]


def test_duplicated_columns(tmp_path: Path) -> None:
    path = orders_csv(tmp_path, ["a,2024-01-01,1,2"], "customer_id,event_time,amount,amount")
    refused(path, tmp_path, "orders.csv", "column 'amount' stands 2 times")


def test_truncated_parquet(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.parquet", tmp_path / "orders.parquet"
    pl.DataFrame({"customer_id": ["a"] * 999, "event_time": ["2024-01-01"] * 999}).write_parquet(whole)
    path.write_bytes(whole.read_bytes()[:-40])
    refused(path, tmp_path, "orders.parquet", "cannot be read to its end", "Export the file again")


def test_parquet_damaged_inside(tmp_path: Path) -> None:
    path = tmp_path / "orders.parquet"
    frame = pl.DataFrame({"customer_id": [str(n) for n in range(9999)], "event_time": ["2024-01-01"] * 9999})
    frame.write_parquet(path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[100:2000] = bytes(1900)
    path.write_bytes(bytes(content))
    refused(path, tmp_path, "orders.parquet", "cannot be read to its end")


def test_rows_with_too_many_fields_are_set_aside_with_their_line(tmp_path: Path) -> None:
    path = orders_csv(tmp_path, [*GOOD, "a,2024-01-01,1,000"])
    store = prepared(path, tmp_path)
    assert store.quarantine().select(ROW, REASON, VALUES).rows() == [
        (62, "line: more fields than the header", '{"line":"a,2024-01-01,1,000"}')
    ]
    assert store.manifest.rows_in == 61
    refused(path, tmp_path / "strict", "1 of 61 lines", "row 62", "more fields", max_bad_share=0.0)


def test_json_that_is_an_array_or_broken(tmp_path: Path) -> None:
    refused(
        write(tmp_path / "a.json", ['[{"customer_id": 1}]']), tmp_path, "a.json", "JSON array", "JSON lines"
    )
    refused(
        write(tmp_path / "b.jsonl", ['{"customer_id": 1}', "{oops"]),
        tmp_path,
        "b.jsonl",
        "line 2 is not JSON",
    )
    refused(write(tmp_path / "c.jsonl", ["5"]), tmp_path, "c.jsonl", "line 1 is not a JSON object")


def test_an_unknown_ending(tmp_path: Path) -> None:
    refused(write(tmp_path / "orders.docx", ["x"]), tmp_path, "orders.docx", "ending", ".csv")
    refused(write(tmp_path / "orders.xlsx", ["x"]), tmp_path, "orders.xlsx", "cannot be read")


def test_ids_of_mixed_types(tmp_path: Path) -> None:
    path = write(
        tmp_path / "orders.jsonl",
        [
            '{"customer_id": 17850, "event_time": "2024-01-01", "amount": 1}',
            '{"customer_id": "17850", "event_time": "2024-01-02", "amount": 1}',
            '{"customer_id": "17850.0", "event_time": "2024-01-03", "amount": 1}',
            '{"customer_id": " A7 ", "event_time": "2024-01-03", "amount": 1}',
        ],
    )
    store = prepared(path, tmp_path)
    assert events_of(store)[CUSTOMER_ID].to_list() == ["17850"] * 3 + ["A7"]
    assert "3 are whole numbers, 1 are texts (first: 'A7', orders.jsonl row 4)" in notes_of(store)
    assert "1 customer ids end in '.0'" in notes_of(store)


def test_float_ids_of_parquet_and_their_gaps(tmp_path: Path) -> None:
    frame = pl.DataFrame({"customer_id": [17850.0, None, float("nan")], "event_time": ["2024-01-01"] * 3})
    frame.write_parquet(tmp_path / "orders.parquet")
    store = prepared(tmp_path / "orders.parquet", tmp_path)
    assert events_of(store)[CUSTOMER_ID].to_list() == ["17850"]
    assert store.quarantine()[REASON].to_list() == ["no customer id"] * 2
    assert store.quarantine()[ROW].to_list() == [2, 3]


def test_negative_orders_become_refunds_and_zero_orders_stay(tmp_path: Path) -> None:
    store = prepared(orders_csv(tmp_path, ["a,2024-01-01,-5", "a,2024-01-02,0", "a,2024-01-03,7"]), tmp_path)
    events = events_of(store)
    assert events[EVENT_TYPE].to_list() == ["refund", "order", "order"]
    assert events[AMOUNT].to_list() == [-5.0, 0.0, 7.0]
    assert (
        "1 order rows have a negative amount (first: '-5.0', orders.csv row 2); stored as refunds"
        in notes_of(store)
    )
    assert "orders with an amount of exactly zero: 1 (50.0%)" in notes_of(store)


def test_times_in_the_future(tmp_path: Path) -> None:
    path = orders_csv(tmp_path, ["a,2024-01-01,1", "a,2999-01-01,1"])
    refused(
        path,
        tmp_path,
        "1 of 2 rows lie in the future by this machine's clock",
        "2999",
        "data.observation_end",
    )
    store = prepared(path, tmp_path, max_bad_share=0.5)
    assert store.quarantine()[REASON].to_list() == ["in the future"]
    assert prepared(path, tmp_path, observation_end="2024-12-31").manifest.rows_kept == 1
    assert store.observation_end < datetime(2024, 1, 2, tzinfo=UTC)


def test_times_after_the_stated_end_of_observation(tmp_path: Path) -> None:
    rows = ["a,2024-01-01,1", "a,2024-01-02 23:59:59,1", "a,2024-01-03,1"]
    store = prepared(orders_csv(tmp_path, rows), tmp_path, observation_end="2024-01-02")
    assert store.quarantine()[REASON].to_list() == ["after data.observation_end"]
    assert store.manifest.rows_kept == 2


def test_more_than_one_currency(tmp_path: Path) -> None:
    rows = ["a,2024-01-01,1,EUR", "a,2024-01-02,1,GBP", "b,2024-01-02,1,GBP"]
    path = orders_csv(tmp_path, rows, "customer_id,event_time,amount,currency")
    refused(path, tmp_path, "more than one currency", "EUR in 1 rows", "GBP in 2 rows", "data.columns.base")


def test_one_currency_is_taken_over(tmp_path: Path) -> None:
    path = orders_csv(tmp_path, ["a,2024-01-01,1,EUR"], "customer_id,event_time,amount,currency")
    assert prepared(path, tmp_path).manifest.currency == "EUR"


def test_no_row_has_an_id(tmp_path: Path) -> None:
    refused(orders_csv(tmp_path, [",2024-01-01,1"] * 3), tmp_path, "none of the 3 rows", "no customer id: 3")


def test_values_outside_their_range(tmp_path: Path) -> None:
    rows = [f"a,2024-01-{n % 28 + 1:02d},review,{n % 5 + 1}" for n in range(40)]
    path = orders_csv(tmp_path, [*rows, "b,2024-01-01,review,9"], "customer_id,event_time,event_type,rating")
    assert prepared(path, tmp_path / "a").quarantine()[REASON].to_list() == [
        "impossible value: rating outside 1 to 5"
    ]
    path = orders_csv(
        tmp_path, [*rows, *["b,2024-01-01,review,9"] * 5], "customer_id,event_time,event_type,rating"
    )
    refused(path, tmp_path, "column 'rating' has 5 impossible values", "row 42")


def test_no_amount_column(tmp_path: Path) -> None:
    store = prepared(
        orders_csv(tmp_path, ["a,2024-01-01", "a,2024-01-02"], "customer_id,event_time"), tmp_path
    )
    assert AMOUNT not in store.manifest.columns
    assert "no column holds amounts" in notes_of(store)


def quality(store: Store) -> str:
    return "\n".join(": ".join(row[:3]) for row in doctor(store, 30).iter_rows())


def test_one_customer_only(tmp_path: Path) -> None:
    store = prepared(orders_csv(tmp_path, ["a,2024-01-01,1", "a,2024-01-20,1"]), tmp_path)
    assert "problem: identity: there is one customer only" in quality(store)


def test_one_event_only(tmp_path: Path) -> None:
    store = prepared(orders_csv(tmp_path, ["a,2024-01-01,1"]), tmp_path)
    assert store.manifest.events == 1
    assert "problem: rows: there is 1 event in all" in quality(store)


def test_all_customers_one_time(tmp_path: Path) -> None:
    store = prepared(orders_csv(tmp_path, [f"c{n},2024-01-{n % 28 + 1:02d},5" for n in range(99)]), tmp_path)
    assert "problem: repeat: none of the 99 buyers came back" in quality(store)
    assert "problem: churn: churn: not supported, since nobody came back" in quality(store)


def test_a_million_events_of_one_customer(tmp_path: Path) -> None:
    seconds = pl.Series(range(1_000_000)) + 1_577_836_800
    times = pl.from_epoch(seconds).dt.cast_time_unit("ms")
    huge = pl.DataFrame({"customer_id": "till", "event_time": times})
    few = pl.DataFrame({"customer_id": [f"c{n}" for n in range(50)], "event_time": times.head(50)})
    pl.concat([huge, few]).write_parquet(tmp_path / "orders.parquet")
    store = prepared(tmp_path / "orders.parquet", tmp_path, shards=3)
    assert store.manifest.events == 1_000_050
    assert "customer 'till' alone has 1,000,000 of 1,000,050 events" in quality(store)


def test_options_that_name_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data=files needs data\.path"):
        prepare(options(None), tmp_path / "store")
    with pytest.raises(InputError, match="shards=9999: must be 0"):
        prepared(orders_csv(tmp_path, GOOD), tmp_path, shards=9999)
