"""History is (-inf, cutoff]; the future is (cutoff, cutoff + horizon]. Nothing else compares times with a cutoff."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retinue.schema import EVENT_TIME, KNOWN_TIME, InputError

Times = NDArray[np.int64]


def instant(text: str, zone: str, option: str = "cutoff") -> datetime:
    """The UTC instant meant by a date (its last microsecond in the zone) or by a date with a clock.

    Raises:
        InputError: the text is neither.
    """
    try:
        day = _day(text)
        if day is not None:
            return datetime.combine(day, time.max, ZoneInfo(zone)).replace(fold=1).astimezone(UTC)
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            f"{option}={text}: must be a date such as 2014-12-31, or 2014-12-31T18:00."
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone))).astimezone(UTC)


def _day(text: str) -> date | None:
    """The date that a text is in any ISO form (2014-12-31, 20141231, 2014-W01-3), else None."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _moved(moment: datetime, days: int, zone: str) -> datetime:
    """The same time on the zone's clocks so many days later; the earlier instant where clocks change just then."""
    if days == 0:
        return moment
    wall = moment.astimezone(ZoneInfo(zone)) + timedelta(days=days)
    return min(wall.replace(fold=fold).astimezone(UTC) for fold in (0, 1))


def horizon_end(cutoff: datetime, horizon_days: int, zone: str) -> datetime:
    """Last instant of the future window, whole days of the zone after the cutoff whatever its clocks do."""
    return _moved(cutoff, horizon_days, zone)


def history(events: pl.LazyFrame, cutoff: datetime) -> pl.LazyFrame:
    """Events that had happened, and could be known, at the cutoff."""
    return events.filter(pl.col(EVENT_TIME) <= cutoff, pl.col(KNOWN_TIME) <= cutoff)


def future(events: pl.LazyFrame, cutoff: datetime, horizon_days: int, zone: str) -> pl.LazyFrame:
    """Events after the cutoff, up to and with the end of the horizon."""
    end = horizon_end(cutoff, horizon_days, zone)
    return events.filter(pl.col(EVENT_TIME) > cutoff, pl.col(EVENT_TIME) <= end)


def not_yet_known(events: pl.LazyFrame, cutoff: datetime) -> pl.LazyFrame:
    """Events that are not history: later ones, and earlier ones that could not be known yet."""
    return events.filter((pl.col(EVENT_TIME) > cutoff) | (pl.col(KNOWN_TIME) > cutoff))


def lies_after(end: datetime) -> pl.Expr:
    """Whether the event happened after an instant."""
    return pl.col(EVENT_TIME) > end


def is_observed(observation_end: datetime, cutoff: datetime, horizon_days: int, zone: str) -> bool:
    """Whether the data cover the whole future window."""
    return observation_end >= horizon_end(cutoff, horizon_days, zone)


def had_been_observed(observation_end: str, cutoff: datetime, horizon_days: int, zone: str) -> pl.Expr:
    """Whether the data had covered the whole future window, for a column of ends of observation."""
    return pl.col(observation_end) >= horizon_end(cutoff, horizon_days, zone)


def age_days(cutoff: datetime) -> pl.Expr:
    """Days from the event to the cutoff, with their fraction; a window of n days before the cutoff is `age < n`."""
    return (pl.lit(cutoff) - pl.col(EVENT_TIME)).dt.total_microseconds() / 86_400_000_000.0


def has_clock(zone: str) -> pl.Expr:
    """Whether the event carries a time of day: it is not at 0:00 on the zone's clocks (or 1:00 where 0:00 is skipped)."""
    local = pl.col(EVENT_TIME).dt.convert_time_zone(zone)
    midnight = local.dt.date().cast(pl.Datetime("us"))
    starts = [
        start.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
        for start in (midnight, midnight + pl.duration(hours=1))
    ]
    return pl.coalesce(starts) != local


def local_days_ago(cutoff: datetime, zone: str) -> pl.Expr:
    """Whole days from the event's local date to the cutoff's local date (Int32)."""
    today = (cutoff.astimezone(ZoneInfo(zone)).date() - date(1970, 1, 1)).days
    return today - pl.col(EVENT_TIME).dt.convert_time_zone(zone).dt.date().cast(pl.Int32)


def days_before(cutoff: datetime, days: int, zone: str) -> datetime:
    """The cutoff so many days earlier, at the same time on the zone's clocks."""
    return _moved(cutoff, -days, zone)


def bulk_days(ages: NDArray[np.float64]) -> float:
    """The longest of some customers' ages, but for a few (one in 200) that are more than twice as old as all others.

    Args:
        ages: of customers in days, any order; not empty.
    """
    oldest = np.sort(ages)[::-1]
    for place in range(min(max(1, len(oldest) // 200), len(oldest) - 1), 0, -1):
        if oldest[place - 1] > 2 * oldest[place] and oldest[place] > 0:
            return float(oldest[place])
    return float(oldest[0])


def is_after(cutoff: datetime, first_event: datetime) -> bool:
    """Whether any event is history at the cutoff."""
    return first_event <= cutoff


def check_cutoff(cutoff: datetime, first_event: datetime) -> None:
    """Raises InputError for a cutoff with no history, or one that has not come yet."""
    if not is_after(cutoff, first_event):
        raise InputError(
            f"cutoff={cutoff:%Y-%m-%d}: lies before the first event ({first_event:%Y-%m-%d}). Give a later one."
        )
    if cutoff > datetime.now(UTC) + timedelta(days=1):
        raise InputError(f"cutoff={cutoff:%Y-%m-%d}: lies in the future. Give a date up to today.")


def microseconds(moment: datetime) -> int:
    """The instant as microseconds since 1970, exactly."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def is_known(available: Times, cutoff: datetime) -> NDArray[np.bool_]:
    """Whether an event that became available at these microseconds (the later of event and known time) is history."""
    return available <= microseconds(cutoff)


def up_to(times: Any, begins: Any, ends: Any, cutoffs: Any, longest: int) -> Any:
    """Where the times at or before each row's cutoff end: the index of the row's first later time, or `ends`.

    Args:
        times: Microseconds in runs, ascending within each; NumPy array or tensor, as all others here.
        begins: Start of each row's run.
        ends: End of each row's run (exclusive).
        cutoffs: Microseconds.
        longest: Length of the longest run; a binary search needs no more steps than its binary digits.
    """
    low, high = begins, ends
    for _ in range(longest.bit_length()):
        inside = low < high
        middle = (low + high >> 1) * inside
        passed = inside & (times[middle] <= cutoffs)
        low = low + (middle + 1 - low) * passed
        high = high - (high - middle) * (inside & ~passed)
    return low


def day_ends(cutoff: datetime, days: int, zone: str) -> Times:
    """Microseconds at which the windows of 0, 1, … `days` days after the cutoff end, (days + 1,)."""
    return np.array([microseconds(horizon_end(cutoff, day, zone)) for day in range(days + 1)], dtype=np.int64)


def whole_days_to(times: Times, ends: Times) -> NDArray[np.int64]:
    """The shortest of the windows with these ends that holds each time; as many as there are ends where none does."""
    return np.searchsorted(ends, times, side="left")


def observed_days(observation_end: datetime, ends: Times) -> int:
    """How many whole days, of those whose ends are given, the data cover; -1 where not even the cutoff is."""
    return int(np.searchsorted(ends, microseconds(observation_end), side="right")) - 1
