"""The ledger of a base: every forecast ever written, kept until it matures, then held against what came true."""

from __future__ import annotations

import logging
from bisect import bisect_left
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from retinue.evaluation.drift import feature_drift, feature_profiles
from retinue.evaluation.realised import realised
from retinue.evaluation.reconciliation import Verdict, verdict
from retinue.events.store import Store, write_table
from retinue.events.timeline import had_been_observed, horizon_end, is_observed
from retinue.schema import (
    COHORT,
    CUSTOMER_ID,
    CUTOFF,
    DECILE,
    DRIFT,
    EXPECTED_SPEND,
    FEATURE_PROFILES,
    FORECASTS,
    HINDSIGHT,
    HORIZON_DAYS,
    LEDGER,
    LEDGER_SEGMENT,
    MATURED,
    NEXT_ORDER_DAYS,
    OBSERVATION_END,
    REALISED_ORDERS,
    REALISED_SPEND,
    RUN,
    SEQUENCE,
    SUPERSEDED,
    T_DAYS,
    VALUE_TIER,
)

log = logging.getLogger(__name__)
KEYS = (CUSTOMER_ID, CUTOFF, HORIZON_DAYS)
TIERS = ("top 10 %", "next 40 %", "lower half")


def _is_entry(path: Path) -> bool:
    """Whether a file holds forecasts that a run has kept."""
    number, _, run = path.stem.partition("-")
    why = "its name is not <number>-<run>"
    if number.isdecimal() and run:
        try:
            lacking = set(LEDGER.schema.names()) - set(pl.read_parquet_schema(path))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            why = " ".join(str(error).split())[:100]
        else:
            why = f"it lacks {', '.join(sorted(lacking))}" if lacking else ""
    if why:
        log.warning("ledger: %s is no entry and is passed over (%s)", path, why)
    return not why


@dataclass(frozen=True)
class Ledger:
    """A folder with one Parquet file per run, named by sequence and fingerprint; never rewritten."""

    folder: Path

    def runs(self) -> list[Path]:
        """Files of the runs, in the order they were written; a file that is none is named and left where it is."""
        return [path for path in sorted(self.folder.glob("*.parquet")) if _is_entry(path)]

    def holds(self, run: str) -> bool:
        """Whether a run's forecasts are in it already."""
        return any(path.stem.split("-", 1)[1] == run for path in self.runs())

    def append(self, run: str, forecasts: pl.DataFrame, about: About) -> bool:
        """Keeps a run's forecasts, and how its features were spread; False where the run is in it already.

        Args:
            run: fingerprint of what the forecasts followed from.
            forecasts: the `forecasts` table, any number of cutoffs and horizons.
            about: what was known of the customers.
        """
        if self.holds(run) or forecasts.is_empty():
            return False
        sequence = max((int(path.stem.split("-", 1)[0]) for path in self.runs()), default=0) + 1
        rows = _written(run, sequence, FORECASTS.check(forecasts), about)
        profiles = [feature_profiles(part, run) for part in about.features.partition_by(CUTOFF)]
        write_table(FEATURE_PROFILES.check(pl.concat(profiles)), self.folder / "profiles" / f"{run}.parquet")
        write_table(rows, self.folder / f"{sequence:06d}-{run}.parquet")
        return True

    def read(self) -> pl.DataFrame:
        """Every forecast ever written, sorted by sequence, customer_id, cutoff, horizon_days."""
        files = self.runs()
        if not files:
            return pl.DataFrame(schema=LEDGER.schema)
        return LEDGER.check(pl.concat([pl.read_parquet(path) for path in files]).sort(SEQUENCE, RUN, *KEYS))

    def before(self, cutoff: datetime, horizon_days: int) -> pl.DataFrame:
        """The last `forecasts` kept at the last cutoff before this one, of the same horizon; empty without any."""
        files = self.runs()
        if not files:
            return FORECASTS.schema.to_frame()
        kept = pl.scan_parquet(files).filter(pl.col(HORIZON_DAYS) == horizon_days)
        times = kept.select(pl.col(CUTOFF).unique().sort()).collect()[CUTOFF].to_list()
        earlier = times[: bisect_left(times, cutoff)]
        if not earlier:
            return FORECASTS.schema.to_frame()
        last = kept.filter(pl.col(CUTOFF) == earlier[-1]).sort(SEQUENCE, RUN, CUSTOMER_ID)
        # a ledger keeps no days to the next order, as nothing is held against them
        told = last.unique(KEYS, keep="last").with_columns(
            pl.lit(None, NEXT_ORDER_DAYS.dtype).alias(NEXT_ORDER_DAYS)
        )
        return FORECASTS.check(told.select(FORECASTS.schema.names()).sort(KEYS).collect())

    def profiles(self, run: str) -> pl.DataFrame:
        """How the features of a run were spread, by cutoff."""
        return FEATURE_PROFILES.check(pl.read_parquet(self.folder / "profiles" / f"{run}.parquet"))


@dataclass(frozen=True)
class About:
    """What was known of the customers when forecasts were written.

    features: the features table, with T_days; segments: the `segments` table, or None; observation_end: of the data;
    zone: in which cohorts are read.
    """

    features: pl.DataFrame
    segments: pl.DataFrame | None
    observation_end: datetime
    zone: str


def _written(run: str, sequence: int, forecasts: pl.DataFrame, about: About) -> pl.DataFrame:
    keys = [CUSTOMER_ID, CUTOFF]
    rows = forecasts.join(_cohorts(about), on=keys, how="left", validate="m:1")
    if about.segments is None:
        rows = rows.with_columns(pl.lit(None, pl.String).alias(LEDGER_SEGMENT))
    else:
        rows = rows.join(about.segments.select(*keys, LEDGER_SEGMENT), on=keys, how="left", validate="m:1")
    window = [CUTOFF, HORIZON_DAYS]
    place = (
        pl.struct(-pl.col(EXPECTED_SPEND), pl.col(CUSTOMER_ID)).rank("ordinal").over(window).cast(pl.Float64)
    )
    part = (place - 0.5) / pl.len().over(window)
    tier = (
        pl.when(part < 0.1)
        .then(pl.lit(TIERS[0]))
        .when(part < 0.5)
        .then(pl.lit(TIERS[1]))
        .otherwise(pl.lit(TIERS[2]))
    )
    rows = rows.with_columns(
        pl.lit(run).alias(RUN),
        pl.lit(sequence, SEQUENCE.dtype).alias(SEQUENCE),
        pl.lit(about.observation_end, OBSERVATION_END.dtype).alias(OBSERVATION_END),
        (part * 10).floor().cast(pl.Int32).alias(DECILE) + 1,
        tier.alias(VALUE_TIER),
    )
    return LEDGER.check(rows.select(LEDGER.schema.names()).sort(KEYS))


def _cohorts(about: About) -> pl.DataFrame:
    """Year and quarter of each customer's first order."""
    day = pl.col(CUTOFF).dt.convert_time_zone(about.zone).dt.date()
    first = day - pl.duration(days=pl.col(T_DAYS).cast(pl.Int64))
    quarter = pl.format("{} Q{}", first.dt.year(), first.dt.quarter())
    named = pl.when(pl.col(T_DAYS).is_null()).then(pl.lit("unknown")).otherwise(quarter)
    return about.features.select(CUSTOMER_ID, CUTOFF, named.alias(COHORT))


def mature(ledger: pl.DataFrame, store: Store) -> pl.DataFrame:
    """The `matured` table: forecasts whose whole window the store has seen, with what came true.

    No part of a window counts before all of it has been observed. Where several runs said something of the
    same customer, cutoff and horizon, the last one written before its window closed counts (the last one of
    all, where none was); the others are `superseded`. A customer that the events no longer know is left
    out.

    Args:
        ledger: the `ledger` table.
        store: the base's events as they stand now.
    """
    parts = [pl.DataFrame(schema=MATURED.schema)]
    windows = ledger.select(CUTOFF, HORIZON_DAYS).unique().sort(CUTOFF, HORIZON_DAYS)
    for at, days in windows.iter_rows():
        if not is_observed(store.observation_end, at, days, store.local_zone):
            continue
        said = ledger.filter((pl.col(CUTOFF) == at) & (pl.col(HORIZON_DAYS) == days))
        came = realised(store.scan(), at, days, store.local_zone).collect()
        both = said.join(
            came.select(*KEYS, REALISED_ORDERS, REALISED_SPEND), on=list(KEYS), how="inner", validate="m:1"
        )
        late = had_been_observed(OBSERVATION_END, at, days, store.local_zone).alias(HINDSIGHT)
        last = pl.struct(~pl.col(HINDSIGHT), SEQUENCE, RUN)
        both = both.with_columns(late).with_columns(
            (last.rank("ordinal", descending=True).over(KEYS) > 1).alias(SUPERSEDED)
        )
        parts.append(both.select(MATURED.schema.names()))
    return MATURED.check(pl.concat(parts).sort(SEQUENCE, RUN, *KEYS))


def next_maturity(ledger: pl.DataFrame, store: Store) -> datetime | None:
    """Through when the data must reach for the next forecasts to mature; None where all have."""
    windows = ledger.select(CUTOFF, HORIZON_DAYS).unique().sort(CUTOFF, HORIZON_DAYS).iter_rows()
    zone = store.local_zone
    open_until = [
        horizon_end(at, days, zone)
        for at, days in windows
        if not is_observed(store.observation_end, at, days, zone)
    ]
    return min(open_until, default=None)


def drift_since(ledger: Ledger, kept: pl.DataFrame, now: pl.DataFrame) -> pl.DataFrame:
    """The `drift` table: features of now against those behind the last earlier forecasts; empty without any.

    Args:
        ledger: the ledger's folder.
        kept: its `ledger` table.
        now: features table at one cutoff.
    """
    at = now[CUTOFF][0] if now.height else None
    times = sorted({*kept[CUTOFF].unique().to_list(), at}) if at is not None else []
    earlier = times[: times.index(at)] if at is not None else []
    if not earlier:
        return pl.DataFrame(schema=DRIFT.schema)
    run = kept.filter(pl.col(CUTOFF) == earlier[-1]).sort(SEQUENCE, RUN)[RUN][-1]
    return feature_drift(ledger.profiles(run).filter(pl.col(CUTOFF) == earlier[-1]), now)


@dataclass(frozen=True)
class Reckoning:
    """What the ledger says today.

    kept: the `ledger` table; matured, reconciled, drift: tables of their names; next_maturity: how far the data must
    reach for more to mature; retrain_cost: account currency.
    """

    kept: pl.DataFrame
    matured: pl.DataFrame
    reconciled: pl.DataFrame
    drift: pl.DataFrame
    next_maturity: datetime | None
    retrain_cost: float

    @property
    def verdict(self) -> Verdict:
        """Whether new forecasts would pay."""
        return verdict(self.reconciled, self.drift, self.retrain_cost)
