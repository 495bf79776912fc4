"""The way from a checkpoint to forecasts of a whole base, on one process or on many that share a file system."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime
from functools import partial, reduce
from pathlib import Path
from typing import Any

import polars as pl

from retinue.accel.devices import torch_device
from retinue.accel.engine import choose_engine
from retinue.accel.processes import process_count, process_rank
from retinue.cluster import HERE, Spread, spread_of
from retinue.decisions.causes_in_shards import reasons_in_shards
from retinue.events.store import write_table, write_text
from retinue.forecasting.base_model import BaseModel, load_base_model
from retinue.forecasting.changes import changes_between
from retinue.forecasting.ledger import About, Ledger
from retinue.forecasting.saved import RUNG, SavedRung, load_rung
from retinue.forecasting.scoring import (
    FOLDER,
    PAGE,
    Scored,
    Scoring,
    Share,
    alone,
    days_scored,
    is_stamped,
    read_forecasts,
    score,
    scoring_key,
    stamp_of,
    stamp_path,
)
from retinue.options import DecisionOptions, Options
from retinue.pipeline import advance
from retinue.pretraining.pretrained import LAW
from retinue.reporting.forecast_counts import (
    Counts,
    Groups,
    add_counts,
    groups_of,
    high_from,
    shard_counts,
    shard_groups,
)
from retinue.reporting.forecasts_page import ForecastsTold, build_forecasts_page
from retinue.reporting.tracking import track_forecasts
from retinue.runs import Progress, Run, Stage, is_fresh, stage_key, unheard
from retinue.schema import CUTOFF, FORECAST_CHANGES, HORIZON_DAYS, QUALITY, REASONS, InputError
from retinue.sequences.tokens import TokenStore
from retinue.train import awaited

LEDGER_ROWS = 5_000_000  # of one entry: about 1 GiB while it is written
log = logging.getLogger(__name__)


def run_scoring(options: Options, progress: Progress = unheard) -> tuple[Run, Scored]:
    """Forecasts with a checkpoint; leaves <output>/forecasts/cutoff=<day>/shard=…/part.parquet of this process's shards.

    The process that ends last leaves forecasts_summary.parquet and forecasts.html too, forecast_changes.parquet where
    an earlier day stands in the folder, and enters the forecasts into the base's ledger.

    Of several processes the first prepares the events, the others wait for it; all see one file system. The same
    command again keeps the shards that stand.

    Raises:
        InputError: a mistake in data or options, or no checkpoint.
    """
    if options.checkpoint is None:
        raise InputError("checkpoint=null: give the folder that retinue train has left.")
    asked = options.scoring
    share = Share(
        process_rank() if asked.rank is None else asked.rank,
        process_count() if asked.world_size is None else asked.world_size,
    )
    folder = Path(options.checkpoint)
    rung = (
        load_rung(folder)
        if (folder / RUNG).is_file() or not (folder / LAW).is_file()
        else load_base_model(folder)
    )
    if options.scoring.causes and (isinstance(rung, BaseModel) or not rung.columns):
        raise InputError(
            f"scoring.causes=true: the network of {folder} reads order histories and no features, so it gives no causes. "
            "Give a checkpoint of retinue train that does, or leave it out."
        )
    rung.trained.network.to(torch_device(choose_engine(options.engine)))
    run = advance(options, Stage.prepare, progress) if share.rank == 0 else awaited(options, Stage.prepare)
    tokens, spread = TokenStore.open(run.folder / "tokens"), spread_of(options.engine)
    scoring = Scoring(rung, run.store, tokens, run.cutoffs, options.horizons, options.value, spread)
    mark = stage_key(Stage.prepare, options, run.store.manifest.mark)
    done = score(scoring, run.folder, share, mark, progress)
    if done.totals is not None:
        with alone(run.folder, "page") as free:
            if free:
                causes = _causes(run, scoring, done.totals, mark) if asked.causes else None
                page = build_forecasts_page(_told(run, scoring, done.totals, causes))
                write_text(page, run.folder / PAGE)
                _enter_ledger(run, scoring, mark)
                _changes(run, scoring)
    if share.rank == 0:
        track_forecasts(options.tracking, run.folder, folder, options.data.name, lineage_of(rung, scoring))
    return run, done


def add_up(
    out: Path, day: str, shards: int, totals: pl.DataFrame, rules: DecisionOptions, spread: Spread = HERE
) -> tuple[Counts, Groups | None]:
    """How value and risk are spread over all shards, and the quadrants at the latest cutoff, one shard in memory at a time.

    Args:
        out: folder of the run.
        day: folder of the forecasts, as `Scoring.day` names it.
        shards: how many there are; all of them stand.
        totals: their `forecasts_summary`.
        rules: thresholds of the quadrants.
        spread: how shards are worked on.
    """
    counts = reduce(add_counts, spread(partial(shard_counts, out, day, rules), range(shards)))
    if totals.is_empty():
        return counts, None
    latest, longest = _leading(totals)
    limit = high_from(counts.retained.filter(pl.col(CUTOFF) == latest), rules)
    of_shard = partial(shard_groups, out, day, latest, longest, replace(rules, value_threshold=limit))
    return counts, groups_of(spread(of_shard, range(shards)), limit)


def _causes(run: Run, scoring: Scoring, totals: pl.DataFrame, mark: str) -> pl.DataFrame | None:
    """The `reasons` table of those with the most at stake, kept as it stands where it follows from the same; None for nobody."""
    if totals.is_empty():
        return None
    path, stamp = run.table(REASONS.name), stamp_path(run.folder, REASONS.name)
    most = run.options.decisions.reasons_for
    key = scoring_key(scoring, f"{mark} {most}")
    if not is_stamped(path, stamp, key):
        run.progress("causes", 0.0)
        found = reasons_in_shards(scoring, run.folder, *_leading(totals), most)
        write_table(found, path)
        write_text(stamp_of(key, path), stamp)
        run.progress("causes", 1.0)
    return REASONS.check(pl.read_parquet(path))


def _enter_ledger(run: Run, scoring: Scoring, mark: str) -> None:
    """Puts the forecasts of all shards into the base's ledger; the same forecasts again change nothing there."""
    forecasts, shards = read_forecasts(run.folder, scoring.day), scoring.store.manifest.shards
    rows = forecasts.select(pl.len()).collect().item()
    if rows > LEDGER_ROWS:
        log.info(
            "ledger: %s forecasts are more than the %s that fit one entry, so they are in %s alone",
            f"{rows:,}",
            f"{LEDGER_ROWS:,}",
            run.folder / FOLDER / scoring.day,
        )
        return
    ledger, name = Ledger(run.options.ledger_folder), scoring_key(scoring, mark)[:16]
    if ledger.holds(name) or not rows:
        return
    about = About(
        scoring.buyers(range(shards)), None, scoring.store.observation_end, scoring.store.local_zone
    )
    if ledger.append(name, forecasts.collect(), about):
        log.info("ledger: %d forecasts kept in %s", rows, ledger.folder)


def _changes(run: Run, scoring: Scoring) -> None:
    """Leaves the `forecast_changes` table against the last earlier day in the folder; none without one."""
    earlier = [day for day in days_scored(run.folder) if day < scoring.day]
    if not earlier:
        return
    before, now = (read_forecasts(run.folder, day) for day in (earlier[-1], scoring.day))
    write_table(changes_between(before, now), run.table(FORECAST_CHANGES.name))


def _leading(totals: pl.DataFrame) -> tuple[datetime, int]:
    """The latest cutoff, and the longest horizon."""
    cutoff, horizon_days = totals.sort(CUTOFF, HORIZON_DAYS).select(CUTOFF, HORIZON_DAYS).row(-1)
    return cutoff, horizon_days


def _told(run: Run, scoring: Scoring, totals: pl.DataFrame, causes: pl.DataFrame | None) -> ForecastsTold:
    """What the page shows."""
    options, manifest = run.options, scoring.store.manifest
    counts, groups = add_up(
        run.folder, scoring.day, manifest.shards, totals, options.decisions, scoring.spread
    )
    checked = is_fresh(run, Stage.doctor, stage_key(Stage.doctor, options, manifest.mark))
    card = scoring.rung.trained.card
    return ForecastsTold(
        name=options.data.name,
        currency=options.data.currency or manifest.currency,
        totals=totals,
        counts=counts,
        groups=groups,
        manifest=manifest,
        quality=run.read("quality") if checked else pl.DataFrame(manifest.notes, schema=QUALITY.schema),
        checked=checked,
        value=options.value,
        rules=options.decisions,
        checkpoint=Path(options.checkpoint or "").name,
        lineage=lineage_of(scoring.rung, scoring),
        training_end=card.get("training_end"),
        causes=causes,
    )


def lineage_of(rung: SavedRung | BaseModel, scoring: Scoring) -> dict[str, Any]:
    """Where the forecasts come from."""
    return {
        "checkpoint_key": rung.trained.card["key"],
        "checkpoint_digest": rung.digest,
        "trained_on": rung.trained.card.get("data_fingerprint", "simulated bases"),
        "cutoffs": [cutoff.isoformat() for cutoff in scoring.cutoffs],
        "horizons": list(scoring.horizons),
    }
