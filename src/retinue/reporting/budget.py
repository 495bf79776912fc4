"""Actions, limits and budgets as tables of words: for the terminal and the report."""

from __future__ import annotations

import polars as pl

from retinue.decisions.decide import NOTHING
from retinue.reporting.figures import Grid
from retinue.reporting.words import NONE, Money, count, number, plural, share
from retinue.schema import (
    ACTION,
    ACTION_CHANNEL,
    ALLOWED,
    BINDING,
    BUDGET,
    CONTACTED,
    CUSTOMER_ID,
    EFFECT_SOURCE,
    EXPECTED_COST,
    EXPECTED_GAIN,
    FROM_GROUP,
    GAIN_LOWER,
    GAIN_UPPER,
    LIMIT_NAME,
    LIMIT_UNIT,
    NET_GAIN,
    NET_LOWER,
    NET_UPPER,
    NEXT_UNIT,
    PRICE,
    TO_GROUP,
    USED,
    WHY,
)

THOUSAND = 1_000


def actions_grid(decisions: pl.DataFrame, money: Money) -> Grid:
    """A row per action given, the most profitable first, and their sum."""
    given = decisions.filter(pl.col(ACTION) != NOTHING)
    sums = [pl.len(), pl.col(EXPECTED_COST, EXPECTED_GAIN, GAIN_LOWER, GAIN_UPPER).sum()]
    rows = (
        given.group_by(ACTION, ACTION_CHANNEL, EFFECT_SOURCE)
        .agg(*sums)
        .sort(pl.col(EXPECTED_GAIN) - pl.col(EXPECTED_COST), ACTION, descending=[True, False])
    )
    told = [_action_row(row, money) for row in rows.iter_rows()]
    if given.height:
        told.append(_action_row(("all actions", None, None, *given.select(*sums).row(0)), money))
    return Grid(
        ("Action", "Channel", "Effect", "Customers", "Cost", "Gain", "Net", "Net, 90% interval"),
        tuple(told),
        text_columns=3,
    )


def _action_row(row: tuple[object, ...], money: Money) -> tuple[str, ...]:
    name, channel, source, customers, cost, gain, low, high = row
    assert isinstance(cost, float)
    assert isinstance(gain, float)
    assert isinstance(low, float)
    assert isinstance(high, float)
    span = f"{money.full(low - cost)} to {money.full(high - cost)}"
    who = count(customers) if isinstance(customers, int) else NONE
    return (
        words(str(name)), str(channel or ""), str(source or ""), who, money.full(cost), money.full(gain),
        money.full(gain - cost), span,
    )  # fmt: skip


def words(name: str) -> str:
    """A name of the menu as readers say it."""
    return name.replace("_", " ")


def untreated_grid(decisions: pl.DataFrame) -> Grid:
    """Why customers get no action, the commonest reason first."""
    none = decisions.filter(pl.col(ACTION) == NOTHING)
    rows = none.group_by(BINDING).len().sort("len", BINDING, descending=[True, False])
    told = tuple((words(why), count(n), share(n / decisions.height)) for why, n in rows.iter_rows())
    return Grid(("Why no action", "Customers", "Share of all"), told)


def moved_grid(moves: pl.DataFrame) -> Grid:
    """From which quadrant to which, how many, and the reason of one of them."""
    rows = (
        moves.group_by(FROM_GROUP, TO_GROUP)
        .agg(pl.len(), pl.col(CUSTOMER_ID, WHY).sort_by(CUSTOMER_ID).first())
        .sort("len", FROM_GROUP, TO_GROUP, descending=[True, False, False])
    )
    told = tuple(
        (words(was), words(now), f"{who}: {why}", count(n)) for was, now, n, who, why in rows.iter_rows()
    )
    return Grid(("From", "To", "One of them", "Customers"), told, text_columns=3)


def limits_grid(limits: pl.DataFrame, money: Money) -> Grid:
    """Each limit with what is used and what more of it would bring."""
    rows = []
    for name, unit, allowed, used, price in limits.select(
        LIMIT_NAME, LIMIT_UNIT, ALLOWED, USED, PRICE
    ).iter_rows():
        is_money = unit == BUDGET_UNIT
        step = THOUSAND if is_money else 1
        said = money.full if is_money else (lambda value: number(value, 1))
        worth = f"{money.full(price * step)} per {money.full(THOUSAND) if is_money else f'{unit}'}"
        rows.append((words(name), said(allowed), said(used), worth if price > 0 else "not binding"))
    return Grid(("Limit", "Allowed", "Used", "More of it would bring"), tuple(rows))


BUDGET_UNIT = "account currency"


def curve_grid(curve: pl.DataFrame, money: Money) -> Grid:
    """What each budget would bring."""
    wanted = (BUDGET, CONTACTED, EXPECTED_COST, NET_GAIN, NET_LOWER, NET_UPPER, NEXT_UNIT)
    rows = tuple(
        (
            money.full(budget), count(customers), money.full(cost), money.full(net), f"{money.full(low)} to {money.full(high)}",
            money.full(unit * THOUSAND) if unit > 0 else NONE,
        )
        for budget, customers, cost, net, low, high, unit in curve.select(wanted).iter_rows()
    )  # fmt: skip
    header = (
        "Budget",
        "Customers",
        "Cost",
        "Net",
        "Net, 90% interval",
        f"Next {money.full(THOUSAND)} would bring",
    )
    return Grid(header, rows, text_columns=0)


def assumed_words(decisions: pl.DataFrame, menu: str) -> str:
    """What has to be said where gains rest on assumptions; empty where none does."""
    assumed = decisions.filter(pl.col(EFFECT_SOURCE) == "assumed").height
    if not assumed:
        return ""
    return (
        f"{plural(assumed, 'action')} of the menu '{menu}' rest on assumed effects: gains and net are what follows from them, "
        "not what was measured. Measure them with an experiment: retinue experiment."
    )
