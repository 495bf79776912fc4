"""Customers' stories for the search on the page: events, forecast over time, cause and action, as compact data."""

from __future__ import annotations

import json

import polars as pl
from markupsafe import Markup

from retinue.reporting.budget import words
from retinue.reporting.tables import ReportTables
from retinue.reporting.words import Money, day, share
from retinue.schema import (
    ACTION,
    AMOUNT,
    BINDING,
    CLV,
    CUSTOMER_ID,
    EVENT_TIME,
    EVENT_TYPE,
    EVIDENCE,
    EXPECTED_COST,
    EXPECTED_GAIN,
    HORIZON_DAYS,
    LIFECYCLE,
    NAMED_CAUSE,
    P_CHURN,
    SEGMENT_NAME,
    VALUE_AT_STAKE,
)

MOST_EVENTS = 24


def stories(tables: ReportTables, scored: pl.DataFrame, money: Money) -> Markup | None:
    """JSON by customer that may stand inside a script element whatever the texts hold; None where there are none."""
    actions = tables.actions
    if actions is None or actions.curves.is_empty():
        return None
    zone = tables.manifest.local_zone
    told: dict[str, dict[str, object]] = {}
    rows = {row[CUSTOMER_ID]: row for row in tables.decisions.to_dicts()}
    known = {row[CUSTOMER_ID]: row for row in scored.to_dicts()}
    for (who,), part in actions.curves.sort(CUSTOMER_ID, HORIZON_DAYS).group_by(
        CUSTOMER_ID, maintain_order=True
    ):
        name = str(who)
        told[name] = {
            "days": part[HORIZON_DAYS].to_list(),
            "stays": [round(1 - p, 4) for p in part[P_CHURN]],
            "value": [float(f"{value:.5g}") for value in part[CLV]],
            "facts": _facts(rows.get(name, {}), known.get(name, {}), money),
            "events": [],
        }
    has_amount = AMOUNT in actions.events.columns
    amount = pl.col(AMOUNT) if has_amount else pl.lit(None, pl.Float64).alias(AMOUNT)
    latest = (
        actions.events.sort(EVENT_TIME, descending=True)
        .group_by(CUSTOMER_ID, maintain_order=True)
        .head(MOST_EVENTS)
    )
    for who, at, kind, paid in latest.select(CUSTOMER_ID, EVENT_TIME, EVENT_TYPE, amount).iter_rows():
        events = told[who]["events"]
        assert isinstance(events, list)
        events.append([day(at, zone), words(kind), money.full(paid) if paid is not None else ""])
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)


def _facts(row: dict[str, object], known: dict[str, object], money: Money) -> list[list[str]]:
    """What stands beside the curves, as name and words."""

    def full(value: object) -> str:
        return money.full(value if isinstance(value, float) else None)

    risk = known.get(P_CHURN)
    told = [
        ["Segment", str(known.get(SEGMENT_NAME) or "none")],
        ["Stage", str(known.get(LIFECYCLE) or "unknown")],
        ["Risk", share(risk if isinstance(risk, float) else None)],
        ["Value (clv)", full(known.get(CLV))],
        ["Value at stake", full(row.get(VALUE_AT_STAKE))],
    ]
    cause, evidence = row.get(NAMED_CAUSE), row.get(EVIDENCE)
    if cause is not None:
        told.append(["Why", words(str(cause)) + (f": {evidence}" if evidence else "")])
    if ACTION in row:
        action = str(row[ACTION])
        if action == "none":
            told.append(["What to do", f"nothing ({words(str(row.get(BINDING)))})"])
        else:
            worth = f"costs {full(row.get(EXPECTED_COST))}, expected to bring {full(row.get(EXPECTED_GAIN))}"
            told.append(["What to do", f"{words(action)}: {worth}"])
    return told
