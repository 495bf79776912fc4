"""What the base model recovers of worlds whose truth is known: python scripts/bench_recovery.py [--model FOLDER] [--seeds n …].

Nothing is fitted by it. On Pareto/NBD worlds `gain` is its lead over own rate in log score of counts, as a share of the
lead that the true parameters have; on the others `ahead` is by how much it beats the better of the two fitted laws, paired
by customer, in standard errors. Means over seeds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from retinue.config import resolve
from retinue.evaluation.realised import realised
from retinue.forecasting.outlook import Law, Predictor
from retinue.forecasting.rungs import Training, training_at
from retinue.models.btyd import ParetoNBD
from retinue.models.predictive import orders_log_score
from retinue.options import Options, Rung
from retinue.pipeline import Stage, advance
from retinue.schema import CUSTOMER_ID, REALISED_ORDERS
from retinue.worlds import simulate
from retinue.worlds.kinds import Kind, spec_of
from retinue.worlds.spec import Customers, Process, Spec, Spread

Floats = NDArray[np.float64]
CUSTOMERS, DAYS, FUTURE = 3_000, 730, 180
FITTED = (Rung.own_rate, Rung.bg_nbd, Rung.pareto_nbd)


@dataclass(frozen=True)
class World:
    """A spec of DAYS + FUTURE days, and its true law where that is Pareto/NBD."""

    spec: Spec
    law: ParetoNBD | None = None


def pareto(r: float, alpha: float, s: float, beta: float) -> World:
    """A Pareto/NBD world, times in days."""
    who = Customers(rate=Spread.gamma(r, alpha), dropout=Spread.gamma(s, beta))
    return World(Spec(days=DAYS + FUTURE, customers=who), ParetoNBD(r, alpha, s, beta))


def renewal(regularity: float) -> World:
    """Gaps of this gamma shape."""
    who = Customers(regularity=Spread(regularity))
    return World(Spec(Process.pareto_ggg, DAYS + FUTURE, customers=who))


WORLDS: dict[str, Callable[[], World]] = {
    "pareto/nbd, half come back": lambda: pareto(0.6, 60, 0.6, 90),
    "pareto/nbd, few come back": lambda: pareto(0.4, 200, 0.8, 60),
    "pareto/nbd, loyal and frequent": lambda: pareto(1.5, 30, 0.4, 500),
    "pareto/nbd, rare and long": lambda: pareto(1.2, 250, 1.0, 1_500),
    "seasonal": lambda: World(spec_of(Kind.seasonal, DAYS + FUTURE)),
    "regular": lambda: renewal(4.0),
    "clumpy": lambda: renewal(0.4),
    "drifting": lambda: World(spec_of(Kind.drifting, DAYS + FUTURE)),
}


def scores(world: World, seed: int, options: Options) -> dict[str, Floats]:
    """Log score of the counts of each method, per customer."""
    spec = replace(world.spec, cutoffs=())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.parquet"
        simulate(spec, CUSTOMERS, seed).events.write_parquet(path)
        end = f"{spec.last_day:%Y-%m-%d}"
        words = ["data=files", f"data.path={path}", f"data.observation_end={end}", f"output={folder}/run"]
        store = advance(resolve(words), Stage.prepare).store
        cutoff = spec.start + timedelta(days=DAYS, microseconds=-1)
        training = training_at(store, cutoff, [FUTURE], options, with_past=False)
        came = realised(store.scan(), cutoff, FUTURE, store.local_zone).collect()
        found = {rung.value: training.predictor(rung) for rung in (*FITTED, Rung.zero_shot)}
        if world.law is not None:
            found["truth"] = Law(world.law, None)
        return {name: _scores(training, each, came) for name, each in found.items()}


def _scores(training: Training, predictor: Predictor, came: pl.DataFrame) -> Floats:
    said = predictor.outlook(training.buyers, [FUTURE], 0.0)
    orders = training.buyers.select(CUSTOMER_ID).join(came, on=CUSTOMER_ID, how="left", maintain_order="left")
    count = orders[REALISED_ORDERS].to_numpy().astype(np.float64)
    return orders_log_score(count, said.p_churn[0], said.orders[0], said.shape[0])


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--model")
    words.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked = words.parse_args()
    options = Options(base_model=asked.model)
    table = Table("world", "own rate", "BG/NBD", "Pareto/NBD", "truth", "base model", "gain", "ahead")
    for name, world in WORLDS.items():
        found = [scores(world(), seed, options) for seed in asked.seeds]
        print(name, file=sys.stderr, flush=True)
        mean = {method: np.mean([each[method].mean() for each in found]) for method in found[0]}
        gain = ""
        if "truth" in mean:
            gain = f"{(mean['zero_shot'] - mean['own_rate']) / (mean['truth'] - mean['own_rate']):.1%}"
        best = max(("bg_nbd", "pareto_nbd"), key=lambda method: mean[method])
        lead = np.concatenate([each["zero_shot"] - each[best] for each in found])
        ahead = f"{lead.mean():+.4f} ({lead.mean() / lead.std(ddof=1) * len(lead) ** 0.5:+.1f} se)"
        told = [
            f"{mean[m]:.4f}" if m in mean else ""
            for m in ("own_rate", "bg_nbd", "pareto_nbd", "truth", "zero_shot")
        ]
        table.add_row(name, *told, gain, ahead)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
