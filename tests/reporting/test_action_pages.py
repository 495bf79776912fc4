"""The pages on what to do: what they say of actions, budgets, segments, experiments and key figures."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import polars as pl
import pytest

from retinue.decisions.decide import NOTHING
from retinue.reporting import ReportTables, build_report
from retinue.reporting.action_pages import action_sections
from retinue.reporting.pages import Block, Card
from retinue.reporting.words import Money
from tests.reporting.factory import report_tables, with_actions


@pytest.fixture(scope="module")
def tables() -> ReportTables:
    return with_actions(report_tables(300))


def cells(tables: ReportTables, key: str) -> list[str]:
    """All texts in the tables and words of one section."""
    section = next(one for one in action_sections(tables, Money("GBP")) if one.key == key)
    told: list[str] = []
    for item in (item for row in section.rows for item in row):
        assert not isinstance(item, Block)
        told += item.text if isinstance(item, Card) else (item.caption,)
        told += [cell for row in (item.grid.rows if item.grid else ()) for cell in row]
    return told


def test_the_pages_stand_in_the_order_of_reading(tables: ReportTables) -> None:
    keys = [section.key for section in action_sections(tables, Money("GBP"))]
    assert keys == ["save-list", "budget", "playbooks", "experiments", "kpis"]
    page = build_report(tables)
    places = [page.index(f'id="{key}"') for key in (*keys, "story")]
    assert places == sorted(places)


def test_the_save_list_has_who_why_what_and_for_how_much(tables: ReportTables) -> None:
    given = tables.decisions.filter(pl.col("action") != NOTHING).sort("value_at_stake", descending=True)
    told = cells(tables, "save-list")
    assert told[0] == given["customer_id"][0]
    assert told[1].startswith("service: 2 tickets <in> 90 days") or told[1] == "not looked for"
    assert given["action"][0].replace("_", " ") in told


def test_what_rests_on_assumptions_says_so(tables: ReportTables) -> None:
    assert any("rest on assumed effects" in text for text in cells(tables, "budget"))
    measured = replace(
        tables, decisions=tables.decisions.with_columns(pl.lit("measured").alias("effect_source"))
    )
    assert not any("assumed" in text for text in cells(measured, "budget"))


def test_targets_and_key_figures_are_told_with_their_change(tables: ReportTables) -> None:
    told = cells(tables, "kpis")
    assert told[:4] == ["churn rate", "−10%", "−20%", "200%"]
    assert "25%" in told


def test_without_actions_there_are_no_pages() -> None:
    plain = report_tables(60)
    assert action_sections(plain, Money("GBP")) == []
    page = build_report(plain)
    assert 'id="save-list"' not in page
    assert 'id="story"' not in page


def test_stories_hold_what_the_tables_say(tables: ReportTables) -> None:
    found = re.search(r'id="stories"[^>]*>(.*?)</script>', build_report(tables), re.DOTALL)
    assert found
    assert "<" not in found[1]
    told = json.loads(found[1])
    who = next(iter(told))
    rows = tables.forecasts.filter(pl.col("customer_id") == who).sort("horizon_days")
    assert told[who]["days"] == rows["horizon_days"].to_list()
    assert told[who]["stays"] == pytest.approx([1 - p for p in rows["p_churn"]], abs=1e-4)
    assert 0 < len(told[who]["events"]) <= 24
