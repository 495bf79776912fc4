"""A Weights & Biases run of a backtest, where the user asked for one. The only importer of wandb."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import polars as pl

from retinue.config import Tracking
from retinue.forecasting.backtest import Backtest
from retinue.schema import METRIC, MODEL, ORIGIN, POPULATION, SCORE, SCORE_ERROR, InputError


def track(tracking: Tracking, folder: Path, name: str, found: Backtest) -> None:
    """Logs pooled scores, the whole table and the page; nothing with tracking=off.

    Args:
        tracking: off, offline (files under `folder`/wandb) or online.
        folder: of the run; holds backtest.html.
        name: of the base.
        found: what the backtest found.

    Raises:
        InputError: the package wandb is not installed.
    """
    if tracking is Tracking.off:
        return
    wandb = _wandb(tracking)
    run = wandb.init(
        project="retinue", name=f"backtest-{name}", job_type="backtest", mode=tracking.value, dir=str(folder)
    )
    for metric, value in summary(found).items():
        run.summary[metric] = value
    table = found.scores.with_columns(pl.col(ORIGIN).dt.strftime("%Y-%m-%d"))
    page = (folder / "backtest.html").read_text(encoding="utf-8")
    run.log(
        {
            "backtest": wandb.Table(columns=table.columns, data=table.rows()),
            "page": wandb.Html(page, inject=False),
        }
    )
    run.finish()


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


def _wandb(tracking: Tracking) -> Any:
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise InputError(
            f"tracking={tracking.value}: the package wandb is not installed. Install retinue[tracking], "
            f"or leave tracking off."
        ) from error
