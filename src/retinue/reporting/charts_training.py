"""Charts and leaderboard of a training run: its curve, and what its network says of customers it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from retinue.evaluation import metrics
from retinue.reporting.figures import Chart, Figure, Grid, axis, colour
from retinue.reporting.words import NONE, Money, count, number, share
from retinue.schema import HORIZON_DAYS, MODEL
from retinue.training.held_out import ALIKE, NETWORK

NAMES = {NETWORK: "Network", ALIKE: "All alike"}
TERMS = {
    "next_order": "Next order",
    "orders": "Number of orders",
    "value": "Order value",
    "refunds": "Refunds",
    "next_event": "Next event",
}
POINTS = 60  # of a curve; more cannot be told apart from chance
DIGITS = 3
BOARD = {
    "log_score": pl.Float64(), "auroc": pl.Float64(), "brier": pl.Float64(), "ece": pl.Float64(),
    "orders_rmse": pl.Float64(), "orders_bias_percent": pl.Float64(), "spend_gini": pl.Float64(),
    "spend_bias_percent": pl.Float64(),
}  # fmt: skip


def leaderboard(held: pl.DataFrame) -> pl.DataFrame:
    """A row per horizon and forecaster, the better log score first.

    Args:
        held: as `training.held_out.held_out` gives it.

    Returns:
        horizon_days, model, readouts, and `BOARD`; log_score is in nats, higher is better.
    """
    rows = [
        {"horizon_days": days, "model": NAMES[name], "readouts": part.height, **_scores(part)}
        for (days, name), part in held.group_by("horizon_days", "model", maintain_order=True)
    ]
    schema = {"horizon_days": pl.Int64(), "model": pl.String(), "readouts": pl.Int64(), **BOARD}
    table = pl.DataFrame(rows, schema=schema)
    return table.sort("horizon_days", "log_score", "model", descending=[False, True, False])


def _scores(part: pl.DataFrame) -> dict[str, float | None]:
    said = {name: part[name].to_numpy().astype(np.float64) for name in part.columns if name not in {"model"}}
    gone, p_churn = (said["orders"] == 0).astype(np.float64), np.clip(said["p_churn"], 0.0, 1.0)
    orders, spend = (said["orders"], said["expected_orders"]), (said["spend"], said["expected_spend"])
    return {
        "log_score": float(said["log_score"].mean()),
        "auroc": metrics.churn_auroc(gone, p_churn),
        "brier": metrics.brier(gone, p_churn),
        "ece": metrics.expected_calibration_error(gone, p_churn),
        "orders_rmse": metrics.rmse(*orders),
        "orders_bias_percent": metrics.bias_percent(*orders),
        "spend_gini": metrics.normalised_gini(*spend),
        "spend_bias_percent": metrics.bias_percent(*spend),
    }


def loss_chart(curve: pl.DataFrame) -> Chart:
    """Each term of the loss by step, means over runs of steps."""
    each = max(1, -(-curve.height // POINTS))
    rows = curve.group_by(((pl.col("step") - 1) // each).alias("run"), maintain_order=True).agg(
        pl.col("step").max(), pl.col(list(TERMS)).mean()
    )
    steps = rows["step"].to_list()
    lines = {title: rows[name].to_list() for name, title in TERMS.items()}
    told = ", ".join(f"{title} {number(values[-1], DIGITS)}" for title, values in lines.items())
    caption = "Mean negative log probability of each part of the future, in nats; lower is better."
    return _lines("training-loss", "Loss", caption, f"At the end: {told}.", "step", steps, lines)


def score_chart(curve: pl.DataFrame) -> Chart:
    """The held-out log score where it was looked at; the best is the one that is kept."""
    rows = curve.drop_nulls("log_score")
    steps, scores = rows["step"].to_list(), rows["log_score"].to_list()
    best = max(range(len(scores)), key=scores.__getitem__, default=None)
    told = NONE if best is None else f"{number(scores[best], 4)} at step {count(steps[best])}"
    caption = "Mean log probability of the orders of held-out customers, in nats; the weights of the highest are kept."
    lines = {"Network": scores}
    return _lines("training-score", "Held-out log score", caption, f"The best: {told}.", "step", steps, lines)


def horizon_chart(held: pl.DataFrame) -> Chart:
    """Log score by horizon, beside that of one forecast for everybody."""
    board = leaderboard(held)
    days = board["horizon_days"].unique().sort().to_list()
    lines = {
        title: board.filter(pl.col(MODEL) == title).sort("horizon_days")["log_score"].to_list()
        for title in NAMES.values()
    }
    told = "; ".join(f"{d} days {number(lines['Network'][i], DIGITS)}" for i, d in enumerate(days))
    caption = "Mean log probability of the number of orders, held-out customers, in nats; higher is better."
    chart = _lines(
        "training-horizons",
        "Log score by horizon",
        caption,
        f"Network: {told}.",
        "horizon, days",
        days,
        lines,
    )
    chart.layout["xaxis"] |= {"type": "log", "tickvals": days}
    return chart


def reliability_chart(held: pl.DataFrame) -> Chart:
    """Churn risk against the share that stayed away, a line per horizon."""
    rows = held.filter(pl.col(MODEL) == NETWORK)
    tables = {}
    for (days,), part in rows.group_by("horizon_days", maintain_order=True):
        gone = (part["orders"].to_numpy() == 0).astype(np.float64)
        risk = np.clip(part["p_churn"].to_numpy().astype(np.float64), 0.0, 1.0)
        tables[f"{days} days"] = metrics.reliability(gone, risk)
    ideal: Figure = {
        "type": "scatter", "mode": "lines", "name": "perfect", "x": [0, 1], "y": [0, 1], "hoverinfo": "skip",
        "line": {"color": colour("muted"), "width": 1, "dash": "dash"},
    }  # fmt: skip
    traces = [
        _line(i, title, [r["predicted"] for r in table], [r["realised"] for r in table])
        for i, (title, table) in enumerate(tables.items())
    ]
    cells = [(title, row) for title, table in tables.items() for row in table]
    worst = max(cells, key=lambda c: abs(c[1]["predicted"] - c[1]["realised"]), default=None)
    told = (
        NONE
        if worst is None
        else f"{share(worst[1]['predicted'])} said, {share(worst[1]['realised'])} came true"
    )
    return Chart(
        key="training-reliability",
        title="Churn risk: said and came true",
        caption="Of the held-out customers given a risk (across), the share that stayed away (up), before recalibration.",
        alt=f"Reliability plot, a line per horizon. Farthest from the line: {told}.",
        grid=Grid(
            ("Horizon", "Customers", "Said", "Came true"),
            tuple((t, count(r["customers"]), share(r["predicted"]), share(r["realised"])) for t, r in cells),
        ),
        traces=[ideal, *traces],
        layout={
            "hovermode": "closest",
            "xaxis": axis("said churn risk", tickformat=".0%", range=[-0.02, 1.02], dtick=0.25),
            "yaxis": axis("share that stayed away", tickformat=".0%", range=[-0.02, 1.04], dtick=0.25),
        },
    )


def decile_chart(held: pl.DataFrame, money: Money) -> Chart:
    """Expected and realised spend of ten groups, best first, at the longest horizon."""
    rows = held.filter(pl.col(MODEL) == NETWORK)
    days = max(rows["horizon_days"].to_list(), default=0)
    part = rows.filter(pl.col(HORIZON_DAYS) == days)
    realised, said = (part[name].to_numpy().astype(np.float64) for name in ("spend", "expected_spend"))
    table = metrics.deciles(realised, said)
    groups = [row["decile"] for row in table]
    lines: dict[str, list[Any]] = {
        title: [row[name] for row in table]
        for name, title in (("predicted", "Said"), ("realised", "Came true"))
    }
    top = (
        f"said {money.full(table[0]['predicted'])}, came true {money.full(table[0]['realised'])}"
        if table
        else NONE
    )
    caption = (
        f"Mean spend within {days} days of the held-out customers, in ten groups by what was said of them."
    )
    return _lines(
        "training-deciles", "Spend by decile", caption, f"Best group: {top}.", "decile", groups, lines
    )


def _lines(
    key: str, title: str, caption: str, told: str, across: str, x: Sequence[Any], lines: dict[str, list[Any]]
) -> Chart:
    """A chart of lines over one axis, with its numbers."""
    return Chart(
        key=key,
        title=title,
        caption=caption,
        alt=f"Line chart. {told}",
        grid=Grid(
            (across.capitalize(), *lines),
            tuple((str(at), *(number(y[i], DIGITS) for y in lines.values())) for i, at in enumerate(x)),
        ),
        traces=[_line(i, name, x, y) for i, (name, y) in enumerate(lines.items())],
        layout={"hovermode": "closest", "xaxis": axis(across), "yaxis": axis(title.lower())},
        height=300,
    )


def _line(i: int, name: str, x: Sequence[Any], y: Sequence[Any]) -> Figure:
    return {
        "type": "scatter", "mode": "lines+markers", "name": name, "x": list(x), "y": list(y),
        "line": {"color": colour(f"line-{i % 6}"), "width": 2}, "marker": {"size": 4},
        "hovertext": [f"{name}: {number(value, DIGITS)}" for value in y], "hoverinfo": "text",
    }  # fmt: skip
