"""The page of forecasts made with a checkpoint: totals, how value and risk are spread, whom to act on, where it comes from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import polars as pl

from retinue.decisions.causes import NO_REASON
from retinue.events.store import Manifest
from retinue.options import DecisionOptions, ValueOptions
from retinue.reporting import charts_value, views
from retinue.reporting.action_pages import why
from retinue.reporting.figures import Chart, Grid
from retinue.reporting.forecast_counts import (
    MOST_TO_SAVE,
    Counts,
    Groups,
    risk_sides,
    value_bands,
    value_tenths,
)
from retinue.reporting.overview import NOT_SOUND, Figure
from retinue.reporting.pages import Block, Card, Section, build_page
from retinue.reporting.tables import total
from retinue.reporting.words import NONE, Money, count, day, days, model_name, plural, share
from retinue.schema import (
    CLV,
    COST,
    CUSTOMER_ID,
    CUSTOMERS,
    CUTOFF,
    EVIDENCE,
    EXPECTED_CHURNERS,
    EXPECTED_ORDERS,
    EXPECTED_SPEND,
    HORIZON_DAYS,
    MODEL,
    NAMED_CAUSE,
    QUADRANT,
    VALUE_AT_STAKE,
)

HEADS = (
    "Cutoff",
    "Horizon",
    "Customers",
    "Not ordering",
    "Share",
    "Orders",
    "Expected spend",
    "Discounted value (clv)",
)
LEFT_OUT_ON_A_PHONE = (3, 4)  # of the customers to save
Rows = tuple[tuple[Chart | Card | Block, ...], ...]


@dataclass(frozen=True)
class ForecastsTold:
    """What the page is made from; nothing in it grows with the number of customers.

    Attributes:
        name: of the base.
        currency: of amounts.
        totals: the `forecasts_summary` table.
        counts: of all shards.
        groups: at the latest cutoff; None where nobody has a forecast.
        manifest: of the store.
        quality: findings.
        checked: whether `quality` is all that `retinue doctor` finds; else what preparation noticed.
        value: margin and discounting.
        rules: thresholds of the quadrants.
        checkpoint: name of its folder.
        lineage: checkpoint_key, checkpoint_digest and trained_on.
        training_end: last day that it learnt from; None where it learnt from simulated bases.
        causes: the `reasons` table of those with the most at stake, the largest first; None where they were not looked for.
    """

    name: str
    currency: str
    totals: pl.DataFrame
    counts: Counts
    groups: Groups | None
    manifest: Manifest
    quality: pl.DataFrame
    checked: bool
    value: ValueOptions
    rules: DecisionOptions
    checkpoint: str
    lineage: dict[str, Any]
    training_end: str | None = None
    causes: pl.DataFrame | None = None

    @property
    def money(self) -> Money:
        """How amounts are told."""
        return Money(self.currency)

    @property
    def sound(self) -> bool:
        """Whether risk and value may be ranked, as far as the data were checked."""
        return views.is_sound(self.quality)

    @property
    def value_word(self) -> str:
        """What clv counts: revenue as long as neither an option nor costs in the events say what of it is margin."""
        return "revenue" if self.value.margin_rate == 1.0 and COST not in self.manifest.columns else "margin"

    @property
    def leading(self) -> dict[str, Any]:
        """The totals of the longest horizon at the latest cutoff."""
        return self.totals.sort(CUTOFF, HORIZON_DAYS).row(-1, named=True)

    def day(self, moment: datetime) -> str:
        """Calendar day where the shoppers are."""
        return day(moment, self.manifest.local_zone)


def build_forecasts_page(told: ForecastsTold) -> str:
    """One self-contained page of HTML; the same bytes for the same forecasts, however many shards they stand in."""
    if told.totals.is_empty():
        nobody = "There is no forecast: no customer has an order by the cutoff."
        return build_page(
            f"{told.name}: forecasts",
            "nobody to forecast",
            [Section("overview", "Overview", nobody, ()), _quality(told)],
        )
    lead = told.leading
    subtitle = (
        f"{plural(lead[CUSTOMERS], 'customer')} · history to {told.day(lead[CUTOFF])} · forecast for the next "
        f"{days(lead[HORIZON_DAYS])} · by checkpoint {told.checkpoint}"
    )
    ranked = told.totals.sort(CUTOFF, HORIZON_DAYS, descending=True).iter_rows(named=True)
    first, *others = (_spread(told, place, row) for place, row in enumerate(ranked))
    sections = [_overview(told), first, _act(told), *others, _quality(told), _reading(told)]
    return build_page(f"{told.name}: forecasts", subtitle, sections, names_customers=told.sound)


def totals_grid(told: ForecastsTold) -> Grid:
    """The totals of every cutoff and horizon."""
    rows = told.totals.sort(CUTOFF, HORIZON_DAYS).iter_rows(named=True)
    return Grid(
        HEADS,
        tuple(
            (
                told.day(row[CUTOFF]),
                days(row[HORIZON_DAYS]),
                count(row[CUSTOMERS]),
                count(row[EXPECTED_CHURNERS]),
                share(row[EXPECTED_CHURNERS] / row[CUSTOMERS]),
                count(row[EXPECTED_ORDERS]),
                told.money.short(row[EXPECTED_SPEND]),
                told.money.short(row[CLV]),
            )
            for row in rows
        ),
        text_columns=1,
    )


def _overview(told: ForecastsTold) -> Section:
    lead, problems = told.leading, views.problems(told.quality)
    rows: Rows = (
        *([(Block("banner", (problems, told.sound)),)] if problems else []),
        (Block("kpis", (_headline(told, lead),)),),
        (Card("By cutoff and horizon", totals_grid(told), (), "folds"),),
    )
    words = (
        "Expected, not promised: each figure is a forecast from past orders. The sums are of all customers; how far such "
        "sums have missed in the past is what retinue backtest shows."
    )
    return Section("overview", "Overview", words, rows)


def _headline(told: ForecastsTold, lead: dict[str, Any]) -> list[Figure]:
    until, people = f"next {count(lead[HORIZON_DAYS])} days", lead[CUSTOMERS]
    stake, note = NONE, "not told: see the problems above"
    if told.groups is not None and told.sound:
        saved = told.groups.table.filter(pl.col(QUADRANT) == "save")
        stake = told.money.short(total(told.groups.table[VALUE_AT_STAKE]))
        of_save = told.money.short(total(saved[VALUE_AT_STAKE]))
        note = f"{of_save} of it with {plural(int(saved[CUSTOMERS].sum()), 'customer')} to save"
    return [
        Figure("Customers", count(people), f"with at least one order by {told.day(lead[CUTOFF])}"),
        Figure(
            f"Expected spend, {until}",
            told.money.short(lead[EXPECTED_SPEND]),
            "net of refunds, not discounted",
        ),
        Figure(
            f"Discounted value (clv), {until}",
            told.money.short(lead[CLV]),
            f"{told.value_word} at today's worth",
        ),
        Figure("Value at stake", stake, note),
        Figure(
            f"Expected not to order, {until}",
            count(lead[EXPECTED_CHURNERS]),
            f"{share(lead[EXPECTED_CHURNERS] / people)} of customers",
        ),
    ]


def _spread(told: ForecastsTold, place: int, row: dict[str, Any]) -> Section:
    """How value and risk are spread over the customers of one cutoff and horizon."""
    at, horizon = row[CUTOFF], row[HORIZON_DAYS]
    asked = (pl.col(CUTOFF) == at) & (pl.col(HORIZON_DAYS) == horizon)
    values, risks = told.counts.values.filter(asked), told.counts.risks.filter(asked)
    bands = charts_value.bands_chart(*value_bands(values), told.money, horizon)
    risk = charts_value.risk_chart(*risk_sides(risks), told.rules, horizon)
    rows: Rows = ((_keyed(bands, place), _keyed(risk, place)),)
    if row[CUSTOMERS] >= charts_value.LEAST_FOR_TENTHS and row[CLV] > 0:
        ends, sums = value_tenths(values)
        rows = (*rows, (_keyed(charts_value.deciles_chart(ends, sums, told.money, horizon), place),))
    when = f", from {told.day(at)}" if told.totals[CUTOFF].n_unique() > 1 else ""
    return Section(
        f"spread-{place}",
        f"Next {days(horizon)}{when}",
        f"How the discounted {told.value_word} to be expected (clv) and the risk of losing a customer are spread over "
        f"the {plural(row[CUSTOMERS], 'customer')} known on {told.day(at)}.",
        rows,
    )


def _keyed(chart: Chart, place: int) -> Chart:
    return replace(chart, key=f"{chart.key}-{place}")


def _act(told: ForecastsTold) -> Section:
    key, title = "act", "Whom to act on"
    if told.groups is None or not told.sound:
        return Section(key, title, NOT_SOUND, ())
    table = told.groups.table
    sums = {
        row[QUADRANT]: (row[CUSTOMERS], row[CLV], row[VALUE_AT_STAKE]) for row in table.iter_rows(named=True)
    }
    any_high = any(sums[name][0] for name in ("save", "advocate"))
    rule = views.quadrant_rule(told.rules, told.groups.limit if any_high else None, told.money)
    rows: Rows = (
        (Block("groups", (views.group_cards(sums, told.money),)),),
        (_to_save(told.groups, told.money),),
        *_causes(told),
    )
    unchecked = "" if told.checked else f" {_UNCHECKED}"
    return Section(key, title, f"{rule}{unchecked}", rows)


def _to_save(groups: Groups, money: Money) -> Block:
    lines = tuple(
        (who, money.full(stake), share(risk), money.full(retained), money.full(clv))
        for who, stake, risk, retained, clv in groups.save.iter_rows()
    )
    heads = ("Customer", "Value at stake", "Risk", "If retained", "Discounted value")
    return Block("save", (Grid(heads, lines) if lines else None, LEFT_OUT_ON_A_PHONE))


def _causes(told: ForecastsTold) -> Rows:
    """How often each cause is named, and of whom with the most at stake."""
    if told.causes is None:
        return ()
    sums = told.causes.group_by(NAMED_CAUSE).agg(pl.len().alias(CUSTOMERS), pl.col(VALUE_AT_STAKE).sum())
    often = tuple(
        (why(cause, None), count(n), share(n / told.causes.height), told.money.short(stake))
        for cause, n, stake in sums.sort(CUSTOMERS, NAMED_CAUSE, descending=[True, False]).iter_rows()
    )
    named = told.causes.filter(pl.col(NAMED_CAUSE) != NO_REASON).head(MOST_TO_SAVE)
    first = tuple(
        (who, why(cause, evidence), told.money.full(stake))
        for who, cause, evidence, stake in named.select(
            CUSTOMER_ID, NAMED_CAUSE, EVIDENCE, VALUE_AT_STAKE
        ).iter_rows()
    )
    note = (
        f"What raises the risk of the {plural(told.causes.height, 'customer')} with the most at stake, beside others just as "
        "silent, as a network counts it; all of them are in reasons.parquet.",
        "On simulated customers about half of the causes that a network named were the true ones: look at a customer before "
        "you act on one.",
    )
    cards = Card("Why at risk", Grid(("Cause", "Customers", "Share", "Value at stake"), often), note, "folds")
    if not first:
        return ((cards,),)
    who = Grid(("Customer", "Why", "Value at stake"), first, text_columns=2)
    return ((cards,), (Card("The most at stake with a cause", who, (), "folds"),))


_UNCHECKED = (
    "The data were not checked for this: retinue doctor with the same options, and then the same forecast again, brings "
    "all findings onto this page."
)


def _quality(told: ForecastsTold) -> Section:
    manifest = told.manifest
    lead = (
        "Nothing is lost silently: every row that was read is used, set aside or left out with a reason, or an exact "
        "duplicate."
    )
    rows: Rows = (
        (
            Block(
                "rows",
                (views.rows_read(manifest), views.row_balance(manifest), views.event_types(manifest)),
            ),
        ),
        (Block("findings", (views.findings(told.quality),)),),
    )
    return Section("quality", "Data quality", lead if told.checked else f"{lead} {_UNCHECKED}", rows)


def _reading(told: ForecastsTold) -> Section:
    lead = told.leading
    words = views.words(told.day(lead[CUTOFF]), days(lead[HORIZON_DAYS]), told.value_word)
    rows: Rows = (
        (Block("rests", ("Words", words)),),
        (Block("rests", ("What the figures rest on", _rests(told))),),
    )
    return Section("reading", "How to read this", "", rows)


def _rests(told: ForecastsTold) -> list[tuple[str, str]]:
    lineage, manifest = told.lineage, told.manifest
    names, trained_on = (
        ", ".join(model_name(name) for name in sorted(told.totals[MODEL].unique())),
        lineage["trained_on"],
    )
    if told.training_end is not None:
        same = (
            "these data" if trained_on == manifest.fingerprint else f"data of fingerprint {trained_on[:12]}"
        )
        trained_on = f"{same} up to {told.training_end}"
    return [
        (
            "Forecasts",
            f"{names}, from checkpoint {told.checkpoint} (key {lineage['checkpoint_key'][:12]}, files "
            f"{lineage['checkpoint_digest'][:12]}), trained on {trained_on}; nothing was fitted again.",
        ),
        ("Data", views.data_words(manifest)),
        ("Events", views.event_words(manifest)),
        ("Money", views.money_words(told.value, told.value_word, told.money)),
        ("Discounting", views.discounting_words(told.value)),
        (
            "Charts",
            "Customers are counted in bins of value that differ by 1% at most; tenths of customers and the line of high "
            "value are read off these. The sums are exact.",
        ),
    ]
