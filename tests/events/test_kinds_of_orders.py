"""What shops call an order: totals on each line, numbers that begin again, guests, refunds of either sign, stray dates."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retinue.events.doctor import doctor
from retinue.events.store import Store
from retinue.events.timeline import bulk_days
from retinue.options import AmountIs, IdRule
from retinue.schema import CURE, FINDING
from tests.events.files import events_of, notes_of, orders_csv, prepared


def money(store: Store) -> list[tuple[str, str, float | None]]:
    return events_of(store).select("customer_id", "event_type", "amount").rows()


def doctored(store: Store) -> tuple[str, str]:
    """Findings and cures of the doctor."""
    found = doctor(store, 30)
    return "\n".join(found[FINDING]), "\n".join(found[CURE].fill_null(""))


REPEATED = [
    "1,a,2024-01-05 10:00:00,100.00,mug", "1,a,2024-01-05 10:00:00,100.00,cup", "1,a,2024-01-05 10:00:00,100.00,jar",
    "2,b,2024-01-06 10:00:00,50.00,mug", "3,b,2024-01-09 10:00:00,80.00,mug", "3,b,2024-01-09 10:00:00,80.00,cup",
]  # fmt: skip
WITH_IDS = "order_id,customer_id,event_time,amount,product"


def test_a_total_on_each_line_is_noticed_and_read_once_on_request(tmp_path: Path) -> None:
    """cases/05-repeated-total: 300 for an order of 100."""
    path = orders_csv(tmp_path, REPEATED, WITH_IDS)
    store = prepared(path, tmp_path)
    assert sum(amount or 0 for _, _, amount in money(store)) == 510
    assert "in 2 of 2 orders of several rows every row has the same amount" in notes_of(store)
    assert "(280.00 too much)" in notes_of(store)
    cures = [
        str(note[CURE]) for note in store.manifest.notes if "every row has the same amount" in note[FINDING]
    ]
    assert cures == ["Set data.amount_is=order_total if it is, data.amount_is=line if it is not."]
    store = prepared(path, tmp_path, amount_is=AmountIs.order_total)
    assert money(store) == [("a", "order", 100.0), ("b", "order", 50.0), ("b", "order", 80.0)]
    assert "same amount" not in notes_of(store)
    assert "same amount" not in notes_of(prepared(path, tmp_path, amount_is=AmountIs.line))


def test_a_total_on_the_first_line_alone_is_the_orders(tmp_path: Path) -> None:
    """cases/04-shopify: later lines are blank."""
    rows = ["1,a,2024-01-05,65.00,mug", "1,a,2024-01-05,,cup", "2,b,2024-01-06,,jar"]
    for amount_is in (None, AmountIs.order_total):
        store = prepared(orders_csv(tmp_path, rows, WITH_IDS), tmp_path, amount_is=amount_is)
        assert money(store) == [("a", "order", 65.0), ("b", "order", None)]
        assert "1 orders have no amount" in notes_of(store)


def test_rows_without_a_number_are_orders_of_their_own_also_among_totals(tmp_path: Path) -> None:
    rows = [*REPEATED, ",c,2024-01-05 10:00:00,5,mug", ",c,2024-01-05 10:00:00,7,cup"]
    store = prepared(orders_csv(tmp_path, rows, WITH_IDS), tmp_path, amount_is=AmountIs.order_total)
    assert [amount for who, _, amount in money(store) if who == "c"] == [12.0]


def test_order_numbers_that_begin_again_are_orders_of_their_own(tmp_path: Path) -> None:
    """cases/29-order-id-restarts"""
    rows = [
        "1,a,2023-01-05,10,mug", "1,a,2023-01-20,5,cup", "1,a,2024-01-05,20,mug", "1,b,2024-01-05,30,mug",
        "2,a,2023-02-01,1,mug",
    ]  # fmt: skip
    store = prepared(orders_csv(tmp_path, rows, WITH_IDS), tmp_path)
    orders = events_of(store).select("customer_id", "order_id", "amount").sort("amount").rows()
    assert orders == [("a", "2", 1.0), ("a", "1", 15.0), ("a", "1 (2)", 20.0), ("b", "1", 30.0)]
    assert "order numbers begin again: 1 orders" in notes_of(store)
    assert "begin again" not in notes_of(prepared(orders_csv(tmp_path, rows[:2], WITH_IDS), tmp_path))


def test_a_refund_goes_with_the_last_order_of_its_number(tmp_path: Path) -> None:
    header = "order_id,customer_id,event_time,amount,event_type"
    rows = [
        "1,a,2023-01-05,10,order", "1,a,2023-06-05,-4,refund", "1,a,2024-01-05,20,order", "1,a,2024-02-20,-5,refund",
    ]  # fmt: skip
    events = events_of(prepared(orders_csv(tmp_path, rows, header), tmp_path))
    assert dict(events.select("amount", "order_id").iter_rows()) == {
        10.0: "1",
        -4.0: "1",
        20.0: "1 (2)",
        -5.0: "1 (2)",
    }


@pytest.mark.parametrize("sign", ["", "-"])
def test_a_refund_is_money_back_whatever_its_sign(sign: str, tmp_path: Path) -> None:
    """cases/40-refund-pos: net 100 where the order of 200 went back by half."""
    rows = ["a,2024-01-05,200,order", f"a,2024-01-08,{sign}100,refund"]
    store = prepared(orders_csv(tmp_path, rows, "customer_id,event_time,amount,event_type"), tmp_path)
    assert money(store) == [("a", "order", 200.0), ("a", "refund", -100.0)]
    assert ("1 refund rows have a positive amount" in notes_of(store)) == (sign == "")


def test_a_file_of_refunds_is_money_back(tmp_path: Path) -> None:
    """cases/40b-refund-file"""
    (tmp_path / "refunds.csv").write_text("customer_id,event_time,amount\na,2024-01-08,100\n")
    paths = {"refund": str(tmp_path / "refunds.csv")}
    store = prepared(orders_csv(tmp_path, ["a,2024-01-05,200"]), tmp_path, paths=paths)
    assert money(store) == [("a", "order", 200.0), ("a", "refund", -100.0)]


def test_one_id_for_all_guests_is_noticed_and_set_aside_on_request(tmp_path: Path) -> None:
    """cases/44b-guest-zero: 40 % of the orders."""
    rows = [f"0,2024-01-{n % 28 + 1:02d} {n % 24:02d}:00:00,5" for n in range(40)]
    rows += [f"c{n % 30},2024-01-{n % 28 + 1:02d} {n % 24:02d}:30:00,5" for n in range(60)]
    path = orders_csv(tmp_path, rows)
    text, cures = doctored(prepared(path, tmp_path))
    assert "customer '0' alone has 40 of 100 events, and 40% of the orders: one id for all guests" in text
    assert "Set data.guest_ids=['0']" in cures
    store = prepared(path, tmp_path, guest_ids=["0"])
    assert store.manifest.customers == 30
    assert store.quarantine()["reason"].unique().to_list() == ["a guest (data.guest_ids)"]
    assert "40 rows (40.0% of the rows, and 40.0% of the money) are quarantined" in notes_of(store)
    assert "all guests" not in doctored(store)[0]


def shop(extra: list[str]) -> list[str]:
    return [f"c{n % 60},2023-{n % 12 + 1:02d}-{n % 28 + 1:02d},{5 + n % 7}" for n in range(300)] + extra


def test_a_stray_date_is_named_and_does_not_stretch_the_span(tmp_path: Path) -> None:
    """cases/43-epoch0: one order of 1970 among those of a year."""
    plain = doctored(prepared(orders_csv(tmp_path, shop([])), tmp_path))[0]
    text = doctored(prepared(orders_csv(tmp_path, shop(["old,1970-01-01,5"])), tmp_path))[0]
    assert (
        "first order of 1 customer lies long before those of all others (customer 'old': 1970-01-01)" in text
    )
    assert "long before" not in plain
    span = next(line for line in plain.splitlines() if line.startswith("orders span"))
    assert span in text


def test_the_bulk_is_all_but_a_few_much_older_ones() -> None:
    ages = np.linspace(1, 300, 400)
    assert bulk_days(ages) == 300
    assert bulk_days(np.append(ages, [19_000.0])) == 300
    assert bulk_days(np.append(ages, [19_000.0, 18_000.0])) == 300
    assert bulk_days(np.append(ages, [19_000.0] * 20)) == 19_000, "these are no slips"
    assert bulk_days(np.append(ages, [500.0])) == 500, "an old customer"
    assert bulk_days(np.array([7.0])) == 7


def test_outliers_are_named_low_ones_too(tmp_path: Path) -> None:
    """cases/21-low-outlier"""
    text = doctored(prepared(orders_csv(tmp_path, shop(["low,2023-05-05,0.001"])), tmp_path))[0]
    assert "the furthest 0.00 ('low', 2023-05-05). It is kept." in text


@pytest.mark.parametrize(
    ("word", "ours"), [("sale", "order"), ("ordr", "order"), ("Refunded", "refund"), ("viist", "visit")]
)
def test_unknown_words_near_a_known_one_are_named(word: str, ours: str, tmp_path: Path) -> None:
    """cases/50-kinds"""
    rows = ["a,2024-01-05,5,order", f"a,2024-01-08,5,{word}"]
    store = prepared(orders_csv(tmp_path, rows, "customer_id,event_time,amount,event_type"), tmp_path)
    assert f"of the type '{word}', which is not known; {ours} is" in notes_of(store)
    cure = next(str(note[CURE]) for note in store.manifest.notes if "not known" in note[FINDING])
    assert cure == f"Set data.event_names.{ours}='{word}' if it is the same."
    cured = prepared(
        orders_csv(tmp_path, rows, "customer_id,event_time,amount,event_type"),
        tmp_path,
        event_names={ours: word},
    )
    assert "not known" not in notes_of(cured)
    assert cured.manifest.event_types.get(ours, 0) >= 1


def test_lines_merged_within_an_order_are_told_apart_from_repeats(tmp_path: Path) -> None:
    """cases/07-identical-lines"""
    rows = ["1,a,2024-01-05,5,mug", "1,a,2024-01-05,5,mug", "2,a,2024-02-05,5,mug"]
    path = orders_csv(tmp_path, rows, WITH_IDS)
    store = prepared(path, tmp_path)
    assert "1 rows equal another of the same order in every column and are merged" in notes_of(store)
    assert [amount for _, _, amount in money(store)] == [5.0, 5.0]
    kept = prepared(path, tmp_path, merge_duplicates=False)
    assert [amount for _, _, amount in money(kept)] == [10.0, 5.0]


def test_money_of_bad_rows_is_stated(tmp_path: Path) -> None:
    rows = [*shop([])[:96], *[f",2023-05-05,{1_000}" for _ in range(4)]]
    good = sum(float(row.split(",")[2]) for row in rows[:96])
    share = f"{4_000 / (4_000 + good):.1%}"
    assert f"4 rows (4.0% of the rows, and {share} of the money)" in notes_of(
        prepared(orders_csv(tmp_path, rows), tmp_path)
    )


def test_the_first_event_is_that_of_the_rows(tmp_path: Path) -> None:
    store = prepared(orders_csv(tmp_path, shop(["old,1970-01-01,5"])), tmp_path)
    assert datetime.fromisoformat(store.manifest.first_event) == datetime(1970, 1, 1, tzinfo=UTC)
    assert store.scan().select(pl.len()).collect().item() == 301 - store.manifest.rows_duplicate


def test_ids_that_differ_in_how_they_are_written_are_hinted_at(tmp_path: Path) -> None:
    """Capitals, NFC and NFD, and letters of no width; the cure makes them one."""
    ids = ["Ann@x.test", "ann@x.test", "caf\u00e9", "cafe\u0301", "bob", "bob\u200b", "zoe"]
    path = orders_csv(tmp_path, [f"{one},2024-01-0{n + 1},5" for n, one in enumerate(ids)])
    text, cures = doctored(prepared(path, tmp_path))
    assert "6 customer ids differ from another in capitals, blanks, unseen letters or accents alone" in text
    assert "they may be 3 people" in text
    assert "Set data.id_normalise=[nfc,trim,casefold]" in cures
    cured = prepared(path, tmp_path, id_normalise=[IdRule.nfc, IdRule.trim, IdRule.casefold])
    assert cured.manifest.customers == 4
    assert "differ from another" not in doctored(cured)[0]
