"""Forecasts held against what came true: the backtest and the ledger."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from retinue.evaluation.folds import check_origins, rolling_origins
from retinue.evaluation.reconciliation import reconcile
from retinue.events.store import write_table, write_text
from retinue.forecasting.backtest import Backtest, backtest, contenders
from retinue.forecasting.ledger import Ledger, Reckoning, drift_since, mature, next_maturity
from retinue.options import Options
from retinue.pipeline import advance
from retinue.reporting.backtest_page import build_backtest_page
from retinue.reporting.ledger_page import build_ledger_page
from retinue.reporting.tracking import track
from retinue.runs import (
    Progress,
    Run,
    Stage,
    only_run,
    unheard,
)
from retinue.schema import (
    CUTOFF,
)
from retinue.stages import keep


def run_backtest(options: Options, progress: Progress = unheard) -> tuple[Run, Backtest]:
    """Prepares the events and holds every rung against past futures; leaves backtest.parquet and backtest.html.

    Raises:
        InputError: a mistake in data or options, or data too short for the origins asked for.
    """
    run = advance(options, Stage.prepare, progress)
    store, days = run.store, run.horizon_days
    first = datetime.fromisoformat(store.manifest.first_event)
    origins = (
        run.cutoffs
        if options.cutoffs
        else rolling_origins(first, store.observation_end, days, options.origins, store.local_zone)
    )
    check_origins(origins, store.observation_end, days, store.local_zone)
    with only_run(run.folder):
        found = backtest(store, origins, days, contenders(options), options, progress)
        write_table(found.scores, run.table("backtest"))
        write_table(found.sentinels, run.table("backtest_sentinels"))
        currency = options.data.currency or store.manifest.currency
        write_text(
            build_backtest_page(options.data.name, currency, store.local_zone, found),
            run.folder / "backtest.html",
        )
    track(options.tracking, run.folder, options.data.name, found)
    return run, found


def run_ledger(options: Options, progress: Progress = unheard) -> tuple[Run, Reckoning]:
    """Forecasts, keeps the forecasts, and holds all kept ones that have matured against what came true.

    Leaves matured.parquet, reconciled.parquet, drift.parquet, ledger.html, and the report with its ledger section.

    Raises:
        InputError: a mistake in data or options.
    """
    advance(options, Stage.segment, progress)
    run = advance(options, Stage.forecast, progress)
    with only_run(run.folder):
        keep(run, run.read("forecasts"))
        ledger = Ledger(options.ledger_folder)
        kept = ledger.read()
        matured = mature(kept, run.store)
        latest = run.read("features").filter(pl.col(CUTOFF) == run.cutoffs[-1])
        drift = drift_since(ledger, kept, latest)
        found = Reckoning(
            kept, matured, reconcile(matured), drift, next_maturity(kept, run.store), options.retrain_cost
        )
        write_table(matured, run.table("matured"))
        write_table(drift, run.table("drift"))
        write_table(found.reconciled, run.table("reconciled"))
        currency = options.data.currency or run.store.manifest.currency
        page = build_ledger_page(options.data.name, currency, run.store.local_zone, found)
        write_text(page, run.folder / "ledger.html")
    return advance(options, Stage.report, progress), found
