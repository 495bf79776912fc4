"""The way to a pretrained base model: simulate, train, save; on one process or on many that share a file system."""

from __future__ import annotations

from pathlib import Path

from retinue.accel.processes import process_rank
from retinue.options import Options, Tracking
from retinue.pretraining.fit import pretrain
from retinue.pretraining.pretrained import Pretrained
from retinue.reporting.tracking import TrainingRun

NAME = "base"


def run_pretrain(options: Options) -> tuple[Path, Pretrained]:
    """Trains a base model on simulated bases; leaves the checkpoint in the output folder, null is runs/base.

    The same command again goes on where it stopped.
    """
    folder = Path(options.output or f"runs/{NAME}")
    tracking = options.tracking if process_rank() == 0 else Tracking.off
    with TrainingRun(tracking, folder, folder, NAME) as tracked:
        return folder, pretrain(options, folder, tracked.heard)
