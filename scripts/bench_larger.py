"""A base larger than memory, stage by stage: rows, seconds by the clock and of processors, peak memory, each in its own process.

python scripts/bench_larger.py 1_000_000 10_000_000 100_000_000 [--folder FOLDER] [--shard 2_000_000]

Simulated orders (Pareto/NBD, about ten a customer in two years), prepared, turned into features, and forecast with the base
model that comes with retinue by as many processes as there are cores; totals and their page stand at the end. Shards have the
same size whatever the size of the base, and so should the memory. What a killed run has finished is kept if the folder is given
again. The last lines say what more would take, in proportion to the rows of the last size: core hours, and nodes for an hour.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from bench_stages import machine  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from retinue.forecasting.scoring import Scoring
    from retinue.options import Options

CUSTOMERS_AT_ONCE = 250_000
ORDERS_EACH = 10.0
STAGES = ("prepare", "tokens", "features", "forecast", "page")


def write_orders(folder: Path, orders: int) -> None:
    """One Parquet file per quarter of a million customers, each a world of its own seed."""
    from retinue.worlds.kinds import Kind, spec_of  # noqa: PLC0415
    from retinue.worlds.spec import Spread  # noqa: PLC0415
    from retinue.worlds.world import simulate  # noqa: PLC0415

    base = spec_of(Kind.pareto_nbd)
    often = Spread(2.0 * base.customers.rate.mean, base.customers.rate.cv)
    spec = replace(base, customers=replace(base.customers, rate=often), horizons_days=(90,))
    folder.mkdir(parents=True, exist_ok=True)
    customers = max(int(orders / ORDERS_EACH), 1)
    for part, begin in enumerate(range(0, customers, CUSTOMERS_AT_ONCE)):
        path = folder / f"orders-{part:05d}.parquet"
        if path.is_file():
            continue
        events = simulate(spec, min(CUSTOMERS_AT_ONCE, customers - begin), part).events
        told = events.select(
            pl.format("{}-{}", pl.lit(part), "customer_id").alias("customer_id"), "event_time", "amount"
        )
        told.write_parquet(path.with_suffix(".unfinished"), compression="zstd")
        os.replace(path.with_suffix(".unfinished"), path)


def words(folder: Path, shard: int) -> list[str]:
    """What every stage is told."""
    return [
        f"data.path={folder}/orders", "data.time_zone=UTC", f"output={folder}/out", "cutoff=2023-10-02", "horizon_days=90",
        f"shards={shard}", "segments.compare_days=0", "checkpoint=checkpoints/base",
    ]  # fmt: skip


def stage(name: str, folder: Path, shards: int, rank: int = 0, processes: int = 1) -> None:
    """One stage, in a process of its own, so that its peak memory is its own; prints seconds and GiB."""
    from retinue.config import resolve  # noqa: PLC0415
    from retinue.events.prepare import prepare  # noqa: PLC0415
    from retinue.events.store import Store  # noqa: PLC0415
    from retinue.events.timeline import instant  # noqa: PLC0415
    from retinue.features.table import build  # noqa: PLC0415
    from retinue.forecasting.base_model import load_base_model  # noqa: PLC0415
    from retinue.forecasting.scoring import Scoring, Share, score  # noqa: PLC0415
    from retinue.sequences.tokens import TokenStore, write_tokens  # noqa: PLC0415

    options = resolve(words(folder, shards))
    out = folder / "out"
    if name == "prepare":
        prepare(options.data, out / "events", shards)
    else:
        store = Store.open(out / "events")
        cutoffs = [instant(text, store.local_zone) for text in options.cutoffs]
        if name == "tokens":
            write_tokens(store, out / "tokens")
        elif name == "features":
            build(store, cutoffs, out / "features.parquet")
        else:
            rung = load_base_model(Path(str(options.checkpoint)))
            scoring = Scoring(
                rung, store, TokenStore.open(out / "tokens"), cutoffs, options.horizons, options.value
            )
            if name == "forecast":
                score(scoring, out, Share(rank, processes))
            else:
                page(scoring, out, options)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"{used.ru_maxrss / 2**20:.2f} {used.ru_utime + used.ru_stime:.1f}")


def page(scoring: Scoring, out: Path, options: Options) -> None:
    """The page of the forecasts, from all their shards."""
    from retinue.reporting.forecasts_page import ForecastsTold, build_forecasts_page  # noqa: PLC0415
    from retinue.schema import QUALITY  # noqa: PLC0415
    from retinue.score import add_up, lineage_of  # noqa: PLC0415

    totals, manifest = pl.read_parquet(out / "forecasts_summary.parquet"), scoring.store.manifest
    counts, groups = add_up(out, scoring.day, manifest.shards, totals, options.decisions)
    told = ForecastsTold(
        name=options.data.name, currency=manifest.currency, totals=totals, counts=counts, groups=groups, manifest=manifest,
        quality=pl.DataFrame(manifest.notes, schema=QUALITY.schema), checked=False, value=options.value,
        rules=options.decisions, checkpoint="base", lineage=lineage_of(scoring.rung, scoring), training_end=None, causes=None,
    )  # fmt: skip
    (out / "forecasts.html").write_text(build_forecasts_page(told), encoding="utf-8")


def one_size(folder: Path, orders: int, per_shard: int) -> tuple[float, float]:
    """A line per stage; core seconds and bytes on disk per row."""
    began = time.perf_counter()
    write_orders(folder / "orders", orders)
    made = pl.scan_parquet(folder / "orders" / "*.parquet").select(pl.len()).collect().item()
    gigabytes = sum(path.stat().st_size for path in (folder / "orders").iterdir()) / 1e9
    shards = max(1, round(orders / per_shard))
    print(
        f"{made:>13,} orders of {int(orders / ORDERS_EACH):,} customers, {shards} shards, {gigabytes:.2f} GB of Parquet, made in "
        f"{time.perf_counter() - began:.0f} s",
        flush=True,
    )
    cores = 0.0
    for name in STAGES:
        done = folder / f"{name}.done"
        if not done.is_file():
            start = time.perf_counter()
            told = ran(name, folder, shards, (os.cpu_count() or 1) if name == "forecast" else 1)
            done.write_text(f"{time.perf_counter() - start:.1f} {' '.join(told)}")
        seconds, *each = map(float, done.read_text().split())
        peaks, busy = each[::2], sum(each[1::2])
        cores += busy
        print(
            f"{name:>13} {seconds:>9.1f} s {made / seconds:>12,.0f} rows/s {busy:>9.1f} core s "
            f"{' + '.join(f'{peak:.2f}' for peak in peaks):>12} GiB",
            flush=True,
        )
    size = sum(path.stat().st_size for path in (folder / "out").rglob("*") if path.is_file())
    print(
        f"{'all':>13} {cores / made * 1e6:.1f} core s a million rows, {size / made:.0f} bytes on disk a row",
        flush=True,
    )
    totals = pl.read_parquet(folder / "out" / "forecasts_summary.parquet").row(0, named=True)
    print(
        "; ".join(
            f"{name}: {value:,.0f}" for name, value in totals.items() if isinstance(value, (int, float))
        )
    )
    return cores / made, size / made


def sizing(core_seconds: float, disk: float) -> None:
    """What larger bases would take, at ten orders a customer or a hundred billion events, if all stays in proportion."""
    print(f"{'':>24} {'shards':>9} {'core hours':>11} {'nodes of 64 cores for an hour':>30} {'disk, TB':>9}")
    for name, rows in (("10^8 customers", 1e9), ("10^9 customers", 1e10), ("10^11 events", 1e11)):
        hours = core_seconds * rows / 3600
        print(
            f"{name:>24} {rows / 2e6:>9,.0f} {hours:>11,.0f} {hours / 64:>30,.1f} {disk * rows / 1e12:>9.1f}"
        )


def ran(name: str, folder: Path, shards: int, processes: int) -> list[str]:
    """Peak memory of each process of a stage."""
    threads = {"OMP_NUM_THREADS": "1"} if processes > 1 else {}
    children = [
        subprocess.Popen(
            [sys.executable, __file__, "--stage", name, str(folder), str(shards), str(rank), str(processes)],
            stdout=subprocess.PIPE, text=True, env=os.environ | threads,
        )
        for rank in range(processes)
    ]  # fmt: skip
    told = [child.communicate()[0] for child in children]
    assert not any(child.returncode for child in children), f"{name} failed"
    return [line.strip() for line in told]


def main() -> None:
    if sys.argv[1:2] == ["--stage"]:
        stage(sys.argv[2], Path(sys.argv[3]), *map(int, sys.argv[4:]))
        return
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("orders", nargs="*", type=lambda text: int(text.replace("_", "")), default=[1_000_000])
    asked.add_argument("--shard", type=int, default=2_000_000, help="orders per shard")
    asked.add_argument("--folder", help="keeps what is made; 20 GB for 100 M orders")
    given = asked.parse_args()
    print(machine(), flush=True)
    for orders in given.orders:
        folder = Path(given.folder or tempfile.mkdtemp()) / f"{orders}"
        per_row = one_size(folder, orders, given.shard)
        if given.folder is None:
            shutil.rmtree(folder)
    sizing(*per_row)


if __name__ == "__main__":
    main()
