"""Which rung to trust: all are scored at past origins on what came; a simpler one stands until clearly beaten."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl

from retinue.events.store import Store
from retinue.forecasting.rungs import DEFAULT, Training, training_at
from retinue.forecasting.trials import Lead, lead, mean_gini, mean_log_score
from retinue.options import Options, Rung
from retinue.schema import MODEL

STATISTICAL = (Rung.own_rate, Rung.pareto_nbd, Rung.bg_nbd, Rung.mbg_nbd)
SCORES = pl.Schema(
    {str(MODEL): pl.String(), "log_score": pl.Float64(), "gini": pl.Float64(), "lead": pl.Float64(),
     "lead_error": pl.Float64(), "gini_lead": pl.Float64(), "gini_lead_error": pl.Float64(), "origins": pl.Int64(),
     "customers": pl.Int64(), "horizon_days": pl.Int64(), "chosen": pl.Boolean()}
)  # fmt: skip


def choose_rung(
    store: Store, cutoff: datetime, horizon_days: int, options: Options
) -> tuple[Rung, pl.DataFrame]:
    """`champion` of the history at a cutoff; nothing after it is read."""
    return champion(training_at(store, cutoff, [horizon_days], options))


def champion(training: Training) -> tuple[Rung, pl.DataFrame]:
    """The rung that past origins speak for, and the scores of all.

    At up to three past origins every rung is fitted on what was known there and scored at the inner horizon (see
    `layout`). The best statistical rung is found first: Pareto/NBD unless another beats it. Own rate, the base
    model, the trees, the sequence rungs where `rungs` names them, and the blend are then tried in this order, and each takes the
    place of what stands only if it beats that: by two standard errors of the paired, customer-clustered
    difference in log score of the counts, at most origins, and not clearly behind in normalised Gini of spend.
    Without origins, or where the inner horizon is less than a third of the asked one, it is the base model and no
    scores: who leads at 20 days says little of 365. Where the base is unlike all that the base model has seen, that
    has no say, and Pareto/NBD stands in for it.

    Returns:
        The rung; and per rung the mean negative log score of the count (nats, lower is better) and the mean
        Gini, its leads over the best statistical rung with their standard errors, origins, forecasts scored,
        inner horizon, and whether it was chosen.
    """
    if not training.origins or training.grid is None or not training.grid.layout.is_evidence:
        return Rung.zero_shot if training.is_familiar else DEFAULT, pl.DataFrame(schema=SCORES)
    base = training.best_law
    familiar = (Rung.zero_shot,) if training.is_familiar else ()
    learned = (*familiar, Rung.xgboost, *training.deep, Rung.blend)
    trials = {rung: training.trials(rung) for rung in (*STATISTICAL, *learned)}
    leads = {rung: lead(tried, trials[base]) for rung, tried in trials.items()}
    best = base
    for rung in (Rung.own_rate, *learned):
        if lead(trials[rung], trials[best]).wins:
            best = rung
    days = training.grid.layout.inner_days
    rows = [
        (
            rung.value,
            -mean_log_score(tried),
            _gini(mean_gini(tried)),
            *_shown(leads[rung]),
            len(tried),
            sum(len(trial.orders) for trial in tried),
            days,
            rung is best,
        )
        for rung, tried in trials.items()
    ]
    return best, pl.DataFrame(rows, schema=SCORES, orient="row")


def _gini(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _shown(one: Lead) -> tuple[float, float, float, float]:
    return one.log_score.value, one.log_score.error, one.gini.value, one.gini.error
