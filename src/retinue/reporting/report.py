"""The report: one HTML file with everything in it, the same bytes for the same tables."""

from __future__ import annotations

from typing import Any

import polars as pl
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from retinue.reporting import charts_check, charts_time, charts_value, overview, views
from retinue.reporting.action_pages import action_sections
from retinue.reporting.figures import Chart, embedded
from retinue.reporting.ledger_page import time_section
from retinue.reporting.pages import environment, part
from retinue.reporting.stories import stories
from retinue.reporting.tables import ReportTables, high_value_from, scored_customers
from retinue.reporting.words import Money, count, day, plural
from retinue.schema import CUSTOMER_ID


def build_report(tables: ReportTables) -> str:
    """The whole page as HTML text.

    It opens without a network (plotly.js is inside, and a content policy forbids any request); customer ids
    and all other texts are escaped. Nothing in it depends on the clock or on chance.
    """
    scored, money = scored_customers(tables), Money(tables.currency)
    problems = views.problems(tables.quality)
    sound = views.is_sound(tables.quality)
    spend_bias = charts_check.spend_bias(tables.metrics, tables.horizon_days)
    cutoff_day = day(tables.cutoff, tables.manifest.local_zone)
    horizon = f"{count(tables.horizon_days)} days"
    charts, ledger = _charts(tables, scored, money, sound), None
    if tables.reconciled is not None and tables.reconciled.height:
        ledger = time_section(tables.reconciled, tables.manifest.local_zone, money)
    pages = action_sections(tables, money) if scored.height and sound else []
    told = stories(tables, scored, money) if scored.height else None
    context: dict[str, Any] = {
        "pages": pages,
        "stories": told,
        "story_count": 0 if tables.actions is None else tables.actions.curves[CUSTOMER_ID].n_unique(),
        "money_unit": money.unit,
        "name": tables.name,
        "cutoff_day": cutoff_day,
        "horizon": horizon,
        "horizon_days": tables.horizon_days,
        "customers": plural(scored.height, "customer"),
        "any_forecast": scored.height > 0,
        "headline": overview.headline(tables, scored, money, sound),
        "story": overview.story(tables, scored, money, sound) if scored.height else [],
        "interval_note": overview.interval_note(tables, scored, spend_bias),
        "by_horizon": overview.by_horizon(tables, money),
        "problems": problems,
        "sound": sound,
        "not_sound": overview.NOT_SOUND,
        "groups": views.groups(scored, money),
        "quadrant_rule": views.quadrant_rule(
            tables.quadrant_rules, high_value_from(scored, tables.quadrant_rules), money
        ),
        "to_save": views.customers_to_save(scored, money),
        "segments": views.segment_cards(tables, scored, money),
        "value_word": overview.value_word(tables),
        "model": views.model_names(tables.forecasts),
        "check": charts_check.check(tables.metrics, tables.horizon_days, tables.manifest.local_zone, money),
        "findings": views.findings(tables.quality),
        "rows_in": views.rows_read(tables.manifest),
        "balance": views.row_balance(tables.manifest),
        "event_types": views.event_types(tables.manifest),
        "words": [
            *views.words(cutoff_day, horizon, overview.value_word(tables)),
            (
                "90% interval",
                "The truth is expected to lie inside nine times out of ten. What the interval of a total rests on is said "
                "under Overview.",
            ),
        ],
        "assumptions": views.assumptions(tables, money),
        "charts": {chart.key: chart for chart in charts},
        "ledger": ledger,
        "figures": embedded(
            [*charts, *(ledger.charts if ledger else ()), *(chart for page in pages for chart in page.charts)]
        ),
        "plotly_js": Markup(get_plotlyjs()),
        "style": part("report.css"),
        "script": part("report.js"),
        "count": count,
    }
    return environment().get_template("report.html.j2").render(context)


def _charts(tables: ReportTables, scored: pl.DataFrame, money: Money, sound: bool) -> list[Chart]:
    activity, horizon, rules = tables.activity, tables.horizon_days, tables.quadrant_rules
    drawn: list[Chart | None] = [
        charts_time.retention_map(activity.retention),
        charts_time.repeat_curves(activity.repeat),
        charts_time.recency_histogram(activity.recency),
        charts_time.lifecycle_bars(tables.segments),
        *charts_time.migration_maps(tables.migration),
        charts_check.decile_chart(tables.metrics, horizon, money),
        charts_check.reliability_chart(tables.metrics, horizon),
    ]
    if scored.height:
        drawn += [
            charts_value.value_bands(scored, money, horizon),
            charts_value.value_deciles(scored, money, horizon),
            charts_value.risk_histogram(scored, rules, horizon),
        ]
    if scored.height and sound:
        drawn.append(charts_value.quadrant_map(scored, rules, money, horizon))
    return [chart for chart in drawn if chart is not None]
