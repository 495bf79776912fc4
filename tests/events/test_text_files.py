"""Text tables as shops export them: any encoding, line end and wrapping is read, and every line is accounted for."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import polars as pl
import pytest
import zstandard

from retinue.schema import REASON, ROW, InputError
from tests.events.files import events_of, notes_of, orders_csv, prepared

PLAIN = "customer_id,event_time,amount\na,2024-01-05,1\nb,2024-01-06,2\n"
EXPECTED = [("a", 1.0), ("b", 2.0)]


def amounts(path: Path, folder: Path, **rest: object) -> list[tuple[str, float]]:
    store = prepared(path, folder, **rest)  # type: ignore[arg-type]
    return events_of(store).select("customer_id", "amount").rows()


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (PLAIN.encode(), ""),
        (b"\xef\xbb\xbf" + PLAIN.encode(), ""),
        (PLAIN.encode("utf-16"), "read as utf-16"),  # cases/27-utf16
        (PLAIN.encode("utf-16-le"), "read as utf-16-le"),
        (PLAIN.encode("utf-16-be"), "read as utf-16-be"),
        (PLAIN.replace("\n", "\r").encode(), ""),  # cases/28-cr-only
        (PLAIN.replace("\n", "\r\n").encode(), ""),
        (b"sep=,\n" + PLAIN.encode(), "fields end in ','"),  # cases/23-sep-line
        (b"sep=;\r\n" + PLAIN.replace(",", ";").encode(), "fields end in ';'"),
        (PLAIN.replace("\n", ",,\n").encode(), ""),  # cases/22-header-trailing
        (PLAIN.replace("1\n", "1,\n").replace("2\n", "2,\n").encode(), "which is left out: 2"),
        (PLAIN.removesuffix("\n").encode(), ""),
        (PLAIN.replace("a,", '"a",').encode(), ""),
        (PLAIN.replace("\n", "\n\n").encode(), ""),
    ],
)
def test_the_same_table_in_every_wrapping(content: bytes, note: str, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(content)
    assert amounts(path, tmp_path) == EXPECTED
    assert note in notes_of(prepared(path, tmp_path))


def test_windows_latin_is_found_and_stated(tmp_path: Path) -> None:
    """cases/26-latin1"""
    path = tmp_path / "orders.csv"
    path.write_bytes(PLAIN.replace("a,", "Müller,").encode("cp1252"))
    assert amounts(path, tmp_path) == [("Müller", 1.0), ("b", 2.0)]
    assert "orders.csv: read as cp1252, found from its bytes." in notes_of(prepared(path, tmp_path))
    assert amounts(path, tmp_path, encoding="latin-1") == [("Müller", 1.0), ("b", 2.0)]
    with pytest.raises(InputError, match=r"not text in utf-16 .* Set data.encoding"):
        prepared(path, tmp_path, encoding="utf-16")
    with pytest.raises(InputError, match=r"not text in klingon .* Set data.encoding"):
        prepared(path, tmp_path, encoding="klingon")


@pytest.mark.parametrize("ending", [".gz", ".zip", ".zst", ""])
@pytest.mark.parametrize("kind", ["gzip", "zip", "zstd"])
def test_packed_files_are_known_by_their_bytes(kind: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"orders.csv{ending}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("orders.csv", PLAIN)
    else:
        path.write_bytes((gzip if kind == "gzip" else zstandard).compress(PLAIN.encode()))
    assert amounts(path, tmp_path) == EXPECTED
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InputError, match=f"the {kind} file is damaged"):
        prepared(path, tmp_path)


def test_a_zip_of_two_tables_is_not_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "orders.zip.csv"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("one.csv", PLAIN)
        archive.writestr("two.csv", PLAIN)
    with pytest.raises(InputError, match="holds 2 files, not one table"):
        prepared(path, tmp_path)


def test_excel_is_read_from_its_first_filled_sheet(tmp_path: Path) -> None:
    """cases/x.xlsx"""
    book = Path(__file__).parent / "orders.xlsx"
    store = prepared(book, tmp_path, columns={"customer_id": "cust", "event_time": "date", "amount": "total"})
    assert events_of(store).select("customer_id", "amount").rows() == [("K1", 12.5), ("K2", 7.0)]
    assert "sheet 'Sheet1' is read" in notes_of(store)


def test_a_quote_inside_a_cell_is_a_character(tmp_path: Path) -> None:
    """cases/02-stray-quote"""
    rows = ['1,2024-01-05,10,12" vinyl', '2,2024-01-06,11,"7" vinyl', '3,2024-01-07,12,"a ""quoted"" word"']
    store = prepared(orders_csv(tmp_path, rows, "customer_id,event_time,amount,product"), tmp_path)
    assert events_of(store)["product"].to_list() == ['12" vinyl', '"7" vinyl', 'a "quoted" word']
    assert "quote that opens no field, kept as a character: 1" in notes_of(store)


def test_two_stray_quotes_swallow_no_rows(tmp_path: Path) -> None:
    """cases/stray_quotes.csv: 800 rows between them became one cell."""
    rows = [f"c{n % 50},2024-01-{n % 28 + 1:02d},{n},tea" for n in range(1_000)]
    rows[100] = 'c1,2024-01-05,7,"tea'
    rows[900] = 'c2,2024-01-06,8,tea"'
    store = prepared(orders_csv(tmp_path, rows, "customer_id,event_time,amount,category"), tmp_path)
    manifest = store.manifest
    assert (manifest.rows_in, manifest.rows_kept, manifest.rows_quarantined) == (1_000, 1_000, 0)


def test_a_cell_over_several_lines_is_one_cell(tmp_path: Path) -> None:
    rows = ['a,2024-01-05,1,"two', 'lines, and more"', "b,2024-01-06,2,one"]
    store = prepared(orders_csv(tmp_path, rows, "customer_id,event_time,amount,product"), tmp_path)
    assert events_of(store)["product"].to_list() == ["two\nlines, and more", "one"]
    assert "rows over several lines, inside quotes: 1" in notes_of(store)


def test_ragged_rows_are_set_aside_with_number_and_reason(tmp_path: Path) -> None:
    """cases/24-ragged"""
    path = orders_csv(tmp_path, ["a,2024-01-05,1,extra", "b,2024-01-06", "c,2024-01-07,3"])
    with pytest.raises(InputError, match=r"2 of 3 lines do not fit the header .*row 2"):
        prepared(path, tmp_path)
    store = prepared(path, tmp_path, max_bad_share=1.0)
    assert store.quarantine().select(ROW, REASON).rows() == [
        (2, "line: more fields than the header"),
        (3, "line: fewer fields than the header"),
    ]
    assert events_of(store)["customer_id"].to_list() == ["c"]


def test_row_numbers_are_those_of_the_file_however_it_is_read(tmp_path: Path) -> None:
    path = orders_csv(tmp_path, ["a,2024-01-05,1", "", "b,never,2", "c,2024-01-05,1"])
    plain = prepared(path, tmp_path, max_bad_share=1.0).quarantine()[ROW].to_list()
    path.write_text(path.read_text() + "d,2024\n")
    assert plain == [4]
    assert prepared(path, tmp_path, max_bad_share=1.0).quarantine()[ROW].to_list() == [6, 4]


def test_keys_that_come_late_in_json_lines_are_found(tmp_path: Path) -> None:
    """cases/make_late_amount.py"""
    path = tmp_path / "late.jsonl"
    early = '{"customer_id": "a", "event_time": "2024-01-05", "note": "' + "x" * 500 + '"}\n'
    path.write_text(early * 3_000 + '{"customer_id": "a", "event_time": "2024-02-05", "amount": 20.5}\n')
    assert path.stat().st_size > 1 << 20
    store = prepared(path, tmp_path, merge_duplicates=True)
    assert events_of(store)["amount"].to_list() == [None, 20.5]


@pytest.mark.parametrize(
    ("ours", "values", "named"),
    [
        ("amount", pl.Series([1, 2]).cast(pl.Duration("us")), "Duration"),  # cases/duration_amount.parquet
        ("amount", pl.Series([[1.0], [2.0]]), "List"),  # cases/list_amount.parquet
        ("category", pl.Series([["a"], ["b"]]), "List"),  # cases/list_category.parquet
        ("customer_id", pl.Series([b"a", b"b"]), "Binary"),
        ("event_time", pl.Series([{"day": 1}, {"day": 2}]), "Struct"),
        ("quantity", pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int64, 2)), "Array"),
    ],
)
def test_a_typed_column_that_cannot_be_what_it_is_named(
    ours: str, values: pl.Series, named: str, tmp_path: Path
) -> None:
    table = pl.DataFrame({"customer_id": ["a", "b"], "event_time": ["2024-01-05"] * 2, "amount": [1.0, 2.0]})
    table.with_columns(values.alias(ours)).write_parquet(tmp_path / "orders.parquet")
    with pytest.raises(
        InputError, match=rf"column '{ours}' is of type {named}.* cannot be {ours}.*data.columns.{ours}"
    ):
        prepared(tmp_path / "orders.parquet", tmp_path)


def test_null_rows_stay_in_the_balance(tmp_path: Path) -> None:
    """cases/allnull.parquet"""
    rows = {
        "customer_id": ["a", None, "b"],
        "event_time": ["2024-01-05", None, "2024-01-06"],
        "amount": [1.0, None, 2.0],
    }
    pl.DataFrame(rows).write_parquet(tmp_path / "orders.parquet")
    manifest = prepared(tmp_path / "orders.parquet", tmp_path, max_bad_share=1.0).manifest
    assert (manifest.rows_in, manifest.rows_kept, manifest.rows_quarantined) == (3, 2, 1)


def test_a_file_of_a_glob_without_a_column_of_the_others_is_named(tmp_path: Path) -> None:
    """cases/54b-glob-half"""
    (tmp_path / "o1.csv").write_text("customer_id,event_time,amount\na,2024-01-05,1\n")
    (tmp_path / "o2.csv").write_text("customer_id,event_time\na,2024-02-05\n")
    with pytest.raises(InputError, match=r"o2.csv: there is no column 'amount' .* which o1.csv"):
        prepared(f"{tmp_path}/o*.csv", tmp_path)


def test_cells_in_messages_are_escaped_and_cut(tmp_path: Path) -> None:
    """cases/ansi.csv"""
    cell = "\x1b]0;PWNED\x07" + "x" * 500
    with pytest.raises(InputError) as caught:
        prepared(orders_csv(tmp_path, ["a,2024-01-05,1", f"b,{cell},2"]), tmp_path)
    message = str(caught.value)
    assert message.isprintable()
    assert r"\x1b]0;PWNED\x07xxx" in message
    assert "x" * 60 not in message


def test_many_columns_cost_no_square(tmp_path: Path) -> None:
    """cases/cols1000.csv: 10,000 columns are read within 10 s, and messages do not list them all."""
    names = ",".join(f"c{n}" for n in range(10_000))
    zeros = ",".join(["0"] * 10_000)
    rows = [f"k{n},2024-01-{n + 1:02d},5,{zeros}" for n in range(20)]
    path = orders_csv(tmp_path, rows, f"customer_id,event_time,amount,{names}")
    assert prepared(path, tmp_path).manifest.rows_kept == 20
    with pytest.raises(InputError, match="and 9,983 more"):
        prepared(path, tmp_path, columns={"amount": "price"})


def test_text_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(bytes(range(256)) * 40)
    with pytest.raises(InputError, match="is not text"):
        prepared(path, tmp_path)
    path.write_bytes(b"\n\n\n")
    with pytest.raises(InputError, match="has no header line"):
        prepared(path, tmp_path)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = orders_csv(tmp_path, ["a,2024-01-05,1"])

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("retinue.events.reading.unpacked", refused)
    with pytest.raises(InputError, match=r"orders\.csv: may not be read"):
        prepared(path, tmp_path)
