"""What each part of the sequence forecaster is worth at a past origin of a base: FOLDER/events CUTOFF DAYS [PART …].

python scripts/bench_ablations.py runs/cdnow/events 1997-09-30 273

The network is trained at the latest inner origin before the cutoff and judged on what came by the cutoff: nothing after
the cutoff is looked at. Three seeds; `worse by` is in log score, paired by customer, mean of the seeds ± their standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from retinue.evaluation.metrics import churn_auroc
from retinue.events.store import Store
from retinue.events.timeline import instant
from retinue.forecasting.rungs import Training, training_at
from retinue.forecasting.sequence import FIRST_NAMES, SequencePredictor, task_of
from retinue.forecasting.trials import Trial
from retinue.options import Encoder, Options, Rung
from retinue.sequences.readouts import Readouts
from retinue.sequences.tokens import DAY_US
from retinue.training.fit import Task, fit_network

SEEDS = 3


@dataclass(frozen=True)
class Part:
    """What is left out, and how."""

    told: str
    options: Callable[[Options], Options] = lambda options: options
    task: Callable[[Task, int], Task] = lambda task, days: task


def model(**changed: Any) -> Callable[[Options], Options]:
    return lambda options: replace(options, model=replace(options.model, **changed))


def training(**changed: Any) -> Callable[[Options], Options]:
    return lambda options: replace(options, training=replace(options.training, **changed))


def windows(readouts: Readouts) -> np.ndarray[Any, Any]:
    """Days observed after each readout."""
    return np.round((readouts.end.timestamp() * 1e6 - readouts.cutoff) / DAY_US)


def one_cutoff(task: Task, days: int) -> Task:
    """The latest cutoff after which the judged horizon was observed whole; the earliest where there is none."""
    seen = windows(task.readouts)
    closed = seen[seen >= days]
    return replace(task, readouts=task.readouts.take(seen == (closed.min() if len(closed) else seen.max())))


def closed_only(task: Task, days: int) -> Task:
    """No cutoff whose window is censored before the judged horizon."""
    seen = windows(task.readouts)
    return replace(task, readouts=task.readouts.take(seen >= min(days, seen.max())))


def without_features(task: Task, days: int) -> Task:
    """No aggregate features; the first forecast is still told."""

    def blind(readouts: Readouts) -> Readouts:
        hidden = readouts.features.copy()
        hidden[:, : -len(FIRST_NAMES)] = np.nan
        return replace(readouts, features=hidden)

    assert task.inner is not None
    return replace(task, readouts=blind(task.readouts), inner=blind(task.inner))


def without_anchor(task: Task, days: int) -> Task:
    """The network makes its own clocks."""
    assert task.inner is not None
    return replace(task, readouts=replace(task.readouts, anchor=None), inner=replace(task.inner, anchor=None))


PARTS = {
    "all": Part("all parts"),
    "dense": Part("one cutoff in place of the grid", task=one_cutoff),
    "censored": Part("closed windows only", task=closed_only),
    "next_event": Part("no next-event loss", training(next_event_weight=0.0)),
    "features": Part("no aggregate features", task=without_features),
    "first": Part("no first forecast to correct", task=without_anchor),
    "context": Part("with the base's context", model(context=True)),
    "transformer": Part("a transformer of two layers", model(encoder=Encoder.transformer, layers=2)),
}


def tried(training: Training, part: Part, seed: int) -> Trial:
    """The network without the part, at the latest inner origin."""
    assert training.grid is not None
    assert training.histories is not None
    grid, tokens, origin = training.grid, training.histories.tokens, training.origins[0]
    first, days = training.first(origin), training.grid.layout.inner_days
    options = part.options(replace(training.options, seed=seed))
    task = task_of(first, grid, tokens, origin, options)
    if task is None:
        raise SystemExit("the history is too short to train a network at a past origin")
    task = part.task(task, days)
    columns = task.readouts.names[: -len(FIRST_NAMES)]
    fitted = SequencePredictor(fit_network(task, options), tokens, first, columns)
    known = training.trial(Rung.own_rate, origin)
    return replace(known, outlook=fitted.outlook(known.buyers, [days], 0.0))


def main(folder: str, cutoff: str, days: str, *asked: str) -> None:
    store = Store.open(Path(folder))
    training = training_at(store, instant(cutoff, store.local_zone), [int(days)], Options())
    assert training.grid is not None
    origin = training.grid.at(training.origins[0])
    table = Table(
        "left out", "log score", "worse by", "AUROC", "orders %", "Gini",
        title=f"{origin:%Y-%m-%d} + {training.grid.layout.inner_days} days, {SEEDS} seeds, mean ± standard error",
    )  # fmt: skip
    whole: list[Trial] = []
    for name in asked or PARTS:
        trials = [tried(training, PARTS[name], seed) for seed in range(SEEDS)]
        whole = whole or trials
        worse = [float((a.log_score - b.log_score).mean()) for a, b in zip(whole, trials, strict=True)]
        columns = [
            [-float(trial.log_score.mean()) for trial in trials],
            [churn_auroc((t.orders == 0).astype(np.float64), t.outlook.p_churn[0]) or np.nan for t in trials],
            [100 * (t.outlook.orders[0].sum() / t.orders.sum() - 1) for t in trials],
            [t.gini.value for t in trials],
        ]
        cells = [shown(column, digits) for column, digits in zip(columns, (4, 4, 1, 4), strict=True)]
        table.add_row(PARTS[name].told, cells[0], shown(worse, 4), *cells[1:])
        print(name, cells, shown(worse, 4), file=sys.stderr, flush=True)
    Console(width=140).print(table)


def shown(values: list[float], digits: int) -> str:
    """Mean ± its standard error over seeds."""
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1) / len(values) ** 0.5:.{digits}f}"


if __name__ == "__main__":
    main(*sys.argv[1:])
