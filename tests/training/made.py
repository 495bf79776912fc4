"""A small task to train on: the shop's histories, read out once a month, with two plain features."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from retinue.events.timeline import is_known, microseconds
from retinue.forecasting.sequence import Histories, season_of
from retinue.options import Options
from retinue.sequences.readouts import Readouts
from retinue.sequences.tokens import Tokens
from retinue.sequences.vocabulary import fit_vocabulary
from retinue.training.fit import Task
from tests.forecasting.shops import START, shop

END = START + timedelta(days=240)
CUTOFFS = tuple(START + timedelta(days=days) for days in (60, 90, 120, 150, 180, 210))


@cache
def tokens() -> Tokens:
    """Of 80 customers over 300 days; the last 60 lie after the end of training."""
    with TemporaryDirectory() as folder:
        return Histories(shop(Path(folder), customers=80), START + timedelta(days=300)).tokens


def readouts(histories: Tokens, end: datetime = END) -> Readouts:
    """Every customer with an event, at every cutoff: the number of tokens, and a feature that is null for some."""
    who, when, features = [], [], []
    for cutoff in CUTOFFS:
        known = is_known(histories.available, cutoff)
        count = np.add.reduceat(known, histories.offsets[:-1])
        some = count > 0
        who.append(histories.customer[some])
        when.append(np.full(int(some.sum()), microseconds(cutoff)))
        odd = np.where(histories.customer[some] % 2, np.nan, count[some])
        features.append(np.stack([count[some], odd], axis=1))
    customer, cutoff_us = np.concatenate(who), np.concatenate(when)
    order = np.lexsort((cutoff_us, customer))
    matrix = np.concatenate(features).astype(np.float32)
    return Readouts(customer[order], cutoff_us[order], matrix[order], ("tokens", "odd"), end)


def task(histories: Tokens | None = None, **changes: Any) -> Task:
    """A quarter of the customers is held out."""
    histories = tokens() if histories is None else histories
    seen = readouts(histories)
    held = seen.customer % 4 == 0
    made = Task(
        tokens=histories,
        readouts=seen.take(~held),
        vocabulary=fit_vocabulary(histories, END),
        season=season_of(histories, END),
        inner=seen.take(held),
    )
    return replace(made, **changes)


def small(**training: Any) -> Options:
    """Options for seconds, not minutes."""
    base = Options()
    asked = {
        "steps": 15,
        "readouts": 96,
        "buckets": 2,
        "check_every": 5,
        "patience": 50,
        "learning_rate": 5e-3,
    } | training
    model = replace(base.model, width=16, heads=2)
    return replace(base, model=model, training=replace(base.training, **asked))
