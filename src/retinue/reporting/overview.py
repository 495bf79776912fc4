"""The headline of the page: the leading figures, the same in sentences, and the totals by horizon."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from retinue.reporting.figures import Grid
from retinue.reporting.tables import (
    Estimate,
    ReportTables,
    as_wide_as,
    total,
    total_churners,
    total_spend,
    total_value,
)
from retinue.reporting.words import NONE, Money, count, day, days, plural, share
from retinue.schema import (
    CLV,
    CUSTOMER_ID,
    EXPECTED_ORDERS,
    HORIZON_DAYS,
    QUADRANT,
    VALUE_AT_STAKE,
)

_MARGIN_RATE = "margin_rate"
NOT_SOUND = (
    "Whom to save first is not told: the problems above leave risk or value without a sound basis, and a list "
    "made from them would mislead."
)


@dataclass(frozen=True)
class Figure:
    """One headline figure."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Totals:
    """The totals behind the headline, each with its 90% interval."""

    spend: Estimate
    value: Estimate
    churners: Estimate


def totals(tables: ReportTables, scored: pl.DataFrame, horizon_days: int) -> Totals:
    """Spend, discounted value and churners of one horizon's rows."""
    spend = total_spend(scored, tables.metrics, horizon_days)
    return Totals(spend, as_wide_as(total_value(scored), spend), total_churners(scored))


def value_word(tables: ReportTables) -> str:
    """What clv counts here: revenue as long as nobody said what of it is margin."""
    has_costs = (
        _MARGIN_RATE in tables.features.columns
        and tables.features[_MARGIN_RATE].null_count() < tables.features.height
    )
    return "revenue" if tables.value.margin_rate == 1.0 and not has_costs else "margin"


def headline(tables: ReportTables, scored: pl.DataFrame, money: Money, sound: bool) -> list[Figure]:
    """The figures on top; `sound` is False where the data cannot say whom to save."""
    found = totals(tables, scored, tables.horizon_days)
    stake, in_save = total(scored[VALUE_AT_STAKE]), scored.filter(pl.col(QUADRANT) == "save")
    until = f"next {count(tables.horizon_days)} days"
    of_save = f"{money.short(total(in_save[VALUE_AT_STAKE]))} of it with {plural(in_save.height, 'customer')} to save"
    return [
        Figure(
            "Customers",
            count(scored.height),
            f"with at least one order by {day(tables.cutoff, tables.manifest.local_zone)}",
        ),
        Figure(
            f"Expected spend, {until}",
            money.short(found.spend.mean),
            f"net of refunds, not discounted; {_between(found.spend, money)}",
        ),
        Figure(
            f"Discounted value (clv), {until}",
            money.short(found.value.mean),
            f"{value_word(tables)} at today's worth; {_between(found.value, money)}",
        ),
        Figure(
            "Value at stake",
            money.short(stake) if sound else NONE,
            of_save if sound else "not told: see the problems above",
        ),
        Figure(
            f"Expected not to order, {until}",
            count(found.churners.mean),
            f"{share(found.churners.mean / max(scored.height, 1))} of customers; 90% interval "
            f"{count(found.churners.lower)} to {count(found.churners.upper)}, if customers are independent",
        ),
    ]


def _between(value: Estimate, money: Money) -> str:
    return (
        f"90% interval {money.short(value.lower)} to {money.short(value.upper)}, "
        f"{'from past misses' if value.from_past else 'if customers are independent'}"
    )


def story(tables: ReportTables, scored: pl.DataFrame, money: Money, sound: bool) -> list[str]:
    """The headline as sentences; where the data are not `sound`, nobody is named valuable and likely to leave."""
    found, people = totals(tables, scored, tables.horizon_days), plural(scored.height, "customer")
    away = f"About {count(found.churners.mean)} of them ({share(found.churners.mean / scored.height)})"
    value = (
        f"Discounted to that day this is a value (clv) of {money.short(found.value.mean)}"
        if value_word(tables) == "revenue"
        else f"The margin in it, discounted to that day, is the value (clv): {money.short(found.value.mean)}"
    )
    lines = [
        f"Over the next {count(tables.horizon_days)} days the {people} known on "
        f"{day(tables.cutoff, tables.manifest.local_zone)} {'is' if scored.height == 1 else 'are'} expected to "
        f"spend {money.short(found.spend.mean)}, net of refunds. {value}. {away} "
        f"{'is' if round(found.churners.mean) == 1 else 'are'} expected not to order at all in that time."
    ]
    if not sound:
        return [*lines, NOT_SOUND]
    save, stake = scored.filter(pl.col(QUADRANT) == "save"), total(scored[VALUE_AT_STAKE])
    if save.height and stake > 0:
        verb, they = ("is", "it holds") if save.height == 1 else ("are", "they hold")
        lines.append(
            f"{plural(save.height, 'customer')} ({share(save.height / scored.height)}) {verb} valuable and "
            f"likely to leave; {they} {share(total(save[VALUE_AT_STAKE]) / stake)} of the value at stake."
        )
    best = scored.sort(CLV, CUSTOMER_ID, descending=[True, False])[: scored.height // 10]
    if best.height and found.value.mean > 0:
        held = share(total(best[CLV]) / found.value.mean)
        lines.append(f"The best tenth of customers holds {held} of the discounted value.")
    return lines


def interval_note(tables: ReportTables, scored: pl.DataFrame, spend_bias: float | None) -> str:
    """What the intervals of the totals rest on, in words."""
    if total_spend(scored, tables.metrics, tables.horizon_days).from_past:
        return (
            "The interval of expected spend comes from how far the totals of this model missed at earlier "
            "cutoffs, so what moves all customers at once is in it as far as those cutoffs saw it; the "
            "discounted value is given the same relative reach. The interval of customers who do not order "
            "takes customers as independent and is too narrow wherever they move together."
        )
    text = (
        "The interval of a total takes customers as independent of each other given the model, so good "
        "and bad luck mostly cancel out and the interval is narrow. It does not hold what would move all "
        "customers at once: a wrong model, a new season, a price change."
    )
    if spend_bias is None:
        return text
    missed = "too high" if spend_bias > 0 else "too low"
    past = f"In the past window shown below the forecast total of spend was {share(abs(spend_bias))} {missed}"
    return f"{text} {past}; expect errors of that size."


def by_horizon(tables: ReportTables, money: Money) -> Grid | None:
    """Totals at each horizon, where there is more than one."""
    if len(tables.horizons) < 2:
        return None
    rows = []
    for horizon in sorted(tables.horizons):
        at = tables.forecasts.filter(pl.col(HORIZON_DAYS) == horizon)
        if at.height:
            found = totals(tables, at, horizon)
            rows.append(
                (
                    days(horizon),
                    count(found.churners.mean),
                    share(found.churners.mean / at.height),
                    count(total(at[EXPECTED_ORDERS])),
                    money.short(found.spend.mean),
                    f"{money.short(found.spend.lower)} to {money.short(found.spend.upper)}",
                    "past misses" if found.spend.from_past else "independent customers",
                    money.short(found.value.mean),
                )
            )
    header = (
        "Horizon",
        "Not ordering",
        "Share",
        "Orders",
        "Expected spend",
        "90% interval of spend",
        "Interval from",
        "Discounted value (clv)",
    )
    return Grid(header, tuple(rows))
