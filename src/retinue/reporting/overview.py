"""The headline of the page: four figures, the same in sentences, and the totals by horizon."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from retinue.reporting.figures import Grid
from retinue.reporting.tables import (
    Estimate,
    ReportTables,
    total,
    total_churners,
    total_value,
)
from retinue.reporting.words import Money, count, day, days, plural, share
from retinue.schema import (
    CLV,
    CUSTOMER_ID,
    EXPECTED_ORDERS,
    HORIZON_DAYS,
    P_CHURN,
    QUADRANT,
    VALUE_AT_STAKE,
)

_MARGIN_RATE = "margin_rate"


@dataclass(frozen=True)
class Figure:
    """One headline figure."""

    label: str
    value: str
    note: str


def value_word(tables: ReportTables) -> str:
    """What clv counts here: revenue as long as nobody said what of it is margin."""
    has_costs = (
        _MARGIN_RATE in tables.features.columns
        and tables.features[_MARGIN_RATE].null_count() < tables.features.height
    )
    return "revenue" if tables.value.margin_rate == 1.0 and not has_costs else "margin"


def headline(tables: ReportTables, scored: pl.DataFrame, money: Money) -> list[Figure]:
    """The four figures on top."""
    value, churners = total_value(scored), total_churners(scored)
    stake, in_save = total(scored[VALUE_AT_STAKE]), scored.filter(pl.col(QUADRANT) == "save")
    until = f"next {count(tables.horizon_days)} days"
    return [
        Figure(
            "Customers",
            count(scored.height),
            f"with at least one order by {day(tables.cutoff, tables.manifest.local_zone)}",
        ),
        Figure(f"Expected {value_word(tables)}, {until}", money.short(value.mean), _between(value, money)),
        Figure(
            "Value at stake",
            money.short(stake),
            f"{money.short(total(in_save[VALUE_AT_STAKE]))} of it with {plural(in_save.height, 'customer')} to save",
        ),
        Figure(
            f"Expected not to order, {until}",
            count(churners.mean),
            f"{share(churners.mean / max(scored.height, 1))} of customers; 90% interval "
            f"{count(churners.lower)} to {count(churners.upper)}",
        ),
    ]


def _between(value: Estimate, money: Money) -> str:
    return f"90% interval {money.short(value.lower)} to {money.short(value.upper)}"


def story(tables: ReportTables, scored: pl.DataFrame, money: Money) -> list[str]:
    """The headline as sentences."""
    value, churners = total_value(scored), total_churners(scored)
    save = scored.filter(pl.col(QUADRANT) == "save")
    lines = [
        f"Over the next {count(tables.horizon_days)} days the {plural(scored.height, 'customer')} known on "
        f"{day(tables.cutoff, tables.manifest.local_zone)} are expected to bring {money.short(value.mean)} of "
        f"{value_word(tables)}. About {count(churners.mean)} of them "
        f"({share(churners.mean / scored.height)}) are expected "
        "not to order at all in that time."
    ]
    stake = total(scored[VALUE_AT_STAKE])
    if save.height and stake > 0:
        lines.append(
            f"{plural(save.height, 'customer')} ({share(save.height / scored.height)}) are valuable and "
            "likely to leave; "
            f"they hold {share(total(save[VALUE_AT_STAKE]) / stake)} of the value at stake."
        )
    best = scored.sort(CLV, CUSTOMER_ID, descending=[True, False])[: scored.height // 10]
    if best.height and value.mean > 0:
        lines.append(
            f"The best tenth of customers holds {share(total(best[CLV]) / value.mean)} of the expected value."
        )
    return lines


def interval_note(tables: ReportTables, spend_bias: float | None) -> str:
    """What the interval of the total rests on, in words."""
    text = (
        "The interval of a total takes customers as independent of each other given the model, so good "
        "and bad luck mostly "
        "cancel out and the interval is narrow. It does not hold what would move all customers at once: "
        "a wrong model, a "
        "new season, a price change."
    )
    if spend_bias is None:
        return text
    missed = "too high" if spend_bias > 0 else "too low"
    past = f"In the past window shown below the forecast total was {share(abs(spend_bias))} {missed}"
    return f"{text} {past}; expect errors of that size."


def by_horizon(tables: ReportTables, money: Money) -> Grid | None:
    """Totals at each horizon, where there is more than one."""
    if len(tables.horizons) < 2:
        return None
    rows = []
    for horizon in sorted(tables.horizons):
        at = tables.forecasts.filter(pl.col(HORIZON_DAYS) == horizon)
        if at.height:
            value = total_value(at)
            rows.append(
                (
                    days(horizon),
                    count(total(at[P_CHURN])),
                    share(total(at[P_CHURN]) / at.height),
                    count(total(at[EXPECTED_ORDERS])),
                    money.short(value.mean),
                    money.short(value.lower),
                    money.short(value.upper),
                )
            )
    header = (
        "Horizon",
        "Not ordering",
        "Share",
        "Orders",
        f"Expected {value_word(tables)}",
        "90% interval from",
        "to",
    )
    return Grid(header, tuple(rows))
