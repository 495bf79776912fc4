"""How long the statistical rungs take to fit and to score: python scripts/bench_btyd.py [--customers 1000000] [--peers].

With --peers, fits of CDNOW only, beside those of lifetimes and of pymc-marketing (MAP, its default priors) on the same customers,
in turns in one process; both come with the extra `bench`. The log-likelihood is that of ours under each one's parameters.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import date
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
import torch
from bench_peer import ENDS, WEEK, frame_of, law  # type: ignore[import-not-found]
from rich.console import Console
from rich.table import Table

from retinue.forecasting.score import forecast
from retinue.models.btyd import Btyd, Histories, fit
from retinue.models.statistics import Statistics, statistics_of
from retinue.options import Options, Rung
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


def by_lifetimes(rung: Rung, base: Statistics) -> Btyd:
    """Unpenalised, times in days."""
    package = import_module("lifetimes")
    frame = frame_of(base, 1.0)
    fitted = package.BetaGeoFitter() if rung is Rung.bg_nbd else package.ParetoNBDFitter()
    np.random.seed(0)  # where its Pareto/NBD search starts is random
    fitted.fit(frame["frequency"], frame["recency"], frame["T"])
    found: Btyd = law(rung.value, dict(fitted.params_), 1.0)
    return found


def by_pymc_marketing(rung: Rung, base: Statistics) -> Btyd:
    """MAP, times in weeks, for which its priors are made."""
    package = import_module("pymc_marketing.clv")
    frame = frame_of(base, WEEK)[["customer_id", "frequency", "recency", "T"]]
    fitted = package.BetaGeoModel() if rung is Rung.bg_nbd else package.ParetoNBDModel()
    fitted.fit(data=frame, method="map", progressbar=False)
    parameters = {name: fitted.fit_result[name].item() for name in ("r", "alpha", *ENDS[rung.value])}
    found: Btyd = law(rung.value, parameters, WEEK)
    return found


def peers(rows: pl.DataFrame, turns: int) -> None:
    """Prints seconds of each fit and its log-likelihood; ours makes its statistics within them."""
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    base = statistics_of(rows)
    makers: dict[str, Callable[[Rung], Btyd]] = {
        "retinue": lambda rung: fit(rung, statistics_of(rows).distinct),
        "lifetimes": lambda rung: by_lifetimes(rung, base),
        "pymc-marketing": lambda rung: by_pymc_marketing(rung, base),
    }
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "lifetimes", "pymc-marketing"))
    load = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    title = f"CDNOW, {rows.height:,} customers; {load}; {packages}"
    table = Table(
        "rung", "by", "seconds, in turns", "median", "of ours", "processor s", "log-likelihood", title=title
    )
    for rung in (Rung.bg_nbd, Rung.pareto_nbd):
        runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in makers}
        for _ in range(turns):
            for name, make in makers.items():
                clocks = time.perf_counter(), time.process_time()
                fitted = make(rung)
                took = time.perf_counter() - clocks[0], time.process_time() - clocks[1]
                runs[name].append((*took, log_likelihood(fitted, base)))
        ours = float(np.median([run[0] for run in runs["retinue"]]))
        for name, found in runs.items():
            wall, worked, likelihood = (float(np.median(column)) for column in zip(*found, strict=True))
            each = ", ".join(f"{run[0]:.2f}" for run in found)
            table.add_row(
                rung.value,
                name,
                each,
                f"{wall:.2f}",
                f"{wall / ours:.1f}",
                f"{worked:.2f}",
                f"{likelihood:,.2f}",
            )
    Console(width=130).print(table)


def log_likelihood(fitted: Btyd, base: Statistics) -> float:
    """Of all customers under a model's parameters."""
    of = Histories(*base.distinct.columns)
    return float((fitted.log_likelihood(of) * base.distinct.weights).sum())


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--customers", type=int, default=1_000_000, help="size of the simulated base")
    words.add_argument(
        "--peers", action="store_true", help="fits of CDNOW beside lifetimes and pymc-marketing"
    )
    words.add_argument("--turns", type=int, default=3, help="of each fit with --peers")
    asked = words.parse_args()
    known = cdnow()
    if asked.peers:
        if known is None or find_spec("pymc_marketing") is None:
            raise SystemExit("pip install 'retinue[bench]' brings lifetimes and pymc-marketing")
        peers(known, asked.turns)
        return
    print(f"{torch.get_num_threads()} threads")
    print(
        f"{'base':<10} {'customers':>10} {'distinct':>10} {'rung':<12} {'fit s':>8} {'forecast s':>12} {'peak GiB':>9}"
    )
    for name, rows in (("cdnow", known), ("simulated", simulated(asked.customers))):
        for line in measured(name, rows) if rows is not None else ():
            print(line, flush=True)


if __name__ == "__main__":
    main()
