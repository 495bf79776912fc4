"""How customers came back, counted over the event shards: retention, repeat rate and silence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from retinue.events.store import Store
from retinue.events.timeline import history
from retinue.schema import CUSTOMER, EVENT_TIME, EVENT_TYPE, ORDER, Column

COHORT = Column("cohort", pl.Date, "first day of the local month of the first order")
MONTHS_SINCE = Column("months_since", pl.Int32, "calendar months after the cohort's month")
COHORT_CUSTOMERS = Column("cohort_customers", pl.Int64, "customers of the cohort")
ORDERED = Column("ordered", pl.Int64, "customers of the cohort with an order in that month")
HALF_YEAR = Column("half_year", pl.String, "half-year of the first order, e.g. 1997 H1")
DAYS_SINCE_FIRST = Column("days_since_first", pl.Int32, "days after the first order")
REPEAT_SHARE = Column("repeat_share", pl.Float64, "Kaplan–Meier share with a second order by then, 0 to 1")
OBSERVED = Column("observed", pl.Int64, "customers observed for that long")
SILENT_FROM = Column("silent_from", pl.Int32, "days since the last order, from")
SILENT_TO = Column("silent_to", pl.Int32, "days since the last order, below")
SILENT_CUSTOMERS = Column("silent_customers", pl.Int64, "customers in the band")

_DAY, _FIRST, _SECOND, _LAST, _WAIT, _BACK, _ROWS = "day", "first", "second", "last", "wait", "back", "rows"
_WIDTHS_DAYS = (1, 7, 14, 28, 56, 91, 182, 364)
_MOST_BANDS = 40
_GRID_DAYS = 7


@dataclass(frozen=True)
class ActivityTables:
    """Aggregates of all orders up to the cutoff; small whatever the number of customers."""

    retention: pl.DataFrame
    repeat: pl.DataFrame
    recency: pl.DataFrame


def activity_tables(store: Store, cutoff: datetime, zone: str) -> ActivityTables:
    """Retention, repeat and recency tables from one pass over the shards.

    Args:
        store: events of one base.
        cutoff: last instant of history.
        zone: time zone in which days and months are read; orders of one local day count once.

    Returns:
        retention: one row per cohort month × whole calendar month since, the partly seen last month left out.
        repeat: one row per acquisition half-year × day on a weekly grid, while half of the cohort is observed.
        recency: one row per band of days since the last order.
    """
    counts = [_shard_counts(store.scan(shard), cutoff, zone) for shard in range(store.manifest.shards)]
    merged = [
        pl.concat(parts).group_by(parts[0].columns[:-1]).agg(pl.col(_ROWS).sum()).sort(parts[0].columns[:-1])
        for parts in zip(*counts, strict=True)
    ]
    sizes, ordered, waits, observed, silent = merged
    return ActivityTables(
        _retention(sizes, ordered, cutoff, zone), _repeat(waits, observed), _recency(silent)
    )


def _shard_counts(events: pl.LazyFrame, cutoff: datetime, zone: str) -> list[pl.DataFrame]:
    """Counts that add up over shards: cohort sizes, orderers by month, waits, spans and silences."""
    local_day = pl.col(EVENT_TIME).dt.convert_time_zone(zone).dt.date().alias(_DAY)
    last_day = pl.lit(cutoff.astimezone(ZoneInfo(zone)).date())
    orders = history(events, cutoff).filter(pl.col(EVENT_TYPE) == ORDER)
    days = orders.select(CUSTOMER, local_day).unique().collect(engine="streaming")
    customers = (
        days.group_by(CUSTOMER)
        .agg(
            pl.col(_DAY).min().alias(_FIRST),
            pl.col(_DAY).filter(pl.col(_DAY) > pl.col(_DAY).min()).min().alias(_SECOND),
            pl.col(_DAY).max().alias(_LAST),
        )
        .with_columns(
            pl.col(_FIRST).dt.truncate("1mo").alias(COHORT),
            pl.format(
                "{} H{}",
                pl.col(_FIRST).dt.year(),
                pl.when(pl.col(_FIRST).dt.month() <= 6).then(1).otherwise(2),
            ).alias(HALF_YEAR),
            (last_day - pl.col(_FIRST)).dt.total_days().alias(DAYS_SINCE_FIRST),
            (last_day - pl.col(_LAST)).dt.total_days().alias(SILENT_FROM),
            pl.col(_SECOND).is_not_null().alias(_BACK),
        )
        .with_columns(
            pl.coalesce((pl.col(_SECOND) - pl.col(_FIRST)).dt.total_days(), pl.col(DAYS_SINCE_FIRST)).alias(
                _WAIT
            )
        )
    )
    months = (
        days.join(customers.select(CUSTOMER, COHORT), on=CUSTOMER)
        .select(CUSTOMER, COHORT, (_month_number(_DAY) - _month_number(COHORT)).alias(MONTHS_SINCE))
        .unique()
    )
    return [
        _counted(customers, [COHORT]),
        _counted(months, [COHORT, MONTHS_SINCE]),
        _counted(customers, [HALF_YEAR, _WAIT, _BACK]),
        _counted(customers, [HALF_YEAR, DAYS_SINCE_FIRST]),
        _counted(customers, [SILENT_FROM]),
    ]


def _counted(frame: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    return frame.group_by(keys).agg(pl.len().cast(pl.Int64).alias(_ROWS))


def _month_number(day: str) -> pl.Expr:
    return pl.col(day).dt.year() * 12 + pl.col(day).dt.month().cast(pl.Int32)


def _retention(sizes: pl.DataFrame, ordered: pl.DataFrame, cutoff: datetime, zone: str) -> pl.DataFrame:
    # the month of the instant after the cutoff is the first one not wholly seen
    after = (cutoff + timedelta(microseconds=1)).astimezone(ZoneInfo(zone)).date()
    unseen = pl.lit(after.year * 12 + after.month, pl.Int32)
    span = pl.int_ranges(0, pl.max_horizontal(unseen - _month_number(COHORT), 0), dtype=pl.Int32)
    return (
        sizes.rename({_ROWS: COHORT_CUSTOMERS})
        .with_columns(span.alias(MONTHS_SINCE))
        .explode(MONTHS_SINCE, empty_as_null=True)
        .drop_nulls(MONTHS_SINCE)
        .join(ordered.rename({_ROWS: ORDERED}), on=[COHORT, MONTHS_SINCE], how="left")
        .with_columns(pl.col(ORDERED).fill_null(0))
        .sort(COHORT, MONTHS_SINCE)
    )


def _repeat(waits: pl.DataFrame, observed: pl.DataFrame) -> pl.DataFrame:
    """Kaplan & Meier (1958): customers not observed any longer leave the risk set."""
    rows: list[tuple[str, int, float, int]] = []
    for half_year in observed[HALF_YEAR].unique().sort():
        spans = observed.filter(pl.col(HALF_YEAR) == half_year)
        longest = int(spans[DAYS_SINCE_FIRST].max() or 0)  # type: ignore[arg-type]
        seen = _at_least(spans[DAYS_SINCE_FIRST], spans[_ROWS], longest)
        mine = waits.filter(pl.col(HALF_YEAR) == half_year)
        at_risk = _at_least(mine[_WAIT], mine[_ROWS], longest)
        returned = mine.filter(pl.col(_BACK))
        back = np.bincount(returned[_WAIT].to_numpy(), returned[_ROWS].to_numpy(), longest + 1)
        stayed_away = np.cumprod(1.0 - back / np.maximum(at_risk, 1))
        grid = range(0, longest + 1, _GRID_DAYS)
        rows += [
            (half_year, t, float(1 - stayed_away[t]), int(seen[t])) for t in grid if 2 * seen[t] >= seen[0]
        ]
    schema = {str(c): c.dtype for c in (HALF_YEAR, DAYS_SINCE_FIRST, REPEAT_SHARE, OBSERVED)}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _at_least(
    values: pl.Series, weights: pl.Series, longest: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Weight of the values ≥ t, for each t from 0 to longest."""
    counts = np.bincount(values.to_numpy(), weights.to_numpy(), longest + 1)
    return np.asarray(counts[::-1].cumsum()[::-1], dtype=np.float64)


def _recency(silent: pl.DataFrame) -> pl.DataFrame:
    if silent.is_empty():
        return pl.DataFrame(schema={str(c): c.dtype for c in (SILENT_FROM, SILENT_TO, SILENT_CUSTOMERS)})
    longest = int(silent[SILENT_FROM].max())  # type: ignore[arg-type]
    width = next((w for w in _WIDTHS_DAYS if longest < w * _MOST_BANDS), longest // _MOST_BANDS + 1)
    bands = pl.DataFrame({SILENT_FROM: range(0, longest + 1, width)}, schema={SILENT_FROM: pl.Int32})
    counted = (
        silent.with_columns((pl.col(SILENT_FROM) // width * width).cast(pl.Int32))
        .group_by(SILENT_FROM)
        .agg(pl.col(_ROWS).sum().alias(SILENT_CUSTOMERS))
    )
    return (
        bands.join(counted, on=SILENT_FROM, how="left")
        .select(
            pl.col(SILENT_FROM),
            (pl.col(SILENT_FROM) + width).cast(pl.Int32).alias(SILENT_TO),
            pl.col(SILENT_CUSTOMERS).fill_null(0),
        )
        .sort(SILENT_FROM)
    )
