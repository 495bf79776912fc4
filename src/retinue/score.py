"""The way from a checkpoint to forecasts of a whole base, on one process or on many that share a file system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retinue.accel import choose_engine, process_count, process_rank, torch_device
from retinue.cluster import spread_of
from retinue.forecasting.base_model import BaseModel, load_base_model
from retinue.forecasting.saved import RUNG, SavedRung, load_rung
from retinue.forecasting.scoring import Scored, Scoring, Share, score
from retinue.options import Options
from retinue.pipeline import advance
from retinue.pretraining.pretrained import LAW
from retinue.reporting.tracking import track_forecasts
from retinue.runs import Progress, Run, Stage, stage_key, unheard
from retinue.schema import InputError
from retinue.sequences.tokens import TokenStore
from retinue.train import awaited


def run_scoring(options: Options, progress: Progress = unheard) -> tuple[Run, Scored]:
    """Forecasts with a trained rung; leaves <output>/forecasts/shard=…/part.parquet of this process's shards.

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
    rung.trained.network.to(torch_device(choose_engine(options.engine)))
    run = advance(options, Stage.prepare, progress) if share.rank == 0 else awaited(options, Stage.prepare)
    tokens, spread = TokenStore.open(run.folder / "tokens"), spread_of(options.engine)
    scoring = Scoring(rung, run.store, tokens, run.cutoffs, options.horizons, options.value, spread)
    done = score(scoring, run.folder, share, stage_key(Stage.prepare, options), progress)
    if share.rank == 0:
        where = Path(options.checkpoint)
        track_forecasts(options.tracking, run.folder, where, options.data.name, _lineage(rung, scoring))
    return run, done


def _lineage(rung: SavedRung | BaseModel, scoring: Scoring) -> dict[str, Any]:
    """Where the forecasts come from."""
    return {
        "checkpoint_key": rung.trained.card["key"],
        "checkpoint_digest": rung.digest,
        "trained_on": rung.trained.card.get("data_fingerprint", "simulated bases"),
        "cutoffs": [cutoff.isoformat() for cutoff in scoring.cutoffs],
        "horizons": list(scoring.horizons),
    }
