"""What the page says, and that it says it for awkward bases too."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from retinue.decisions import quadrants
from retinue.options import DecisionOptions, ValueOptions
from retinue.reporting import ReportTables, build_report
from retinue.reporting.tables import scored_customers
from retinue.schema import (
    CLV,
    CLV_LOWER,
    CLV_UPPER,
    CUSTOMER_ID,
    EXPECTED_SPEND,
    HORIZON_DAYS,
    QUADRANT,
    VALUE_AT_STAKE,
)
from tests.reporting.factory import empty_activity, metrics_of, report_tables

CHARTS = {
    "value-bands", "value-deciles", "risk-histogram", "quadrant-map", "lifecycle", "migration-segment",
    "migration-lifecycle", "retention", "repeat-rate", "recency", "deciles", "reliability",
}  # fmt: skip


@pytest.fixture(scope="module")
def tables() -> ReportTables:
    return report_tables(300)


@pytest.fixture(scope="module")
def page(tables: ReportTables) -> str:
    return build_report(tables)


def without_plotly(page: str) -> str:
    """The page less the one long script, in which anything may stand."""
    return "".join(
        part for part in re.split(r"(<script>.*?</script>)", page, flags=re.DOTALL) if len(part) < 1_000_000
    )


def figures(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    assert found
    parsed = json.loads(found[1])
    assert isinstance(parsed, dict)
    return parsed


def rescored(tables: ReportTables, **columns: pl.Expr) -> ReportTables:
    forecasts = tables.forecasts.with_columns(**columns)
    return replace(tables, forecasts=forecasts, decisions=quadrants(forecasts, tables.quadrant_rules))


def of_customers(tables: ReportTables, ids: list[str], renamed: dict[str, str] | None = None) -> ReportTables:
    def kept(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.filter(pl.col(CUSTOMER_ID).is_in(ids)).with_columns(
            pl.col(CUSTOMER_ID).replace(renamed or {})
        )

    names = ("features", "segments", "forecasts", "decisions")
    frames: dict[str, Any] = {name: kept(getattr(tables, name)) for name in names}
    return replace(tables, **frames)


def test_every_chart_stands_once_with_axes_words_and_numbers(page: str) -> None:
    drawn = figures(page)
    assert set(drawn) == CHARTS
    for key, figure in drawn.items():
        assert page.count(f'data-figure="{key}"') == 1
        assert figure["layout"]["xaxis"]["title"]["text"], key
        assert figure["layout"]["yaxis"]["title"]["text"], key
    alternatives = re.findall(r'role="img" aria-label="([^"]{40,})"></div>\n<details>', page)
    assert len(alternatives) == len(CHARTS)


def label_and_note(page: str, label: str) -> tuple[str, str]:
    """Value and note of one headline figure."""
    start = page.index(f'<div class="label">{label}')
    found = re.search(r'class="value">(.*?)</div><div class="note">(.*?)</div>', page[start:])
    assert found
    return found[1], found[2]


def test_headline_agrees_with_the_tables(tables: ReportTables, page: str) -> None:
    scored = scored_customers(tables)
    spend, value = scored[EXPECTED_SPEND].sum(), scored[CLV].sum()
    assert label_and_note(page, "Expected spend, next 365 days")[0] == f"£{spend:,.0f}"
    assert label_and_note(page, "Discounted value (clv), next 365 days")[0] == f"£{value:,.0f}"
    assert f"expected to spend £{spend:,.0f}, net of refunds" in page
    assert f"this is a value (clv) of £{value:,.0f}" in page
    assert f"£{scored[VALUE_AT_STAKE].sum():,.0f}" in page
    assert f"{scored['p_churn'].sum():,.0f}" in page
    assert "if customers are independent" in label_and_note(page, "Expected spend")[1]
    assert "takes customers as independent" in page
    assert "12% too low" in page


def test_a_margin_rate_changes_the_word(tables: ReportTables) -> None:
    page = build_report(replace(tables, value=ValueOptions(margin_rate=0.3)))
    assert label_and_note(page, "Discounted value (clv)")[1].startswith("margin at today")
    assert "The margin in it, discounted to that day" in page
    assert "30% of net spend" in page
    assert "revenue" not in without_plotly(page)


def test_past_misses_give_the_interval_where_there_were_enough(tables: ReportTables) -> None:
    scored = scored_customers(tables)
    spend, value = scored[EXPECTED_SPEND].sum(), scored[CLV].sum()
    past = {"expected": spend, "lower": spend / 2, "upper": spend * 2}
    metrics = metrics_of(365) | {"totals": {"365": {"spend": past}, "90": {"spend": past | {"lower": None}}}}
    page = build_report(replace(tables, metrics=metrics))
    told = label_and_note(page, "Expected spend, next 365 days")[1]
    assert told.endswith(f"90% interval £{spend / 2:,.0f} to £{spend * 2:,.0f}, from past misses")
    worth = label_and_note(page, "Discounted value (clv)")[1]
    assert worth.endswith(f"90% interval £{value / 2:,.0f} to £{value * 2:,.0f}, from past misses")
    assert "missed at earlier cutoffs" in page
    table = page[page.index("<h3>By horizon</h3>") :].split("</table>")[0]
    assert (table.count("past misses"), table.count("independent customers")) == (1, 1)


def with_problem(tables: ReportTables, topic: str) -> ReportTables:
    row = ("problem", topic, f"{topic}: not supported, since nobody came back.", "Export a longer history.")
    worse = pl.DataFrame([row], schema=tables.quality.schema, orient="row")
    return replace(tables, quality=pl.concat([tables.quality, worse]))


def test_a_problem_is_told_on_top_and_nobody_is_named_to_be_saved(tables: ReportTables) -> None:
    page = build_report(with_problem(tables, "churn"))
    banner = page[page.index('class="card banner"') :].split('class="kpis"')[0]
    assert "Not to be relied on" in banner
    assert "not supported, since nobody came back." in banner
    assert "What to do: Export a longer history." in banner
    assert label_and_note(page, "Value at stake") == ("–", "not told: see the problems above")
    for told in ("Customers to save first", "likely to leave", " to save</div>", '<td class="who'):
        assert told not in page, told
    assert page.count("Whom to save first is not told") == 2
    assert set(figures(page)) == CHARTS - {"quadrant-map"}


def test_a_problem_of_segments_alone_leaves_the_ranking(tables: ReportTables, page: str) -> None:
    assert 'class="card banner"' not in page
    told = build_report(with_problem(tables, "segments"))
    assert 'class="card banner"' in told
    assert "Not to be relied on" not in told
    assert "Customers to save first" in told


def test_the_rule_says_who_counts_for_less(page: str) -> None:
    assert page.count("more than 99.9% sure to stay away count for less") == 2
    assert "counted as at least 0.001" in page


def test_an_interval_that_must_hold_zero_may_cover_more(page: str) -> None:
    assert re.search(r"inside the 90% interval</td><td[^>]*>90% or more</td>", page)
    assert "where the risk is 95% or more it runs from 0 to the value" in page


def test_groups_and_customers_to_save_are_those_of_the_decisions(tables: ReportTables, page: str) -> None:
    save = tables.decisions.filter(pl.col(QUADRANT) == "save").sort(VALUE_AT_STAKE, descending=True)
    listed = re.findall(r'<td class="who text">(C\d+)</td>', page)
    assert listed == save[CUSTOMER_ID].to_list()[:20]
    assert f'<div class="big">{save.height:,} <small>' in page


def test_no_customer_to_save_is_said(tables: ReportTables) -> None:
    rules = DecisionOptions(value_threshold=1e9)
    page = build_report(replace(tables, quadrant_rules=rules, decisions=quadrants(tables.forecasts, rules)))
    assert "No customer is both of high value and of high risk." in page


def test_segment_cards_carry_names_sizes_and_descriptions(tables: ReportTables, page: str) -> None:
    sizes = tables.segments.group_by("segment_name").len()
    for name, size in sizes.iter_rows():
        card = re.search(rf"<h3>{name}</h3>.*?</article>", page, re.DOTALL)
        assert card
        assert f"<dd>{size:,}</dd>" in card[0]
        assert f"{size} customers with habits of their own." in card[0]


def test_findings_stand_worst_first_with_their_cures(tables: ReportTables) -> None:
    page = build_report(with_problem(tables, "churn"))
    levels = re.findall(r'<span class="badge (\w+)">', page)
    assert levels == ["problem", "warning", "warning", "fact"]
    assert "What to do: Add earlier history." in page
    assert "<div>Rows without a customer id: 40" in page


def test_the_balance_of_rows_is_shown(tables: ReportTables, page: str) -> None:
    assert f"{tables.manifest.rows_in:,} rows read" in page
    assert "40 rows set aside (quarantine)" in page
    assert "17 rows exact duplicates" in page


def test_scores_stand_beside_all_zero(page: str) -> None:
    rows = re.findall(
        r"<tr>(.*?)</tr>", page[page.index("<h3>Scores</h3>") :].split("</table>", maxsplit=1)[0]
    )
    told = [re.findall(r"<t[dh][^>]*>(.*?)</t", row) for row in rows]
    assert told[0] == ["Score", "What is good", "This forecast", "All zero"]
    by_name = {row[0]: row[2:] for row in told[1:]}
    assert by_name["Churn: ranking (AUROC)"] == ["0.763", "0.500"]
    assert by_name["Orders: RMSE"] == ["1.726", "2.080"]
    assert by_name["Spend: MAE of the median"] == ["£31.70", "£32.96"]
    assert by_name["Spend: MAE of the mean"] == ["£33.10", "£32.96"]
    assert by_name["Churn: Brier score"] == ["0.166", "–"]
    assert "Spend: CRPS" not in by_name
    assert re.search(r">Pareto/NBD</td>\s*<td[^>]*>0.5012</td><td[^>]*>chosen<", page)


def test_the_last_cutoff_that_has_come_true_is_judged(tables: ReportTables) -> None:
    past = metrics_of(365)
    past["realised"]["365"]["cutoff"] = "2013-06-30T23:59:59.999999+00:00"
    now = {
        "cutoff": "2014-12-31T23:59:59.999999+00:00",
        "realised": {},
        "not_realised": {"365": "the data end"},
    }
    page = build_report(replace(tables, metrics={**now, "cutoffs": {"a": past, "b": now}}))
    assert "history to 30\N{NO-BREAK SPACE}Jun\N{NO-BREAK SPACE}2013, held against" in page


@pytest.mark.parametrize(
    "metrics",
    [None, {}, {"cutoff": "x", "realised": {}, "not_realised": {"365": "the data end on 2014-12-31"}}],
)
def test_without_a_past_to_judge_the_page_says_so(
    tables: ReportTables, metrics: dict[str, Any] | None
) -> None:
    page = build_report(replace(tables, metrics=metrics))
    assert "What came true is not known yet" in page
    assert ("the data end on 2014-12-31" in page) == bool(metrics)
    assert "In the past window" not in page
    assert set(figures(page)) == CHARTS - {"deciles", "reliability"}


def test_same_tables_in_any_order_of_rows_give_the_same_bytes(tables: ReportTables, page: str) -> None:
    names = ("features", "segments", "forecasts", "decisions", "segment_profiles", "migration")
    mixed: dict[str, Any] = {
        name: getattr(tables, name).sample(fraction=1.0, shuffle=True, seed=7) for name in names
    }
    assert build_report(replace(tables, **mixed)) == page


def test_nothing_is_asked_of_a_network(page: str) -> None:
    own = without_plotly(page)
    assert "connect-src" not in own
    assert "default-src 'none'" in own
    assert not re.search(
        r"https?:|url\(|@import|<link(?! rel=\"icon\" href=\"data:,\")|<script src|<img", own
    )
    assert page.count("plotly.js v") == 1
    assert page.count("</script>") == 3


NASTY = "</script><script>document.documentElement.dataset.hacked='1'</script><img src=x onerror=hack()>&amp;\u2028'\""


def test_customer_ids_and_names_cannot_become_markup(tables: ReportTables) -> None:
    victim = tables.decisions.sort(VALUE_AT_STAKE)[CUSTOMER_ID][-1]
    ids = tables.decisions[CUSTOMER_ID].to_list()
    nasty = of_customers(tables, ids, {victim: NASTY})
    segments = nasty.segments.with_columns(pl.lit(NASTY).alias("segment_name"))
    quality = nasty.quality.with_columns(pl.lit(NASTY).alias("finding"))
    page = build_report(replace(nasty, segments=segments, quality=quality, name=NASTY, currency=NASTY))
    own = without_plotly(page)
    assert page.count("</script>") == 3
    assert "<img" not in own
    assert "<script>document" not in own
    hovers = [text for trace in figures(page)["quadrant-map"]["traces"] for text in trace["hovertext"]]
    mine = [text for text in hovers if "onerror" in text]
    assert mine
    assert all("<img" not in text and "&lt;img" in text for text in mine)


def test_a_hundred_thousand_customers_stay_below_eight_megabytes(tables: ReportTables) -> None:
    copies = pl.DataFrame({"copy": range(334)}).with_columns(pl.col("copy").cast(pl.String))
    spread: dict[str, Any] = {
        name: getattr(tables, name)
        .join(copies, how="cross")
        .with_columns((pl.col(CUSTOMER_ID) + "-" + pl.col("copy")).alias(CUSTOMER_ID))
        .drop("copy")
        for name in ("features", "segments", "forecasts", "decisions")
    }
    page = build_report(replace(tables, **spread))
    assert len(page.encode()) < 8_000_000
    points = sum(len(trace["x"]) for trace in figures(page)["quadrant-map"]["traces"])
    assert 1_900 < points <= 2_000


def test_one_customer(tables: ReportTables) -> None:
    page = build_report(of_customers(tables, [tables.features[CUSTOMER_ID][0]]))
    assert "1 customer ·" in page
    assert not re.search(r"\b1 (customers|orders|events|rows)\b", without_plotly(page))
    assert "value-deciles" not in figures(page)


def test_no_customer_with_a_forecast(tables: ReportTables) -> None:
    nobody = replace(of_customers(tables, []), activity=empty_activity(), migration=None, metrics=None)
    page = build_report(nobody)
    assert "There is no forecast: no customer has an order" in page
    assert figures(page) == {}


def test_no_money_at_all(tables: ReportTables) -> None:
    zero = pl.lit(0.0)
    page = build_report(
        rescored(
            tables, **{str(CLV): zero, str(CLV_LOWER): zero, str(CLV_UPPER): zero, str(EXPECTED_SPEND): zero}
        )
    )
    assert label_and_note(page, "Expected spend")[0] == "£0"
    assert "90% interval £0 to £0" in page
    assert "No customer counts as high value here." in page
    assert "nan" not in without_plotly(page).lower().split("</style>")[1].replace("finance", "")


def test_a_base_that_loses_money(tables: ReportTables) -> None:
    loss = {str(CLV): -pl.col(CLV), str(CLV_LOWER): -pl.col(CLV_UPPER), str(CLV_UPPER): pl.lit(0.0)}
    page = build_report(rescored(tables, **loss))
    assert "−£" in page
    assert "value-deciles" not in figures(page)


def test_no_currency(tables: ReportTables) -> None:
    own = without_plotly(build_report(replace(tables, currency="")))
    assert "£" not in own
    assert "(account currency)" in own


def test_one_horizon_needs_no_table_of_horizons(tables: ReportTables, page: str) -> None:
    assert "By horizon" in page
    one = replace(tables, horizons=[365], forecasts=tables.forecasts.filter(pl.col(HORIZON_DAYS) == 365))
    assert "By horizon" not in build_report(one)


def test_a_segment_without_forecasts_shows_its_past_and_no_future(tables: ReportTables) -> None:
    name = "One-time buyers, long silent"
    ids = tables.segments.filter(pl.col("segment_name") != name)[CUSTOMER_ID].to_list()
    some = of_customers(tables, ids)
    page = build_report(replace(tables, forecasts=some.forecasts, decisions=some.decisions))
    card = page[page.index(f"<h3>{name}</h3>") :].split("</article>")[0]
    assert "<dt>Discounted value</dt><dd>–</dd>" in card
    assert "<dt>Orders so far, median</dt><dd>1</dd>" in card


def test_absent_features_and_profiles_leave_dashes(tables: ReportTables) -> None:
    bare = replace(
        tables,
        features=tables.features.select("customer_id", "customer", "cutoff"),
        segment_profiles=tables.segment_profiles.head(0),
        migration=None,
    )
    page = build_report(bare)
    assert "<dt>Silent for, median</dt><dd>–</dd>" in page
    assert "migration-segment" not in figures(page)
