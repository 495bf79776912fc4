"""What a base counts in at a cutoff: its span, season, median order and median gap, added up shard by shard."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from retinue.events.timeline import is_known
from retinue.schema import ORDER
from retinue.sequences.readouts import local_day
from retinue.sequences.season import Season
from retinue.sequences.tokens import Tokens
from retinue.sequences.vocabulary import middle

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WINDOWS = (30, 90, 180, 365, 730)  # days before the cutoff
PARTS = (8, 4, 2)  # of the base's history, likewise
MOST_SAMPLED = 1_000_000  # values behind a median
HALF_CODE = 31  # binary digits of a customer's code; shards are told by the lower ones


@dataclass(frozen=True)
class Units:
    """What a base counts in at a cutoff.

    Attributes:
        first_day: Local days since 1970 of its first order.
        cutoff_day: Of the cutoff.
        order_value: Median amount of an order, account currency.
        gap_days: Median days between a customer's events that lie apart.
        order_counts: Orders of each local day since 1970.
    """

    first_day: int
    cutoff_day: int
    order_value: float
    gap_days: float
    order_counts: Ints

    @property
    def span(self) -> float:
        """Days of history."""
        return max(float(self.cutoff_day - self.first_day), 1.0)

    @cached_property
    def season(self) -> Season:
        """Of its orders."""
        days = np.flatnonzero(self.order_counts)
        return Season.of_counts(days, self.order_counts[days], self.cutoff_day)

    @property
    def windows(self) -> tuple[float, ...]:
        """Days of each window of `Sums`."""
        return (*(float(days) for days in WINDOWS), *(self.span / part for part in PARTS))


@dataclass(frozen=True)
class Sample:
    """Values of some customers, few enough to hold: of those whose code ends in so many zeros, its lower half apart.

    Which customers they are follows from the whole base alone, not from its order or its shards.

    Attributes:
        zeros: Binary digits.
        code: (V,) customer of each value.
        value: (V,)
    """

    zeros: int
    code: Ints
    value: Floats

    def __add__(self, other: Sample) -> Sample:
        return Sample(
            max(self.zeros, other.zeros),
            np.concatenate([self.code, other.code]),
            np.concatenate([self.value, other.value]),
        ).thinned()

    def thinned(self) -> Sample:
        """The same of fewer customers, where there are more values than are held."""
        zeros, code, value = self.zeros, self.code, self.value
        while True:
            keep = (code >> HALF_CODE) % 2**zeros == 0
            code, value = code[keep], value[keep]
            if len(value) <= MOST_SAMPLED or zeros == HALF_CODE - 2:
                return Sample(zeros, code, value)
            zeros += 1


@dataclass(frozen=True)
class Counts:
    """What the units of a base are made of; those of parts of a base add up to those of the whole.

    Attributes:
        first_day: Local days since 1970 of the first order; None where there is none.
        cutoff_day: Of the cutoff.
        order_counts: Orders of each local day since 1970.
        values: Amounts of orders.
        gaps: Days between events of a customer.
    """

    first_day: int | None
    cutoff_day: int
    order_counts: Ints
    values: Sample
    gaps: Sample

    def __add__(self, other: Counts) -> Counts:
        first = [day for day in (self.first_day, other.first_day) if day is not None]
        return Counts(
            min(first, default=None),
            self.cutoff_day,
            _added(self.order_counts, other.order_counts),
            self.values + other.values,
            self.gaps + other.gaps,
        )

    @property
    def units(self) -> Units:
        """Medians are of a sample of a million values, where there are more."""
        return Units(
            first_day=self.cutoff_day if self.first_day is None else self.first_day,
            cutoff_day=self.cutoff_day,
            order_value=middle(self.values.value) if len(self.values.value) else 1.0,
            gap_days=middle(self.gaps.value) if len(self.gaps.value) else 1.0,
            order_counts=self.order_counts,
        )


def counts_of(tokens: Tokens, cutoff: datetime) -> Counts:
    """Of all tokens that were known at a cutoff."""
    day = int(np.floor(local_day(cutoff, tokens.zone)))
    known = is_known(tokens.available, cutoff)
    is_order = known & tokens.of_kind(ORDER)
    none = Sample(0, np.zeros(0, np.int64), np.zeros(0))
    if not is_order.any():
        return Counts(None, day, np.zeros(0, np.int64), none, none)
    code = np.asarray(tokens.customer)[tokens.owner]
    return Counts(
        int(tokens.day[is_order].min()),  # campaigns are often older than what is kept of orders
        day,
        np.bincount(np.clip(tokens.day[is_order], 0, day), minlength=1),
        Sample(0, code[is_order], np.asarray(tokens.money)[is_order]).thinned(),
        Sample(0, code[known], np.expm1(tokens.log_gap[known].astype(np.float64))).thinned(),
    )


def units_of(shards: Iterable[Tokens], cutoff: datetime) -> Units:
    """Units of a base from all its tokens that were known at a cutoff, read shard by shard."""
    return reduce(add, (counts_of(tokens, cutoff) for tokens in shards)).units


def _added(one: Ints, other: Ints) -> Ints:
    total = np.zeros(max(len(one), len(other)), np.int64)
    total[: len(one)] += one
    total[: len(other)] += other
    return total
