"""Trains the small task as one of several processes that torchrun has started: -m tests.training.on_processes OUT STOP WORD…

It is killed before step STOP, where that is not 0. Each word is an option of the trainer, such as trainer.accumulate=2,
or TUNED: it goes on from a network that it stays near.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from retinue.accel.processes import process_count
from retinue.config import resolve
from retinue.models.clocks import WIDTH
from retinue.models.network import Network
from retinue.options import Encoder, Options
from retinue.training.data import Steps
from retinue.training.fit import fit_network, new_network
from retinue.training.module import Step
from tests.training.made import small, task

TUNED = "tuned"
Buckets = list[np.ndarray[tuple[int], np.dtype[np.int64]]]


def asked(words: list[str]) -> Options:
    """The small options, without dropout, which no two processes share, and with the words over them."""
    base = small(steps=20, buckets=4)
    model = replace(base.model, encoder=Encoder.transformer, layers=2, dropout=0.0)
    return replace(base, model=model, trainer=resolve(words).trainer)


def begun(options: Options) -> Network:
    """A network that has learnt elsewhere."""
    return new_network(task(), options.model, torch.full((WIDTH,), -1.0), seed=9)


def killed_before(index: int, patch: pytest.MonkeyPatch) -> None:
    """A step that is never built."""
    built = Steps._step

    def failing(steps: Steps, at: int, buckets: Buckets) -> Step:
        if at == index:
            raise KeyboardInterrupt
        return built(steps, at, buckets)

    patch.setattr(Steps, "_step", failing)


if __name__ == "__main__":
    out, stop, *words = sys.argv[1:]
    given = [word for word in words if word != TUNED]
    options = asked([*given, f"trainer.devices={process_count()}"])
    if int(stop):
        killed_before(int(stop), pytest.MonkeyPatch())
    fit_network(task(), options, Path(out), start=begun(options) if TUNED in words else None)
