"""What a base that was never trained on tells at a cutoff: each customer's buying in numbers without units, and the base's.

Everything is computed from tokens alone, in sums, so that shards of a base can be read one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cached_property, reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from retinue.events.timeline import is_known
from retinue.schema import ORDER, REFUND
from retinue.sequences.readouts import local_day
from retinue.sequences.season import Season
from retinue.sequences.tokens import Tokens
from retinue.sequences.vocabulary import middle

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WINDOWS = (30, 90, 180, 365, 730)  # days before the cutoff
PARTS = (8, 4, 2)  # of the base's history, likewise
CONTACT_WINDOWS = (30, 90)
LEAST_VALUE = 0.02  # median orders
LEAST_DAYS = 0.5
MOST_SAMPLED = 1_000_000  # values behind a median
HALF_CODE = 31  # binary digits of a customer's code; shards are told by the lower ones
BY_FREQUENCY = (1, 2, 3, 5, 9, 17)  # repeat days from which a row of the grid begins
BY_SILENCE = (0.1, 0.3, 0.6)
BY_AGE = (0.25, 0.6)
GRID = (len(BY_FREQUENCY) + 1) * (len(BY_SILENCE) + 1) * (len(BY_AGE) + 1)
CREDIBILITY = (0.1, 20.0)  # orders that the base's mean order value may weigh as
_ALL = (*(f"{days}" for days in WINDOWS), *(f"1_{part}" for part in PARTS))
SUMMARY = (
    "log_customers", "log_span", "one_time", "frequency", "frequency_square", "three_or_more", "ten_or_more", "own_rate",
    "recency_share", "recency_share_square", "age_of_one_time", "log_frequency",
    *(f"rate_{name}" for name in _ALL), *(f"trend_{days}" for days in WINDOWS), *(f"active_{name}" for name in _ALL),
    *(f"came_{name}" for name in _ALL),
    "gap_deviation", "gap", "value_weight", "value_deviation", "refund_share", "early", "season", "week", "contacts",
)  # fmt: skip
NAMES = (
    "log_orders", "log_age", "log_silence", "silence_share", "silence_in_gaps", "recency_share",
    *(f"log_orders_{days}" for days in WINDOWS),
    "late_share", "gap_deviation", "last_gap_in_gaps",
    "log_value", "last_value", "value_deviation", "refund_share", "age_share",
    *(f"log_contacts_{days}" for days in CONTACT_WINDOWS),
)  # fmt: skip


@dataclass(frozen=True)
class Behaviour:
    """Customers who had ordered by a cutoff, R of them, in the order of their codes.

    Attributes:
        customer: (R,) codes.
        frequency: (R,) local days with an order, after the first such day.
        recency: (R,) days from the first to the last of them.
        age: (R,) days from the first of them to the cutoff.
        numbers: (R, len(NAMES)) free of units, NaN where null.
        transactions: (R,) orders of known amount.
        gross: (R,) what they brought, median orders.
        sums: Of the base, see `Sums`.
    """

    customer: Ints
    frequency: Floats
    recency: Floats
    age: Floats
    numbers: NDArray[np.float32]
    transactions: Floats
    gross: Floats
    sums: Sums


@dataclass(frozen=True)
class Sums:
    """Sums over the customers of a base at a cutoff; those of parts of a base add up to those of the whole.

    Windows are `WINDOWS`, then the last 1/8, 1/4 and 1/2 of the history; W of them.

    Attributes:
        customers: Who have ordered.
        moments: (10,) sums over customers: frequency, its square, nobody came back, five or more, and so on.
        orders: (W,) days with a repeat order in each window.
        exposure: (W,) customer-days in it after first orders.
        older: (W,) customers who were there before it began.
        active: (W,) those of them who ordered in it.
        came: (W,) customers whose first order fell in it.
        gaps: (4,) customers with two gaps or more, their squared log deviations and degrees of freedom, sum of log means.
        values: (6,) orders of known amount and customers with one, sums behind the variances within and between.
        refunds: (2,) money paid back, and gross.
        early: First orders in the first eighth of the history.
        grid: (GRID,) customers by repeat days, by silence as a share of age, and by age as a share of the history.
        contacts: Tokens that are no order or refund.
    """

    customers: Floats
    moments: Floats
    orders: Floats
    exposure: Floats
    older: Floats
    active: Floats
    came: Floats
    gaps: Floats
    values: Floats
    refunds: Floats
    early: Floats
    contacts: Floats
    grid: Floats

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


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


def behaviour_at(tokens: Tokens, cutoff: datetime, units: Units) -> Behaviour:
    """The behaviour of all customers of some tokens who had ordered.

    Args:
        tokens: of a whole base or a part of it.
        cutoff: what became available later is not looked at.
        units: of the whole base.
    """
    known, owner = is_known(tokens.available, cutoff), tokens.owner
    is_order = known & tokens.of_kind(ORDER)
    rows = np.flatnonzero(is_order)
    rows = rows[np.lexsort((tokens.day[rows], owner[rows]))]
    who, day = owner[rows], tokens.day[rows].astype(np.int64)
    new = np.ones(len(rows), bool)
    new[1:] = (np.diff(who) != 0) | (np.diff(day) != 0)
    bought = np.unique(who)
    count = len(bought)
    of = np.searchsorted(bought, who)
    days_of, days = of[new], day[new]
    begins = np.searchsorted(days_of, np.arange(count))
    ends = np.searchsorted(days_of, np.arange(count), side="right")
    ago = (units.cutoff_day - days).astype(np.float64)
    age, silence = ago[begins] if count else ago, ago[ends - 1] if count else ago
    frequency = (ends - begins - 1).astype(np.float64)
    recency = age - silence
    orders = [_count(days_of, ago < width, count) for width in units.windows]
    gap = _Gaps.of(days, days_of, begins, count)
    value = _Values.of(tokens, rows, of, count, units.order_value)
    contact = known & ~is_order & ~tokens.of_kind(REFUND)
    contacts = _contacts(tokens, contact, bought, units.cutoff_day)
    refunded = _refunded(tokens, known, bought, units.order_value)
    with np.errstate(divide="ignore", invalid="ignore"):
        own_gap = np.where(frequency > 0, recency / np.maximum(frequency, 1), np.nan)
        columns = [
            np.log1p(frequency),
            np.log1p(age),
            np.log1p(silence),
            np.log((silence + LEAST_DAYS) / (age + LEAST_DAYS)),
            np.log((silence + LEAST_DAYS) / (own_gap + LEAST_DAYS)),
            np.where(frequency > 0, recency / np.maximum(age, 1), np.nan),
            *(np.log1p(within) for within in orders[: len(WINDOWS)]),
            np.where(frequency > 0, _count(days_of, ago * 2 < age[days_of], count) / (frequency + 1), np.nan),
            gap.deviation,
            np.log((gap.last + LEAST_DAYS) / (own_gap + LEAST_DAYS)),
            value.log_mean,
            value.last,
            value.deviation,
            np.where(value.gross > 0, np.clip(refunded / np.maximum(value.gross, LEAST_VALUE), 0, 2), np.nan),
            np.log((age + 1) / (units.span + 1)),
            *contacts,
        ]
    numbers = np.stack(columns, axis=1).astype(np.float32) if count else np.zeros((0, len(NAMES)), np.float32)
    first = {"frequency": frequency, "recency": recency, "age": age}
    sums = _sums(first, orders, gap, value, (float(refunded.sum()), float(contact.sum())), units)
    return Behaviour(
        tokens.customer[bought], frequency, recency, age, numbers, value.transactions, value.gross, sums
    )


def _count(owner: Ints, which: NDArray[np.bool_], count: int) -> Floats:
    return _total(owner, which.astype(np.float64), count)


def _total(owner: Ints, values: Floats, count: int) -> Floats:
    """Sum of each owner's values, (count,)."""
    return np.asarray(np.bincount(owner, values, minlength=count), np.float64)


@dataclass(frozen=True)
class _Gaps:
    """Log days between order days: deviation, mean and number of each customer's, and the last gap in days."""

    deviation: Floats
    mean: Floats
    squares: Floats
    number: Floats
    last: Floats

    @classmethod
    def of(cls, days: Ints, owner: Ints, begins: Ints, count: int) -> _Gaps:
        """Of order days by owner, ascending."""
        gap = np.diff(days, prepend=days[:1]).astype(np.float64)
        later = np.ones(len(days), bool)
        later[begins] = False
        logs = np.log(np.maximum(gap, 1.0))
        number = _count(owner, later, count)
        some = np.maximum(number, 1)
        mean = _total(owner, logs * later, count) / some
        squares = _total(owner, (logs - mean[owner]) ** 2 * later, count)
        deviation = np.where(number > 1, np.sqrt(squares / np.maximum(number - 1, 1)), np.nan)
        ends = np.append(begins[1:], len(days)) - 1
        last = np.where(number > 0, gap[ends] if count else gap, np.nan)
        return cls(deviation, mean, squares, number, last)


@dataclass(frozen=True)
class _Values:
    """Known positive amounts of orders in median orders: each customer's number, sum, and logs."""

    transactions: Floats
    gross: Floats
    log_mean: Floats
    last: Floats
    deviation: Floats
    squares: Floats

    @classmethod
    def of(cls, tokens: Tokens, rows: Ints, owner: Ints, count: int, order_value: float) -> _Values:
        """Of order tokens by owner, then day."""
        amount = np.asarray(tokens.money)[rows] / order_value
        paid = amount > 0  # False for NaN
        worth = np.where(paid, np.maximum(amount, LEAST_VALUE), 1.0)
        logs = np.log(worth)
        number = _count(owner, paid, count)
        some = np.maximum(number, 1)
        gross = _total(owner, worth * paid, count)
        mean = _total(owner, logs * paid, count) / some
        squares = _total(owner, (logs - mean[owner]) ** 2 * paid, count)
        linear = _total(owner, (worth - (gross / some)[owner]) ** 2 * paid, count)
        place = np.zeros(count, np.int64)
        place[owner[paid]] = np.flatnonzero(paid)  # the last one wins
        known = number > 0
        return cls(
            transactions=number,
            gross=gross,
            log_mean=np.where(known, mean, np.nan),
            last=np.where(known, logs[place] if count else mean, np.nan),
            deviation=np.where(number > 1, np.sqrt(squares / np.maximum(number - 1, 1)), np.nan),
            squares=linear,
        )


def _contacts(tokens: Tokens, which: NDArray[np.bool_], bought: Ints, cutoff_day: int) -> list[Floats]:
    """Log contacts of each customer within each of `CONTACT_WINDOWS`; NaN where none of them ever had one."""
    rows = np.flatnonzero(which)
    owner, ago = tokens.owner[rows], cutoff_day - tokens.day[rows]
    if not len(rows):
        return [np.full(len(bought), np.nan)] * len(CONTACT_WINDOWS)
    total = len(tokens.customer)
    return [np.log1p(_count(owner, ago < days, total)[bought]) for days in CONTACT_WINDOWS]


def _refunded(tokens: Tokens, known: NDArray[np.bool_], bought: Ints, order_value: float) -> Floats:
    money = np.nan_to_num(np.asarray(tokens.money)) / order_value
    back = np.where(known & (money < 0), -money, 0.0)
    return _total(tokens.owner, back, len(tokens.customer))[bought]


def _sums(
    first: dict[str, Floats],
    orders: list[Floats],
    gap: _Gaps,
    value: _Values,
    rest: tuple[float, float],
    units: Units,
) -> Sums:
    frequency, recency, age = first["frequency"], first["recency"], first["age"]
    windows = np.array(units.windows)[:, None]
    inside = np.stack(orders)
    is_new = age < windows  # the first order fell in the window
    repeats = inside - is_new
    few = np.minimum(frequency, 50.0)
    share = np.where(frequency > 0, recency / np.maximum(age, 1), 0.0)
    steady = gap.number > 1
    paid = value.transactions > 0
    mean = value.gross / np.maximum(value.transactions, 1)
    moments = [
        few, few**2, frequency == 0, frequency >= 3, frequency >= 10, frequency / np.maximum(age, 7),
        share, share**2, (frequency == 0) * np.log1p(age), np.log1p(frequency),
    ]  # fmt: skip
    return Sums(
        customers=np.array(float(len(age))),
        moments=np.array([float(np.sum(each)) for each in moments]),
        orders=repeats.sum(1),
        exposure=np.minimum(windows, age).sum(1),
        older=(~is_new).sum(1).astype(np.float64),
        active=(~is_new & (inside > 0)).sum(1).astype(np.float64),
        came=is_new.sum(1).astype(np.float64),
        gaps=np.array(
            [
                steady.sum(),
                gap.squares[steady].sum(),
                (gap.number - 1)[steady].sum(),
                gap.mean[steady].sum(),
            ],
            np.float64,
        ),
        values=np.array(
            [
                value.transactions.sum(),
                paid.sum(),
                value.squares.sum(),
                mean[paid].sum(),
                (mean[paid] ** 2).sum(),
                (1 / np.maximum(value.transactions, 1))[paid].sum(),
            ]
        ),
        refunds=np.array([rest[0], value.gross.sum()]),
        early=np.array(float((age > units.span * 7 / 8).sum())),
        contacts=np.array(rest[1]),
        grid=_grid(frequency, (age - recency) / np.maximum(age, 1), age / units.span),
    )


def _grid(frequency: Floats, silence: Floats, age: Floats) -> Floats:
    cell = np.zeros(len(frequency), np.int64)
    for values, edges in ((frequency, BY_FREQUENCY), (silence, BY_SILENCE), (age, BY_AGE)):
        cell = cell * (len(edges) + 1) + np.digitize(values, edges)
    return np.bincount(cell, minlength=GRID).astype(np.float64)


@dataclass(frozen=True)
class Worth:
    """How much the base's mean order value weighs against a customer's own (Bühlmann credibility, by moments)."""

    mean: float
    weight: float
    within: float

    @classmethod
    def of(cls, sums: Sums) -> Worth:
        """Within and between variances by analysis of variance."""
        orders, customers, squares, means, square_means, inverse = (float(each) for each in sums.values)
        if not customers:
            return cls(1.0, CREDIBILITY[1], 1.0)
        mean = means / customers
        within = squares / max(orders - customers, 1.0)
        between = square_means / customers - mean**2 - within * inverse / customers
        low, high = CREDIBILITY
        weight = float(np.clip(within / max(between, 1e-6), low, high))
        return cls(max(mean, LEAST_VALUE), weight, within / mean**2)

    def own_mean(self, transactions: Floats, gross: Floats) -> Floats:
        """Mean gross value of an order of each customer, median orders."""
        return (gross + self.weight * self.mean) / (transactions + self.weight)


def summary_of(sums: Sums, units: Units) -> NDArray[np.float32]:
    """The base at a cutoff in numbers without units, (len(SUMMARY),), NaN where the history is too short to tell.

    Args:
        sums: over all its customers.
        units: of the base.
    """
    n = max(float(sums.customers), 1.0)
    spans = np.array(units.windows)
    told = spans <= units.span
    few = 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = np.log((sums.orders + few) / (sums.exposure + few * 30))
        active = np.log((sums.active + few) / (sums.older - sums.active + few))
        came = np.log((sums.came + few) / n)
        one_time = (sums.moments[2] + few) / (n + 2 * few)
        deviation = np.sqrt(sums.gaps[1] / sums.gaps[2]) if sums.gaps[2] > 0 else np.nan
        mean_gap = sums.gaps[3] / sums.gaps[0] if sums.gaps[0] > 0 else np.nan
    worth = Worth.of(sums)
    refunded = float(sums.refunds[0] / sums.refunds[1]) if sums.refunds[1] > 0 else 0.0
    steady = told & (sums.older > 0)
    recent, whole = rates[: len(WINDOWS)], rates[-1]
    columns = [
        np.log(n),
        np.log(units.span),
        np.log(one_time / (1 - one_time)),
        *(np.log((sums.moments[i] + few) / n) for i in (0, 1, 3, 4)),
        np.log(sums.moments[5] / n + 1e-6),
        sums.moments[6] / n,
        sums.moments[7] / n,
        sums.moments[8] / max(sums.moments[2], 1.0),
        sums.moments[9] / n,
        *np.where(told, rates, np.nan),
        *np.where(told[: len(WINDOWS)], recent - whole, np.nan),
        *np.where(steady, active, np.nan),
        *np.where(told, came, np.nan),
        deviation,
        mean_gap,
        np.log(worth.weight),
        np.log(worth.within + 0.01),
        refunded,
        np.log((float(sums.early) + few) / (n / 8)),
        np.std(np.log(units.season.week)),
        np.std(np.log(units.season.weekday)),
        float(np.log1p(float(sums.contacts) / n)),
    ]
    return np.array(columns, dtype=np.float32)


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
