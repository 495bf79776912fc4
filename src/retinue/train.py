"""The way from prepared events to a checkpoint, on one process or on many that share a file system."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from retinue.accel.processes import process_rank
from retinue.forecasting.rungs import SEQUENCES, fit_rung, training_at
from retinue.forecasting.saved import save_rung
from retinue.forecasting.sequence import SequencePredictor
from retinue.forecasting.tuned import TunedPredictor
from retinue.options import Options, Tracking
from retinue.pipeline import advance
from retinue.reporting.tracking import TrainingRun
from retinue.runs import Progress, Run, Stage, is_fresh, only_run, stage_key, unheard
from retinue.schema import InputError

WAIT_SECONDS, MOST_WAITS = 1.0, 3_600


def run_train(
    options: Options, progress: Progress = unheard
) -> tuple[Run, Path, SequencePredictor | TunedPredictor]:
    """Trains the network of `options.model` at the cutoff; leaves <output>/checkpoints/<rung> with the network.

    Of several processes the first prepares the events and writes, the others wait for it and train with it; all
    see one file system. The same command again goes on where it stopped.

    Raises:
        InputError: a mistake in data or options, or a history too short to train on.
    """
    first = process_rank() == 0
    run = advance(options, Stage.prepare, progress) if first else awaited(options, Stage.prepare)
    rung = next(rung for rung, encoder in SEQUENCES.items() if encoder is options.model.encoder)
    folder = run.folder / "checkpoints" / rung.value
    tracking = options.tracking if first else Tracking.off
    with (
        only_run(run.folder) if first else nullcontext(),
        TrainingRun(tracking, run.folder, folder, options.data.name) as tracked,
    ):
        training = training_at(run.store, run.cutoffs[-1], options.horizons, options)
        training = replace(training, checkpoints=folder, heard=tracked.heard)
        scorer = fit_rung(rung, training)
        trained = training.predictor(rung)
        if not isinstance(trained, (SequencePredictor, TunedPredictor)):
            raise InputError(
                f"train: the {training.buyers.height:,} customers and their history are too few to train a network on. "
                "Use forecaster=auto."
            )
        if first:
            save_rung(scorer, training.buyers, folder)
            tracked.done(trained.trained)
    return run, folder, trained


def awaited(options: Options, stage: Stage) -> Run:
    """The run folder once another process has brought it up to a stage.

    Raises:
        InputError: it has not within an hour.
    """
    run, key = Run(options, options.folder), stage_key(stage, options)
    for _ in range(MOST_WAITS):
        if is_fresh(run, stage, key):
            return run
        time.sleep(WAIT_SECONDS)
    raise InputError(
        f"output={run.folder}: the first process has not left prepared events there. Run retinue prepare first."
    )
