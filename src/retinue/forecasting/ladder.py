"""Which rung to trust: each is fitted on a shortened history and scored on the rest of it."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl

from retinue.accel import EngineChoice, choose_engine, collect
from retinue.config import Options, Rung
from retinue.evaluation.realised import realised
from retinue.events.store import Store
from retinue.events.timeline import days_before, history
from retinue.features.catalogue import Family
from retinue.features.query import features_at
from retinue.forecasting.orders import Array, score_orders
from retinue.models.btyd import fit
from retinue.models.predictive import orders_log_score
from retinue.models.statistics import statistics_of
from retinue.schema import CUSTOMER_ID, FREQUENCY, MODEL, REALISED_ORDERS, T_DAYS

DEFAULT = Rung.pareto_nbd
RUNGS = (Rung.pareto_nbd, Rung.bg_nbd, Rung.mbg_nbd)
LEAST_CUSTOMERS = 50
LEAST_DAYS = 7
STANDARD_ERRORS = 2.0
SCORES = pl.Schema(
    {str(MODEL): pl.String(), "log_score": pl.Float64(), "lead": pl.Float64(), "lead_error": pl.Float64(),
     "customers": pl.Int64(), "horizon_days": pl.Int64(), "chosen": pl.Boolean()}
)  # fmt: skip


def choose_rung(
    store: Store, cutoff: datetime, horizon_days: int, options: Options
) -> tuple[Rung, pl.DataFrame]:
    """The rung whose order counts had the best log score on the last part of the history, and the scores.

    The inner horizon is the asked one, or a third of the history where that is shorter; nothing after the
    cutoff is read. A rung replaces Pareto/NBD only if its mean lead, paired by customer, is above two
    standard errors. With fewer than 50 customers or 7 inner days it is Pareto/NBD without a trial, and the
    table of scores is empty.

    Args:
        store: prepared events.
        cutoff: end of history.
        horizon_days: the horizon that matters.
        options: engine says what runs the two feature queries.

    Returns:
        The rung; and per rung the mean negative log score of the count (nats, lower is better), its lead over
        Pareto/NBD and that lead's standard error, customers, inner horizon, and whether it was chosen.
    """
    known, zone, engine = history(store.scan(), cutoff), store.local_zone, choose_engine(options.engine)
    ages = _buyers(known, cutoff, zone, engine)[T_DAYS].to_list()
    inner_days = min(horizon_days, max(ages, default=0) // 3)
    inner = days_before(cutoff, inner_days)
    if inner_days < LEAST_DAYS or len(ages) < LEAST_CUSTOMERS:
        return DEFAULT, pl.DataFrame(schema=SCORES)
    buyers = _buyers(known, inner, zone, engine)
    if buyers.height < LEAST_CUSTOMERS:
        return DEFAULT, pl.DataFrame(schema=SCORES)
    truth = realised(known, inner, inner_days, zone).select(CUSTOMER_ID, REALISED_ORDERS).collect()
    both = buyers.join(truth, on=CUSTOMER_ID, how="inner", validate="1:1", maintain_order="left")
    scores = {rung: _log_scores(rung, both, inner_days) for rung in RUNGS}
    return _best(scores, inner_days)


def _buyers(events: pl.LazyFrame, cutoff: datetime, zone: str, engine: EngineChoice) -> pl.DataFrame:
    features = collect(features_at(events, cutoff, zone, families=(Family.btyd,)), engine)
    return features.filter(pl.col(FREQUENCY).is_not_null()).sort(CUSTOMER_ID)


def _log_scores(rung: Rung, both: pl.DataFrame, days: int) -> Array:
    base = statistics_of(both)
    said = score_orders(fit(rung, base.distinct), base.histories, [days], 0.0)
    place = base.place.numpy()
    came = both[REALISED_ORDERS].to_numpy()
    return orders_log_score(
        came, said.p_churn[0][place], said.expected_orders[0][place], said.shape[0][place]
    )


def _best(scores: dict[Rung, Array], days: int) -> tuple[Rung, pl.DataFrame]:
    leads = {rung: score - scores[DEFAULT] for rung, score in scores.items()}
    errors = {rung: float(lead.std() / np.sqrt(len(lead))) for rung, lead in leads.items()}
    clear = [rung for rung in RUNGS if leads[rung].mean() > STANDARD_ERRORS * errors[rung] + 1e-9]
    best = max(clear, key=lambda rung: float(scores[rung].mean()), default=DEFAULT)
    rows = [
        (
            rung.value,
            -float(scores[rung].mean()),
            float(leads[rung].mean()),
            errors[rung],
            len(scores[rung]),
            days,
            rung is best,
        )
        for rung in RUNGS
    ]
    return best, pl.DataFrame(rows, schema=SCORES, orient="row")
