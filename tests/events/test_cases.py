"""Small inputs that failed once: each ends in one line, or in a store that accounts for every row."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from retinue.events.prepare import prepare
from retinue.options import ColumnOptions, DataOptions
from retinue.schema import InputError
from tests.events.files import prepared

CASES = Path(__file__).parents[3] / "shared" / "cases"
FILES = sorted(
    path
    for path in CASES.rglob("*")
    if path.suffix in (".csv", ".parquet", ".jsonl", ".xlsx") and path.is_file()
)
COLUMNS: tuple[dict[str, str], ...] = (
    {},
    {"customer_id": "cid", "event_time": "when"},
    {"customer_id": "cust", "event_time": "date", "amount": "total"},
    {"customer_id": "Kunde", "event_time": "Bestelldatum", "amount": "Betrag"},
    {"customer_id": "cid", "event_time": "t", "amount": "amt"},
    {"customer_id": "c", "event_time": "t", "amount": "a"},
)


@pytest.mark.skipif(not FILES, reason=f"{CASES} is not here")
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CASES)))
def test_every_case_ends_in_a_line_or_a_store(path: Path, tmp_path: Path) -> None:
    for columns in COLUMNS:
        options = DataOptions(path=str(path), columns=ColumnOptions(**columns), max_bad_share=1.0)
        refusal = ""
        try:
            about = prepare(options, tmp_path / "store").manifest
        except InputError as error:
            refusal = str(error)
        if refusal:
            assert refusal.isprintable()
            assert len(refusal) < 2_000
        else:
            accounted = about.rows_kept + about.rows_quarantined + about.rows_duplicate + about.rows_left_out
            assert about.rows_in + about.rows_made == accounted


def test_a_header_of_odd_signs_is_one_line(tmp_path: Path) -> None:
    """carriage_return.csv"""
    path = tmp_path / "orders.csv"
    path.write_bytes(b"\r,\xef\xbb\xbfc|t|a\r\nc11|2023-01-01T\xf500|9.26\r\n")
    with pytest.raises(InputError, match="there is no column 'customer_id'"):
        prepared(path, tmp_path)


def test_dates_that_no_calendar_has_are_unreadable(tmp_path: Path) -> None:
    """fuzz_20_a.parquet: Polars panics when it writes such a date as text."""
    days = pl.Series([19_700, 2**31 - 1, -(2**31)], dtype=pl.Int32).cast(pl.Date)
    table = pl.DataFrame(
        {"customer_id": ["a", "b", "c"], "event_time": days, "category": days, "amount": [1.0, 2.0, 3.0]}
    )
    table.write_parquet(tmp_path / "orders.parquet")
    store = prepared(tmp_path / "orders.parquet", tmp_path, max_bad_share=1.0)
    assert store.quarantine()["reason"].to_list() == ["unreadable time"] * 2


def test_json_nested_beyond_reason_is_one_line(tmp_path: Path) -> None:
    """fuzz_561_a.jsonl"""
    path = tmp_path / "orders.jsonl"
    path.write_text(
        '{"customer_id": "a", "event_time": "2024-01-05"}\n{"customer_id": ' + "[" * 100_000 + "\n"
    )
    with pytest.raises(InputError, match="line 2 is not JSON"):
        prepared(path, tmp_path)
