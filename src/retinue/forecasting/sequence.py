"""The sequence rungs: a network that reads each history, with the features and the first forecast the trees get."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from retinue.events.store import Store
from retinue.events.timeline import history, is_known
from retinue.features.catalogue import Family
from retinue.features.query import CATALOGUE
from retinue.forecasting.clocked import Clocked, by_customer, context_of, joined, read_clocks
from retinue.forecasting.grid import Grid
from retinue.forecasting.outlook import Outlook, Predictor
from retinue.forecasting.trees import FIRST_DAYS, matrix, share_of, usable
from retinue.models.clocks import ANCHOR, ANCHOR_DAYS, Clocks, anchor_of
from retinue.models.sequence_losses import LEAST_VALUE
from retinue.options import Encoder, Options
from retinue.schema import CUSTOMER, CUTOFF, ORDER
from retinue.sequences.readouts import Readouts, local_day
from retinue.sequences.season import Season
from retinue.sequences.tokens import Tokens, TokenStore, write_tokens
from retinue.sequences.vocabulary import fit_vocabulary
from retinue.training.checkpoint import Trained
from retinue.training.fit import Task, fit_network
from retinue.training.watch import Heard

FIRST_NAMES = ("first_log_orders", "first_log_orders_later", "first_log_odds", "first_log_value")
LEAST_READOUTS = 200
HELD_OUT_SALT = 7


@dataclass(frozen=True)
class KnownStore(Store):
    """A store of what another one held at a cutoff."""

    inner: Store
    cutoff: datetime

    def scan(self, shard: int | None = None) -> pl.LazyFrame:
        """Events known at the cutoff."""
        return history(self.inner.scan(shard), self.cutoff)


@dataclass(frozen=True)
class Histories:
    """The tokens of a store as they were at a cutoff, made when they are first asked for."""

    store: Store
    cutoff: datetime

    @cached_property
    def tokens(self) -> Tokens:
        """Of every event known at the cutoff; those that were prepared may hold later ones, which nothing looks at."""
        prepared = self.store.folder.parent / "tokens"
        if type(self.store) is Store and (prepared / "manifest.json").is_file():
            found = TokenStore.open(prepared)
            if found.manifest["fingerprint"] == self.store.manifest.fingerprint:
                return found.read()
        known = KnownStore(self.store.folder, self.store.manifest, self.store, self.cutoff)
        with tempfile.TemporaryDirectory() as folder:
            write_tokens(known, Path(folder))
            mapped = TokenStore.open(Path(folder)).read()
            columns: dict[str, Any] = {
                n: np.array(c) for n, c in vars(mapped).items() if isinstance(c, np.ndarray)
            }
        return replace(mapped, **columns)


@dataclass(frozen=True)
class SequencePredictor(Clocked):
    """A trained network as a rung that reads whole histories.

    Attributes:
        trained: The network.
        tokens: Of all customers that it will be asked about.
        first: Whose forecast it is told.
        columns: The features that it knows, in order.
        context: Of the base at the cutoff, where the customers asked about are not the base; None takes them for it.
    """

    trained: Trained
    tokens: Tokens
    first: Predictor
    columns: tuple[str, ...]
    context: torch.Tensor | None = None
    latest: list[tuple[pl.DataFrame, Clocks]] = field(default_factory=list, compare=False)

    @property
    def zone(self) -> str:
        """Where days are read."""
        return self.tokens.zone

    def readouts(self, buyers: pl.DataFrame) -> Readouts:
        """The buyers at their cutoff, sorted by customer."""
        unit = self.trained.vocabulary.order_value
        return readouts_at([buyers], self.columns, self.first, buyers[CUTOFF][0], unit)

    def read(self, buyers: pl.DataFrame) -> Clocks:
        """What the network says of each buyer, in float64, in the order of the rows."""
        readouts = self.readouts(buyers)
        context = self.context
        if context is None:
            context = context_of(self.trained, self.tokens, readouts)
        said = read_clocks(self.trained, self.tokens, readouts, context)
        return joined([said], torch.from_numpy(np.argsort(by_customer(buyers))))


def fit_sequence(
    first: Predictor,
    grid: Grid,
    tokens: Tokens,
    closed_by: int,
    options: Options,
    out: Path | None = None,
    heard: Heard | None = None,
) -> Predictor:
    """The network that the readouts of the grid teach whose cutoffs lie before its own, or the first forecast.

    Every outcome is censored at the network's cutoff. A share of the customers is held out for early stopping.
    With fewer than 200 readouts the first forecast stands as it is.

    Args:
        first: fitted on what is known at the cutoff of the network.
        grid: past cutoffs.
        tokens: of all customers.
        closed_by: days from the grid's own cutoff back to that of the network.
        options: model, trainer, training and seed.
        out: where the checkpoint goes; None keeps none.
        heard: told the curve of losses so far, now and then.
    """
    task = task_of(first, grid, tokens, closed_by, options)
    if task is None:
        return first
    columns = task.readouts.names[: -len(FIRST_NAMES)]
    return SequencePredictor(fit_network(task, options, out, heard), tokens, first, columns)


def task_of(first: Predictor, grid: Grid, tokens: Tokens, closed_by: int, options: Options) -> Task | None:
    """What a network is to learn from the grid, see `fit_sequence`; None where that is too little."""
    end = grid.at(closed_by)
    columns = usable(grid.features[min(grid.features)], grid.layout.sees_seasons)
    vocabulary = fit_vocabulary(tokens, end)
    readouts = readouts_of(grid, first, closed_by, columns, vocabulary.order_value)
    held = share_of(pl.Series(readouts.customer), HELD_OUT_SALT) < options.training.held_out
    if min(held.sum(), (~held).sum()) < LEAST_READOUTS / 8 or len(readouts) < LEAST_READOUTS:
        return None
    return Task(
        tokens=tokens,
        readouts=readouts.take(~held),
        vocabulary=vocabulary,
        season=season_of(tokens, end),
        inner=readouts.take(held),
        judged_days=grid.layout.asked_days,
        families=_families(columns),
    )


def with_encoder(options: Options, encoder: Encoder) -> Options:
    """The options with another encoder."""
    return replace(options, model=replace(options.model, encoder=encoder))


def readouts_of(
    grid: Grid, first: Predictor, closed_by: int, columns: Sequence[str], order_value: float
) -> Readouts:
    """The customers of every cutoff of the grid that lies before one, with nothing later in sight.

    Args:
        grid: past cutoffs.
        first: whose forecast at each cutoff is a feature.
        closed_by: days from the grid's cutoff back to where targets end.
        columns: features to take.
        order_value: the base's median order.
    """
    tables = [buyers for offset, buyers in sorted(grid.features.items()) if offset > closed_by]
    return readouts_at(tables, columns, first, grid.at(closed_by), order_value)


def season_of(tokens: Tokens, end: datetime) -> Season:
    """The season of the orders known at an instant."""
    orders = tokens.of_kind(ORDER) & is_known(tokens.available, end)
    return Season.fit(tokens.day[orders], int(local_day(end, tokens.zone)))


def readouts_at(
    tables: Sequence[pl.DataFrame],
    columns: Sequence[str],
    first: Predictor,
    end: datetime,
    order_value: float,
) -> Readouts:
    """The rows of features tables with what is first forecast at each, sorted by customer and cutoff.

    Args:
        tables: each at one cutoff.
        columns: features to take; one that a table lacks is null there.
        first: whose forecast goes with them.
        end: where targets end.
        order_value: the base's median order.
    """
    names = (*columns, *FIRST_NAMES)
    if not tables:
        none = np.zeros(0, np.int64)
        nothing = (np.zeros((0, width), np.float32) for width in (len(names), ANCHOR))
        return Readouts(none, none, next(nothing), names, end, next(nothing))
    said = [first.outlook(buyers, [*FIRST_DAYS, *ANCHOR_DAYS], 0.0) for buyers in tables]
    features = np.concatenate([matrix(b, columns, each) for b, each in zip(tables, said, strict=True)])
    anchor = np.concatenate([_anchor(each, order_value) for each in said])
    customer = np.concatenate([buyers[CUSTOMER].to_numpy() for buyers in tables])
    cutoff = np.concatenate([buyers[CUTOFF].dt.epoch("us").to_numpy() for buyers in tables])
    order = np.lexsort((cutoff, customer))
    return Readouts(customer[order], cutoff[order], features[order], names, end, anchor[order])


def _anchor(said: Outlook, order_value: float) -> NDArray[np.float32]:
    """A first forecast as clocks; what it says of days it is taken to mean of business days."""
    p_churn, orders = (each[len(FIRST_DAYS) :].T for each in (said.p_churn, said.orders))
    columns = (
        np.log(np.maximum(p_churn, np.finfo(np.float64).tiny)),
        orders,
        np.log(np.maximum(said.values.mean / order_value, LEAST_VALUE)),
    )
    found: NDArray[np.float32] = anchor_of(
        *(torch.from_numpy(np.ascontiguousarray(c)) for c in columns)
    ).numpy()
    return found


def _families(columns: Sequence[str]) -> tuple[int, ...]:
    """Family of each feature; the first forecast's columns are one of their own."""
    place = {family: i for i, family in enumerate(Family)}
    known = {feature.name: place[feature.family] for feature in CATALOGUE}
    return (*(known.get(name, len(place)) for name in columns), *([len(place) + 1] * len(FIRST_NAMES)))
