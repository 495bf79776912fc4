"""What came after readouts: orders and money within any whole number of days, found by search, not by scanning."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Self

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from retinue.events.timeline import is_known, up_to
from retinue.schema import ORDER, REFUND
from retinue.sequences.tokens import Tokens


@dataclass(frozen=True)
class Start:
    """Where the future of each of R readouts begins.

    Attributes:
        first: Index of the first row after the cutoff; the end of the customer's rows where there is none.
        before: The index before it, or -1 where that is another customer's.
        stop: End of the customer's rows.
        repeated: Index of the first order after the cutoff if there was one before it on the same day; else very high.
        order_time: Microseconds of the first order after the cutoff, -1 where none is known.
    """

    first: Tensor
    before: Tensor
    stop: Tensor
    repeated: Tensor
    order_time: Tensor

    def __getitem__(self, rows: Tensor) -> Start:
        return Start(*(getattr(self, field.name)[rows] for field in fields(self)))

    def to(self, device: torch.device | str) -> Start:
        """The same on a device."""
        return Start(*(getattr(self, field.name).to(device) for field in fields(self)))


@dataclass(frozen=True)
class Future:
    """Orders and refunds of C customers by the time they happened, M rows, with running sums per customer.

    Attributes:
        time: (M,) microseconds.
        offsets: (C + 1,) where each customer's rows begin.
        days: (M + 1,) local days with an order, up to and with each row; a 0 behind them, where index -1 falls.
        gross: (M + 1,) what came in, median orders, likewise.
        refunds: (M + 1,) what went back, ≥ 0, likewise.
        next_order: (M + 1,) index of the first order from each row on; M where the customer has none.
        longest: Most rows of one customer.
    """

    time: Tensor
    offsets: Tensor
    days: Tensor
    gross: Tensor
    refunds: Tensor
    next_order: Tensor
    longest: int

    def to(self, device: torch.device | str) -> Self:
        """The same on a device."""
        names = [field.name for field in fields(self) if field.name != "longest"]
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def start(self, row: Tensor, cutoff: Tensor) -> Start:
        """Where the future of customers begins at cutoffs in microseconds, (R,) each."""
        begin, stop, none = self.offsets[row], self.offsets[row + 1], len(self.time)
        first = up_to(self.time, begin, stop, cutoff, self.longest) if none else begin
        order = torch.where(first < stop, self.next_order[first], none)
        came = order < none
        times = torch.cat([self.time, self.time.new_tensor([-1])])
        before = torch.where(first > begin, first - 1, -1)
        repeated = torch.where(
            came & (before >= 0) & (self.days[order] == self.days[before]), order, none + 1
        )
        return Start(first, before, stop, repeated, torch.where(came, times[order], -1))

    def within(self, start: Start, ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Days with an order, gross money and refunds in (cutoff, end], each (R, H).

        Gross less refunds is what `evaluation.realised` calls spend.

        Args:
            start: Of R readouts.
            ends: (R, H) microseconds, not before the cutoff.
        """
        if not len(self.time):
            return (torch.zeros(ends.shape, device=ends.device),) * 3
        first = start.first[:, None].expand_as(ends)
        last = up_to(self.time, first, start.stop[:, None].expand_as(ends), ends, self.longest)
        some, before = last > first, start.before[:, None]
        days, gross, refunds = (
            (column[last - 1] - column[before]) * some for column in (self.days, self.gross, self.refunds)
        )
        days = days + (last > start.repeated[:, None])
        return days.float(), gross.float().clamp(min=0), refunds.float().clamp(min=0)


def future_of(tokens: Tokens, end: datetime, order_value: float) -> Future:
    """The orders and money that were known at the end of training, or of observation.

    Args:
        tokens: Of all customers.
        end: Nothing that became available later is in it.
        order_value: The median order, which money is counted in.
    """
    is_order = tokens.of_kind(ORDER)
    known = is_known(tokens.available, end) & (is_order | tokens.of_kind(REFUND))
    owner = tokens.owner
    rows = np.flatnonzero(known)
    rows = rows[np.lexsort((rows, tokens.event[rows], owner[rows]))]
    lengths = np.bincount(owner[rows], minlength=len(tokens.customer))
    amount = np.nan_to_num(tokens.money[rows]) / order_value
    running = pl.DataFrame(
        {
            "row": owner[rows],
            "new": _new_days(is_order[rows], owner[rows], tokens.day[rows]),
            "in": np.maximum(amount, 0),
            "out": np.maximum(-amount, 0),
        }
    ).select(pl.col("new", "in", "out").cum_sum().over("row"))
    return Future(
        time=torch.from_numpy(tokens.event[rows]),
        offsets=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)),
        days=_closed(running["new"]),
        gross=_closed(running["in"]),
        refunds=_closed(running["out"]),
        next_order=_next_orders(is_order[rows], owner[rows]),
        longest=int(lengths.max(initial=0)),
    )


def _new_days(
    is_order: NDArray[np.bool_], owner: NDArray[np.int64], day: NDArray[np.int32]
) -> NDArray[np.int64]:
    """1 at each customer's first order of a local day, 0 elsewhere."""
    orders = np.flatnonzero(is_order)
    same = np.zeros(len(orders), dtype=bool)
    same[1:] = (np.diff(owner[orders]) == 0) & (np.diff(day[orders]) == 0)
    new = np.zeros(len(is_order), dtype=np.int64)
    new[orders[~same]] = 1
    return new


def _next_orders(is_order: NDArray[np.bool_], owner: NDArray[np.int64]) -> Tensor:
    """Index of the first order from each row on, of the same customer; the number of rows where there is none."""
    count = len(is_order)
    found = np.where(is_order, np.arange(count), count)
    found = np.minimum.accumulate(found[::-1])[::-1]
    owners = np.append(owner, -1)
    return torch.from_numpy(np.append(np.where(owners[found] == owner, found, count), count))


def _closed(running: pl.Series) -> Tensor:
    """With a 0 at the end, where the index -1 falls."""
    return torch.from_numpy(np.append(running.to_numpy(), 0))
