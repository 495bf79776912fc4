"""Rungs and the gate's choice at one cutoff against what came.

python scripts/bench_rungs.py FOLDER/events CUTOFF DAYS [RUNG …] [key=value …]; without rungs, all that train in seconds.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from retinue.config import resolve
from retinue.evaluation.comparison import Entry
from retinue.events.store import Store
from retinue.events.timeline import instant
from retinue.forecasting.backtest import Backtest, backtest, contenders
from retinue.forecasting.intervals import NAMES, groups
from retinue.forecasting.rungs import training_at
from retinue.options import Rung
from retinue.schema import METRIC, MODEL, ORIGIN, POPULATION, SCORE, VERSUS_BEST, VERSUS_BEST_ERROR

SEEDS = 3
LEAST = 300
METRICS = {
    "AUROC": "churn.auroc", "Brier": "churn.brier", "ECE": "churn.ece", "orders RMSE": "orders.rmse",
    "bias %": "orders.bias_percent", "log score": "orders.log_score", "Gini": "value.gini", "MAE": "value.mae_of_mean",
    "spend bias %": "value.bias_percent", "covers": "value.coverage_90",
}  # fmt: skip


def main(folder: str, cutoff: str, days: str, *words: str) -> None:
    store, horizon = Store.open(Path(folder)), int(days)
    rungs = [word for word in words if "=" not in word]
    asked = resolve([word for word in words if "=" in word])
    at = instant(cutoff, store.local_zone)
    options = replace(asked, seeds=SEEDS, rungs=[Rung(rung) for rung in rungs])
    started = time.perf_counter()
    found = backtest(store, [at], horizon, contenders(options), options)
    told = " ".join(word for word in words if "=" in word)
    title = f"{cutoff} + {days} days, mean of {SEEDS} seeds, {time.perf_counter() - started:.0f} s {told}"
    console = Console(width=150)
    console.print(leaderboard(found, title))
    buyers = training_at(store, at, [horizon], options).buyers
    place = groups(buyers, options.segments.new_days)
    if not rungs or Rung.auto.value in rungs:
        console.print(coverage(found, place))
    console.print(f"sentinels held: {found.sentinels['passed'].sum()} of {found.sentinels.height}")


def leaderboard(found: Backtest, title: str) -> Table:
    """A row per rung; behind: how far its log score trails the best, with the paired, clustered standard error."""
    table = Table("rung", *METRICS, "behind in log score", title=title)
    scores = found.scores.filter((pl.col(POPULATION) == "all") & pl.col(ORIGIN).is_null())
    for rung in scores[MODEL].unique(maintain_order=True):
        rows = {row[METRIC]: row for row in scores.filter(pl.col(MODEL) == rung).to_dicts()}
        cells = ["" if rows[name][SCORE] is None else f"{rows[name][SCORE]:.3f}" for name in METRICS.values()]
        trails, error = rows["orders.log_score"][VERSUS_BEST], rows["orders.log_score"][VERSUS_BEST_ERROR]
        table.add_row(rung, *cells, "" if trails is None else f"{trails:.4f} ± {error:.4f}")
    return table


def coverage(found: Backtest, place: np.ndarray) -> Table:
    """How often the gate's 90 % interval held, in each group of at least 300 customers."""
    auto: Entry = next(entry for entry in found.entries if entry.model == Rung.auto.value)
    table = Table("group", "customers", "covered", "mean width", title="90 % intervals of auto")
    for k, name in enumerate(NAMES):
        rows = place == k
        if rows.sum() >= LEAST:
            held = np.mean([seed.inside_90[rows].mean() for seed in auto.by_seed])
            wide = np.mean([seed.width_90[rows].mean() for seed in auto.by_seed])
            table.add_row(name, f"{rows.sum():,}", f"{held:.3f}", f"{wide:,.1f}")
    return table


if __name__ == "__main__":
    main(*sys.argv[1:])
