"""A Weights & Biases run of a backtest, where the user asked for one. The only importer of wandb."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from retinue.config import Tracking, saved_options
from retinue.forecasting.backtest import Backtest
from retinue.reporting.charts_backtest import DRAWN, captured_chart, profit_chart, reliability_chart
from retinue.reporting.figures import Chart
from retinue.reporting.words import Money
from retinue.schema import METRIC, MODEL, ORIGIN, POPULATION, SCORE, SCORE_ERROR

INIT_SECONDS = 30
log = logging.getLogger(__name__)


def track(tracking: Tracking, folder: Path, name: str, found: Backtest) -> None:
    """Logs options, scores, tables, plots and the page; nothing with tracking=off.

    The backtest stands without it: where wandb is not installed or cannot be reached, a warning says so.

    Args:
        tracking: off, offline (files under `folder`/wandb) or online.
        folder: of the run; holds backtest.html, and config.yaml where options were kept.
        name: of the base.
        found: what the backtest found.
    """
    if tracking is Tracking.off:
        return
    try:
        wandb = importlib.import_module("wandb")
    except ImportError:
        log.warning(
            "tracking=%s: the package wandb is not installed, so nothing is tracked. Install retinue[tracking], "
            "or leave tracking off.",
            tracking.value,
        )
        return
    try:
        _log_run(wandb, tracking, folder, name, found)
    except wandb.errors.Error as error:
        said = " ".join(str(error).split())
        log.warning("tracking=%s: %s Use tracking=offline, and `wandb sync` later.", tracking.value, said)


def _log_run(wandb: Any, tracking: Tracking, folder: Path, name: str, found: Backtest) -> None:
    kept = folder / "config.yaml"
    run = wandb.init(
        project="retinue",
        name=f"backtest-{name}",
        job_type="backtest",
        mode=tracking.value,
        dir=str(folder),
        config=saved_options(kept) if kept.is_file() else {},
        settings=wandb.Settings(silent=True, console="off", init_timeout=INIT_SECONDS),
    )
    for step, scores in enumerate(by_origin(found)):
        run.log(scores, step=step)
    run.summary.update(summary(found))
    money = Money("")
    charts = (captured_chart(found, money), profit_chart(found, money), reliability_chart(found))
    table = found.scores.with_columns(pl.col(ORIGIN).dt.strftime("%Y-%m-%d"))
    run.log(
        {
            "backtest": _table(wandb, table),
            "sentinels": _table(wandb, found.sentinels),
            "page": wandb.Html((folder / "backtest.html").read_text(encoding="utf-8"), inject=False),
            **{chart.key: _plot(wandb, chart) for chart in charts},
        }
    )
    run.finish()
    if tracking is Tracking.offline:
        log.info("tracking: an offline run is in %s; `wandb sync` sends it", folder / "wandb")


def _table(wandb: Any, table: pl.DataFrame) -> Any:
    return wandb.Table(columns=table.columns, data=[list(row) for row in table.iter_rows()])


def _plot(wandb: Any, chart: Chart) -> Any:
    """The lines of a chart as a W&B plot."""
    return wandb.plot.line_series(
        xs=[trace["x"] for trace in chart.traces],
        ys=[trace["y"] for trace in chart.traces],
        keys=[trace["name"] for trace in chart.traces],
        title=chart.title,
        xname=chart.layout["xaxis"]["title"]["text"],
    )


def by_origin(found: Backtest) -> Iterator[dict[str, float]]:
    """Per origin, ascending, the leading scores of all customers, e.g. `by_origin/bg_nbd/value.gini`."""
    rows = found.scores.filter((pl.col(POPULATION) == "all") & pl.col(METRIC).is_in(list(DRAWN)))
    for origin in found.folds.origins:
        at = rows.filter(pl.col(ORIGIN) == origin).select(MODEL, METRIC, SCORE).drop_nulls()
        yield {f"by_origin/{model}/{metric}": value for model, metric, value in at.iter_rows()}


def summary(found: Backtest) -> dict[str, float]:
    """Pooled scores and errors of all customers, e.g. `bg_nbd/value.gini` and `bg_nbd/value.gini_error`."""
    rows = found.scores.filter((pl.col(POPULATION) == "all") & pl.col(ORIGIN).is_null())
    named = rows.select(MODEL, METRIC, SCORE, SCORE_ERROR).iter_rows()
    pairs = [
        (f"{model}/{metric}", value, error) for model, metric, value, error in named if value is not None
    ]
    return {name: value for name, value, _ in pairs} | {
        f"{name}_error": error for name, _, error in pairs if error is not None
    }
