"""The zero-shot rung: the pretrained base model reads a base that it has never seen; nothing is fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache, partial, reduce
from operator import add
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import polars as pl
import torch
from torch import Tensor

from retinue.cluster import HERE, Spread
from retinue.config import shipped_base_model
from retinue.forecasting.clocked import CONTEXT_CUSTOMERS, Clocked, context_of, joined, read_clocks
from retinue.models.amortised import AmortisedLaw
from retinue.models.clocks import Clocks
from retinue.pretraining.pretrained import Pretrained, load_pretrained
from retinue.pretraining.reading import Reading, law_inputs, reading_of, readouts_of
from retinue.schema import CUSTOMER, InputError
from retinue.sequences.base_sums import Sums
from retinue.sequences.behaviour import behaviour_at
from retinue.sequences.tokens import Ints, Tokens, TokenStore
from retinue.sequences.units import Counts, Units, counts_of
from retinue.sequences.vocabulary import Vocabulary
from retinue.training.checkpoint import CARD, Trained

T = TypeVar("T")
CUSTOMERS_AT_ONCE = 65_536


def shipped() -> Path:
    """The folder of the base model that comes with retinue.

    Raises:
        InputError: it is not there.
    """
    folder = shipped_base_model()
    if not (folder / CARD).is_file():
        raise InputError(
            f"forecaster=zero_shot: the shipped base model is missing from {folder}. Install retinue again, or make one "
            "with retinue pretrain and give its folder as base_model=."
        )
    return folder


@lru_cache(maxsize=4)
def base_model(folder: str | None = None) -> Pretrained:
    """The base model of a folder, read once; None is the shipped one.

    Raises:
        InputError: none stands there.
    """
    return load_pretrained(shipped() if folder is None else Path(folder))


@dataclass(frozen=True)
class BaseAt:
    """A base as the base model sees it at a cutoff.

    Attributes:
        trained: The network in the base's units and season.
        reading: Of the base.
        context: What its customers tell of it, (1, inducing, width).
        unlikeness: Share of simulated bases that are less unusual; above 1 it lies outside the prior.
    """

    trained: Trained
    reading: Reading
    context: Tensor | None
    unlikeness: float


@dataclass(frozen=True)
class ZeroShot(Clocked):
    """The base model as a rung at one cutoff.

    Attributes:
        base: Of all customers.
        tokens: Of all customers that it will be asked about.
    """

    base: BaseAt
    tokens: Tokens
    latest: list[tuple[pl.DataFrame, Clocks]] = field(default_factory=list, compare=False)

    @property
    def trained(self) -> Trained:  # type: ignore[override]
        """The network in the base's units."""
        return self.base.trained

    @property
    def zone(self) -> str:
        """Where days are read."""
        return self.tokens.zone

    def read(self, buyers: pl.DataFrame) -> Clocks:
        """What the network says of each buyer, in float64, in the order of the rows."""
        codes = buyers[CUSTOMER].to_numpy()
        order = np.argsort(codes, kind="stable")
        ascending = codes[order]
        said = [
            clocks_of(self.base, self.tokens, ascending[begin : begin + CUSTOMERS_AT_ONCE])
            for begin in range(0, len(codes), CUSTOMERS_AT_ONCE)
        ]
        return joined(said, torch.from_numpy(np.argsort(order)))


class Over(Protocol):
    """Gives what a function makes of the tokens of each shard of a base."""

    def __call__(self, work: Callable[[Tokens], T]) -> Iterable[T]:
        """In the order of the shards; the function must be picklable, as other processes may be told of it."""


@dataclass(frozen=True)
class AtHand:
    """A base whose tokens are all at hand."""

    tokens: Tokens

    def __call__(self, work: Callable[[Tokens], T]) -> Iterable[T]:
        """As `Over`."""
        return [work(self.tokens)]


@dataclass(frozen=True)
class InShards:
    """A base in a folder, one shard in memory at a time in each process that works on it."""

    store: TokenStore
    spread: Spread = HERE

    def __call__(self, work: Callable[[Tokens], T]) -> Iterable[T]:
        """As `Over`."""
        return self.spread(partial(_of_shard, self.store, work), range(self.store.shards))


def _of_shard(store: TokenStore, work: Callable[[Tokens], T], shard: int) -> T:
    return work(store.read([shard]))


def zero_shot_at(model: Pretrained, tokens: Tokens, cutoff: datetime) -> ZeroShot:
    """The base model on a base whose tokens are all at hand."""
    return ZeroShot(base_at(model, AtHand(tokens), partial(_chosen, tokens), cutoff), tokens)


def base_at(model: Pretrained, over: Over, some: Callable[[Ints], Tokens], cutoff: datetime) -> BaseAt:
    """Reads a base at a cutoff; two passes over its shards.

    Args:
        model: the base model.
        over: the base's shards.
        some: gives the tokens of some customers, by their codes.
        cutoff: what became available later is not looked at.

    Raises:
        InputError: nobody had ordered by the cutoff.
    """
    reading, sums, codes = read_base(model.law, model.trained.vocabulary, over, cutoff)
    trained = replace(model.trained, vocabulary=reading.vocabulary, season=reading.units.season)
    members = some(codes)
    told = readouts_of(reading, behaviour_at(members, cutoff, reading.units), cutoff)
    context = context_of(trained, members, told)
    return BaseAt(trained, reading, context, model.prior.unlikeness(law_inputs(sums, reading.summary)))


def read_base(
    law: AmortisedLaw, vocabulary: Vocabulary, over: Over, cutoff: datetime, units: Units | None = None
) -> tuple[Reading, Sums, Ints]:
    """A base's reading at a cutoff, the sums behind it, and the lowest codes of those who had ordered.

    Args:
        law: amortised.
        vocabulary: of the network; the reading has it in units of the base.
        over: the base's shards.
        cutoff: what became available later is not looked at.
        units: of the base; None finds them.

    Raises:
        InputError: nobody had ordered by the cutoff.
    """
    units = units or units_at(over, cutoff)
    sums: Sums | None = None
    lowest = np.zeros(0, np.int64)
    for part, codes in over(partial(_sums_and_lowest, cutoff, units)):
        sums = part if sums is None else sums + part
        lowest = np.sort(np.concatenate([lowest, codes]))[:CONTEXT_CUSTOMERS]
    if sums is None or not float(sums.customers):
        raise InputError(f"cutoff={cutoff:%Y-%m-%d}: nobody had ordered by then. Give a later cutoff.")
    return reading_of(law, vocabulary, sums, units, cutoff), sums, lowest


def units_at(over: Over, cutoff: datetime) -> Units:
    """What a base counts in at a cutoff."""
    return reduce(add, over(partial(_counts_of, cutoff))).units


def _counts_of(cutoff: datetime, tokens: Tokens) -> Counts:
    return counts_of(tokens, cutoff)


def _sums_and_lowest(cutoff: datetime, units: Units, tokens: Tokens) -> tuple[Sums, Ints]:
    found = behaviour_at(tokens, cutoff, units)
    return found.sums, np.sort(found.customer)[:CONTEXT_CUSTOMERS]


def clocks_of(base: BaseAt, tokens: Tokens, codes: Ints) -> Clocks:
    """What the network says of customers, by their ascending codes.

    Raises:
        InputError: one of them has no order known at the cutoff.
    """
    mine = _chosen(tokens, codes)
    behaviour = behaviour_at(mine, base.reading.cutoff, base.reading.units)
    if not np.array_equal(behaviour.customer, codes):
        missing = np.setdiff1d(codes, behaviour.customer)
        raise InputError(
            f"features: {len(missing):,} customers (first: {missing[:1]}) have no order in the tokens at the cutoff. "
            "Take features and tokens from the same events."
        )
    readouts = readouts_of(base.reading, behaviour, base.reading.cutoff)
    return read_clocks(base.trained, mine, readouts, base.context)


def _chosen(tokens: Tokens, codes: Ints) -> Tokens:
    if np.array_equal(tokens.customer, codes):
        return tokens
    place = np.searchsorted(tokens.customer, codes)
    place = np.minimum(place, max(len(tokens.customer) - 1, 0))
    return tokens.take(place[tokens.customer[place] == codes])
