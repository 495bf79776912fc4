"""Calendar effects as clocks: a curve turns days since the start of the data into time in which rates are constant."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from retinue.worlds.spec import Calendar, Holiday

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]
YEAR_DAYS = 365.25


@dataclass(frozen=True)
class Curve:
    """Integral from day 0 of a positive factor, constant within each day; the last factor goes on."""

    edges: Array
    factor: Array
    total: Array
    plain: bool

    @classmethod
    def of(cls, first_day: int, factor: Array) -> Curve:
        """From the factors of consecutive days."""
        total = np.concatenate([[0.0], np.cumsum(factor)])
        edges = first_day + np.arange(len(total), dtype=float)
        return cls(edges, factor, total - np.interp(0.0, edges, total), bool((factor == 1).all()))

    def __call__(self, day: Array) -> Array:
        """Integral from day 0 to each day; any shape."""
        if self.plain:
            return day
        beyond = np.maximum(day - self.edges[-1], 0.0) * self.factor[-1]
        return np.asarray(np.interp(day, self.edges, self.total) + beyond)

    def day(self, total: Array) -> Array:
        """The day at which the integral reaches each value; any shape, infinite stays so."""
        if self.plain:
            return total
        beyond = np.maximum(total - self.total[-1], 0.0) / self.factor[-1]
        return np.asarray(np.interp(total, self.total, self.edges) + beyond)

    def at(self, day: Array) -> Array:
        """The factor on each day; any shape."""
        if self.plain:
            return np.broadcast_to(1.0, np.shape(day))
        place = np.clip(np.floor(day - self.edges[0]), 0, len(self.factor) - 1)  # days may be infinite
        return np.asarray(self.factor[place.astype(np.int64)])


@dataclass(frozen=True)
class Clock:
    """The base's calendar: order rates follow `business`, losses in time `decay`, losses at orders `drain` = both."""

    business: Curve
    decay: Curve
    drain: Curve


def clock(calendar: Calendar, start: datetime, first_day: int, last_day: int) -> Clock:
    """Clocks over [first_day, last_day), days since the start of the data."""
    day = np.arange(first_day, max(last_day, first_day + 1))
    rate = np.exp(calendar.trend_yearly * day / YEAR_DAYS) * _seasons(calendar, start, day)
    loss = np.ones(len(day))
    if calendar.regime_day is not None:
        after = day >= calendar.regime_day
        rate = rate * np.where(after, calendar.regime_rate, 1.0)
        loss = np.where(after, calendar.regime_dropout, 1.0)
    return Clock(Curve.of(first_day, rate), Curve.of(first_day, loss), Curve.of(first_day, rate * loss))


def _seasons(calendar: Calendar, start: datetime, day: Indices) -> Array:
    date = np.datetime64(start.date(), "D") + day
    factor = np.ones(len(day))
    if calendar.week_of_year:
        of_year = (date - date.astype("M8[Y]").astype("M8[D]")).astype(np.int64)
        factor *= np.asarray(calendar.week_of_year)[np.minimum(of_year // 7, 51)]
    if calendar.day_of_week:
        factor *= np.asarray(calendar.day_of_week)[(date.astype(np.int64) + 3) % 7]
    for holiday in calendar.holidays:
        factor *= _rise(holiday, date)
    return factor


def _rise(holiday: Holiday, date: NDArray[np.datetime64]) -> Array:
    years = date.astype("M8[Y]")
    factor = np.ones(len(date))
    for later in (0, 1):  # a holiday early in January is led up to in December
        month = ((years + later).astype("M8[M]") + (holiday.month - 1)).astype("M8[D]")
        ahead = (month + (holiday.day - 1) - date).astype(np.int64)
        near = (ahead >= 0) & (ahead <= holiday.lead_days)
        factor = np.where(near, 1 + (holiday.lift - 1) * (1 - ahead / (holiday.lead_days + 1)), factor)
    return factor
