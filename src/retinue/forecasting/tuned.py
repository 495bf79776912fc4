"""Fine-tuning: the base model goes on to learn from one base's own past cutoffs, with every field and feature it has."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import torch

from retinue.forecasting.clocked import Clocked, by_customer, context_of, joined, read_clocks
from retinue.forecasting.grid import Grid
from retinue.forecasting.outlook import Predictor
from retinue.forecasting.sequence import HELD_OUT_SALT, LEAST_READOUTS, season_of
from retinue.forecasting.trees import share_of, usable
from retinue.forecasting.zero_shot import AtHand, read_base, zero_shot_at
from retinue.models.amortised import AmortisedLaw
from retinue.models.boosting import settled
from retinue.models.clocks import Clocks
from retinue.models.network import Network, NetworkShape
from retinue.models.piecewise import quantile_edges
from retinue.models.widening import widened
from retinue.options import Encoder, Options
from retinue.pretraining.pretrained import LAW, Pretrained, save_law
from retinue.pretraining.reading import READOUT_NAMES, Reading, readouts_of
from retinue.schema import CUSTOMER, CUTOFF, InputError
from retinue.sequences.behaviour import behaviour_at
from retinue.sequences.readouts import Readouts
from retinue.sequences.tokens import Ints, Tokens
from retinue.sequences.units import units_of
from retinue.sequences.vocabulary import BINS, Vocabulary, fit_vocabulary
from retinue.training.checkpoint import Trained, edges_tensor
from retinue.training.fit import Task, fit_network
from retinue.training.watch import Heard

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TunedPredictor(Clocked):
    """A fine-tuned base model as a rung at one cutoff.

    Attributes:
        trained: The network.
        reading: Of the base at the cutoff.
        tokens: Of all customers that it will be asked about.
        columns: The features/ that it knows beside what the base model is told, in order.
        context: Of the base, where the customers asked about are not the base; None takes them for it.
    """

    trained: Trained
    reading: Reading
    tokens: Tokens
    columns: tuple[str, ...]
    context: torch.Tensor | None = None
    latest: list[tuple[pl.DataFrame, Clocks]] = field(default_factory=list, compare=False)

    @property
    def zone(self) -> str:
        """Where days are read."""
        return self.tokens.zone

    def readouts(self, buyers: pl.DataFrame) -> Readouts:
        """The buyers at the cutoff, sorted by customer."""
        return tuned_readouts(self.reading, self.tokens, buyers, self.columns, self.reading.cutoff)

    def read(self, buyers: pl.DataFrame) -> Clocks:
        """What the network says of each buyer, in float64, in the order of the rows."""
        readouts, context = self.readouts(buyers), self.context
        if context is None:
            context = context_of(self.trained, self.tokens, readouts)
        said = read_clocks(self.trained, self.tokens, readouts, context)
        return joined([said], torch.from_numpy(np.argsort(by_customer(buyers))))


def tuned_readouts(
    reading: Reading, tokens: Tokens, buyers: pl.DataFrame, columns: Sequence[str], end: datetime
) -> Readouts:
    """Buyers at a cutoff as the base model is told of them, with features/ behind; sorted by customer.

    Args:
        reading: of their base at their cutoff.
        tokens: of all of them.
        buyers: their features.
        columns: features to take; one that is not there is null.
        end: where targets end.

    Raises:
        InputError: one of them has no order in the tokens at the cutoff.
    """
    buyers = buyers[by_customer(buyers)]
    codes = buyers[CUSTOMER].to_numpy()
    place = np.minimum(np.searchsorted(tokens.customer, codes), max(len(tokens.customer) - 1, 0))
    behaviour = behaviour_at(tokens.take(place), reading.cutoff, reading.units)
    if not np.array_equal(behaviour.customer, codes):
        raise InputError(
            "features: customers without an order in the tokens at the cutoff. Take features and tokens from the same events."
        )
    told = readouts_of(reading, behaviour, end)
    absent = [pl.lit(None, pl.Float64).alias(name) for name in columns if name not in buyers.columns]
    known = buyers.with_columns(absent).select(pl.col(columns).cast(pl.Float64)).to_numpy()
    features = np.concatenate([told.features, settled(known.reshape(len(codes), -1))], axis=1)
    return replace(told, features=features.astype(np.float32), names=(*told.names, *columns))


def fit_tuned(
    model: Pretrained,
    grid: Grid,
    tokens: Tokens,
    closed_by: int,
    options: Options,
    out: Path | None = None,
    heard: Heard | None = None,
) -> Predictor:
    """The base model after a few hundred steps on the readouts of the grid whose cutoffs lie before its own.

    Outcomes are censored at the network's cutoff, and a share of customers is held out for early stopping, as in
    `fit_sequence`. With fewer than 200 readouts the base model stands as it is.

    Args:
        model: where to start.
        grid: past cutoffs.
        tokens: of all customers.
        closed_by: days from the grid's own cutoff back to that of the network.
        options: trainer, training and seed.
        out: where the checkpoint goes; None keeps none.
        heard: told the curve of losses so far, now and then.
    """
    end = grid.at(closed_by)
    columns = usable(grid.features[min(grid.features)], grid.layout.sees_seasons)
    vocabulary = wider_vocabulary(model.trained.vocabulary, fit_vocabulary(tokens, end))
    readouts = _of_grid(model.law, vocabulary, grid, tokens, closed_by, columns)
    held = share_of(pl.Series(readouts.customer), HELD_OUT_SALT) < options.training.held_out
    if min(held.sum(), (~held).sum()) < LEAST_READOUTS / 8 or len(readouts) < LEAST_READOUTS:
        log.info("train: too little past to learn from; the base model stands as it is")
        return zero_shot_at(model, tokens, end)
    taught = readouts.take(~held)
    task = Task(
        tokens=tokens,
        readouts=taught,
        vocabulary=vocabulary,
        season=season_of(tokens, end),
        inner=readouts.take(held),
        judged_days=grid.layout.asked_days,
    )
    start = widened(model.trained.network, wider_shape(model.trained.network.shape, vocabulary, taught))
    trained = fit_network(task, tuning(options, start), out, heard, start)
    if out is not None:
        save_law(model.law, model.prior, out / LAW)
    reading = read_base(model.law, vocabulary, AtHand(tokens), end)[0]
    return TunedPredictor(trained, replace(reading, vocabulary=vocabulary), tokens, columns)


def tuning(options: Options, start: Network) -> Options:
    """The options of a fine-tuning: few small steps of the network as it is."""
    shape, training = start.shape, options.training
    return replace(
        options,
        model=replace(
            options.model,
            encoder=Encoder.gru,
            width=shape.width,
            layers=shape.layers,
            dropout=shape.dropout,
            context=shape.context,
        ),
        training=replace(training, steps=training.tune_steps, learning_rate=training.tune_learning_rate),
    )


def wider_vocabulary(prior: Vocabulary, own: Vocabulary) -> Vocabulary:
    """The base model's vocabulary in a base's units, with the kinds, labels and numbers that it alone has behind."""
    kinds = tuple(kind for kind in own.kinds if kind not in prior.kinds)
    more = [i for i, name in enumerate(own.names) if name not in prior.names]
    return Vocabulary(
        kinds=(*prior.kinds, *kinds),
        fields=own.fields,
        codes=own.codes,
        names=(*prior.names, *(own.names[i] for i in more)),
        edges=(*prior.edges, *(own.edges[i] for i in more)),
        order_value=own.order_value,
        gap_days=own.gap_days,
    )


def wider_shape(shape: NetworkShape, vocabulary: Vocabulary, readouts: Readouts) -> NetworkShape:
    """The base model's shape with room for what a base has besides."""
    known = len(shape.feature_edges)
    more = quantile_edges(readouts.features[:, known:], BINS)
    return replace(
        shape,
        kinds=vocabulary.kind_count,
        code_sizes=vocabulary.code_counts,
        number_edges=edges_tensor(vocabulary.edges),
        feature_edges=torch.cat([shape.feature_edges, more]),
        dropout=shape.dropout,
    )


def _of_grid(
    law: AmortisedLaw,
    vocabulary: Vocabulary,
    grid: Grid,
    tokens: Tokens,
    closed_by: int,
    columns: Sequence[str],
) -> Readouts:
    """The readouts of every cutoff before that of the network, with money in its units at all of them."""
    end, parts = grid.at(closed_by), []
    for offset, buyers in sorted(grid.features.items()):
        if offset <= closed_by or buyers.is_empty():
            continue
        cutoff = buyers[CUTOFF][0]
        units = replace(
            units_of([tokens], cutoff), order_value=vocabulary.order_value, gap_days=vocabulary.gap_days
        )
        reading = read_base(law, vocabulary, AtHand(tokens), cutoff, units)[0]
        parts.append(tuned_readouts(reading, tokens, buyers, columns, end))
    names = (*READOUT_NAMES, *columns)
    if not parts:
        none: Ints = np.zeros(0, np.int64)
        return Readouts(none, none, np.zeros((0, len(names)), np.float32), names, end)
    customer = np.concatenate([part.customer for part in parts])
    cutoff = np.concatenate([part.cutoff for part in parts])
    order = np.lexsort((cutoff, customer))
    features, anchor = (
        np.concatenate([getattr(part, name) for part in parts])[order] for name in ("features", "anchor")
    )
    return Readouts(customer[order], cutoff[order], features, names, end, anchor)
