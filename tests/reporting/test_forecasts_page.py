"""The page of forecasts that stand in shards says what the whole table says, however many shards there are."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from markupsafe import escape

from retinue.decisions.causes import NO_REASON
from retinue.decisions.quadrants import quadrant_table, quadrants
from retinue.events.store import write_table
from retinue.forecasting.scoring import part_path, totals
from retinue.options import DecisionOptions, ValueOptions
from retinue.reporting import ReportTables, charts_value
from retinue.reporting.forecast_counts import (
    EDGES,
    high_from,
    risk_sides,
    shard_counts,
    value_bands,
    value_tenths,
)
from retinue.reporting.forecasts_page import HEADS, ForecastsTold, build_forecasts_page
from retinue.reporting.words import Money, count, day, share
from retinue.schema import (
    CLV,
    COST,
    CUSTOMER_ID,
    CUSTOMERS,
    CUTOFF,
    EVIDENCE,
    EXPECTED_ORDERS,
    EXPECTED_SPEND,
    HORIZON_DAYS,
    NAMED_CAUSE,
    P_CHURN,
    QUADRANT,
    VALUE_AT_STAKE,
    VALUE_IF_RETAINED,
)
from retinue.score import add_up
from tests.reporting.factory import CUTOFF_AT, report_tables
from tests.reporting.test_report import NASTY, figures, with_problem, without_plotly

DAY = "cutoff=2024-01-01"
POUNDS = Money("GBP")
LINEAGE = {"checkpoint_key": "a" * 64, "checkpoint_digest": "b" * 64, "trained_on": "simulated bases"}


@pytest.fixture(scope="module")
def tables() -> ReportTables:
    return report_tables(300)


def parted(forecasts: pl.DataFrame, folder: Path, shards: int) -> Path:
    """The forecasts in shards, as scoring leaves them."""
    shard = pl.col(CUSTOMER_ID).rank("dense") % shards
    for place in range(shards):
        mine = forecasts.filter(shard == place).sort(CUSTOMER_ID, CUTOFF, HORIZON_DAYS)
        write_table(mine, part_path(folder, DAY, place))
    return folder


def told_of(
    tables: ReportTables, folder: Path, shards: int = 3, rules: DecisionOptions | None = None, **changes: Any
) -> ForecastsTold:
    """What the page of a base's forecasts is made from."""
    rules, out = rules or DecisionOptions(), parted(tables.forecasts, folder / str(shards), shards)
    summary = totals(pl.read_parquet(part_path(out, DAY, shard)) for shard in range(shards))
    counts, groups = add_up(out, DAY, shards, summary, rules)
    made = ForecastsTold(
        name=tables.name,
        currency="GBP",
        totals=summary,
        counts=counts,
        groups=groups,
        manifest=tables.manifest,
        quality=tables.quality,
        checked=True,
        value=tables.value,
        rules=rules,
        checkpoint="base",
        lineage=LINEAGE,
    )
    return replace(made, **changes)


def with_an_earlier_cutoff(tables: ReportTables) -> ReportTables:
    """Half of the customers, a year before, expected to do half as much."""
    some = tables.forecasts.filter(pl.col(CUSTOMER_ID).rank("dense") % 2 == 0)
    halved = [pl.col(name) / 2 for name in (EXPECTED_ORDERS, EXPECTED_SPEND, CLV)]
    earlier = some.with_columns(pl.col(CUTOFF) - timedelta(days=365), *halved)
    return replace(tables, forecasts=pl.concat([tables.forecasts, earlier]))


def leading(forecasts: pl.DataFrame) -> pl.DataFrame:
    return forecasts.filter(pl.col(HORIZON_DAYS) == 365)


def cells(page: str, title: str) -> list[list[str]]:
    """Texts of the table under a title, row by row."""
    table = page[page.index(f"<h3>{title}</h3>") :].split("<tbody>")[1].split("</tbody>", maxsplit=1)[0]
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table.split("</tr>")[:-1]]


@pytest.mark.parametrize("shards", [1, 7])
def test_any_number_of_shards_gives_the_same_bytes(tables: ReportTables, tmp_path: Path, shards: int) -> None:
    both = with_an_earlier_cutoff(tables)
    page = build_forecasts_page(told_of(both, tmp_path, shards))
    assert page == build_forecasts_page(told_of(both, tmp_path, 3))


def test_the_totals_are_the_sums_over_customers(tables: ReportTables, tmp_path: Path) -> None:
    both = with_an_earlier_cutoff(tables)
    rows = cells(build_forecasts_page(told_of(both, tmp_path)), "By cutoff and horizon")
    assert len(rows) == 4
    for row, (at, days) in zip(
        rows,
        [(at, days) for at in (CUTOFF_AT - timedelta(days=365), CUTOFF_AT) for days in (90, 365)],
        strict=True,
    ):
        mine = both.forecasts.filter((pl.col(CUTOFF) == at) & (pl.col(HORIZON_DAYS) == days))
        lost, orders, spend, value = (
            math.fsum(mine[c]) for c in (P_CHURN, EXPECTED_ORDERS, EXPECTED_SPEND, CLV)
        )
        expected = (
            day(at), f"{days}\N{NO-BREAK SPACE}days", count(mine.height), count(lost), share(lost / mine.height),
            count(orders), POUNDS.short(spend), POUNDS.short(value),
        )  # fmt: skip
        assert dict(zip(HEADS, row, strict=True)) == dict(zip(HEADS, expected, strict=True))


def test_bands_and_risks_are_drawn_as_the_report_draws_them(tables: ReportTables, tmp_path: Path) -> None:
    told = told_of(tables, tmp_path)
    for days in (90, 365):
        of_horizon = pl.col(HORIZON_DAYS) == days
        whole, values = tables.forecasts.filter(of_horizon), told.counts.values.filter(of_horizon)
        ours = charts_value.bands_chart(*value_bands(values), POUNDS, days)
        assert ours == charts_value.value_bands(whole, POUNDS, days)
        sides = risk_sides(told.counts.risks.filter(of_horizon))
        assert charts_value.risk_chart(*sides, told.rules, days) == charts_value.risk_histogram(
            whole, told.rules, days
        )


def test_tenths_are_those_of_the_customers_within_a_thousandth(tables: ReportTables, tmp_path: Path) -> None:
    clv = leading(tables.forecasts)[CLV].sort(descending=True).to_numpy()
    ends, sums = value_tenths(told_of(tables, tmp_path).counts.values.filter(pl.col(HORIZON_DAYS) == 365))
    assert ends == charts_value.tenths(len(clv))
    exact = [clv[one:other].sum() for one, other in itertools.pairwise(ends)]
    np.testing.assert_allclose(np.array(sums) / clv.sum(), np.array(exact) / clv.sum(), atol=1e-3)
    assert sum(sums) == pytest.approx(clv.sum())


def test_losses_are_ranked_among_themselves() -> None:
    """20 customers at -1 to -20 of value: in this bin or that, the worst tenth loses 39."""
    worth = pl.DataFrame(
        {"bin": np.searchsorted(EDGES, -np.arange(1.0, 21.0), side="right"), CLV: -np.arange(1.0, 21.0)}
    )
    counted = worth.with_columns(pl.lit(1, pl.Int64).alias(CUSTOMERS))
    assert value_tenths(counted)[1] == pytest.approx([-3 - 4 * i for i in range(10)])


def test_high_value_begins_at_the_customer_above_the_quantile() -> None:
    values = [0.0, 1.2345, 5.678, 9.999, 100.0, 250.4]
    counted = pl.DataFrame(
        {"bin": np.searchsorted(EDGES, values, side="right"), CUSTOMERS: [1] * 6},
        schema_overrides={CUSTOMERS: pl.Int64},
    )
    rules = DecisionOptions(value_quantile=0.5)
    assert high_from(counted, rules) == 9.99
    assert high_from(counted, replace(rules, value_quantile=0.0)) == 0
    assert high_from(counted, replace(rules, value_quantile=1.0)) == 250
    assert high_from(counted, replace(rules, value_threshold=12.345)) == 12.345
    assert high_from(counted.head(0), rules) == 0


def same_groups(told: ForecastsTold, forecasts: pl.DataFrame, rules: DecisionOptions) -> None:
    assert told.groups is not None
    exact = quadrant_table(forecasts, quadrants(forecasts, rules)).filter(pl.col(CUTOFF) == CUTOFF_AT)
    table = exact.filter(pl.col(CUSTOMERS) > 0).sort(QUADRANT)
    ours = told.groups.table.filter(pl.col(CUSTOMERS) > 0).sort(QUADRANT)
    assert ours[QUADRANT].to_list() == table[QUADRANT].to_list()
    assert ours[CUSTOMERS].to_list() == table[CUSTOMERS].to_list()
    for name in (CLV, VALUE_AT_STAKE):
        np.testing.assert_allclose(ours[name], table[name])


@pytest.mark.parametrize(
    "rules",
    [DecisionOptions(), DecisionOptions(value_threshold=123.456), DecisionOptions(0.5, 0.9)],
    ids=["usual", "by value", "rare"],
)
def test_groups_are_the_quadrants_of_the_latest_cutoff(
    tables: ReportTables, tmp_path: Path, rules: DecisionOptions
) -> None:
    """No customer of this base lies beside the line within a bin of it."""
    both = with_an_earlier_cutoff(tables)
    told = told_of(both, tmp_path, rules=rules)
    same_groups(told, both.forecasts, rules)


def test_those_to_save_with_the_most_at_stake_are_named(tables: ReportTables, tmp_path: Path) -> None:
    rules = DecisionOptions(risk_threshold=0.4, value_threshold=50.0)
    decided = quadrants(leading(tables.forecasts), rules)
    save = decided.filter(pl.col(QUADRANT) == "save").sort(
        VALUE_AT_STAKE, CUSTOMER_ID, descending=[True, False]
    )
    assert save.height > 20
    rows = cells(build_forecasts_page(told_of(tables, tmp_path, rules=rules)), "Customers to save first")
    assert [row[0] for row in rows] == save[CUSTOMER_ID].to_list()[:20]
    assert [row[1] for row in rows] == [POUNDS.full(stake) for stake in save[VALUE_AT_STAKE][:20]]


def test_what_is_counted_does_not_grow_with_the_customers(tables: ReportTables, tmp_path: Path) -> None:
    copies = pl.DataFrame({"copy": [f"-{i}" for i in range(50)]})
    many = tables.forecasts.join(copies, how="cross").with_columns(
        (pl.col(CUSTOMER_ID) + pl.col("copy")).alias(CUSTOMER_ID)
    )
    few = shard_counts(parted(tables.forecasts, tmp_path / "few", 1), DAY, DecisionOptions(), 0)
    lots = shard_counts(parted(many.drop("copy"), tmp_path / "many", 1), DAY, DecisionOptions(), 0)
    for name in ("values", "risks", "retained"):
        one, other = getattr(few, name), getattr(lots, name)
        assert other.height == one.height
        assert other[CUSTOMERS].sum() == 50 * one[CUSTOMERS].sum()
    assert len(EDGES) < 40_000


def test_every_chart_stands_once_for_each_cutoff_and_horizon(tables: ReportTables, tmp_path: Path) -> None:
    page = build_forecasts_page(told_of(with_an_earlier_cutoff(tables), tmp_path))
    drawn = figures(page)
    assert set(drawn) == {
        f"{k}-{i}" for k in ("value-bands", "risk-histogram", "value-deciles") for i in range(4)
    }
    assert all(page.count(f'data-figure="{key}"') == 1 for key in drawn)
    titles = re.findall(r'<h2 id="h-spread-\d">(.*?)</h2>', page)
    assert [title.replace("\N{NO-BREAK SPACE}", " ") for title in titles] == [
        "Next 365 days, from 31 Dec 2014", "Next 90 days, from 31 Dec 2014",
        "Next 365 days, from 31 Dec 2013", "Next 90 days, from 31 Dec 2013",
    ]  # fmt: skip
    assert page.count("</script>") == 3


def test_it_says_where_the_forecasts_come_from(tables: ReportTables, tmp_path: Path) -> None:
    told = told_of(tables, tmp_path)
    page = build_forecasts_page(told)
    assert "from checkpoint base (key aaaaaaaaaaaa, files bbbbbbbbbbbb), trained on simulated bases;" in page
    lineage = LINEAGE | {"trained_on": tables.manifest.fingerprint}
    page = build_forecasts_page(replace(told, lineage=lineage, training_end="2014-06-30"))
    assert "trained on these data up to 2014-06-30; nothing was fitted again" in page
    page = build_forecasts_page(
        replace(told, lineage=LINEAGE | {"trained_on": "c" * 64}, training_end="2014-06-30")
    )
    assert "trained on data of fingerprint cccccccccccc up to" in page


def test_the_word_for_value_follows_margins_and_costs(tables: ReportTables, tmp_path: Path) -> None:
    told = told_of(tables, tmp_path)
    assert "counts revenue" in build_forecasts_page(told)
    assert "counts margin: 30%" in build_forecasts_page(replace(told, value=ValueOptions(margin_rate=0.3)))
    with_costs = replace(told.manifest, columns=[*told.manifest.columns, COST])
    assert "counts margin: 100%" in build_forecasts_page(replace(told, manifest=with_costs))


def test_on_unsound_data_nobody_is_named(tables: ReportTables, tmp_path: Path) -> None:
    page = build_forecasts_page(told_of(with_problem(tables, "churn"), tmp_path))
    assert "Not to be relied on" in page
    assert "Whom to save first is not told" in page
    assert "Customers to save first" not in page
    assert "it names customers" not in page
    sound = build_forecasts_page(told_of(tables, tmp_path))
    assert "it names customers" in sound
    assert "were not checked" not in sound


def test_causes_are_counted_and_told_where_they_were_sought(tables: ReportTables, tmp_path: Path) -> None:
    told = told_of(tables, tmp_path)
    assert "Why at risk" not in build_forecasts_page(told)
    causes = pl.DataFrame(
        {
            CUSTOMER_ID: ["a", "b", "c", NASTY, "e"],
            NAMED_CAUSE: ["service", NO_REASON, NO_REASON, "life_cycle", NO_REASON],
            EVIDENCE: ["two tickets", None, None, "orders in December", None],
            VALUE_AT_STAKE: [50.0, 40.0, 30.0, 20.0, 10.0],
        }
    )
    page = build_forecasts_page(replace(told, causes=causes))
    assert cells(page, "Why at risk") == [
        ["no reliable reason", "3", "60%", "£80.00"], ["life cycle", "1", "20%", "£20.00"], ["service", "1", "20%", "£50.00"],
    ]  # fmt: skip
    assert [row[:2] for row in cells(page, "The most at stake with a cause")] == [
        ["a", "service: two tickets"],
        [str(escape(NASTY)), "life cycle: orders in December"],
    ]
    alone = build_forecasts_page(replace(told, causes=causes.filter(pl.col(EVIDENCE).is_null())))
    assert "The most at stake with a cause" not in alone
    assert "Why at risk" in alone


def test_unchecked_data_are_said_to_be(tables: ReportTables, tmp_path: Path) -> None:
    page = build_forecasts_page(told_of(tables, tmp_path, checked=False))
    assert page.count("The data were not checked for this: retinue doctor") == 2


def test_a_base_without_orders_has_a_page(tables: ReportTables, tmp_path: Path) -> None:
    nobody = replace(tables, forecasts=tables.forecasts.head(0))
    told = told_of(nobody, tmp_path)
    assert told.groups is None
    page = build_forecasts_page(told)
    assert "no customer has an order by the cutoff" in page
    assert "rows read" in page
    assert figures(page) == {}


def test_one_customer_and_a_base_that_loses_money(tables: ReportTables, tmp_path: Path) -> None:
    who = tables.forecasts[CUSTOMER_ID][0]
    one = replace(tables, forecasts=tables.forecasts.filter(pl.col(CUSTOMER_ID) == who))
    page = build_forecasts_page(told_of(one, tmp_path / "one"))
    assert "1 customer ·" in page
    assert set(figures(page)) == {f"{key}-{i}" for key in ("value-bands", "risk-histogram") for i in range(2)}
    loss = replace(tables, forecasts=tables.forecasts.with_columns(-pl.col(CLV)))
    page = build_forecasts_page(told_of(loss, tmp_path / "loss"))
    assert "−£" in page
    assert "No customer counts as high value here" in page
    assert "No customer is both" in page


def test_texts_of_the_data_cannot_become_markup(tables: ReportTables, tmp_path: Path) -> None:
    decided = quadrants(leading(tables.forecasts), DecisionOptions())
    victim = decided.filter(pl.col(QUADRANT) == "save").sort(VALUE_IF_RETAINED)[CUSTOMER_ID][-1]
    renamed = tables.forecasts.with_columns(pl.col(CUSTOMER_ID).replace({victim: NASTY}))
    told = told_of(replace(tables, forecasts=renamed, name=NASTY), tmp_path, currency=NASTY, checkpoint=NASTY)
    page = build_forecasts_page(told)
    assert page.count("onerror=hack()&gt;") >= 4
    assert page.count("</script>") == 3
    assert "<img" not in without_plotly(page)


def test_nothing_is_asked_of_a_network(tables: ReportTables, tmp_path: Path) -> None:
    own = without_plotly(build_forecasts_page(told_of(tables, tmp_path)))
    assert "default-src 'none'" in own
    assert not re.search(r"https?:|url\(|@import|<script src|<img", own)
