"""A stranger's columns: rows that count, states of orders, words for events, linked files, refunds and consent."""

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from retinue.config import resolve
from retinue.events.doctor import doctor
from retinue.events.prepare import fingerprint, prepare
from retinue.events.reading import ROW_NUMBER
from retinue.events.rows import LEFT_OUT
from retinue.events.sources import inputs_of
from retinue.events.store import Store
from retinue.events.words import event_names
from retinue.options import AmountIs, Source
from retinue.reporting import views
from retinue.schema import (
    AMOUNT,
    CURE,
    CUSTOMER_ID,
    EVENT_TIME,
    EVENT_TYPE,
    FINDING,
    KNOWN_TIME,
    LEVEL,
    ORDER_ID,
    REASON,
    REGION,
    InputError,
)
from tests.events.files import events_of, notes_of, options, prepared, write

CASES = Path(__file__).parents[3] / "shared" / "cases"
HEADER = "customer_id,event_time,order_id,amount,state"
ROWS = [
    "a,2024-01-05 10:00:00,1,10,paid",
    "b,2024-01-06 10:00:00,2,20,Shipped",
    "c,2024-01-07 10:00:00,3,40,voided",
    "d,2024-01-08 10:00:00,4,80,pending",
    "e,2024-01-09 10:00:00,5,160,",
]


def case(name: str) -> Path:
    path = CASES / name
    if not path.exists():
        pytest.skip(f"shared/cases/{name} is not beside the checkout")
    return path


def orders(folder: Path, rows: list[str], header: str = HEADER) -> Path:
    return write(folder / "orders.csv", [header, *rows])


def total(store: Store, kind: str = "order") -> float:
    return float(events_of(store).filter(pl.col(EVENT_TYPE) == kind)[AMOUNT].sum())


def refused(path: Path | None, folder: Path, **rest: Any) -> str:
    with pytest.raises(InputError) as caught:
        prepare(options(path, **rest), folder / "store")
    message = str(caught.value)
    assert "\n" not in message
    assert not (folder / "store").exists()
    return message


def balanced(store: Store) -> bool:
    m = store.manifest
    return m.rows_in + m.rows_made == m.rows_kept + m.rows_quarantined + m.rows_duplicate + m.rows_left_out


# rows that count


@pytest.mark.parametrize(
    ("condition", "money"),
    [
        ("state in ['paid','Shipped']", 30),
        ("state in ('paid','Shipped')", 30),
        ("state not in ('voided')", 110),
        ("CAST(amount AS DOUBLE) > 30 and state is not null", 120),
        ("\"order_id\" = '5' or lower(state) = 'shipped'", 180),
    ],
)
def test_a_filter_keeps_the_rows_that_it_holds_for(tmp_path: Path, condition: str, money: float) -> None:
    store = prepared(orders(tmp_path, ROWS), tmp_path, keep_where=condition)
    assert total(store) == money
    assert balanced(store)
    lost = 310 - money
    assert f"{lost:,.2f} in all) are left out: data.keep_where does not hold." in notes_of(store)
    assert store.manifest.rows_left_out + store.manifest.rows_kept == 5


def test_a_cell_that_is_no_number_does_not_hold(tmp_path: Path) -> None:
    store = prepared(
        orders(tmp_path, [*ROWS, "f,2024-01-10,6,free,paid"]),
        tmp_path,
        keep_where="cast(amount as double) > 30",
    )
    assert (total(store), store.manifest.rows_left_out) == (280, 3)


def test_a_filter_reads_the_shell_words_of_the_docs(tmp_path: Path) -> None:
    data = resolve(
        [f"data.path={orders(tmp_path, ROWS)}", "data.keep_where=state in ['paid','Shipped']"]
    ).data
    assert total(prepare(data, tmp_path / "store")) == 30


@pytest.mark.parametrize(
    ("condition", "parts"),
    [
        ("state in (", ("cannot be read", "\"status in ('paid','shipped')\"")),
        (
            "stat = 'paid'",
            (
                "orders.csv",
                "'stat'",
                "Did you mean 'state'?",
                "customer_id, event_time, order_id, amount, state",
            ),
        ),
        ("amount > 10", ("cannot be worked out", "CAST(total AS DOUBLE) > 10", "amount, state")),
        ("amount", ("is no condition", "amount, state")),
        ("null + true", ("names no column",)),
    ],
)
def test_a_filter_that_cannot_be_is_one_line_with_the_columns(
    tmp_path: Path, condition: str, parts: tuple[str, ...]
) -> None:
    message = refused(orders(tmp_path, ROWS), tmp_path, keep_where=condition)
    for part in ("data.keep_where", *parts):
        assert part in message, message


def test_lines_set_aside_are_not_counted_as_filtered(tmp_path: Path) -> None:
    store = prepared(
        orders(tmp_path, [*ROWS, "f,2024-01-10,6,1,paid,too,many"]),
        tmp_path,
        keep_where="state = 'paid'",
        max_bad_share=1.0,
    )
    m = store.manifest
    assert (m.rows_in, m.rows_kept, m.rows_quarantined, m.rows_left_out) == (6, 1, 1, 4)


def test_a_filter_that_keeps_nothing_says_so(tmp_path: Path) -> None:
    message = refused(orders(tmp_path, ROWS), tmp_path, keep_where="state = 'gone'")
    assert "none of the 5 rows can be used (data.keep_where does not hold: 5)" in message


def test_a_filter_of_orders_leaves_the_file_of_visits_whole(tmp_path: Path) -> None:
    visits = write(tmp_path / "visits.csv", ["customer_id,event_time", "a,2024-01-04"])
    path = orders(tmp_path, ROWS)
    store = prepared(path, tmp_path, paths={"visit": str(visits)}, keep_where="state = 'paid'")
    assert store.manifest.event_types == {"order": 1, "visit": 1}
    message = refused(None, tmp_path / "x", paths={"order": str(path)}, keep_where="nowhere = 1")
    assert "no file has all of its columns (nowhere)" in message


@pytest.mark.parametrize(
    "words", [{"keep_where": "a = 1"}, {"event_names": {"order": "b"}}, {"status_counts": ["paid"]}]
)
def test_a_base_with_its_own_columns_takes_no_mapping(tmp_path: Path, words: dict[str, Any]) -> None:
    message = refused(None, tmp_path, source=Source.cdnow, **words)
    assert f"data.{next(iter(words))}: is read with data=files only" in message


# states of orders


def test_orders_that_are_no_sale_are_left_out_and_named(tmp_path: Path) -> None:
    store = prepared(orders(tmp_path, ROWS), tmp_path, columns={"status": "state"})
    assert total(store) == 190
    assert balanced(store)
    notes = {note[FINDING]: note for note in store.manifest.notes}
    left = next(text for text in notes if "'pending'" in text)
    assert left == "1 rows (20.0%, 80.00 in all) are left out: the order's status is 'pending'."
    assert notes[left][LEVEL] == "warning"
    assert notes[left][CURE] == "Set data.status_counts='[paid,shipped]' to say which orders count."
    counted = "order rows that count, by status: 'paid' 1, 10.00 in all, 'shipped' 1, 20.00 in all; 1 rows without a status"
    assert counted in notes_of(store)


def test_the_statuses_that_count_are_the_users_own(tmp_path: Path) -> None:
    columns = {"status": "state"}
    store = prepared(orders(tmp_path, ROWS), tmp_path, columns=columns, status_counts=["Pending", "payed"])
    assert total(store) == 240  # the order without a status is not known to be no sale
    assert "data.status_counts names 'payed', which no order row has" in notes_of(store)
    cures = " ".join(str(note[CURE]) for note in store.manifest.notes)
    assert "Did you mean 'paid'?" in cures


def test_a_status_is_read_however_it_is_written(tmp_path: Path) -> None:
    rows = [
        f"c{n},2024-01-0{n + 1},{n},1,{state}"
        for n, state in enumerate(["wc-on-hold", "On Hold", "on_hold", "wc-completed"])
    ]
    store = prepared(orders(tmp_path, rows), tmp_path, columns={"status": "state"})
    assert (total(store), store.manifest.rows_left_out) == (1, 3)


def test_status_csv_has_the_revenue_of_its_sales(tmp_path: Path) -> None:
    path = case("status.csv")
    columns = {"customer_id": "cust", "event_time": "date", "amount": "total"}
    raw = pl.read_csv(path)
    money = dict(raw.group_by("status").agg(pl.col("total").sum()).iter_rows())
    paid, back = money["completed"], money["refunded"]
    store = prepared(path, tmp_path, columns=columns, time_zone="UTC")
    assert total(store) == pytest.approx(paid + back)
    assert total(store, "refund") == pytest.approx(-back)
    assert balanced(store)
    assert "183 rows (22.9%, 53,307.18 in all) are left out: the order's status is 'cancelled'" in notes_of(
        store
    )
    only = prepared(path, tmp_path / "x", columns=columns, time_zone="UTC", status_counts=["completed"])
    assert events_of(only)[AMOUNT].sum() == pytest.approx(paid)


def test_later_lines_without_a_status_share_that_of_their_order(tmp_path: Path) -> None:
    rows = [
        "a,2024-01-05,1,10,voided",
        "a,2024-01-05,1,5,",
        "a,2024-01-06,2,20,paid",
        "a,2024-01-06,2,7,",
        "a,2024-01-08,3,50,refunded",
        "a,2024-01-08,3,1,",
        "b,2024-01-08,1,100,",
    ]
    store = prepared(orders(tmp_path, rows), tmp_path, columns={"status": "state"})
    assert total(store) == 27 + 51 + 100
    assert total(store, "refund") == -51
    assert balanced(store)


def test_an_input_with_linked_files_and_states_travels_to_another_process(tmp_path: Path) -> None:
    path, people = linked(tmp_path)
    more = path.read_text() + "3,2024-01-07,3,1,\n1,2024-02-07,4,5,voided\n1,2024-02-07,4,6,\n"
    path.write_text(more)
    told = options(
        path, columns={"status": "state", "region": "land"}, join={"c": f"{people} on customer_id"}
    )
    source = inputs_of(told, tmp_path / "work")[0]
    again = pickle.loads(pickle.dumps(source))
    here, there = (pl.concat(one.table.batches()).drop(ROW_NUMBER) for one in (source, again))
    assert here.equals(there)
    assert here[LEFT_OUT].null_count() == 4
    assert here["land"].to_list() == ["DE", "FR", None, None, "DE", "DE"]


def test_filter_and_status_both_leave_rows_out(tmp_path: Path) -> None:
    store = prepared(
        orders(tmp_path, ROWS), tmp_path, columns={"status": "state"}, keep_where="order_id <> '1'"
    )
    assert total(store) == 20 + 160
    assert "1 rows (20.0%, 10.00 in all) are left out: data.keep_where does not hold." in notes_of(store)
    assert "1 rows (20.0%, 40.00 in all) are left out: the order's status is 'voided'." in notes_of(store)


def test_a_refunded_order_that_is_listed_counts_whole(tmp_path: Path) -> None:
    path = orders(tmp_path, ["a,2024-01-05,1,10,refunded", "a,2024-01-06,2,20,paid"])
    store = prepared(path, tmp_path, columns={"status": "state"}, status_counts=["paid", "refunded"])
    assert store.manifest.event_types == {"order": 2}


def test_an_order_that_is_partly_refunded_by_an_unknown_amount_is_warned_of(tmp_path: Path) -> None:
    header = "customer_id,event_time,amount,state,back"
    path = orders(tmp_path, ["a,2024-01-05,10,partially_refunded,4"], header)
    warned = "1 order rows are partly refunded by their status, but no column says how much went back"
    assert warned in notes_of(prepared(path, tmp_path, columns={"status": "state"}))
    known = prepared(path, tmp_path, columns={"status": "state", "refunded_amount": "back"})
    assert warned not in notes_of(known)
    assert total(known, "refund") == -4


def test_the_span_of_the_data_reaches_to_the_last_refund(tmp_path: Path) -> None:
    header = "customer_id,event_time,amount,refunded_amount,refund_time"
    store = prepared(orders(tmp_path, ["a,2024-01-05,10,4,2024-03-01"], header), tmp_path)
    assert store.manifest.last_event.startswith("2024-03-01")


def test_a_column_that_is_no_status_is_refused(tmp_path: Path) -> None:
    rows = [f"c{n},2024-01-05,{n},1,s{n}" for n in range(1_100)]
    message = refused(orders(tmp_path, rows), tmp_path, columns={"status": "state"})
    assert "column 'state' has more than 1,000 different values" in message
    assert "data.columns.status=" in message


def test_the_report_accounts_for_rows_left_out_and_made(tmp_path: Path) -> None:
    rows = ["a,2024-01-05,1,10,paid", "a,2024-01-06,2,20,test", "a,2024-01-08,3,50,refunded"]
    manifest = prepared(orders(tmp_path, rows), tmp_path, columns={"status": "state"}).manifest
    assert views.rows_read(manifest) == "3 rows read, 1 more made from their columns"
    assert views.row_balance(manifest) == [
        ("used", "used", "3 rows", 75.0),
        ("set aside (quarantine)", "aside", "0 rows", 0.0),
        ("exact duplicates", "twice", "0 rows", 0.0),
        ("left out by filter or status", "left", "1 row", 25.0),
    ]


# refunds that stand in a column of the order


def test_04_shopify_voided_and_refunded_orders(tmp_path: Path) -> None:
    path = case("04-shopify") / "orders_export.csv"
    words = [
        "customer_id=Email", "event_time=Created at", "amount=Total", "order_id=Name", "currency=Currency",
        "status=Financial Status", "refunded_amount=Refunded Amount",
    ]  # fmt: skip
    data = resolve([f"data.path={path}", *(f"data.columns.{word}" for word in words)]).data
    store = prepare(data, tmp_path / "store")
    assert total(store) == 65 + 45 + 35
    assert total(store, "refund") == -45
    assert store.manifest.event_types == {"order": 3, "refund": 1}
    assert balanced(store)
    refund = events_of(store).filter(pl.col(EVENT_TYPE) == "refund").row(0, named=True)
    assert (refund[CUSTOMER_ID], refund[ORDER_ID]) == ("bob@x.test", "#1002")


def test_refunds_are_dated_when_the_money_went_back(tmp_path: Path) -> None:
    header = "customer_id,event_time,amount,back,back_at"
    rows = [
        "a,2024-01-05,10,4,2024-02-01",
        "a,2024-01-06,10,-3,",
        "b,2024-01-07,10,0,2024-02-01",
        "b,2024-01-08,10,,",
    ]
    columns = {"refunded_amount": "back", "refund_time": "back_at"}
    store = prepared(orders(tmp_path, rows, header), tmp_path, columns=columns)
    found = events_of(store).filter(pl.col(EVENT_TYPE) == "refund")
    assert found[AMOUNT].to_list() == [-3, -4]
    assert found[EVENT_TIME].to_list() == [datetime(2024, 1, 6, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)]
    assert "2 refunds are made from order rows, 7.00 in all." in notes_of(store)
    assert (store.manifest.rows_in, store.manifest.rows_made) == (4, 2)
    undated = prepared(orders(tmp_path, rows, header), tmp_path / "x", columns={"refunded_amount": "back"})
    assert "2 refunds are made from order rows, 7.00 in all; they are dated as their orders" in notes_of(
        undated
    )


def test_refunds_are_read_in_the_decimal_sign_of_their_own_column(tmp_path: Path) -> None:
    header = "customer_id;event_time;amount;refunded_amount"
    rows = ["a;2024-01-05;10;1.234,50", "b;2024-01-06;20;0,25"]
    store = prepared(orders(tmp_path, rows, header), tmp_path)
    assert (total(store), total(store, "refund")) == (30, -1234.75)


def test_refunds_of_whole_orders_on_each_line_are_noticed(tmp_path: Path) -> None:
    header = "customer_id,event_time,order_id,amount,refunded_amount"
    rows = ["a,2024-01-05,1,30,30", "a,2024-01-05,1,30,30", "b,2024-01-06,2,20,5", "b,2024-01-06,2,20,0"]
    path = orders(tmp_path, rows, header)
    warned = "had more given back than paid"
    told = {"merge_duplicates": False}
    assert warned not in str(doctor(prepared(path, tmp_path, **told), 30)[FINDING].to_list())
    path.write_text(path.read_text().replace("a,2024-01-05,1,30,30", "a,2024-01-05,1,15,30"))
    found = doctor(prepared(path, tmp_path, **told), 30)[FINDING].to_list()
    assert "1 order had more given back than paid: 60.00 of 30.00." in found
    path.write_text(path.read_text().replace("a,2024-01-05,1,15,30", "a,2024-01-05,1,30,30"))
    store = prepared(path, tmp_path, amount_is=AmountIs.order_total, **told)
    assert (total(store), total(store, "refund")) == (50, -35)


def test_a_refund_is_known_when_the_money_went_back(tmp_path: Path) -> None:
    header = "customer_id,event_time,amount,known_time,refunded_amount,refund_time"
    rows = ["a,2024-01-05 10:00,10,2024-01-05 12:00,4,2024-02-01 09:00"]
    events = events_of(prepared(orders(tmp_path, rows, header), tmp_path)).sort(EVENT_TIME)
    assert events[KNOWN_TIME].to_list() == [
        datetime(2024, 1, 5, 12, tzinfo=UTC),
        datetime(2024, 2, 1, 9, tzinfo=UTC),
    ]


def test_a_refund_that_is_no_number_is_set_aside_and_its_order_stays(tmp_path: Path) -> None:
    header = "customer_id,event_time,amount,refunded_amount"
    rows = [*(f"c{n},2024-01-05,10,1" for n in range(30)), "x,2024-01-05,10,half"]
    store = prepared(orders(tmp_path, rows, header), tmp_path)
    assert (total(store), total(store, "refund"), store.manifest.rows_quarantined) == (310, -30, 1)
    assert balanced(store)
    assert "column 'refunded_amount' has 1 unusable numbers (first: 'half', orders.csv row 32)" in notes_of(
        store
    )


# words for events


def test_ga4_300_knows_which_rows_are_orders(tmp_path: Path) -> None:
    path = case("ga4_300.csv")
    columns = {"customer_id": "user_id", "event_time": "event_timestamp", "amount": "revenue"}
    unread = prepared(path, tmp_path / "unread", columns=columns)
    problem = next(note for note in unread.manifest.notes if note[LEVEL] == "problem")
    assert "column 'event_name' seems to say what happened" in problem[FINDING]
    # the cure that it prints, followed to the letter
    assert str(problem[CURE]) == "Set data.columns.event_type='event_name'."
    store = prepared(path, tmp_path, columns=columns | {"event_type": "event_name"})
    raw = pl.read_csv(path)
    bought = raw.filter(pl.col("event_name") == "purchase")
    assert store.manifest.event_types["order"] == bought.height == 10
    assert total(store) == pytest.approx(bought["revenue"].sum())
    assert store.manifest.event_types["view"] == raw.filter(pl.col("event_name") == "view_item").height
    assert {"visit", "cart", "begin_checkout"} < set(store.manifest.event_types)
    assert "'purchase' is read as order in 10 rows." in notes_of(store)


KINDS = [
    "customer_id,event_time,event_type,amount",
    "a,2024-01-05,Bought it,5",
    "a,2024-01-06,looked,",
    "b,2024-01-07,Kauf/neu,7",
]


@pytest.mark.parametrize(
    "words",
    [
        ["data.event_names.order=[Bought it,Kauf/neu]", "data.event_names.looked=view"],
        ["data.event_names.order=['bought it','kauf/neu']", "data.event_names.view=looked"],
    ],
)
def test_words_of_ones_own_either_way_round(tmp_path: Path, words: list[str]) -> None:
    path = write(tmp_path / "events.csv", KINDS)
    store = prepare(resolve([f"data.path={path}", *words]).data, tmp_path / "store")
    assert store.manifest.event_types == {"order": 2, "view": 1}
    assert "'Kauf/neu' is read as order in 1 rows." in notes_of(store)


def test_one_word_with_blanks_needs_no_list(tmp_path: Path) -> None:
    path = write(tmp_path / "events.csv", KINDS)
    data = resolve([f"data.path={path}", "data.event_names.order=Bought it"]).data
    assert prepare(data, tmp_path / "store").manifest.event_types == {"Kauf/neu": 1, "looked": 1, "order": 1}


def test_without_orders_the_cure_is_right(tmp_path: Path) -> None:
    path = write(tmp_path / "events.csv", [KINDS[0], "a,2024-01-05,sold,5", "a,2024-01-06,visit,"])
    store = prepared(path, tmp_path)
    cures = (
        doctor(store, 30)
        .filter(pl.col(FINDING) == "there is not one order up to the cutoff.")[CURE]
        .to_list()
    )
    assert cures == [
        "Set data.event_names.order='<your word for a purchase>'; the words that are not known are 'sold'."
    ]
    assert prepared(path, tmp_path, event_names={"order": "sold"}).manifest.event_types == {
        "order": 1,
        "visit": 1,
    }


def test_ones_own_word_replaces_the_known_ones() -> None:
    assert event_names({})["placed order"] == "order"
    names = event_names({"order": "orders/paid"})
    assert names["orders/paid"] == "order"
    assert "placed order" not in names
    assert names["opened email"] == "email_open"


@pytest.mark.parametrize("names", [{"order": ""}, {"order": []}, {"order": "x", "view": "X"}])
def test_names_that_say_nothing_or_two_things_are_refused(tmp_path: Path, names: dict[str, Any]) -> None:
    message = refused(write(tmp_path / "events.csv", KINDS), tmp_path, event_names=names)
    assert "data.event_names" in message


def test_two_known_words_for_orders_and_a_word_that_is_not_there_are_warned_of(tmp_path: Path) -> None:
    rows = ["customer_id,event_time,event_type", "a,2024-01-05,Placed Order", "a,2024-01-05,orders/create"]
    notes = notes_of(prepared(write(tmp_path / "events.csv", rows), tmp_path))
    assert "'Placed Order' and 'orders/create' are both read as orders" in notes
    notes = notes_of(
        prepared(tmp_path / "events.csv", tmp_path, event_names={"order": "Placed Order", "view": "seen"})
    )
    assert "both read as orders" not in notes
    assert "data.event_names gives 'seen' for view, but no row holds it" in notes


# files and types whose columns differ


def test_a_file_of_one_type_has_columns_of_its_own(tmp_path: Path) -> None:
    refunds = write(tmp_path / "refunds.csv", ["who,at,returned", "a,2024-02-01,-4"])
    words = [
        f"data.path={orders(tmp_path, ROWS[:2])}", f"data.paths.refund={refunds}", "data.columns_of.refund.customer_id=who",
        "data.columns_of.refund.event_time=at", "data.columns_of.refund.amount=returned",
    ]  # fmt: skip
    store = prepare(resolve(words).data, tmp_path / "store")
    assert (total(store), total(store, "refund")) == (30, -4)
    with pytest.raises(
        InputError, match=r"refunds.csv: there is no column 'retuned' .*Did you mean 'returned'"
    ):
        prepare(resolve([*words, "data.columns_of.refund.amount=retuned"]).data, tmp_path / "store")


def test_rows_of_one_type_have_columns_of_their_own(tmp_path: Path) -> None:
    rows = [
        "customer_id,event_time,event_type,amount,given_back",
        "a,2024-01-05,order,10,",
        "a,2024-01-06,refund,99,-4",
    ]
    path = write(tmp_path / "events.csv", rows)
    store = prepared(path, tmp_path, columns_of={"refund": {"amount": "given_back"}})
    assert (total(store), total(store, "refund")) == (10, -4)


@pytest.mark.parametrize(
    ("columns", "part"),
    [
        ({"refund": {"amuont": "x"}}, "Did you mean 'amount'?"),
        ({"refund": {"amount": "x"}}, "there is no column 'x' (data.columns_of.refund.amount)"),
    ],
)
def test_columns_of_a_type_that_cannot_be(
    tmp_path: Path, columns: dict[str, dict[str, str]], part: str
) -> None:
    assert part in refused(orders(tmp_path, ROWS), tmp_path, columns_of=columns)


def test_columns_of_a_type_that_no_file_holds(tmp_path: Path) -> None:
    path = orders(tmp_path, ROWS)
    message = refused(None, tmp_path, paths={"order": str(path)}, columns_of={"refund": {"amount": "amount"}})
    assert "there are no events of type 'refund' to read. Set data.paths.refund=<file>" in message


# linked files


def linked(folder: Path) -> tuple[Path, Path]:
    people = ["customer_id,land,state", "1,DE,vip", "2,FR,new", "2,IT,new", "9,ES,new"]
    rows = ["1.0,2024-01-05,1,10,paid", " 2,2024-01-06,2,20,paid", "3,2024-01-07,3,30,paid"]
    return orders(folder, rows), write(folder / "customers.csv", people)


def test_a_linked_file_gives_its_columns(tmp_path: Path) -> None:
    path, people = linked(tmp_path)
    join = {"customers": f"{people} on customer_id"}
    store = prepared(path, tmp_path, join=join, columns={"region": "land"})
    assert dict(events_of(store).select(CUSTOMER_ID, REGION).iter_rows()) == {"1": "DE", "2": "FR", "3": None}
    notes = notes_of(store)
    assert (
        "customers.csv: column 'customer_id' has 1 key more than once (one is '2'); the first row of each"
        in notes
    )
    assert "data.join.customers: 1 of 3 rows (33.3%) have no partner in the file" in notes
    assert store.manifest.rows_in == store.manifest.rows_kept == 3


def test_a_bad_line_of_a_linked_file_is_no_partner(tmp_path: Path) -> None:
    path, people = linked(tmp_path)
    write(people, ["customer_id,land", "1,DE", "2,FR", "3,IT,too,many"])
    store = prepared(
        path, tmp_path, join={"customers": f"{people} on customer_id"}, columns={"region": "land"}
    )
    assert dict(events_of(store).select(CUSTOMER_ID, REGION).iter_rows()) == {"1": "DE", "2": "FR", "3": None}
    assert "customers.csv: 1 line does not fit the header" in notes_of(store)
    people.write_bytes("customer_id,land\n1,Österreich\n".encode("cp1252"))
    store = prepared(
        path, tmp_path, join={"customers": f"{people} on customer_id"}, columns={"region": "land"}
    )
    assert events_of(store)[REGION].drop_nulls().to_list() == ["Österreich"]
    assert "customers.csv: " in notes_of(store)
    assert "cp1252" in notes_of(store)


def test_a_linked_column_of_a_name_that_is_taken_is_called_by_its_file(tmp_path: Path) -> None:
    path, people = linked(tmp_path)
    words = [f"data.path={path}", f"data.join.customers={people} on customer_id = customer_id"]
    data = resolve(
        [*words, "data.columns.channel=customers.state", "data.keep_where=\"customers.state\" = 'vip'"]
    ).data
    store = prepare(data, tmp_path / "store")
    assert events_of(store)["channel"].to_list() == ["vip"]
    assert store.manifest.rows_left_out == 2


def test_a_change_of_a_linked_file_is_another_input(tmp_path: Path) -> None:
    path, people = linked(tmp_path)
    told = options(path, join={"customers": f"{people} on customer_id"}, columns={"region": "land"})
    before = fingerprint(told)
    write(people, ["customer_id,land", "1,AT"])
    assert fingerprint(told) != before


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("{}", ("is not '<file> on <column>'", "customers.csv on customer_id")),
        ("{} on nr", ("customers.csv: there is no column 'nr'", "customer_id, land, state")),
        ("{} on who = customer_id", ("orders.csv: there is no column 'who' (data.join.customers)",)),
        ("nowhere.csv on customer_id", ("data.join.customers=nowhere.csv: no such file",)),
    ],
)
def test_a_link_that_cannot_be(tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    path, people = linked(tmp_path)
    join = {"customers": text.format(people)}
    message = refused(path, tmp_path, join=join, columns={"region": "land"})
    for part in parts:
        assert part in message, message


def test_a_linked_file_that_nothing_reads_is_refused(tmp_path: Path) -> None:
    path, people = linked(tmp_path)
    message = refused(path, tmp_path, join={"customers": f"{people} on customer_id"})
    assert "no option reads one of its columns (land, state)" in message
    assert "Set data.columns.region=land" in message


# ids


@pytest.mark.parametrize(
    ("rules", "customers"),
    [
        ([], 7),
        (["casefold"], 6),
        (["trim"], 6),
        (["nfc"], 6),
        (["integer"], 6),
        (["trim", "casefold", "nfc", "integer"], 3),
    ],
)
def test_ids_of_one_person_are_made_alike_on_request(
    tmp_path: Path, rules: list[str], customers: int
) -> None:
    ids = ["ann@x.test", "Ann@X.test", "ann@x\u200b.test", "jose\u0301", "jos\u00e9", "0042", "42.0"]
    path = write(
        tmp_path / "orders.csv",
        ["customer_id,event_time", *(f"{one},2024-01-0{n + 1}" for n, one in enumerate(ids))],
    )
    store = prepare(
        resolve([f"data.path={path}", f"data.id_normalise=[{','.join(rules)}]"]).data, tmp_path / "store"
    )
    assert store.manifest.customers == customers
    assert ("customer ids were written otherwise and are made alike" in notes_of(store)) == bool(rules)


def test_an_id_of_letters_that_no_one_sees_is_no_id(tmp_path: Path) -> None:
    path = write(tmp_path / "orders.csv", ["customer_id,event_time", "\u200b,2024-01-05", "a,2024-01-06"])
    store = prepare(resolve([f"data.path={path}", "data.id_normalise=[trim]"]).data, tmp_path / "store")
    assert (store.manifest.customers, store.quarantine()[REASON].to_list()) == (1, ["no customer id"])


def test_ids_made_alike_are_hidden_with_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_SECRET", "s" * 40)
    path = write(
        tmp_path / "orders.csv", ["customer_id,event_time", "Ann@x.test,2024-01-05", "ann@x.test,2024-01-06"]
    )
    words = [f"data.path={path}", "data.id_normalise=[casefold]", "data.pseudonym_key=SHOP_SECRET"]
    store = prepare(resolve(words).data, tmp_path / "store")
    assert store.manifest.customers == 1
    assert "1 customer ids were written otherwise" in notes_of(store)
    assert "Ann@x" not in str(store.manifest)


def test_a_rule_for_ids_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match=r"data\.id_normalise.*trim, casefold, nfc, integer"):
        resolve(["data.id_normalise=[upper]"])


# consent


def test_an_opt_in_column_becomes_consent(tmp_path: Path) -> None:
    header = "customer_id,event_time,amount,mail_ok"
    rows = [
        "a,2024-01-05,1,Yes",
        "a,2024-01-06,1,yes",
        "a,2024-01-07,1,opt-out",
        "b,2024-01-05,1,0",
        "c,2024-01-05,1,",
        "d,2024-01-05,1,TRUE",
    ]
    store = prepared(orders(tmp_path, rows, header), tmp_path, columns={"consent": "mail_ok"})
    said = events_of(store).filter(pl.col(EVENT_TYPE).str.starts_with("consent_"))
    assert [
        (row[CUSTOMER_ID], row[EVENT_TIME].day, row[EVENT_TYPE]) for row in said.iter_rows(named=True)
    ] == [
        ("a", 5, "consent_given"),
        ("a", 7, "consent_withdrawn"),
        ("b", 5, "consent_withdrawn"),
        ("d", 5, "consent_given"),
    ]
    assert total(store) == 6
    assert balanced(store)
    assert "5 rows say yes or no to being contacted" in notes_of(store)


def test_a_no_on_an_order_that_is_no_sale_counts_and_a_filtered_row_says_nothing(tmp_path: Path) -> None:
    rows = ["a,2024-01-05,1,paid,yes", "a,2024-02-05,1,voided,no", "b,2024-01-05,1,paid,yes"]
    path = orders(tmp_path, rows, "customer_id,event_time,amount,state,consent")
    store = prepared(path, tmp_path, columns={"status": "state"})
    assert store.manifest.event_types == {"consent_given": 2, "consent_withdrawn": 1, "order": 2}
    assert balanced(store)
    store = prepared(path, tmp_path / "x", keep_where="state = 'paid'")
    assert store.manifest.event_types == {"consent_given": 2, "order": 2}
    orders(tmp_path, [*rows, "c,2024-02-05,1,voided,maybe"], "customer_id,event_time,amount,state,consent")
    assert "(first: 'maybe', orders.csv row 5)" in refused(path, tmp_path / "y", columns={"status": "state"})


def test_answers_of_equal_rows_are_one_and_their_orders_stay_two(tmp_path: Path) -> None:
    rows = ["a,2024-01-05,1,yes", "a,2024-01-05,1,yes"]
    store = prepared(orders(tmp_path, rows, "customer_id,event_time,amount,consent"), tmp_path)
    assert "2 rows equal another in every column" in notes_of(store)
    assert (store.manifest.rows_kept, store.manifest.rows_duplicate, store.manifest.rows_made) == (3, 1, 2)
    assert balanced(store)


def test_consent_of_a_linked_file_goes_to_its_customer(tmp_path: Path) -> None:
    path, people = linked(tmp_path)
    join = {"c": f"{people} on customer_id"}
    told = options(path, columns={"consent": "land"}, join=join, consent_yes=["de", "IT", "fr"])
    store = prepare(told, tmp_path / "store")
    said = events_of(store).filter(pl.col(EVENT_TYPE) == "consent_given")
    assert said[CUSTOMER_ID].to_list() == ["1", "2"]


def test_consent_of_true_and_false_in_parquet(tmp_path: Path) -> None:
    table = pl.DataFrame(
        {"customer_id": [1, 2, 3], "event_time": [date(2024, 1, 5)] * 3, "consent": [True, False, None]}
    )
    table.write_parquet(tmp_path / "o.parquet")
    kinds = prepared(tmp_path / "o.parquet", tmp_path).manifest.event_types
    assert kinds == {"consent_given": 1, "consent_withdrawn": 1, "order": 3}


def test_an_unknown_word_for_consent_is_asked_about_and_each_cure_works(tmp_path: Path) -> None:
    path = orders(
        tmp_path, ["a,2024-01-05,1,perhaps", "b,2024-01-05,1,yes"], "customer_id,event_time,amount,consent"
    )
    message = refused(path, tmp_path)
    assert (
        "column 'consent' has 1 words for consent that are neither yes nor no (first: 'perhaps', orders.csv row 2)"
        in message
    )
    cures = ["data.consent_yes=['perhaps']", "data.consent_no=['perhaps']", "data.null_values=['','perhaps']"]
    kinds = []
    for n, cure in enumerate(cures):
        assert cure in message
        store = prepare(resolve([f"data.path={path}", cure]).data, tmp_path / f"store{n}")
        kinds.append({kind: count for kind, count in store.manifest.event_types.items() if kind != "order"})
    assert kinds == [{"consent_given": 2}, {"consent_given": 1, "consent_withdrawn": 1}, {"consent_given": 1}]
