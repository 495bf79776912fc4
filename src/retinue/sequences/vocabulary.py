"""What training time says of a base: its event types and labels by frequency, its units, and the bins of its numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from retinue.events.timeline import is_known
from retinue.schema import AMOUNT, CATEGORIES, COST, DISCOUNT, LINES, ORDER, QUANTITY
from retinue.sequences.tokens import DAY_US, Tokens

Floats = NDArray[np.float32]

BINS = 12
MOST_CODES = 4_096  # labels beyond are hashed into as many buckets
MONEY = frozenset({str(AMOUNT), str(DISCOUNT), str(COST)})
COUNTED = frozenset({str(QUANTITY), str(LINES), str(CATEGORIES)})


@dataclass(frozen=True)
class Vocabulary:
    """Indices, units and bins; index 0 is what was not there in training time.

    Attributes:
        kinds: Event types by falling frequency; the first has index 1.
        fields: Labels that training time knows.
        codes: Per field, its values' hashes by falling frequency; empty where they are hashed into buckets.
        names: Numbers that training time knows, amount first in any case.
        edges: Per number, the quantiles between its bins once it is free of units, ascending and distinct.
        order_value: Median amount of an order, account currency; 1 where none is known.
        gap_days: Median days between a customer's events that lie apart; 1 where none do.
    """

    kinds: tuple[str, ...]
    fields: tuple[str, ...]
    codes: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    edges: tuple[tuple[float, ...], ...]
    order_value: float
    gap_days: float

    @property
    def kind_count(self) -> int:
        """Indices of event types, with 0 for unknown."""
        return len(self.kinds) + 1

    @property
    def code_counts(self) -> tuple[int, ...]:
        """Indices of each field, with 0 for none or unknown."""
        return tuple(1 + (len(ranked) or MOST_CODES) for ranked in self.codes)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Self:
        """From what `as_dict` gave, before or after JSON."""
        return cls(
            kinds=tuple(told["kinds"]),
            fields=tuple(told["fields"]),
            codes=tuple(tuple(ranked) for ranked in told["codes"]),
            names=tuple(told["names"]),
            edges=tuple(tuple(edges) for edges in told["edges"]),
            order_value=float(told["order_value"]),
            gap_days=float(told["gap_days"]),
        )


@dataclass(frozen=True)
class Encoded:
    """Tokens as a network reads them, in the order of the tokens; shapes as in `Batch`."""

    kind: NDArray[np.int64]
    codes: NDArray[np.int64]
    numbers: Floats
    gaps: Floats
    age: Floats
    calendar: Floats


def fit_vocabulary(tokens: Tokens, training_end: datetime) -> Vocabulary:
    """The vocabulary of the tokens that were available at the end of training; no later one changes it."""
    known = is_known(tokens.available, training_end)
    kind = tokens.kind[known]
    orders = tokens.money[known & tokens.of_kind(ORDER)]
    gaps = np.expm1(tokens.log_gap[known].astype(np.float64))
    order_value = middle(orders)
    seen_kinds = _ranked(kind, [tokens.kinds[i] for i in range(len(tokens.kinds))])
    fields, codes = [], []
    for i, field in enumerate(tokens.fields):
        values = tokens.codes[known, i]
        values = values[values > 0]
        if len(values):
            ranked = _ranked(values)
            fields.append(field)
            codes.append(tuple(ranked) if len(ranked) <= MOST_CODES else ())
    free = _free_of_units(tokens.numbers[known], tokens.names, order_value)
    names, edges = [], []
    for i, name in enumerate(tokens.names):
        values = free[:, i][np.isfinite(free[:, i])]
        if len(values) or name == AMOUNT:
            names.append(name)
            edges.append(_quantiles(values, BINS))
    return Vocabulary(
        tuple(seen_kinds), tuple(fields), tuple(codes), tuple(names), tuple(edges), order_value, middle(gaps)
    )


def encode(tokens: Tokens, vocabulary: Vocabulary) -> Encoded:
    """The tokens in the vocabulary's indices and units; what it does not know is 0, or NaN for a number."""
    kind_index = np.array([_index(vocabulary.kinds, name) for name in tokens.kinds] or [0])
    days = np.expm1(tokens.log_gap.astype(np.float64))
    late = (tokens.available - tokens.event) / DAY_US
    age = (tokens.available - np.repeat(tokens.available[tokens.offsets[:-1]], tokens.lengths)) / DAY_US
    gaps = np.stack([np.log1p(days), log_ratio(days, vocabulary.gap_days), np.log1p(late)], axis=1)
    codes = np.zeros((len(tokens.kind), len(vocabulary.fields)), dtype=np.int64)
    for i, field in enumerate(vocabulary.fields):
        if field in tokens.fields:
            codes[:, i] = _code_index(tokens.codes[:, tokens.fields.index(field)], vocabulary.codes[i])
    numbers = np.full((len(tokens.kind), len(vocabulary.names)), np.nan, dtype=np.float32)
    free = _free_of_units(tokens.numbers, tokens.names, vocabulary.order_value)
    for i, name in enumerate(vocabulary.names):
        if name in tokens.names:
            numbers[:, i] = free[:, tokens.names.index(name)]
    return Encoded(
        kind=kind_index[tokens.kind],
        codes=codes,
        numbers=numbers,
        gaps=gaps.astype(np.float32),
        age=np.log1p(age).astype(np.float32),
        calendar=tokens.calendar,
    )


def log_ratio(part: NDArray[np.float64], whole: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Log of how many times `whole` goes into `part`; a fiftieth is added, so that 0 has one (-3.9)."""
    return np.asarray(np.log(part / whole + 0.02))


def _free_of_units(numbers: Floats, names: tuple[str, ...], order_value: float) -> NDArray[np.float64]:
    """Money as the signed log1p of median orders, counts as signed log1p, scores as they are."""
    free = np.array(numbers, dtype=np.float64)
    for i, name in enumerate(names):
        if name in MONEY:
            free[:, i] = signed_log(free[:, i] / order_value)
        elif name in COUNTED:
            free[:, i] = signed_log(free[:, i])
    return free


def signed_log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """sign(x) · log(1 + |x|), element by element."""
    return np.asarray(np.sign(values) * np.log1p(np.abs(values)))


def middle(values: NDArray[Any]) -> float:
    """Median of the values above 0, or 1."""
    above = values[values > 0]
    return float(np.median(above)) if len(above) else 1.0


def _ranked(values: NDArray[Any], names: list[str] | None = None) -> list[Any]:
    """Distinct values (or their names) by falling frequency, ties in ascending order."""
    found, counts = np.unique(values, return_counts=True)
    shown = [int(value) if names is None else names[int(value)] for value in found]
    return [shown[i] for i in sorted(range(len(found)), key=lambda i: (-int(counts[i]), shown[i]))]


def _index(ranked: tuple[str, ...], name: str) -> int:
    return ranked.index(name) + 1 if name in ranked else 0


def _code_index(codes: NDArray[np.uint32], ranked: tuple[int, ...]) -> NDArray[np.int64]:
    values = codes.astype(np.int64)
    if not ranked:
        return np.where(values > 0, 1 + values % MOST_CODES, 0)
    order = np.argsort(np.array(ranked))
    ascending = np.array(ranked)[order]
    place = np.minimum(np.searchsorted(ascending, values), len(ranked) - 1)
    return np.where(ascending[place] == values, order[place] + 1, 0)


def _quantiles(values: NDArray[np.float64], bins: int) -> tuple[float, ...]:
    return tuple(np.unique(np.quantile(values, np.linspace(0, 1, bins + 1))).tolist()) if len(values) else ()
