"""Who is in which arm: by hash, so that it can be done again; stratified, so that arms are alike; never two at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

from retinue.decisions.offers import drawn
from retinue.schema import (
    ARM,
    ASSIGNMENTS,
    CUSTOMER_ID,
    ENDS,
    EXPERIMENT,
    PROPENSITY,
    STARTS,
    STRATUM,
    InputError,
)

FILE = "assignments.parquet"


def assigned_in(folder: Path) -> pl.DataFrame:
    """The `assignments` of all experiments of a run folder."""
    found = sorted(folder.glob(f"experiments/*/{FILE}"))
    return ASSIGNMENTS.check(pl.concat([ASSIGNMENTS.schema.to_frame(), *map(pl.read_parquet, found)]))


def running(assigned: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """Those whose experiment has not ended, one row per customer: until then their arm says what they get."""
    return assigned.filter(pl.col(ENDS) > at).sort(STARTS, EXPERIMENT).unique(CUSTOMER_ID, keep="first")


def assign(
    customers: pl.DataFrame,
    name: str,
    arms: Mapping[str, float],
    window: tuple[datetime, datetime],
    strata: Sequence[str] = (),
    before: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """The `assignments` table of an experiment, sorted by customer_id.

    Within each stratum customers stand in the order of their hash and are cut at the shares, so that each arm has its
    share of every stratum to within one customer. Who is in an experiment that runs at the same time is left out.
    Assigned again with the same customers it is the same; customers who are assigned already keep their arm.

    Args:
        customers: customer_id and the columns of the strata, one row each; the global holdout left out.
        name: of the experiment.
        arms: share of each; they sum to 1.
        window: when it starts and ends.
        strata: columns within which the shares hold.
        before: assignments of other experiments, and of this one.

    Raises:
        InputError: shares that do not sum to 1, a customer twice, an unknown column, or another window than before.
    """
    shares = np.array(list(arms.values()), dtype=np.float64)
    if len(arms) < 2 or (shares <= 0).any() or abs(shares.sum() - 1) > 1e-9:
        raise InputError(f"experiments.arms={dict(arms)}: must be two or more shares above 0 that sum to 1.")
    missing = [column for column in strata if column not in customers.columns]
    if missing:
        raise InputError(
            f"experiments.strata: there is no '{missing[0]}'; there are {', '.join(customers.columns)}."
        )
    if twice := customers.height - customers[CUSTOMER_ID].n_unique():
        raise InputError(f"experiments: {twice:,} customers stand there twice; give one row each.")
    kept, free = _apart(customers, name, window, before)
    told = free.select(
        CUSTOMER_ID,
        pl.concat_str(
            [pl.col(column).cast(pl.String).fill_null("unknown") for column in strata], separator=" / "
        ).alias(STRATUM)
        if strata
        else pl.lit("all").alias(STRATUM),
    ).with_columns(pl.Series("draw", drawn(free[CUSTOMER_ID], f"retinue experiment {name}")))
    # each stratum starts at a place of its own in the shares, or small strata would all begin with the same arm
    start = pl.Series("start", drawn(told[STRATUM], f"retinue stratum {name}"), dtype=pl.Float64)
    place = told.with_columns(start).with_columns(
        (
            (pl.col("draw").rank("ordinal").over(STRATUM) - 0.5 + pl.col("start")) / pl.len().over(STRATUM)
        ).alias("place")
    )
    where = np.searchsorted(np.cumsum(shares)[:-1], place["place"].to_numpy() % 1.0, side="right")
    made = told.select(
        pl.lit(name).alias(EXPERIMENT),
        CUSTOMER_ID,
        pl.Series(list(arms), dtype=pl.String).gather(where).alias(ARM),
        pl.Series(PROPENSITY, shares[where]),
        STRATUM,
        pl.lit(window[0]).cast(ASSIGNMENTS.schema[STARTS]).alias(STARTS),
        pl.lit(window[1]).cast(ASSIGNMENTS.schema[ENDS]).alias(ENDS),
    )
    return ASSIGNMENTS.check(pl.concat([kept, made]).sort(CUSTOMER_ID))


def _apart(
    customers: pl.DataFrame, name: str, window: tuple[datetime, datetime], before: pl.DataFrame | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Assignments of this experiment that stand, and the customers that are in none that runs at the same time."""
    if before is None:
        return ASSIGNMENTS.schema.to_frame(), customers
    ASSIGNMENTS.check(before)
    mine = before.filter(pl.col(EXPERIMENT) == name)
    other = mine.filter((pl.col(STARTS) != window[0]) | (pl.col(ENDS) != window[1]))
    if other.height:
        raise InputError(
            f"experiments.name={name}: is assigned from {other[STARTS][0]:%Y-%m-%d} to {other[ENDS][0]:%Y-%m-%d}, and outcomes "
            "of one experiment count over one window. Give another name, or the same cutoff, starts and days."
        )
    others = before.filter(
        (pl.col(EXPERIMENT) != name) & (pl.col(STARTS) < window[1]) & (pl.col(ENDS) > window[0])
    )
    free = customers.join(pl.concat([mine, others]), on=CUSTOMER_ID, how="anti")
    return mine, free
