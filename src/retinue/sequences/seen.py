"""What is kept of customers beside a network's state, so that new tokens and readouts need no history."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from retinue.schema import ORDER
from retinue.sequences.readouts import Floats, silence_of
from retinue.sequences.tokens import DAY_US, Ints, Tokens
from retinue.sequences.vocabulary import Encoded, Vocabulary, encode


@dataclass
class Seen:
    """Tokens so far of C customers; times are microseconds since 1970 at which they became available.

    Attributes:
        customer: (C,) codes, ascending.
        tokens: (C,) how many.
        first: (C,) time of the first; nothing where there is none, as in all others.
        last: (C,) of the last.
        orders: (C,) how many of them are orders.
        first_order: (C,) time of the first of these.
        last_order: (C,) of the last.
    """

    customer: Ints
    tokens: Ints
    first: Ints
    last: Ints
    orders: Ints
    first_order: Ints
    last_order: Ints

    @classmethod
    def nobody(cls) -> Seen:
        """No customers."""
        return cls(*(np.zeros(0, np.int64) for _ in fields(cls)))

    def rows_of(self, customers: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """Row of each customer, and whether it is there."""
        if not len(self.customer):
            return np.zeros(len(customers), np.int64), np.zeros(len(customers), bool)
        rows = np.minimum(np.searchsorted(self.customer, customers), len(self.customer) - 1)
        return rows, self.customer[rows] == customers

    def admit(self, new: Ints) -> Ints:
        """Makes room for customers that are not there; returns the order that rows followed by new ones take."""
        order = np.argsort(np.concatenate([self.customer, new]), kind="stable")
        for field in fields(self):
            more = new if field.name == "customer" else np.zeros(len(new), np.int64)
            setattr(self, field.name, np.concatenate([getattr(self, field.name), more])[order])
        return order

    def take(self, tokens: Tokens, rows: Ints) -> None:
        """Notes new tokens of the customers in these rows, which are those of `tokens`."""
        begins, ends, available = tokens.offsets[:-1], tokens.offsets[1:], np.asarray(tokens.available)
        new = self.tokens[rows] == 0
        self.first[rows[new]] = available[begins[new]]
        self.last[rows] = available[ends - 1]
        self.tokens[rows] += ends - begins
        is_order = tokens.of_kind(ORDER)
        times, before = available[is_order], np.concatenate([[0], np.cumsum(is_order)])
        count = before[ends] - before[begins]
        newly = (count > 0) & (self.orders[rows] == 0)
        self.first_order[rows[newly]] = times[before[begins[newly]]]
        self.last_order[rows[count > 0]] = times[before[ends[count > 0]] - 1]
        self.orders[rows] += count

    def encoded(self, tokens: Tokens, rows: Ints, vocabulary: Vocabulary) -> Encoded:
        """New tokens of the customers in these rows as a network reads them behind all that came before."""
        begins, lengths = tokens.offsets[:-1], tokens.lengths
        known = self.tokens[rows] > 0
        log_gap = np.array(tokens.log_gap)
        gap = (tokens.available[begins] - self.last[rows]) / DAY_US
        log_gap[begins[known]] = np.log1p(gap[known]).astype(np.float32)
        first = np.where(known, self.first[rows], tokens.available[begins])
        age = (tokens.available - np.repeat(first, lengths)) / DAY_US
        found = encode(replace(tokens, log_gap=log_gap), vocabulary)
        return replace(found, age=np.log1p(age).astype(np.float32))

    def silence(self, cutoff: Ints, rows: Ints, gap_days: float) -> Floats:
        """As in `Batch`, of the customers in these rows, (R, 4)."""
        orders = self.first_order[rows], self.last_order[rows], self.orders[rows]
        return silence_of(cutoff, self.last[rows], orders, gap_days)
