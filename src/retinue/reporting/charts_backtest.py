"""Charts of a backtest: fold by fold, said against came true, spend reached, and what a campaign would have earned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from retinue.evaluation.campaign import campaign
from retinue.evaluation.comparison import ALL_ZERO
from retinue.evaluation.metrics import reliability
from retinue.evaluation.profit import SHARES, Treated, top
from retinue.forecasting.backtest import Backtest
from retinue.reporting.figures import Chart, Figure, Grid, axis, colour
from retinue.reporting.words import Money, count, day, model_name, number, share
from retinue.schema import METRIC, MODEL, ORIGIN, POPULATION, SCORE

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
COLOURS = 6
DRAWN = {
    "value.gini": ("Spend Gini", "How well spend is ranked; 0 is chance, 1 is perfect."),
    "churn.auroc": ("Churn AUROC", "How well churn is ranked; a half is chance, 1 is perfect."),
    "orders.log_score": (
        "Orders log score, nats",
        "How surprising the number of orders was, in nats; lower is better.",
    ),
    "orders.bias_percent": ("Orders error, %", "Error of the total of orders; 0 is best."),
}


def models(found: Backtest) -> list[str]:
    """Forecasters, simplest first, the all-zero row last."""
    return [entry.model for entry in found.entries]


def said(model: str) -> str:
    """A forecaster by the name that readers know it by."""
    return "All zero" if model == ALL_ZERO else model_name(model)


def _line(
    i: int, model: str, x: Sequence[object], y: Sequence[float | None], mode: str = "lines+markers"
) -> Figure:
    """Colours come round after six, dashes then one further, so that no two lines look the same."""
    return {
        "type": "scatter",
        "mode": mode,
        "name": said(model),
        "x": list(x),
        "y": list(y),
        "line": {
            "color": colour(f"line-{i % COLOURS}"),
            "width": 2,
            "dash": DASHES[(i + i // COLOURS) % COLOURS],
        },
        "hovertext": [f"{said(model)}: {number(v, 3)}" for v in y],
        "hoverinfo": "text",
    }


def origin_chart(found: Backtest, metric: str, zone: str) -> Chart:
    """One of `DRAWN` by origin, a line per forecaster; dates are days of the zone."""
    title, meaning = DRAWN[metric]
    rows = found.scores.filter(
        (pl.col(POPULATION) == "all") & (pl.col(METRIC) == metric) & pl.col(ORIGIN).is_not_null()
    )
    names = [name for name in models(found) if name != ALL_ZERO]
    labels = [day(origin, zone) for origin in found.folds.origins]
    lines = {name: rows.filter(pl.col(MODEL) == name).sort(ORIGIN)[SCORE].to_list() for name in names}
    last = {name: values[-1] for name, values in lines.items()}
    told = ", ".join(f"{said(name)} {number(value, 3)}" for name, value in last.items())
    return Chart(
        key="origin-" + metric.replace(".", "-").replace("_", "-"),
        title=title,
        caption=meaning,
        alt=f"Line chart of {title} by origin, one line per model. At the last origin: {told}.",
        grid=Grid(("Origin", *(said(n) for n in names)), tuple(
            (label, *(number(lines[n][i], 3) for n in names)) for i, label in enumerate(labels)
        )),
        traces=[_line(i, name, labels, lines[name]) for i, name in enumerate(names)],
        layout={"hovermode": "closest", "xaxis": axis("origin", type="category"), "yaxis": axis(title)},
        height=300,
    )  # fmt: skip


def reliability_chart(found: Backtest) -> Chart:
    """Churn risk against the share that stayed away, all origins."""
    entries = [entry for entry in found.entries if entry.model != ALL_ZERO]
    tables = {e.model: reliability(e.by_seed[0].churned, e.by_seed[0].p_churn) for e in entries}
    ideal: Figure = {
        "type": "scatter", "mode": "lines", "name": "perfect", "x": [0, 1], "y": [0, 1], "hoverinfo": "skip",
        "line": {"color": colour("muted"), "width": 1, "dash": "dash"},
    }  # fmt: skip
    traces = [ideal] + [
        _line(i, name, [r["predicted"] for r in table], [r["realised"] for r in table])
        for i, (name, table) in enumerate(tables.items())
    ]
    worst = {
        name: max(table, key=lambda r: abs(r["predicted"] - r["realised"])) for name, table in tables.items()
    }
    told = "; ".join(
        f"{said(n)} {share(r['predicted'])} where {share(r['realised'])} left" for n, r in worst.items()
    )
    return Chart(
        key="backtest-reliability",
        title="Churn risk: said and came true",
        caption="Of the customers given a risk (across), the share that stayed away (up), all origins.",
        alt=f"Reliability plot. Farthest from the line: {told}.",
        grid=Grid(
            ("Model", "Customers", "Said", "Came true"),
            tuple(
                (said(n), count(r["customers"]), share(r["predicted"]), share(r["realised"]))
                for n, table in tables.items()
                for r in table
            ),
        ),
        traces=traces,
        layout={
            "hovermode": "closest",
            "xaxis": axis("said churn risk", tickformat=".0%", range=[-0.02, 1.02], dtick=0.25),
            "yaxis": axis("share that stayed away", tickformat=".0%", range=[-0.02, 1.04], dtick=0.25),
        },
    )


def captured_chart(found: Backtest, money: Money) -> Chart:
    """Spend of the best-ranked share of customers at each origin, summed over origins."""
    curves = {}
    for entry in found.entries:
        rows = entry.by_seed[0]
        brought = np.zeros(len(SHARES))
        for place in np.unique(rows.origin):
            part = rows.where(rows.origin == place)
            brought += top(np.maximum(part.spend, 0.0), part.expected_spend, SHARES)
        curves[entry.model] = brought / max(brought[-1], np.finfo(float).tiny)
    told = "; ".join(f"{said(n)} {share(float(c[4]))}" for n, c in curves.items() if n != ALL_ZERO)
    total = money.short(float(np.maximum(found.entries[0].by_seed[0].spend, 0.0).sum()))
    return Chart(
        key="backtest-captured",
        title="Spend reached by the top of the ranking",
        caption=f"Share of all realised spend ({total}) that came from the customers ranked highest.",
        alt=f"Line chart of the share of spend by share of customers, best first. The top 20%: {told}.",
        grid=Grid(
            ("Top share", *(said(n) for n in curves)),
            tuple((share(s), *(share(float(c[i])) for c in curves.values())) for i, s in enumerate(SHARES)),
        ),
        traces=[
            _line(i, name, list(SHARES), curve.tolist(), "lines")
            for i, (name, curve) in enumerate(curves.items())
        ],
        layout={
            "hovermode": "closest",
            "xaxis": axis("share of customers, best ranked first", tickformat=".0%", dtick=0.25),
            "yaxis": axis("share of realised spend", tickformat=".0%"),
        },
        height=400,
    )


def profit_chart(found: Backtest, money: Money) -> Chart:
    """What treating the top share of each ranking would have earned; a dot where its forecaster would have stopped."""
    held = campaign(found.entries, found.value)
    curves = {name: [point.profit for point in ranking.realised] for name, ranking in held.by_model.items()}
    chosen = {name: ranking.chosen for name, ranking in held.by_model.items() if name != ALL_ZERO}
    told = "; ".join(f"{said(n)} {money.full(p.profit)} from {share(p.share)}" for n, p in chosen.items())
    traces = [_profit_line(i, name, curves[name], chosen.get(name), money) for i, name in enumerate(curves)]
    most = [point.profit for point in held.most]
    return Chart(
        key="backtest-profit",
        title="Profit of a retention campaign",
        caption=_campaign_words(found, held.contact_cost, money),
        alt=f"Line chart of profit by share of customers treated. Where each model would stop: {told}. With hindsight "
        f"{money.full(max(most))} could be earned.",
        grid=Grid(
            ("Top share", *(said(n) for n in curves), "With hindsight"),
            tuple(
                (share(s), *(money.full(c[i]) for c in curves.values()), money.full(most[i]))
                for i, s in enumerate(SHARES)
            ),
        ),
        traces=[*traces, _hindsight(most, money)],
        layout={
            "hovermode": "closest",
            "xaxis": axis("share of customers treated", tickformat=".0%", dtick=0.25),
            "yaxis": axis(f"profit over all origins ({money.unit})", tickformat=",~f"),
        },
        height=400,
    )


def _profit_line(i: int, name: str, profits: list[float], stop: Treated | None, money: Money) -> Figure:
    sizes = [9 if stop is not None and s == stop.share else 0 for s in SHARES]
    words = [f"{said(name)}, top {share(s)}: {money.full(p)}" for s, p in zip(SHARES, profits, strict=True)]
    mark = {"color": colour(f"line-{i % COLOURS}"), "size": sizes, "opacity": 1, "line": {"width": 0}}
    return _line(i, name, list(SHARES), profits) | {"marker": mark, "hovertext": words}


def _hindsight(profits: list[float], money: Money) -> Figure:
    return {
        "type": "scatter", "mode": "lines", "name": "with hindsight", "x": list(SHARES), "y": profits,
        "line": {"color": colour("muted"), "width": 1, "dash": "dash"},
        "hovertext": [f"With hindsight, top {share(s)}: {money.full(p)}" for s, p in zip(SHARES, profits, strict=True)],
        "hoverinfo": "text",
    }  # fmt: skip


def _campaign_words(found: Backtest, cost: float, money: Money) -> str:
    even = "" if found.value.contact_cost is not None else ", at which treating everyone just pays"
    return (
        f"Had those with most at stake been contacted at every origin: a contact costs {money.full(cost)}{even}, and "
        f"keeps {share(found.value.save_share)} of those who would leave. A dot marks where the model itself would "
        "stop; all zero treats by lot."
    )
