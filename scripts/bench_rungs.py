"""Every rung and the gate's choice at one cutoff against what came: python scripts/bench_rungs.py FOLDER/events CUTOFF DAYS."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from retinue.config import Options
from retinue.evaluation.realised import evaluate, realised
from retinue.events.store import Store
from retinue.events.timeline import instant
from retinue.forecasting.ladder import RUNGS, champion
from retinue.forecasting.rungs import fit_rung, training_at

COLUMNS = (
    "rung",
    "AUROC",
    "Brier",
    "orders RMSE",
    "bias %",
    "log score",
    "Gini",
    "spend bias %",
    "coverage",
    "s",
)


def main(folder: str, cutoff: str, days: str) -> None:
    store, horizon = Store.open(Path(folder)), int(days)
    at = instant(cutoff, store.local_zone)
    started = time.perf_counter()
    training = training_at(store, at, [horizon], Options())
    chosen, _ = champion(training)
    title = f"{folder} {cutoff} + {days} days; auto is {chosen.value}, chosen in {time.perf_counter() - started:.1f} s"
    table = Table(*COLUMNS, title=title)
    truth = realised(store.scan(), at, horizon, store.local_zone).collect()
    for rung in RUNGS:
        started = time.perf_counter()
        scores = evaluate(fit_rung(rung, training)(training.buyers, [horizon]), truth)
        churn, orders, value = (scores[part] for part in ("churn", "orders", "value"))
        figures = (
            churn["auroc"], churn["brier"], orders["rmse"], orders["bias_percent"], orders["log_score"], value["gini"],
            value["bias_percent"], value["coverage_90"], time.perf_counter() - started,
        )  # fmt: skip
        table.add_row(rung.value, *(f"{figure:.3f}" for figure in figures))
    Console(width=150).print(table)


if __name__ == "__main__":
    main(*sys.argv[1:])
