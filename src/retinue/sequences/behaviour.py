"""What customers of a base that was never trained on have done by a cutoff, in numbers without units.

Everything is computed from tokens alone, and what concerns the whole base in sums, so that its shards can be read one
after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from retinue.events.timeline import is_known
from retinue.schema import ORDER, REFUND
from retinue.sequences.base_sums import LEAST_VALUE, Sums, grid_of
from retinue.sequences.tokens import Tokens
from retinue.sequences.units import WINDOWS, Floats, Ints, Units

CONTACT_WINDOWS = (30, 90)
LEAST_DAYS = 0.5
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
        grid=grid_of(frequency, (age - recency) / np.maximum(age, 1), age / units.span),
    )
