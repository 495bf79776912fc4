"""Named causes against planted ones: precision and recall on worlds with causes, silence on worlds without.

python scripts/bench_causes.py [customers] [seed …]; the label-taught classifier beside them says what the events hold at all.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import cross_val_predict

from retinue.config import resolve
from retinue.decisions.causes import NO_REASON, reasons
from retinue.forecasting.rungs import fit_rung, training_at
from retinue.forecasting.trees import usable
from retinue.options import Rung
from retinue.pipeline import advance
from retinue.runs import Stage
from retinue.schema import ALIVE, CUSTOMER_ID, NAMED_CAUSE, SHOWN_CAUSE
from retinue.worlds.kinds import Kind, spec_of
from retinue.worlds.spec import Customers, Journeys, Spec, Spread
from retinue.worlds.world import simulate, write

CUTOFF, DAYS = datetime(2023, 10, 2, 23, 59, 59, tzinfo=UTC), 90
NONE = "none"
AT_PRECISION = 0.8


def worlds() -> dict[str, Spec]:
    """Planted causes that show often, the same without causes, the usual rich world, and one without any journeys."""
    rich = spec_of(Kind.rich)
    often = replace(
        rich, customers=Customers(rate=Spread(1 / 8, 0.4), dropout=Spread(1 / 250, 0.7)), days=540
    )
    planted = Journeys(tickets_per_order=0.2, reviews_per_order=0.25, lead_days=75.0, strength=8.0)
    never = replace(planted, strength=1.0, lead_days=1e-6)
    return {
        "planted, often seen": replace(often, journeys=planted),
        "the same, no causes": replace(often, journeys=never),
        "rich (rare orders)": rich,
        "plain Pareto/NBD": spec_of(Kind.pareto_nbd),
    }


def main(customers: str = "6000", *seeds: str) -> None:
    table = Table(
        "world", "seed", "alive", "cause shows", "precision", "recall", f"taught recall at {AT_PRECISION:g}",
        "no reliable reason", title=f"{customers} customers, {DAYS} days ahead; precision and recall among the living",
    )  # fmt: skip
    for name, spec in worlds().items():
        for seed in map(int, seeds or ("2", "3", "4")):
            table.add_row(name, str(seed), *measured(spec, int(customers), seed))
    Console(width=150).print(table)


def measured(spec: Spec, customers: int, seed: int) -> list[str]:
    """One world, one seed: as many cells as the table has after its first two columns."""
    with tempfile.TemporaryDirectory() as folder:
        world = simulate(replace(spec, cutoffs=(CUTOFF,), horizons_days=(DAYS,)), customers, seed)
        write(world, Path(folder) / "world")
        options = resolve(
            [f"data.path={folder}/world/events.parquet", "data.time_zone=UTC", f"cutoff={CUTOFF:%Y-%m-%d}",
             f"horizon_days={DAYS}", f"output={folder}/run"]
        )  # fmt: skip
        run = advance(options, Stage.features)
        training = training_at(run.store, run.cutoffs[-1], [DAYS], options, run.read("features"))
        told = reasons(fit_rung(Rung.xgboost, training).predictor, training.buyers, DAYS)
        rows = told.join(
            world.truth.select(CUSTOMER_ID, ALIVE, SHOWN_CAUSE),
            on=CUSTOMER_ID,
            how="left",
            maintain_order="left",
        )
        features = training.buyers.select(pl.col(usable(training.buyers)).cast(pl.Float64)).to_numpy()
    silent = (rows[NAMED_CAUSE] == NO_REASON).sum() / rows.height
    alive = rows[ALIVE].to_numpy()
    living = rows.filter(pl.col(ALIVE))
    true = living[SHOWN_CAUSE].fill_null(NONE).to_numpy().astype(str)
    said = living[NAMED_CAUSE].replace(NO_REASON, NONE).to_numpy().astype(str)
    shows, named = true != NONE, said != NONE
    cells = [f"{living.height:,}", f"{shows.sum():,}"]
    if not shows.any():
        return [*cells, "", "", "", f"{silent:.1%}"]
    hits = (said == true) & named
    taught = _taught(features[alive], true, seed)
    return [
        *cells,
        f"{hits.sum() / max(named.sum(), 1):.3f}",
        f"{hits.sum() / shows.sum():.3f}",
        f"{taught:.3f}",
        f"{silent:.1%}",
    ]


def _taught(features: np.ndarray, true: np.ndarray, seed: int) -> float:
    """Recall at the asked precision of a classifier that is taught the true causes, cross-fitted: a ceiling of sorts."""
    model = HistGradientBoostingClassifier(max_depth=4, learning_rate=0.05, random_state=seed)
    chance = cross_val_predict(model, features, true, cv=5, method="predict_proba")
    names = np.unique(true)
    causes = [place for place, name in enumerate(names) if name != NONE]
    best, label = chance[:, causes].max(axis=1), names[np.array(causes)][chance[:, causes].argmax(axis=1)]
    order = np.argsort(-best, kind="stable")
    right = np.cumsum(label[order] == true[order])
    precise = np.flatnonzero(right / np.arange(1, len(right) + 1) >= AT_PRECISION)
    return float(right[precise[-1]] / (true != NONE).sum()) if len(precise) else 0.0


if __name__ == "__main__":
    main(*sys.argv[1:])
