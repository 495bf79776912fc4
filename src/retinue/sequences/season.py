"""Business time: how much more, or less, is ordered by day of week and week of year, and horizons measured in it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Floats = NDArray[np.float64]

WEEKS = 52  # the last one has 8 or 9 days, so that a date is in the same week every year
YEAR_DAYS = 365
MOST_YEARS = 12
PRIOR_ORDERS = 20.0  # per day of week: as many orders speak for an even week
WEEK_VARIANCE = 0.12  # of a week's log factor, before the data speak
LOOSE_VARIANCE = 0.04  # of one week's log orders around trend and season, beyond counting noise
TREND_VARIANCE = 0.25  # of the slow departure from a log-linear trend
TIMES = (0.25, 1.0, 4.0, 16.0)  # those of week and looseness, as years that repeat themselves show them
DOUBT = 2.0  # standard deviation of the log of each, before the data speak
WEEKS_ALIKE = 2.0  # over which the seasons of neighbouring weeks resemble each other


@dataclass(frozen=True)
class Season:
    """Factors of the base's order intensity, each of mean 1.

    Attributes:
        weekday: (7,) Monday to Sunday.
        week: (52,) by day of year // 7; all 1 where the history is shorter than a year.
    """

    weekday: Floats
    week: Floats

    @classmethod
    def even(cls) -> Self:
        """No season: business days are days."""
        return cls(np.ones(7), np.ones(WEEKS))

    @classmethod
    def fit(cls, order_days: NDArray[Any], last_day: int) -> Self:
        """Factors from the days with orders that were known by then, shrunk to 1 where they are few.

        Weekday factors are orders per day with a gamma prior of mean 1. Week factors are the posterior of a Gaussian
        process (Rasmussen and Williams 2006, eq. 2.23) for log weekly orders: a log-linear trend, a slow departure
        from it, a yearly pattern, and noise; each year that is seen tells the pattern from the noise a little more.
        How strong pattern and noise are is what makes the orders likeliest (§5.4.1), near what shops are like.

        Args:
            order_days: Local days since 1970, one for each order.
            last_day: The last day of training; later ones are left out.
        """
        days = np.asarray(order_days, dtype=np.int64)
        distinct, counts = np.unique(days[days <= last_day], return_counts=True)
        return cls.of_counts(distinct, counts, last_day)

    @classmethod
    def of_counts(cls, days: NDArray[np.int64], orders: NDArray[np.int64], last_day: int) -> Self:
        """As `fit`, from how many orders each day had, so that a base of any size takes no more memory.

        Args:
            days: Distinct local days since 1970 with orders, none after the last.
            orders: Of each.
            last_day: The last day of training.
        """
        if not len(days):
            return cls.even()
        first = max(int(days.min()), last_day - MOST_YEARS * 366)
        late = days >= first
        counts = np.bincount(days[late] - first, orders[late], last_day - first + 1).astype(float)
        span = np.arange(first, last_day + 1)
        weekday = _weekday_factors(span, counts)
        week = np.ones(WEEKS)
        if len(span) > YEAR_DAYS:
            week = _week_factors(span, counts / weekday[(span + 3) % 7])
        return cls(weekday, week)

    def factor(self, days: NDArray[Any]) -> Floats:
        """Intensity of local days since 1970, relative to the mean day."""
        return np.asarray(self.weekday[(days + 3) % 7] * self.week[_week_of(days)])

    def business_days(self, cutoff_day: float, horizon_days: NDArray[Any] | float) -> Floats:
        """Business days within so many days after the cutoff; rises with the horizon, and is 0 at 0.

        Args:
            cutoff_day: Local days since 1970 at the cutoff, with their fraction; a date's end is the next whole number.
            horizon_days: Any shape, days ≥ 0.
        """
        horizon = np.asarray(horizon_days, dtype=np.float64)
        first = int(np.floor(cutoff_day))
        last = int(np.floor(cutoff_day + (horizon.max() if horizon.size else 0.0))) + 2
        edges = np.arange(first, last + 1)
        total = np.concatenate([[0.0], np.cumsum(self.factor(edges[:-1]))])
        start = np.interp(cutoff_day, edges, total)
        return np.where(horizon > 0, np.interp(cutoff_day + horizon, edges, total) - start, 0.0)

    def as_dict(self) -> dict[str, list[float]]:
        """For JSON."""
        return {"weekday": self.weekday.tolist(), "week": self.week.tolist()}

    @classmethod
    def from_dict(cls, told: dict[str, list[float]]) -> Self:
        """From what `as_dict` gave."""
        return cls(np.array(told["weekday"]), np.array(told["week"]))


def _week_of(days: NDArray[Any]) -> NDArray[np.int64]:
    date = np.asarray(days, dtype=np.int64).astype("datetime64[D]")
    of_year = (date - date.astype("datetime64[Y]")).astype(np.int64)
    return np.asarray(np.minimum(of_year // 7, WEEKS - 1))


def _weekday_factors(span: NDArray[np.int64], counts: Floats) -> Floats:
    weekday = (span + 3) % 7
    orders, shown = np.bincount(weekday, counts, 7), np.bincount(weekday, minlength=7)
    factors = (orders + PRIOR_ORDERS) / (shown * counts.sum() / len(span) + PRIOR_ORDERS)
    return np.asarray(factors / factors.mean())


def _week_factors(span: NDArray[np.int64], counts: Floats) -> Floats:
    """Posterior mean of the yearly pattern of log weekly orders, as factors of mean 1 over a year."""
    date = span.astype("datetime64[D]")
    cell = (date.astype("datetime64[Y]").astype(np.int64)) * WEEKS + _week_of(span)
    cells, first, days = np.unique(cell, return_index=True, return_counts=True)
    orders = np.bincount(np.searchsorted(cells, cell), counts)
    whole = days >= 7
    week, days, orders = cells[whole] % WEEKS, days[whole], orders[whole]
    years = (first[whole] + 3.5) / YEAR_DAYS
    years = years - years.mean()
    rate = np.log((orders + 0.5) / days)
    apart = years[:, None] - years[None, :]
    trend = 100.0 + np.outer(years, years) + TREND_VARIANCE * np.exp(-0.5 * apart**2)
    alike = _likeness()
    seen, counting, centred = alike[np.ix_(week, week)], 1 / (orders + 0.5), rate - rate.mean()
    likeliest, log_factor = -np.inf, np.zeros(WEEKS)
    for season, loose in product(TIMES, TIMES):
        factor = cho_factor(trend + season * seen + np.diag(loose * LOOSE_VARIANCE + counting), lower=True)
        solved = cho_solve(factor, centred)
        doubt = (np.log(season) ** 2 + np.log(loose) ** 2) / (2 * DOUBT**2)
        likely = -0.5 * centred @ solved - np.log(np.diag(factor[0])).sum() - doubt
        if likely > likeliest:
            likeliest, log_factor = likely, season * alike[:, week] @ solved
    factors = np.exp(log_factor)
    lengths = np.full(WEEKS, 7.0)
    lengths[-1] = YEAR_DAYS - 7 * (WEEKS - 1)
    return np.asarray(factors * YEAR_DAYS / (factors @ lengths))


def _likeness() -> Floats:
    """Prior covariance of the log factors of weeks: half each week's own, half shared with its neighbours."""
    index = np.arange(WEEKS)
    around = np.abs(index[:, None] - index[None, :])
    around = np.minimum(around, WEEKS - around)
    return np.asarray(
        WEEK_VARIANCE * (0.5 * np.eye(WEEKS) + 0.5 * np.exp(-0.5 * (around / WEEKS_ALIKE) ** 2))
    )
