"""Trains the small task as one of several processes that torchrun has started: -m tests.training.on_processes OUT COUNT."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from retinue.training.fit import fit_network
from tests.training.made import small, task

if __name__ == "__main__":
    options = small(steps=20, buckets=4)
    trainer = replace(options.trainer, devices=int(sys.argv[2]))
    fit_network(task(), replace(options, trainer=trainer), Path(sys.argv[1]))
