"""Predicted against realised, where the data reach past the horizon: two charts and a table of scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from retinue.reporting.figures import Chart, Figure, Grid, axis, colour
from retinue.reporting.words import (
    MINUS,
    NONE,
    Money,
    count,
    day,
    days,
    is_number,
    model_name,
    number,
    plural,
    share,
)

Metrics = dict[str, Any]


@dataclass(frozen=True)
class Past:
    """One forecast whose future has been seen."""

    cutoff: datetime
    horizon_days: int
    scores: Metrics


@dataclass(frozen=True)
class Check:
    """What the section says; `realised` is False where the future has not been seen yet."""

    realised: bool
    lead: str
    grid: Grid
    rivals: Grid | None = None


_MAE = "lower is better, yet all zero can win it"
# key in metrics.json, name and kind of figure, what is good
_SCORES = (
    ("churn", "auroc", "Churn: ranking (AUROC)", "plain", "0.5 is chance, 1 is perfect"),
    ("churn", "average_precision", "Churn: average precision", "plain", "higher is better"),
    ("churn", "brier", "Churn: Brier score", "plain", "lower is better"),
    ("churn", "log_loss", "Churn: log loss", "plain", "lower is better"),
    ("churn", "ece", "Churn: calibration error (ECE)", "share", "lower is better"),
    ("orders", "rmse", "Orders: RMSE", "plain", "orders, lower is better"),
    ("orders", "bias_percent", "Orders: error of the total", "percent", "0 is best"),
    ("orders", "log_score", "Orders: log score", "plain", "lower is better"),
    ("value", "gini", "Spend: ranking (normalised Gini)", "plain", "0 is chance, 1 is perfect"),
    ("value", "spearman", "Spend: rank correlation", "plain", "1 is perfect"),
    ("value", "rmse", "Spend: RMSE", "money", "lower is better"),
    ("value", "mae", "Spend: MAE of the median", "money", _MAE),
    ("value", "mae_of_mean", "Spend: MAE of the mean", "money", _MAE),
    ("value", "bias_percent", "Spend: error of the total", "percent", "0 is best"),
    ("value", "pinball_90", "Spend: pinball loss at 90%", "money", "lower is better"),
    ("value", "crps", "Spend: CRPS", "money", "lower is better"),
    ("value", "coverage_90", "Spend: inside the 90% interval", "share", "90% or more"),
)


def past_forecast(metrics: Metrics | None, horizon_days: int) -> Past | None:
    """The leading horizon at the latest cutoff that has it, else the longest horizon seen."""
    if not metrics:
        return None
    runs = [metrics, *(metrics.get("cutoffs") or {}).values()]
    seen = [
        Past(datetime.fromisoformat(scores["cutoff"]), int(scores["horizon_days"]), scores)
        for run in runs
        for scores in (run.get("realised") or {}).values()
    ]
    return max(seen, key=lambda p: (p.horizon_days == horizon_days, p.cutoff, p.horizon_days), default=None)


def spend_bias(metrics: Metrics | None, horizon_days: int) -> float | None:
    """Error of the forecast total of spend, as a share of what came true."""
    past = past_forecast(metrics, horizon_days)
    missed = _score(past.scores, "value", "bias_percent") if past else None
    return missed / 100 if missed is not None else None


def check(metrics: Metrics | None, horizon_days: int, zone: str, money: Money) -> Check:
    """The words and the table of scores beside the all-zero forecast."""
    past = past_forecast(metrics, horizon_days)
    if past is None:
        why = "; ".join(str(w) for w in ((metrics or {}).get("not_realised") or {}).values())
        told = f" ({why})" if why else ""
        return Check(
            False,
            f"What came true is not known yet: the data do not reach past the horizon{told}. "
            "Run with an earlier cutoff to see how good such a forecast would have been.",
            Grid((), ()),
            rivals(metrics),
        )
    zero = past.scores.get("all_zero") or {}
    rows = tuple(
        (
            name,
            good,
            _told(value, kind, money),
            _told(_score(zero, group, "mae" if key == "mae_of_mean" else key), kind, money),
        )
        for group, key, name, kind, good in _SCORES
        if (value := _score(past.scores, group, key)) is not None
    )
    people = past.scores.get("customers")
    whom = f", for {plural(people, 'customer')}" if is_number(people) else ""
    lead = (
        f"The forecast made with the history to {day(past.cutoff, zone)}, held against what happened in the "
        f"{count(past.horizon_days)} days after it{whom}."
    )
    table = Grid(("Score", "What is good", "This forecast", "All zero"), rows, text_columns=2)
    return Check(True, lead, table, rivals(metrics))


def rivals(metrics: Metrics | None) -> Grid | None:
    """The models that were compared on held-out history before one was chosen, where they were."""
    rows = tuple(
        (model_name(row["model"]), number(row["log_score"], 4), "chosen" if row.get("chosen") else "")
        for row in (metrics or {}).get("rungs") or []
        if is_number(row.get("log_score"))
    )
    return Grid(("Model", "Log score, lower is better", ""), rows) if rows else None


def _score(scores: Metrics, group: str, key: str) -> float | None:
    value = (scores.get(group) or {}).get(key)
    return float(value) if is_number(value) else None


def _told(value: float | None, kind: str, money: Money) -> str:
    if value is None:
        return NONE
    match kind:
        case "money":
            return money.full(value)
        case "share":
            return share(value, 1)
        case "percent":
            sign = "+" if value > 0 else MINUS if value < 0 else ""
            return f"{sign}{abs(value):.1f}%"
        case _:
            return number(value, 3)


def decile_chart(metrics: Metrics | None, horizon_days: int, money: Money) -> Chart | None:
    """Mean spend of each tenth of the customers by forecast: forecast beside realised."""
    past = past_forecast(metrics, horizon_days)
    rows = list(_pairs(past.scores, "value", "deciles")) if past else []
    if past is None or not rows:
        return None
    places = [i + 1 for i in range(len(rows))]
    series = (("forecast", [r[0] for r in rows], "accent"), ("came true", [r[1] for r in rows], "save"))
    traces: list[Figure] = [
        {
            "type": "bar",
            "name": name,
            "x": places,
            "y": values,
            "marker": {"color": colour(tint)},
            "hovertext": [
                f"group {i}<br>{name}: {money.full(v)}" for i, v in zip(places, values, strict=True)
            ],
            "hoverinfo": "text",
        }
        for name, values, tint in series
    ]
    return Chart(
        key="deciles",
        title="Spend: forecast and truth",
        caption=f"Mean spend in {count(past.horizon_days)} days, by tenth of customers, highest forecast first.",
        alt=f"Bar chart by tenth of customers. In the top tenth the forecast mean is {money.full(rows[0][0])} and "
        f"{money.full(rows[0][1])} came true.",
        grid=Grid(
            ("Tenth", "Customers", "Forecast", "Came true"),
            tuple(
                (str(i), count(n), money.full(p), money.full(r))
                for i, (p, r, n) in zip(places, rows, strict=True)
            ),
        ),
        traces=traces,
        layout={
            "barmode": "group",
            "xaxis": axis("tenth of customers by forecast spend", dtick=1, showgrid=False),
            "yaxis": axis(f"mean spend per customer ({money.unit})", rangemode="tozero", tickformat=",~f"),
        },
    )


def reliability_chart(metrics: Metrics | None, horizon_days: int) -> Chart | None:
    """Forecast risk against the share that stayed away."""
    past = past_forecast(metrics, horizon_days)
    rows = list(_pairs(past.scores, "churn", "reliability")) if past else []
    if past is None or not rows:
        return None
    most = max(n for _, _, n in rows) or 1.0
    traces: list[Figure] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "perfect",
            "x": [0, 1],
            "y": [0, 1],
            "line": {"color": colour("muted"), "width": 1, "dash": "dash"},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "this forecast",
            "x": [p for p, _, _ in rows],
            "y": [r for _, r, _ in rows],
            "marker": {"color": colour("accent"), "size": [6 + 14 * (n / most) ** 0.5 for _, _, n in rows]},
            "line": {"color": colour("accent"), "width": 1.5},
            "hovertext": [
                f"forecast {share(p)}<br>came true {share(r)}<br>{plural(n, 'customer')}" for p, r, n in rows
            ],
            "hoverinfo": "text",
        },
    ]
    widest = max(rows, key=lambda row: abs(row[0] - row[1]))
    return Chart(
        key="reliability",
        title="Risk: forecast and truth",
        caption="Of the customers given a risk (across), the share that did stay away for "
        f"{days(past.horizon_days)} (up). "
        "On the dashed line a risk of 70% means 70 of 100. Larger marks hold more customers.",
        alt=f"Reliability plot. Farthest from the line: a mean risk of {share(widest[0])} where "
        f"{share(widest[1])} stayed away.",
        grid=Grid(
            ("Forecast risk", "Stayed away", "Customers"),
            tuple((share(p), share(r), count(n)) for p, r, n in rows),
        ),
        traces=traces,
        layout={
            "hovermode": "closest",
            "xaxis": axis("forecast churn risk", tickformat=".0%", range=[-0.02, 1.02], dtick=0.25),
            "yaxis": axis("share that stayed away", tickformat=".0%", range=[-0.02, 1.04], dtick=0.25),
        },
    )


def _pairs(scores: Metrics, group: str, table: str) -> Iterator[tuple[float, float, float]]:
    """Mean forecast, mean truth and customers of each row; rows without customers are left out."""
    for row in (scores.get(group) or {}).get(table) or []:
        predicted, realised, customers = (row.get(key) for key in ("predicted", "realised", "customers"))
        if is_number(predicted) and is_number(realised) and is_number(customers) and customers > 0:
            yield float(predicted), float(realised), float(customers)
