"""The families BTYD, volume and rhythm in pandas and in DuckDB, for bench_features.py; values are those of retinue."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

WINDOWS = (7, 30, 90, 180, 365, None)
COLUMNS = ("customer", "customer_id", "event_time", "known_time", "event_type", "amount", "quantity")
ALIKE = 5e-4  # below it the gaps are all but equal
SUMS = ("orders", "net_spend", "units", "refunds", "refund_value")


def name_of(days: int | None) -> str:
    """Suffix of a window."""
    return "ever" if days is None else f"{days}d"


def with_pandas(files: list[Path], cutoff: datetime, zone: str, path: Path) -> None:
    """The whole table at once, as pandas works."""
    pandas: Any = import_module("pandas")
    events = pandas.concat([pandas.read_parquet(file, columns=list(COLUMNS)) for file in files])
    events = events[(events["event_time"] <= cutoff) & (events["known_time"] <= cutoff)]
    age = (cutoff - events["event_time"]) / timedelta(days=1)
    today = pandas.Timestamp(cutoff).tz_convert(zone).tz_localize(None).normalize()
    days = events["event_time"].dt.tz_convert(zone).dt.tz_localize(None).dt.normalize()
    events = events.assign(age=age, days_ago=(today - days).dt.days)
    everybody = events.groupby("customer").agg(
        customer_id=("customer_id", "first"), days_since_first_event=("days_ago", "max")
    )
    orders, refunds = (events[events["event_type"] == kind] for kind in ("order", "refund"))
    parts = [everybody, _buying(pandas, orders)]
    for window in WINDOWS:
        parts.append(_volume(pandas, orders, refunds, window).reindex(everybody.index))
    table = pandas.concat(parts, axis=1)
    for column in [each for each in table if each.startswith(("orders_", "refunds_"))]:
        table[column] = table[column].fillna(0)
    for window in WINDOWS:
        _zero_of_none(table, window)
    table.reset_index().sort_values("customer_id").to_parquet(path, index=False)


def _volume(pandas: Any, orders: Any, refunds: Any, window: int | None) -> Any:
    """Counts and sums of a window; a sum of nothing known is null."""
    name = name_of(window)
    if window is not None:
        orders, refunds = (each[each["age"] < window] for each in (orders, refunds))
    bought, back = (each.groupby("customer") for each in (orders, refunds))
    both = pandas.concat([orders, refunds]).groupby("customer")["amount"].sum(min_count=1)
    return pandas.DataFrame(
        {
            f"orders_{name}": bought.size(),
            f"net_spend_{name}": both,
            f"units_{name}": bought["quantity"].sum(min_count=1),
            f"refunds_{name}": back.size(),
            f"refund_value_{name}": -back["amount"].sum(min_count=1),
        }
    )


def _zero_of_none(table: Any, window: int | None) -> None:
    name = name_of(window)
    none = table[f"orders_{name}"] == 0
    table.loc[none, f"units_{name}"] = 0.0
    table.loc[table[f"refunds_{name}"] == 0, f"refund_value_{name}"] = 0.0
    table.loc[none & (table[f"refunds_{name}"] == 0), f"net_spend_{name}"] = 0.0


def _buying(pandas: Any, orders: Any) -> Any:
    """BTYD and rhythm from days with an order."""
    days = orders.groupby(["customer", "days_ago"])["amount"].sum(min_count=1).rename("value").reset_index()
    days = days.sort_values(["customer", "days_ago"], ascending=[True, False])
    by = days.groupby("customer")
    first = by["days_ago"].transform("max")
    days["gap"] = -by["days_ago"].diff()
    days["late"] = 2 * (first - days["days_ago"]) > first
    days["log_gap"] = np.log(days["gap"])
    repeat = days[days["days_ago"] < first]
    by = days.groupby("customer")
    out = by.agg(
        rows=("days_ago", "size"),
        T_days=("days_ago", "max"),
        days_since_last=("days_ago", "min"),
        valued_transactions=("value", "count"),
        gap_mean_days=("gap", "mean"),
        gap_std_days=("gap", "std"),
        gap_median_days=("gap", "median"),
        gap_last_days=("gap", "last"),
        log_mean=("log_gap", "mean"),
        late=("late", "sum"),
    )
    out["monetary_value"] = repeat.groupby("customer")["value"].mean()
    out["frequency"] = out["rows"] - 1
    out["recency_days"] = out["T_days"] - out["days_since_last"]
    out["gap_cv"] = out["gap_std_days"] / out["gap_mean_days"]
    out["silence_ratio"] = out["days_since_last"] / out["gap_mean_days"]
    halves = np.log((out["late"] + 0.5) / (out["rows"] - out["late"] + 0.5))
    out["velocity_trend"] = halves.where(out["T_days"] >= 2)
    s = np.log(out["gap_mean_days"]) - out["log_mean"]
    shape = (3 - s + np.sqrt((s - 3) ** 2 + 24 * s)) / (12 * s.where(s >= ALIKE))
    out["regularity"] = shape.where(s >= ALIKE, 1000.0).where(out["frequency"] >= 2)
    return out.drop(columns=["rows", "log_mean", "late"])


def with_duckdb(files: list[Path], cutoff: datetime, zone: str, path: Path) -> None:
    """One SQL query, on two threads."""
    duckdb: Any = import_module("duckdb")
    today: date = cutoff.astimezone(ZoneInfo(zone)).date()
    inside = {days: "true" if days is None else f"age < {days}" for days in WINDOWS}
    order, refund = "event_type = 'order'", "event_type = 'refund'"
    volume = ", ".join(
        f"""count(*) filter ({order} and {near}) as orders_{name_of(days)},
        case when count(*) filter ({near}) = 0 then 0 else sum(amount) filter ({near}) end as net_spend_{name_of(days)},
        case when count(*) filter ({order} and {near}) = 0 then 0
            else sum(quantity) filter ({order} and {near}) end as units_{name_of(days)},
        count(*) filter ({refund} and {near}) as refunds_{name_of(days)},
        case when count(*) filter ({refund} and {near}) = 0 then 0
            else -sum(amount) filter ({refund} and {near}) end as refund_value_{name_of(days)}"""
        for days, near in inside.items()
    )
    counts = ", ".join(f"coalesce({n}_{name_of(d)}, 0) as {n}_{name_of(d)}" for d in WINDOWS for n in SUMS)
    given = ", ".join(f"'{file}'" for file in files)
    duckdb.sql("set threads = 2")
    duckdb.sql(
        f"""copy (
        with known as (
            select customer, customer_id, event_type, amount, quantity,
                (epoch_us(timestamptz '{cutoff.isoformat()}') - epoch_us(event_time)) / 86400000000.0 as age,
                date '{today}' - cast(event_time at time zone '{zone}' as date) as days_ago
            from read_parquet([{given}])
            where event_time <= timestamptz '{cutoff.isoformat()}' and known_time <= timestamptz '{cutoff.isoformat()}'
        ),
        everybody as (
            select customer, min(customer_id) as customer_id, max(days_ago) as days_since_first_event
            from known group by customer
        ),
        volume as (select customer, {volume} from known where event_type in ('order', 'refund') group by customer),
        days as (
            select customer, days_ago, sum(amount) as value from known where {order} group by customer, days_ago
        ),
        gaps as (
            select customer, days_ago, value,
                lag(days_ago) over (partition by customer order by days_ago desc) - days_ago as gap,
                max(days_ago) over (partition by customer) as first_ago
            from days
        ),
        buying as (
            select customer, count(*) - 1 as frequency, max(days_ago) - min(days_ago) as recency_days,
                max(days_ago) as T_days, count(value) as valued_transactions,
                avg(value) filter (days_ago < first_ago) as monetary_value, min(days_ago) as days_since_last,
                avg(gap) as gap_mean_days, stddev_samp(gap) as gap_std_days, median(gap) as gap_median_days,
                arg_min(gap, days_ago) as gap_last_days, ln(avg(gap)) - avg(ln(gap)) as s,
                count(*) filter (2 * (first_ago - days_ago) > first_ago) as late
            from gaps group by customer
        )
        select everybody.*, buying.* exclude (customer, s, late), {counts},
            gap_std_days / gap_mean_days as gap_cv, days_since_last / gap_mean_days as silence_ratio,
            case when T_days >= 2 then ln((late + 0.5) / (frequency + 1 - late + 0.5)) end as velocity_trend,
            case when frequency < 2 then null when s < {ALIKE} then 1000.0
                else (3 - s + sqrt((s - 3) * (s - 3) + 24 * s)) / (12 * s) end as regularity
        from everybody left join volume using (customer) left join buying using (customer) order by customer_id
        ) to '{path}' (format parquet)"""
    )
