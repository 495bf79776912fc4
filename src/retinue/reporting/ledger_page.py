"""The ledger as a page, and as a section of the report: predicted against realised over time, drift, and what to do."""

from __future__ import annotations

import polars as pl

from retinue.evaluation.reconciliation import ALL, DIMENSIONS, Verdict, windows
from retinue.forecasting.ledger import Reckoning
from retinue.reporting.figures import Chart, Figure, Grid, axis, colour
from retinue.reporting.pages import Card, Section, build_page
from retinue.reporting.words import Money, count, day, number, plural, share
from retinue.schema import (
    CUSTOMERS,
    DIMENSION,
    FEATURE,
    GROUP,
    HINDSIGHT,
    HORIZON_DAYS,
    PREDICTED_CHURN,
    PREDICTED_ORDERS,
    PREDICTED_SPEND,
    PSI,
    REALISED_CHURN,
    REALISED_ORDERS,
    REALISED_SPEND,
    RECKONED_CUTOFF,
    RUN,
    SPEND_GAP_ERROR,
    SUPERSEDED,
)

MOST_FEATURES = 15
MOST_ROWS = 60


def build_ledger_page(name: str, currency: str, zone: str, found: Reckoning) -> str:
    """One self-contained page of HTML; the same bytes for the same ledger and events."""
    runs = found.kept[RUN].n_unique()
    kept = f"{plural(found.kept.height, 'forecast')} of {plural(runs, 'run')}"
    subtitle = f"{kept} · {count(found.matured.height)} matured"
    money = Money(currency)
    sections = [_verdict_section(found, zone, money)]
    if found.reconciled.height:
        sections.append(time_section(found.reconciled, zone, money))
        sections.append(_groups_section(found.reconciled, money))
    sections.append(_drift_section(found))
    return build_page(f"{name}: ledger", subtitle, sections)


def verdict_words(verdict: Verdict, zone: str, money: Money) -> tuple[str, ...]:
    """Whether new forecasts would pay, in sentences."""
    latest = verdict.latest
    if latest is None:
        return ("No forecast has matured yet, so nothing can be said of its errors.", _drift_words(verdict))
    when = f"{day(latest.cutoff, zone)} for {count(latest.horizon_days)} days"
    ratio = latest.realised_spend / latest.predicted_spend - 1 if latest.predicted_spend else float("nan")
    missed = (
        f"The forecast of {when} expected {money.short(latest.predicted_spend)} and "
        f"{money.short(latest.realised_spend)} came "
        f"({number(100 * ratio, 1)} %, {number(latest.gap_errors, 1)} standard errors)."
    )
    placed = (
        f"Tenth by tenth it misjudged {money.short(verdict.cost)} beyond chance: the most that better "
        f"forecasts could put right "
        f"in such a horizon. Making them is said to cost {money.short(verdict.retrain_cost)} (retrain_cost)."
    )
    advice = (
        "New forecasts would pay."
        if verdict.pays
        else "New forecasts would not pay by what has matured so far."
    )
    return (advice, missed, placed, _drift_words(verdict))


def _drift_words(verdict: Verdict) -> str:
    if not verdict.features:
        return "There is no forecast of an earlier cutoff to compare the customers of now with."
    return (
        f"{count(len(verdict.drifted))} of {count(verdict.features)} features have moved much (PSI of "
        f"0.25 or more) since the last "
        "forecasts of an earlier cutoff. Ages and days since grow by themselves where few customers join."
    )


def _verdict_section(found: Reckoning, zone: str, money: Money) -> Section:
    superseded = int(found.matured[SUPERSEDED].sum())
    facts = [
        "Only windows that the data cover to their end count; a forecast enters when its whole horizon has passed.",
    ]
    hindsight = int((found.matured[HINDSIGHT] & ~found.matured[SUPERSEDED]).sum())
    if hindsight:
        facts.append(
            f"{count(hindsight)} of the matured forecasts were written in hindsight: "
            "the data had covered their window already."
        )
    if found.next_maturity is not None:
        facts.append(f"More will mature when the data reach {day(found.next_maturity, zone)}.")
    if superseded:
        facts.append(
            f"{count(superseded)} matured forecasts are superseded: another run forecast the same "
            f"customer, cutoff and horizon, "
            "and the last one written before its window had passed counts."
        )
    words = verdict_words(found.verdict, zone, money)
    return Section(
        "verdict",
        "What it says",
        words[0],
        ((Card("Why", None, tuple(words[1:])), Card("What is in it", None, tuple(facts))),),
    )


def time_section(reconciled: pl.DataFrame, zone: str, money: Money) -> Section:
    """Predicted and realised spend and churn of all customers, by cutoff, one horizon apart from the other."""
    whole = reconciled.filter((pl.col(DIMENSION) == ALL) & pl.col(RECKONED_CUTOFF).is_not_null())
    horizons = whole[HORIZON_DAYS].unique().sort().to_list()
    charts = [
        (_over_time(whole, days, "spend", zone, money), _over_time(whole, days, "churn", zone, money))
        for days in horizons
    ]
    rows = tuple(
        (day(w.cutoff, zone), count(w.horizon_days), money.full(w.predicted_spend), money.full(w.realised_spend),
         number(w.gap_errors, 1), money.full(w.misplaced_spend))
        for w in windows(reconciled)
    )  # fmt: skip
    header = (
        "Cutoff",
        "Days",
        "Predicted spend",
        "Realised spend",
        "Gap in standard errors",
        "Misjudged beyond chance",
    )
    return Section(
        "time",
        "Predicted and realised",
        "Each point is one cutoff; horizons are never mixed.",
        (*charts, (Card("Every matured window", Grid(header, rows), (), "folds"),)),
    )


def _over_time(whole: pl.DataFrame, days: int, what: str, zone: str, money: Money) -> Chart:
    rows = whole.filter(pl.col(HORIZON_DAYS) == days).sort(RECKONED_CUTOFF)
    labels = [day(at, zone) for at in rows[RECKONED_CUTOFF]]
    said, came = (PREDICTED_SPEND, REALISED_SPEND) if what == "spend" else (PREDICTED_CHURN, REALISED_CHURN)
    told = money.full if what == "spend" else share
    title = f"{'Spend' if what == 'spend' else 'Churn'} within {count(days)} days"
    traces: list[Figure] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": labels,
            "y": rows[column].to_list(),
            "line": {"color": colour(tint), "width": 2, "dash": dash},
            "hovertext": [f"{at}<br>{name}: {told(v)}" for at, v in zip(labels, rows[column], strict=True)],
            "hoverinfo": "text",
        }
        for name, column, tint, dash in (
            ("predicted", said, "accent", "dash"),
            ("realised", came, "save", "solid"),
        )
    ]
    unit = f"all customers ({money.unit})" if what == "spend" else "share without an order"
    return Chart(
        key=f"ledger-{what}-{days}",
        title=title,
        caption="Forecasts of all customers at each cutoff, and what came true.",
        alt=f"{title}: at the last cutoff {told(rows[said][-1])} was predicted and {told(rows[came][-1])} came true.",
        grid=Grid(
            ("Cutoff", "Predicted", "Realised"),
            tuple((at, told(p), told(r)) for at, p, r in zip(labels, rows[said], rows[came], strict=True)),
        ),
        traces=traces,
        layout={
            "hovermode": "closest",
            "xaxis": axis("cutoff", type="category"),
            "yaxis": axis(unit, rangemode="tozero", tickformat=",~f" if what == "spend" else ".0%"),
        },
        height=300,
    )


def _groups_section(reconciled: pl.DataFrame, money: Money) -> Section:
    pooled = reconciled.filter(pl.col(RECKONED_CUTOFF).is_null())
    cards = [
        (
            _group_card(
                pooled.filter((pl.col(DIMENSION) == name) & (pl.col(HORIZON_DAYS) == days)), name, days, money
            ),
        )
        for days in pooled[HORIZON_DAYS].unique().sort()
        for name in DIMENSIONS
        if name != ALL
    ]
    return Section(
        "groups",
        "By group",
        "All matured cutoffs of a horizon together. A star marks a gap in spend beyond two standard errors.",
        tuple(cards),
    )


def _group_card(rows: pl.DataFrame, name: str, days: int, money: Money) -> Card:
    lines = tuple(
        (
            r[GROUP], count(r[CUSTOMERS]), share(r[PREDICTED_CHURN]), share(r[REALISED_CHURN]),
            count(r[PREDICTED_ORDERS]), count(r[REALISED_ORDERS]), money.full(r[PREDICTED_SPEND]),
            money.full(r[REALISED_SPEND])
            + (" *" if abs(r[REALISED_SPEND] - r[PREDICTED_SPEND]) > 2 * r[SPEND_GAP_ERROR] > 0 else ""),
        )
        for r in rows.head(MOST_ROWS).iter_rows(named=True)
    )  # fmt: skip
    header = (
        name.capitalize(),
        "Forecasts",
        "Churn said",
        "came",
        "Orders said",
        "came",
        "Spend said",
        "came",
    )
    return Card(f"By {name}, {count(days)} days", Grid(header, lines), (), "folds")


def _drift_section(found: Reckoning) -> Section:
    if found.drift.is_empty():
        return Section("drift", "Drift", _drift_words(found.verdict), ())
    lines = tuple(
        (r[FEATURE], number(r[PSI], 3)) for r in found.drift.head(MOST_FEATURES).iter_rows(named=True)
    )
    card = Card(
        "Features that moved most",
        Grid(("Feature", "PSI"), lines),
        (
            "Population stability index over tenths of the earlier customers: below 0.1 little has "
            "changed, from 0.25 on much.",
        ),
    )
    return Section("drift", "Drift", _drift_words(found.verdict), ((card,),))
