"""Pretrains the tiny model as one of several processes that torchrun has started: -m tests.pretraining.on_processes OUT WORD…"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from retinue.accel.processes import process_count
from retinue.config import resolve
from retinue.options import Options
from retinue.pretraining import fit
from tests.pretraining.conftest import TINY


def asked(words: list[str]) -> Options:
    """Of five bases a step, which two processes cannot share evenly, without dropout, which they cannot share at all."""
    pretraining = replace(TINY, bases=5, dropout=0.0)
    return Options(pretraining=pretraining, trainer=resolve(words).trainer)


if __name__ == "__main__":
    out, *words = sys.argv[1:]
    fit.EDGE_BASES = 6
    fit.pretrain(asked([*words, f"trainer.devices={process_count()}"]), Path(out))
