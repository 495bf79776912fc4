"""Totals where the season turns or cohorts shrink, on worlds.

python scripts/bench_season.py [WORLD …] [--customers n] [--seeds n …]

Each world is simulated once per seed, and forecast by each method in a process of its own (bench_peer.py).
`lightgbm` is a plain booster; it needs the extra `bench` and is left out without it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from retinue.config import resolve
from retinue.pipeline import Stage, advance
from retinue.worlds import simulate
from retinue.worlds.spec import Arrivals, Calendar, Customers, Holiday, Spec, Spread

PEER = Path(__file__).with_name("bench_peer.py")
METHODS = ("lightgbm", "retinue:pareto_nbd", "retinue:xgboost", "retinue:sequence_gru")
SEEDS = (0, 1, 2)
FIGURES = {
    "orders %": ("orders", "bias_percent"),
    "spend %": ("value", "bias_percent"),
    "log score": ("orders", "log_score"),
}


@dataclass(frozen=True)
class Season:
    """A world, and the cutoff and horizon at which its totals turn."""

    spec: Callable[[], Spec]
    cutoff: str
    days: int


def christmas() -> Spec:
    """Three years in which gift days triple orders, and winter sells twice what summer does."""
    weeks = tuple(1 + 0.3 * cos(2 * pi * (week - 48) / 52) for week in range(52))
    holidays = (Holiday(11, 29, 3.0, 5), Holiday(12, 23, 3.0, 28))
    return Spec(days=3 * 365, calendar=Calendar(weeks, (), holidays), arrivals=Arrivals(seasonal=True))


def shrinking() -> Spec:
    """Four years in which each year's newcomers are a little fewer, order less than half as often and leave sooner."""
    arrivals = Arrivals(growth_yearly=-0.2, rate_drift_yearly=-0.9, dropout_drift_yearly=0.6)
    return Spec(days=4 * 365, customers=Customers(rate=Spread(1 / 40, 0.8)), arrivals=arrivals)


WORLDS = {
    "christmas": Season(christmas, "2023-09-30", 92),
    "shrinking": Season(shrinking, "2023-06-30", 184),
}


def figures(method: str, events: Path, world: Season, seed: int) -> dict[str, Any]:
    """What bench_peer.py says of one method."""
    named = f"{method}#{seed}" if method.startswith("retinue") else method
    command = [sys.executable, str(PEER), named, str(events), world.cutoff, str(world.days)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def misses(name: str, seed: int, customers: int) -> dict[str, list[float]]:
    """`FIGURES` of each method on one world."""
    world, found = WORLDS[name], {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.parquet"
        simulate(world.spec(), customers, seed).events.write_parquet(path)
        words = ["data=files", f"data.path={path}", f"data.name={name}", f"output={folder}/run"]
        run = advance(resolve(words), Stage.prepare)
        for method in METHODS:
            told = figures(method, run.folder / "events", world, seed)
            if "skipped" not in told:
                found[method] = [told[group][figure] for group, figure in FIGURES.values()]
                print(name, seed, method, np.round(found[method], 3).tolist(), file=sys.stderr, flush=True)
    return found


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("worlds", nargs="*", default=list(WORLDS), metavar="WORLD")
    words.add_argument("--customers", type=int, default=3_000)
    words.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    asked = words.parse_args()
    for name in asked.worlds:
        by_seed = [misses(name, seed, asked.customers) for seed in asked.seeds]
        table = Table(
            "method", "orders %, by seed", *(f"{figure}, mean ± sd" for figure in FIGURES), title=name
        )
        for method in by_seed[0]:
            rows = np.array([found[method] for found in by_seed])
            spread = zip(rows.mean(0), rows.std(0, ddof=min(1, len(rows) - 1)), strict=True)
            each = ", ".join(f"{one:+.1f}" for one in rows[:, 0])
            table.add_row(method, each, *(f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in spread))
        Console(width=130).print(table)


if __name__ == "__main__":
    main()
