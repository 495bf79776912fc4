"""Numbers and times as people and shops write them; what two readings fit is asked about, never read in silence."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from retinue.schema import InputError
from tests.events.files import events_of, notes_of, orders_csv, prepared, write

WHEN = "2024-01-{:02d}"


def read(amounts: list[str], folder: Path, mark: str = ",", **rest: object) -> list[float]:
    rows = [f"c{n};{WHEN.format(n + 1)};{amount}".replace(";", mark) for n, amount in enumerate(amounts)]
    header = "customer_id;event_time;amount".replace(";", mark)
    store = prepared(write(folder / "orders.csv", [header, *rows]), folder, **rest)  # type: ignore[arg-type]
    return [float(value) for value in events_of(store).sort("customer_id")["amount"]]


@pytest.mark.parametrize(
    ("amounts", "values"),
    [
        (["118,17", "3", "65,51"], [118.17, 3, 65.51]),  # cases/09-decimal-comma, german.csv
        (["1.234,50", "2.500", "12,99"], [1234.5, 2500, 12.99]),
        (["1.234.567", "2.500", "3"], [1_234_567, 2_500, 3]),
        (["106,76 €", "1.118,17 €", "5 €"], [106.76, 1118.17, 5]),  # cases/german_eur.csv
        (["$118.17", "$1,106.76", "$65"], [118.17, 1106.76, 65]),  # cases/usd.csv, 11-currency-sign
        (["1,234.50", "12.5", "1,000"], [1234.5, 12.5, 1000]),  # cases/10-thousands-few
        (["USD 12.50", "12.50 USD", "12.50"], [12.5] * 3),
        (["1 234,50", "1\u00a0234,50", "1\u202f234 567,5"], [1234.5, 1234.5, 1_234_567.5]),
        (["1'234.50", "1’234.50", "12.50"], [1234.5, 1234.5, 12.5]),
        (["1.5", "2.25", "1.234"], [1.5, 2.25, 1.234]),
        (["1e3", "2.5E-1", ".5"], [1000, 0.25, 0.5]),
    ],
)
def test_what_one_reading_fits_is_read(amounts: list[str], values: list[float], tmp_path: Path) -> None:
    assert read(amounts, tmp_path, ";") == values


@pytest.mark.parametrize(
    "amount", ["(4.00)", "4.00-", "-4.00", "\u22124.00", "-$4.00", "$-4.00", "($4.00)", "4.00- USD"]
)
def test_negatives_of_accountants_are_refunds(amount: str, tmp_path: Path) -> None:
    path = orders_csv(tmp_path, ["a,2024-01-01,10.00", f"a,2024-01-05,{amount}"])
    events = events_of(prepared(path, tmp_path))
    assert events.select("event_type", "amount").rows() == [("order", 10.0), ("refund", -4.0)]


def test_1_234_in_a_file_of_semicolons_is_asked_about_and_both_cures_work(tmp_path: Path) -> None:
    """cases/12-german-thousands-silent"""
    amounts = ["1.234", "2.500", "12.999"]
    with pytest.raises(
        InputError, match=r"numbers such as '1\.234'.*Set data\.decimal=comma.*data\.decimal=point"
    ):
        read(amounts, tmp_path, ";")
    assert read(amounts, tmp_path, ";", decimal="comma") == [1234, 2500, 12999]
    assert read(amounts, tmp_path, ";", decimal="point") == [1.234, 2.5, 12.999]
    assert read(amounts, tmp_path, ";", thousands="point") == [1234, 2500, 12999]
    with pytest.raises(
        InputError, match=r"numbers such as '1,234'.*data\.decimal=point.*data\.decimal=comma"
    ):
        read(["1,234", "2,500"], tmp_path, ";")
    assert read(["1,234", "2,500"], tmp_path, ";", decimal="point") == [1234, 2500]


def test_a_file_of_commas_has_plain_decimals(tmp_path: Path) -> None:
    assert read(["1.234", "2.500"], tmp_path) == [1.234, 2.5]


def test_the_whole_column_decides_whatever_comes_first(tmp_path: Path) -> None:
    amounts = [*["1.234"] * 30, "7,5"]
    expected = [*[1234.0] * 30, 7.5]
    assert sorted(read(amounts[:29] + amounts[30:], tmp_path, ";")) == sorted([*[1234.0] * 29, 7.5])
    rows = [f"c{n:02d};2024-01-01;{amount}" for n, amount in enumerate(amounts)]
    store = prepared(write(tmp_path / "o.csv", ["customer_id;event_time;amount", *rows]), tmp_path)
    assert events_of(store)["amount"].to_list() == expected
    assert "column 'amount' is read with a decimal comma" in notes_of(store)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"decimal": "dot"}, "data.decimal=dot: must be one of point, comma"),
        ({"decimal": "point", "thousands": "point"}, "give data.decimal=point or comma"),
        ({"decimal": "space"}, "give data.decimal=point or comma"),
    ],
)
def test_signs_that_there_are_not(options: dict[str, str], rule: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rule):
        read(["1"], tmp_path, **options)


def test_currencies_in_the_cells(tmp_path: Path) -> None:
    store = prepared(
        orders_csv(tmp_path, ["a,2024-01-01,5 €", "a,2024-01-05,EUR 6", "b,2024-01-05,7"]), tmp_path
    )
    assert store.manifest.currency == "EUR"
    with pytest.raises(InputError, match=r"more than one currency \(EUR in 1 rows, GBP in 1 rows\)"):
        prepared(orders_csv(tmp_path, ["a,2024-01-01,5 €", "a,2024-01-05,£6"]), tmp_path)


def test_codes_of_one_currency_in_any_case_are_one(tmp_path: Path) -> None:
    rows = ["a,2024-01-01,5,eur", "a,2024-01-05,6,EUR", "b,2024-01-05,7,Eur"]
    store = prepared(orders_csv(tmp_path, rows, "customer_id,event_time,amount,currency"), tmp_path)
    assert store.manifest.currency == "EUR"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("45296", datetime(2024, 1, 5, tzinfo=UTC)),  # cases/17-excel-serial
        ("45297.5", datetime(2024, 1, 6, 12, tzinfo=UTC)),
        ("05/01/24", datetime(2024, 1, 5, tzinfo=UTC)),
        ("05.01.99", datetime(1999, 1, 5, tzinfo=UTC)),
        ("05/01/2024 12:18 AM", datetime(2024, 1, 5, 0, 18, tzinfo=UTC)),  # cases/ampm.csv
        ("05/01/2024 12:52 pm", datetime(2024, 1, 5, 12, 52, tzinfo=UTC)),
        ("05/01/2024 8:23:05 p.m.", datetime(2024, 1, 5, 20, 23, 5, tzinfo=UTC)),
        ("Jan 05 2024", datetime(2024, 1, 5, tzinfo=UTC)),  # cases/usd.csv
        ("January 5, 2024 at 10:00 PM", datetime(2024, 1, 5, 22, tzinfo=UTC)),
        ("Fri, 5 Jan 2024 10:00:00 +0200", datetime(2024, 1, 5, 8, tzinfo=UTC)),
        ("05-Jan-2024", datetime(2024, 1, 5, tzinfo=UTC)),
        ("1704450600", datetime(2024, 1, 5, 10, 30, tzinfo=UTC)),
        ("1704450600000", datetime(2024, 1, 5, 10, 30, tzinfo=UTC)),
    ],
)
def test_times_as_they_are_written(text: str, expected: datetime, tmp_path: Path) -> None:
    other = "31/12/2023" if "/" in text or ("." in text and text[0] == "0") else text
    rows = [f'a,"{text}",1', f'b,"{other}",1']
    store = prepared(orders_csv(tmp_path, rows), tmp_path, time_zone="UTC")
    assert events_of(store).filter(customer_id="a")["event_time"].to_list() == [expected]


@pytest.mark.parametrize(
    "text", ["05/01/2024 13:00 PM", "Foo 05 2024", "45", "0000-01-01", "0001-01-01", "31 Feb 2024"]
)
def test_times_that_are_none(text: str, tmp_path: Path) -> None:
    """cases/year0.csv, year1.csv"""
    rows = [f"a,{text},1", *["b,13/12/2023,1"] * 3]
    store = prepared(orders_csv(tmp_path, rows), tmp_path, max_bad_share=0.5)
    assert store.manifest.rows_quarantined == 1
    assert store.quarantine()["reason"].to_list() == ["unreadable time"]


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        (
            "%Y/%m/%d %T",
            "2024/01/05 22:30:00",
            datetime(2024, 1, 5, 22, 30, tzinfo=UTC),
        ),  # cases/19-time-format-T
        ("%Y/%m/%d %R", "2024/01/05 22:30", datetime(2024, 1, 5, 22, 30, tzinfo=UTC)),
        ("%s", "1704450600", datetime(2024, 1, 5, 10, 30, tzinfo=UTC)),  # cases/20-epoch-format
    ],
)
def test_a_given_form_with_a_clock_has_one(form: str, text: str, expected: datetime, tmp_path: Path) -> None:
    path = orders_csv(tmp_path, [f"a,{text},1"])
    store = prepared(path, tmp_path, time_format=form, time_zone="UTC", local_zone="America/New_York")
    assert events_of(store)["event_time"].to_list() == [expected]
    assert store.manifest.has_clock


def test_a_column_of_midnights_is_dates_of_the_shoppers(tmp_path: Path) -> None:
    """cases/71-midnight is what 71b-midnight-date is: an order of 1 October lay before a cutoff of 30 September."""
    rows = ["a,2023-10-01 00:00:00,1", "b,2023-09-02 00:00:00,1"]
    store = prepared(orders_csv(tmp_path, rows), tmp_path, local_zone="America/New_York")
    assert events_of(store)["event_time"].to_list()[0] == datetime(2023, 10, 1, 4, tzinfo=UTC)
    assert not store.manifest.has_clock
    store = prepared(
        orders_csv(tmp_path, [*rows, "c,2023-09-02 00:00:01,1"]), tmp_path, local_zone="America/New_York"
    )
    assert events_of(store)["event_time"].to_list()[0] == datetime(2023, 10, 1, tzinfo=UTC)
    assert "3 times without a zone" in notes_of(store)


def test_a_card_number_is_no_amount(tmp_path: Path) -> None:
    """cases/card_number_amount.csv, fuzz_228_a.csv"""
    rows = [f"c{n},2024-01-01,5" for n in range(40)]
    store = prepared(orders_csv(tmp_path, [*rows, "d,2024-01-01,4111111111111111"]), tmp_path)
    assert store.manifest.rows_quarantined == 1
    assert "impossible value: amount" in store.quarantine()["reason"][0]
