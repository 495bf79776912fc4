"""Who is read out when: customers at cutoffs, what they look like there, and the days after that the data cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retinue.events.timeline import Times, day_ends, observed_days, up_to, whole_days_to
from retinue.schema import CUSTOMER, CUTOFF, ORDER, InputError
from retinue.sequences.season import Season
from retinue.sequences.tokens import DAY_US, Tokens, calendar_of
from retinue.sequences.vocabulary import log_ratio, signed_log

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
SILENCES = 4


@dataclass(frozen=True)
class Readouts:
    """R pairs of a customer and a cutoff, sorted by both.

    Attributes:
        customer: (R,) codes.
        cutoff: (R,) microseconds since 1970.
        features: (R, D) features/ at the cutoff, NaN where null.
        names: Of the D features.
        end: Last instant that may be seen; nothing later is in any target.
        anchor: (R, A) the forecast that a network corrects, as its clocks; None where it makes its own.
    """

    customer: Ints
    cutoff: Times
    features: Floats
    names: tuple[str, ...]
    end: datetime
    anchor: Floats | None = None

    def __len__(self) -> int:
        return len(self.customer)

    @classmethod
    def of(
        cls,
        tables: Sequence[pl.DataFrame],
        names: Sequence[str],
        end: datetime,
        money: Sequence[str] = (),
        order_value: float = 1.0,
    ) -> Readouts:
        """Readouts of every row of some features tables.

        Args:
            tables: Features at cutoffs; a column that one lacks is null there.
            names: The features to take, numbers or truth values.
            end: Last instant that may be seen.
            money: Those of the features in account currency; they become the signed log1p of median orders.
            order_value: The median order, see `Vocabulary`.

        Raises:
            InputError: a customer comes twice at one cutoff.
        """
        wanted = [CUSTOMER, CUTOFF, *names]
        rows = pl.concat(
            [t.select(c for c in wanted if c in t.columns) for t in tables], how="diagonal_relaxed"
        )
        lacking = [pl.lit(None, pl.Float64).alias(name) for name in names if name not in rows.columns]
        rows = rows.with_columns(lacking).sort(CUSTOMER, CUTOFF)
        if rows.select(CUSTOMER, CUTOFF).is_duplicated().any():
            raise InputError(
                "readouts: a customer is there twice at one cutoff; give each features table once."
            )
        features = _matrix(rows, names, frozenset(money), order_value)
        return cls(
            rows[CUSTOMER].to_numpy(), rows[CUTOFF].dt.epoch("us").to_numpy(), features, tuple(names), end
        )

    def take(self, rows: NDArray[np.bool_] | Ints) -> Readouts:
        """Some of the readouts, in the order given (ascending)."""
        anchor = None if self.anchor is None else self.anchor[rows]
        return Readouts(
            self.customer[rows], self.cutoff[rows], self.features[rows], self.names, self.end, anchor
        )


def _matrix(rows: pl.DataFrame, names: Sequence[str], money: frozenset[str], order_value: float) -> Floats:
    known = rows.select(pl.col(list(names)).cast(pl.Float64).fill_null(float("nan")))
    features = known.to_numpy().reshape(rows.height, len(names)).copy()
    for i, name in enumerate(names):
        if name in money:
            features[:, i] = signed_log(features[:, i] / order_value)
    largest = float(np.finfo(np.float32).max)
    return np.asarray(np.clip(features, -largest, largest), dtype=np.float32)


@dataclass(frozen=True)
class Standing:
    """Each readout's place in its customer's tokens, and the times that a network is told.

    Attributes:
        row: (R,) row of the customer in the tokens.
        at: (R,) index of the last token that was available.
        silence: (R, 4) as in `Batch`.
        calendar: (R, 6) of the cutoff's local day.
        which: (R,) index of the cutoff among the distinct ones, ascending.
        moments: The Q distinct cutoffs.
    """

    row: Ints
    at: Ints
    silence: Floats
    calendar: Floats
    which: Ints
    moments: tuple[datetime, ...]


def standing_of(tokens: Tokens, readouts: Readouts, gap_days: float) -> Standing:
    """Where the readouts stand.

    Args:
        tokens: Of all customers of the readouts.
        readouts: Sorted by customer and cutoff.
        gap_days: The base's median gap, see `Vocabulary`.

    Raises:
        InputError: a readout's customer has no token at its cutoff.
    """
    row = np.searchsorted(tokens.customer, readouts.customer)
    row = np.minimum(row, max(len(tokens.customer) - 1, 0))
    begins, ends = tokens.offsets[row], tokens.offsets[row + 1]
    longest = int(tokens.lengths.max(initial=0))
    last = up_to(np.asarray(tokens.available), begins, ends, readouts.cutoff, longest) - 1
    bad = (tokens.customer[row] != readouts.customer) | (last < begins)
    if bad.any():
        raise InputError(
            f"readouts: {int(bad.sum()):,} rows (first: customer {readouts.customer[bad][0]}) have no event known at "
            "their cutoff; take features and tokens from the same events."
        )
    distinct, which = np.unique(readouts.cutoff, return_inverse=True)
    moments = tuple(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(us)) for us in distinct)
    local = np.array([local_day(moment, tokens.zone) for moment in moments])
    return Standing(
        row=row,
        at=last,
        silence=_silence(tokens, readouts.cutoff, last, begins, gap_days),
        calendar=calendar_of(np.floor(local)[which]),
        which=which,
        moments=moments,
    )


def _silence(tokens: Tokens, cutoff: Times, last: Ints, begins: Ints, gap_days: float) -> Floats:
    """Days since the last token and since the last order, plain and against the usual gap; NaN where there is none."""
    is_order = tokens.of_kind(ORDER)
    before = np.concatenate([[0], np.cumsum(is_order)])  # orders among the tokens before each index
    first, count = before[begins], before[last + 1] - before[begins]
    times = np.append(np.asarray(tokens.available), 0)
    place = np.append(np.flatnonzero(is_order), len(times) - 1)
    orders = times[place[first * (count > 0)]], times[place[np.maximum(before[last + 1] - 1, 0)]], count
    return silence_of(cutoff, times[last], orders, gap_days)


def silence_of(cutoff: Times, last: Times, orders: tuple[Times, Times, Ints], gap_days: float) -> Floats:
    """Days since the last token and since the last order, plain and against the usual gap, (R, 4).

    Args:
        cutoff: (R,) microseconds.
        last: (R,) when the last token became available.
        orders: (R,) each: when the first and the last order became available, and how many there were.
        gap_days: the base's median gap.
    """
    earliest, latest, count = orders
    since = (cutoff - last) / DAY_US
    since_order = np.where(count == 0, np.nan, (cutoff - latest) / DAY_US)
    span = (latest - earliest) / DAY_US
    own_gap = np.where((count > 1) & (span > 0), span / np.maximum(count - 1, 1), np.nan)
    columns = [
        np.log1p(since),
        log_ratio(since, gap_days),
        np.log1p(since_order),
        log_ratio(since_order, own_gap),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def local_day(moment: datetime, zone: str) -> float:
    """Local days since 1970 at an instant, with the fraction of the day that its clock shows."""
    local = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    return (local - datetime(1970, 1, 1)) / timedelta(days=1)  # noqa: DTZ001 (a wall clock)


@dataclass(frozen=True)
class Windows:
    """The whole days after each of Q cutoffs, as far as they were observed, W at most.

    Attributes:
        days: (Q,) observed whole days.
        ends: (Q, W + 1) microseconds at which 0, 1, … days after the cutoff end.
        business: (Q, W + 1) the same in business days.
    """

    days: Ints
    ends: Times
    business: NDArray[np.float64]


def windows_of(moments: Sequence[datetime], end: datetime, zone: str, season: Season) -> Windows:
    """The observed windows of cutoffs.

    Raises:
        InputError: the data cover no whole day after a cutoff.
    """
    longest = max(((end - moment).days + 2 for moment in moments), default=1)
    longest = max(longest, 1)
    ends = [day_ends(moment, longest, zone) for moment in moments]
    days = np.array([observed_days(end, row) for row in ends], dtype=np.int64)
    for moment, seen in zip(moments, days, strict=True):
        if seen < 1:
            raise InputError(
                f"readouts: cutoff {moment:%Y-%m-%d} has no whole day before {end:%Y-%m-%d}; targets need one."
            )
    business = [season.business_days(local_day(m, zone), np.arange(longest + 1)) for m in moments]
    shape = (len(ends), longest + 1)
    return Windows(days, np.array(ends).reshape(shape), np.array(business).reshape(shape))


@dataclass(frozen=True)
class NextOrder:
    """When the next order came, in business days: after `before`, by `until`; inf where none came in the window."""

    before: Floats
    until: Floats
    window: Floats


def next_orders(first_order: Times, which: Ints, windows: Windows) -> NextOrder:
    """The day within which each readout's next order came.

    Args:
        first_order: (R,) microseconds of the first order after the cutoff; -1 where none is known.
        which: (R,) index of the readout's cutoff.
        windows: Of the cutoffs.
    """
    day = np.zeros(len(which), dtype=np.int64)
    for i in range(len(windows.days)):
        mine = which == i
        day[mine] = whole_days_to(first_order[mine], windows.ends[i])
    seen = windows.days[which]
    window = windows.business[which, seen]
    came = (first_order >= 0) & (day <= seen)
    day = np.where(came, np.maximum(day, 1), 1)
    before = np.where(came, windows.business[which, day - 1], window)
    until = np.where(came, windows.business[which, day], np.inf)
    return NextOrder(before.astype(np.float32), until.astype(np.float32), window.astype(np.float32))
