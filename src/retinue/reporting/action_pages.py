"""The pages on what to do: save list, budget, playbooks, experiments, key figures."""

from __future__ import annotations

import polars as pl

from retinue.decisions.decide import NOTHING
from retinue.decisions.kpis import ALL
from retinue.decisions.playbooks import Playbook, playbooks
from retinue.reporting.budget import (
    actions_grid,
    assumed_words,
    curve_grid,
    limits_grid,
    moved_grid,
    untreated_grid,
    words,
)
from retinue.reporting.figures import Chart, Grid, axis, colour
from retinue.reporting.pages import Card, Section
from retinue.reporting.tables import ActionTables, ReportTables
from retinue.reporting.words import NONE, Money, count, number, plural, share
from retinue.schema import (
    ACTION,
    BUDGET,
    CUSTOMER_ID,
    CUSTOMERS,
    DIMENSION,
    EVIDENCE,
    EXPECTED_COST,
    EXPECTED_GAIN,
    FIRST_BUY,
    GROUP,
    HORIZON_DAYS,
    KPI,
    KPI_BEFORE,
    KPI_UNIT,
    KPI_VALUE,
    LIFE_VALUE,
    LTV_CAC,
    MOST_CAC,
    NAMED_CAUSE,
    NET_GAIN,
    NET_LOWER,
    NET_UPPER,
    P_CHURN,
    PAYBACK_DAYS,
    SIGNAL,
    TO_COHORT,
    TO_COHORT_ERROR,
    VALUE_AT_STAKE,
)

MOST_SAVED = 25


def action_sections(tables: ReportTables, money: Money) -> list[Section]:
    """All of them, in the order a marketer reads; those with nothing to show are left out."""
    actions = tables.actions
    if actions is None or ACTION not in tables.decisions.columns or not tables.decisions.height:
        return []
    made = [
        save_list(tables, actions, money),
        budget(tables, actions, money),
        playbook_section(tables, actions, money),
        experiment_section(actions, money),
        kpi_section(actions, money),
    ]
    return [section for section in made if section is not None]


def save_list(tables: ReportTables, actions: ActionTables, money: Money) -> Section:
    """Who to save first: value at stake, why, what to do, cost and expected gain."""
    known = tables.decisions.join(
        _longest(tables).select(CUSTOMER_ID, P_CHURN), on=CUSTOMER_ID, how="left"
    ).sort(VALUE_AT_STAKE, CUSTOMER_ID, descending=[True, False])
    given = known.filter(pl.col(ACTION) != NOTHING).head(MOST_SAVED)
    absent = [
        pl.lit(None, pl.String).alias(name) for name in (NAMED_CAUSE, EVIDENCE) if name not in known.columns
    ]
    wanted = (
        CUSTOMER_ID,
        VALUE_AT_STAKE,
        P_CHURN,
        NAMED_CAUSE,
        EVIDENCE,
        ACTION,
        EXPECTED_COST,
        EXPECTED_GAIN,
    )
    told = tuple(
        (
            who,
            why(cause, evidence),
            words(action),
            money.full(stake),
            share(risk),
            money.full(cost),
            money.full(gain),
        )
        for who, stake, risk, cause, evidence, action, cost, gain in given.with_columns(absent)
        .select(wanted)
        .iter_rows()
    )
    header = ("Customer", "Why", "What to do", "Value at stake", "Risk", "Cost", "Expected gain")
    card = Card("The first to act on", Grid(header, told, text_columns=3), (), "folds")
    lead = (
        "Customers with the most value at stake among those for whom an action pays. All of them are in decisions.parquet, and "
        "per channel in the files that retinue export writes."
    )
    if not told:
        card = Card("", None, ("No action of the menu pays for anybody under these limits.",))
    rows: list[tuple[Card, ...]] = [(card,)]
    if actions.moves.height:
        note = "Whoever acts or falls silent crosses a threshold; the reason of one customer stands for each move."
        rows.append(
            (
                Card(
                    "Who changed quadrant since the forecasts before",
                    moved_grid(actions.moves),
                    (note,),
                    "folds",
                ),
            )
        )
    return Section("save-list", "Save list", lead, tuple(rows))


def _longest(tables: ReportTables) -> pl.DataFrame:
    return tables.forecasts.filter(pl.col(HORIZON_DAYS) == tables.horizon_days)


def why(cause: str | None, evidence: str | None) -> str:
    """A cause and its evidence in words."""
    if cause is None:
        return "not looked for"
    return f"{words(cause)}: {evidence}" if evidence else words(cause)


def budget(tables: ReportTables, actions: ActionTables, money: Money) -> Section:
    """What the actions cost and bring, what other budgets would, and what holds them back."""
    assumed = assumed_words(tables.decisions, actions.menu)
    rows: list[tuple[Chart | Card, ...]] = [
        (
            Card(
                "Actions given", actions_grid(tables.decisions, money), (assumed,) if assumed else (), "folds"
            ),
        )
    ]
    if actions.curve.height > 1 and float(actions.curve[BUDGET].max() or 0.0) > 0:  # type: ignore[arg-type]
        rows.append((curve_chart(actions.curve, money, bool(assumed)),))
    aside = Card("Why the others get none", untreated_grid(tables.decisions))
    if actions.limits.height:
        rows.append((Card("Limits", limits_grid(actions.limits, money)), aside))
    else:
        rows.append((aside,))
    lead = "At most one action per customer; each may cost no more than the lower end of what it is expected to save."
    return Section("budget", "Budget", lead, tuple(rows))


def curve_chart(curve: pl.DataFrame, money: Money, assumed: bool) -> Chart:
    """Net gain against budget, with the band that the effects' intervals leave."""
    spent, net = curve[BUDGET].to_list(), curve[NET_GAIN].to_list()
    low, high = curve[NET_LOWER].to_list(), curve[NET_UPPER].to_list()
    hover = [f"{money.full(b)} brings {money.full(n)} net" for b, n in zip(spent, net, strict=True)]
    line = {"type": "scatter", "mode": "lines", "hoverinfo": "skip", "x": spent, "showlegend": False}
    traces = [
        line | {"y": low, "line": {"width": 0}, "name": "90% interval"},
        line | {"y": high, "line": {"width": 0}, "fill": "tonexty", "fillcolor": colour("tint"), "name": "90% interval"},
        line | {
            "y": net, "mode": "lines+markers", "line": {"color": colour("accent")}, "hovertext": hover, "hoverinfo": "text",
            "name": "net gain",
        },
    ]  # fmt: skip
    best = max(range(len(net)), key=lambda i: net[i])
    note = " Effects are assumed." if assumed else ""
    return Chart(
        key="budget-curve",
        title="What each budget would bring",
        caption=f"Expected gain less cost if at most so much is spent; the band is what the effects' intervals leave.{note}",
        alt=f"Line of net gain by budget. It is highest, {money.full(net[best])}, at a budget of {money.full(spent[best])}.",
        grid=curve_grid(curve, money),
        traces=traces,
        layout={
            "xaxis": axis(f"budget ({money.unit})", rangemode="tozero", tickformat=",~f"),
            "yaxis": axis(f"net gain ({money.unit})", tickformat=",~f"),
        },
    )


def playbook_section(tables: ReportTables, actions: ActionTables, money: Money) -> Section | None:
    """A card per segment: who they are, what moves them, what to offer, what not."""
    found = playbooks(
        tables.decisions, _longest(tables), tables.segments, tables.segment_profiles, actions.buys
    )
    if not found:
        return None
    cards = [Card(one.name, None, tuple(playbook_words(one, money))) for one in found]
    rows = tuple(tuple(cards[place : place + 2]) for place in range(0, len(cards), 2))
    more = (
        Card("What goes with a high life value", ways_grid(actions.acquisition, money), WAYS_WORDS, "folds"),
    )
    lead = "What to do with each segment, the one with most at stake first."
    return Section(
        "playbooks", "Segments and playbooks", lead, (*rows, more) if actions.acquisition.height else rows
    )


WAYS_WORDS = (
    "Life value is margin so far and clv. “To its cohort” compares customers with those of the same acquisition quarter: an "
    "association, not what the first purchase causes. What a customer may cost to win is life value over value.ltv_to_cac.",
)


def playbook_words(one: Playbook, money: Money) -> list[str]:
    """The playbook as sentences."""
    told = [
        f"{plural(one.customers, 'customer')}, {money.short(one.clv)} of value to come, {money.short(one.at_stake)} at stake, "
        f"mean risk {share(one.risk)}."
    ]
    if one.who:
        told.append(f"Who: {one.who}.")
    if one.causes:
        told.append(
            "What moves them: "
            + ", ".join(f"{words(name)} ({share(part)})" for name, part in one.causes)
            + "."
        )
    else:
        told.append("What moves them: no reliable reason found for most.")
    if one.buys:
        told.append("They buy more than others: " + ", ".join(one.buys) + ".")
    if one.offer:
        offers = (f"{words(name)} to {count(n)} ({money.full(net)} net)" for name, n, _, net in one.offer)
        told.append("Offer: " + "; ".join(offers) + ".")
    if one.leave:
        told.append("No action: " + "; ".join(f"{count(n)} ({words(why)})" for why, n in one.leave) + ".")
    return told


def ways_grid(acquisition: pl.DataFrame, money: Money) -> Grid:
    """Life value by way of coming."""
    wanted = (
        DIMENSION,
        FIRST_BUY,
        CUSTOMERS,
        LIFE_VALUE,
        TO_COHORT,
        TO_COHORT_ERROR,
        MOST_CAC,
        LTV_CAC,
        PAYBACK_DAYS,
    )
    rows = tuple(
        (
            way, who, count(n), money.full(life), f"{money.full(apart)} ± {money.full(error)}", money.full(most),
            NONE if ratio is None else f"{number(ratio, 1)}:1", NONE if days is None else f"{count(days)} days",
        )
        for way, who, n, life, apart, error, most, ratio, days in acquisition.select(wanted).iter_rows()
    )  # fmt: skip
    header = (
        "By",
        "Which",
        "Customers",
        "Life value",
        "To its cohort",
        "May cost to win",
        "LTV:CAC",
        "Paid back after",
    )
    return Grid(header, rows, text_columns=2)


def experiment_section(actions: ActionTables, money: Money) -> Section | None:
    """Effects of the experiments analysed in this folder, and how well measured effects are known."""
    rows: list[tuple[Chart | Card, ...]] = []
    for name, effects in sorted(actions.experiments.items()):
        whole = effects.filter(pl.col(GROUP) == ALL)
        told = tuple(
            (arm, metric, count(treated), number(before, 2), number(after, 2), number(effect, 2),
             f"{number(low, 2)} to {number(high, 2)}", f"{p:.3f}")
            for arm, metric, _, treated, _, before, after, effect, low, high, p in whole.iter_rows()
        )  # fmt: skip
        header = (
            "Arm",
            "Metric",
            "Treated",
            "Control mean",
            "Treated mean",
            "Effect",
            "Interval of this look",
            "p",
        )
        rows.append((Card(name, Grid(header, told, text_columns=2), (), "folds"),))
    for name, found in sorted(actions.uplift.items()):
        mean, error = found["mean"]
        area, low, high = found["qini"]
        text = (
            f"Measured on {count(found['treated'])} treated and {count(found['control'])} others: {money.full(mean)} ± "
            f"{money.full(error)} per customer reached. Qini coefficient {number(area, 2)} "
            f"({number(low, 2)} to {number(high, 2)})."
        )
        rows.append(
            (uplift_chart(name, found, money), Card(words(name), _calibration_grid(found, money), (text,)))
        )
    if not rows:
        return None
    lead = "Randomised comparisons only. Intervals hold over all looks; a forecast made before assignment is the covariate."
    return Section("experiments", "Experiments", lead, tuple(rows))


def uplift_chart(name: str, found: dict[str, dict[str, list[float]]], money: Money) -> Chart:
    """The Qini curve with its bootstrap band."""
    curve = found["curve"]
    across = [100 * x for x in curve["share"]]
    line = {"type": "scatter", "mode": "lines", "hoverinfo": "skip", "x": across, "showlegend": False}
    traces = [
        line | {"y": curve["lower"], "line": {"width": 0}},
        line | {"y": curve["upper"], "line": {"width": 0}, "fill": "tonexty", "fillcolor": colour("tint")},
        line | {"y": curve["gain"], "line": {"color": colour("accent")}},
        line
        | {"x": [0, 100], "y": [0, curve["gain"][-1]], "line": {"color": colour("let_go"), "dash": "dot"}},
    ]
    rows = tuple(
        (share(x / 100), money.full(gain), f"{money.full(low)} to {money.full(high)}")
        for x, gain, low, high in list(
            zip(across, curve["gain"], curve["lower"], curve["upper"], strict=True)
        )[::5]
    )
    return Chart(
        key=f"qini-{name}",
        title=f"{words(name)}: what is gained by treating the best first",
        caption="Gain per customer of the base, on customers that the ranking has not seen, with 90% bootstrap band; "
        "dotted: at random.",
        alt=f"Qini curve of {words(name)}.",
        grid=Grid(("Treated", "Gain per customer", "90% band"), rows),
        traces=traces,
        layout={
            "xaxis": axis("customers treated, best first (%)", rangemode="tozero"),
            "yaxis": axis(f"gain per customer ({money.unit})"),
        },
    )


def _calibration_grid(found: dict[str, list[dict[str, float]]], money: Money) -> Grid:
    rows = tuple(
        (
            count(row["tenth"]),
            count(row["customers"]),
            money.full(row["predicted"]),
            f"{money.full(row['estimated'])} ± {money.full(row['error'])}",
        )
        for row in found["calibration"]
    )
    return Grid(("Tenth, by predicted", "Customers", "Predicted", "Estimated"), rows)


def kpi_section(actions: ActionTables, money: Money) -> Section:
    """Base-wide figures with targets, then by group behind a click."""
    table = actions.kpis
    whole = table.filter(pl.col(DIMENSION) == ALL)
    rows: list[tuple[Chart | Card, ...]] = []
    told: tuple[tuple[str, ...], ...]
    if actions.targets:
        told = tuple(
            (
                words(one.kpi), _signed(one.aim), NONE if one.change is None else _signed(one.change),
                NONE if one.progress is None else share(one.progress),
            )
            for one in actions.targets
        )  # fmt: skip
        title = f"Targets, within {number(actions.months, 0)} months"
        rows.append((Card(title, Grid(("Figure", "Aim", "Change so far", "Of the way"), told)),))
    told = tuple(_kpi_row(row, money) for row in whole.to_dicts())
    header = Grid(("Figure", "Kind", "Now", "Before", "Change"), told, text_columns=2)
    rows.append((Card("The whole base", header, ("Defined in docs/kpis.md.",), "folds"),))
    for dimension in table[DIMENSION].unique(maintain_order=True):
        if dimension == ALL:
            continue
        mine = table.filter(pl.col(DIMENSION) == dimension)
        told = tuple(
            (words(row[KPI]), row[GROUP], count(row[CUSTOMERS]), *_kpi_row(row, money)[2:])
            for row in mine.to_dicts()
        )
        names = ("Figure", dimension.capitalize(), "Customers", "Now", "Before", "Change")
        rows.append((Card(f"By {dimension}", Grid(names, told, text_columns=2), (), "", True),))
    lead = "Lagging figures say what came, leading ones what is coming; before is the comparison date of the segments."
    return Section("kpis", "KPIs", lead, tuple(rows))


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + share(value)


def _kpi_row(row: dict[str, object], money: Money) -> tuple[str, ...]:
    now, before = row[KPI_VALUE], row[KPI_BEFORE]
    said = [_kpi_value(value, str(row[KPI_UNIT]), money) for value in (now, before)]
    change = NONE
    if isinstance(now, float) and isinstance(before, float) and before:
        change = _signed(now / before - 1)
    return (words(str(row[KPI])), str(row[SIGNAL]), *said, change)


def _kpi_value(value: object, unit: str, money: Money) -> str:
    if not isinstance(value, float):
        return NONE
    match unit:
        case "share":
            return share(value)
        case "account currency":
            return money.full(value)
        case "days":
            return count(value)
    return number(value, 2)
