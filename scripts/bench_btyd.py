"""Prints how long the statistical rungs take to fit and to score; asserts nothing. Run on an idle machine."""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
import torch

from retinue.config import Options, Rung
from retinue.forecasting.score import forecast
from retinue.models.btyd import fit
from retinue.models.statistics import statistics_of
from retinue.schema import (
    CUSTOMER,
    CUSTOMER_ID,
    CUTOFF,
    FREQUENCY,
    NET_SPEND_EVER,
    RECENCY_DAYS,
    T_DAYS,
    UTC_TIME,
)

RUNGS = (Rung.bg_nbd, Rung.mbg_nbd, Rung.pareto_nbd)


def table(rows: pl.DataFrame) -> pl.DataFrame:
    keys = (
        pl.int_range(pl.len()).cast(pl.String).str.zfill(9).alias(CUSTOMER_ID),
        pl.int_range(pl.len()).alias(CUSTOMER),
        pl.lit(date(1997, 9, 30)).cast(UTC_TIME).alias(CUTOFF),
    )
    return rows.select(*keys, pl.all())


def cdnow() -> pl.DataFrame | None:
    package = find_spec("lifetimes")
    if package is None or package.origin is None:
        return None
    lines = (Path(package.origin).parent / "datasets" / "CDNOW_master.txt").read_text().splitlines()[1:]
    words = [line.split() for line in lines]
    day = pl.col("day").str.to_date("%Y%m%d")
    rows = pl.DataFrame(
        {"id": [w[0] for w in words], "day": [w[1] for w in words], "spend": [float(w[3]) for w in words]}
    )
    known = rows.with_columns(day).filter(pl.col("day") <= date(1997, 9, 30))
    return table(
        known.group_by("id")
        .agg(
            (pl.col("day").n_unique() - 1).cast(pl.Int64).alias(FREQUENCY),
            (pl.col("day").max() - pl.col("day").min()).dt.total_days().alias(RECENCY_DAYS),
            (date(1997, 9, 30) - pl.col("day").min()).dt.total_days().alias(T_DAYS),
            pl.col("spend").sum().alias(NET_SPEND_EVER),
        )
        .sort("id")
        .drop("id")
    )


def simulated(customers: int, seed: int = 0) -> pl.DataFrame:
    """Pareto/NBD customers who arrived over three years, whole days."""
    rng = np.random.default_rng(seed)
    age = rng.integers(0, 1_096, customers).astype(float)
    rate = rng.gamma(0.6, 1 / 60, customers)
    alive = np.minimum(age, rng.exponential(1, customers) / rng.gamma(0.8, 1 / 200, customers))
    x = rng.poisson(rate * alive)
    x = np.minimum(x, np.floor(alive)).astype(np.int64)
    last = np.where(
        x > 0,
        np.clip(np.ceil(alive * rng.beta(np.maximum(x, 1), 1)), np.maximum(x, 1), np.maximum(age, 1)),
        0,
    )
    x = np.where(last > age, 0, x)
    last = np.where(x > 0, last, 0).astype(np.int64)
    spend = (x + 1) * rng.gamma(6, 1, customers) * 5
    return table(
        pl.DataFrame({FREQUENCY: x, RECENCY_DAYS: last, T_DAYS: age.astype(np.int64), NET_SPEND_EVER: spend})
    )


def measured(name: str, rows: pl.DataFrame) -> Iterator[str]:
    for rung in RUNGS:
        start = time.perf_counter()
        base = statistics_of(rows)
        fit(rung, base.distinct)
        fitted = time.perf_counter() - start
        start = time.perf_counter()
        forecast(rows, Options(), rung, [90, 365])
        scored = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        distinct = len(base.distinct.weights)
        sizes = f"{name:<10} {rows.height:>10,} {distinct:>10,}"
        yield f"{sizes} {rung.value:<12} {fitted:>8.2f} {scored:>12.2f} {peak:>9.2f}"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--customers", type=int, default=1_000_000, help="size of the simulated base")
    asked = words.parse_args()
    print(f"{torch.get_num_threads()} threads")
    print(
        f"{'base':<10} {'customers':>10} {'distinct':>10} {'rung':<12} {'fit s':>8} {'forecast s':>12} {'peak GiB':>9}"
    )
    known = cdnow()
    for name, rows in (("cdnow", known), ("simulated", simulated(asked.customers))):
        for line in measured(name, rows) if rows is not None else ():
            print(line, flush=True)


if __name__ == "__main__":
    main()
