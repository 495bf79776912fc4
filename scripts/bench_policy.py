"""Profit of the policy on a world of known effects, against policies that know them and against treating by risk or value.

python scripts/bench_policy.py [customers] [seeds]

Twice: an action of one cost for all, and a voucher worth the same share of each customer's own mean order, whose cost
grows with the spender and whose budget is money.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from xgboost import XGBRegressor

from retinue.config import resolve
from retinue.decisions.experiments.measured import measured_effects
from retinue.decisions.foretold import foretold
from retinue.options import ActionOptions, EffectSource
from retinue.pipeline import advance
from retinue.runs import Run, Stage
from retinue.schema import (
    ACTION_TIME,
    CUSTOMER_ID,
    EFFECT_SPEND,
    EXPECTED_GAIN,
)
from retinue.worlds.kinds import Kind, spec_of
from retinue.worlds.spec import Campaigns
from retinue.worlds.world import simulate, write

Array = NDArray[np.float64]
SHARES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
EFFECT_DAYS = 60


def main(customers: str = "20000", seeds: str = "3") -> None:
    found = [one_world(int(customers), seed) for seed in range(int(seeds))]
    for place, what in enumerate(
        ("one cost for all", "a voucher of the same share of each one's mean order")
    ):
        show(
            [world[place] for world in found],
            f"{what}: profit per 1,000 customers, {customers} customers, mean of {seeds} worlds",
        )


def show(found: list[list[tuple[float, ...]]], title: str) -> None:
    """A line per budget."""
    table = Table(
        "budget, share of all", "policy", "oracle, history", "of it", "oracle, knows all", "by churn risk", "by clv", "at random",
        "policy less clv", title=title,
    )  # fmt: skip
    for place, share in enumerate(SHARES):
        rows = np.array([world[place] for world in found])
        mean = rows.mean(axis=0)
        ratios, ahead = rows[:, 0] / rows[:, 1], rows[:, 0] - rows[:, 4]
        cells = [
            f"{mean[0]:,.0f}",
            f"{mean[1]:,.0f}",
            f"{ratios.mean():.1%} ± {_error(ratios):.1%}",
            *(f"{m:,.0f}" for m in mean[2:]),
            f"{ahead.mean():+,.1f} ± {_error(ahead):.1f}",
        ]
        table.add_row(f"{share:.0%}", *cells)
    Console(width=150).print(table)


def _error(values: Array) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def one_world(customers: int, seed: int) -> list[list[tuple[float, ...]]]:
    """Profits at each budget, by policy, for each kind of cost."""
    started = time.perf_counter()
    spec = spec_of(Kind.promotions)
    waves = Campaigns(
        every_days=75,
        first_day=60,
        share=0.5,
        lift=0.6,
        lift_cv=0.3,
        decay_days=14,
        discount=0.0,
        effect_days=EFFECT_DAYS,
    )
    spec = replace(spec, campaigns=waves, details=False)
    world = simulate(spec, customers, seed)
    last = world.actions[ACTION_TIME].max()
    truth = world.actions.filter(pl.col(ACTION_TIME) == last)
    with tempfile.TemporaryDirectory() as folder:
        write(world, Path(folder) / "world")
        cutoff = str(last)[:19].replace(" ", "T")
        options = resolve(
            [f"data.path={folder}/world/events.parquet", "data.time_zone=UTC", f"cutoff={cutoff}", f"output={folder}/run",
             f"decisions.effect_days={EFFECT_DAYS}"]
        )  # fmt: skip
        run = advance(options, Stage.prepare)
        menu = {
            "push": ActionOptions(effect=EffectSource.measured, campaign="campaign-*", everyone_drawn=True)
        }
        return _profits(run, menu, truth, started, seed)


def _profits(
    run: Run, menu: dict[str, ActionOptions], truth: pl.DataFrame, started: float, seed: int
) -> list[list[tuple[float, ...]]]:
    store, options, cutoff = run.store, run.options, run.cutoffs[-1]
    measured = measured_effects(store, cutoff, menu, options)["push"]
    said, features = foretold(store, cutoff, EFFECT_DAYS, options)
    rows = said.join(
        truth.select(CUSTOMER_ID, EFFECT_SPEND), on=CUSTOMER_ID, how="inner", maintain_order="left"
    ).join(measured.gains, on=CUSTOMER_ID, how="left", maintain_order="left")
    effect = rows[EFFECT_SPEND].to_numpy()
    past = rows.select(CUSTOMER_ID).join(features, on=CUSTOMER_ID, how="left", maintain_order="left")
    numbers = past.select(pl.selectors.numeric().cast(pl.Float64)).to_numpy()
    x = np.column_stack([numbers, rows["foretold_margin"], rows["foretold_kept"]])
    gain, knows = rows[EXPECTED_GAIN].to_numpy(), _knowing(x, effect, seed)
    rankings = (
        (gain, True),
        (knows, True),
        (effect, True),
        (1 - rows["foretold_kept"].to_numpy(), False),
        (rows["foretold_clv"].to_numpy(), False),
        (np.random.default_rng(seed).random(len(effect)), False),
    )
    mean_order = past["net_spend_ever"].fill_null(0.0).to_numpy().clip(0.01) / (
        past["frequency"].to_numpy() + 1
    )
    level = 0.6 * float(effect.mean())
    costs = np.full(len(effect), level), level * mean_order / mean_order.mean()
    made = [
        [[_profit(effect, cost, score, share, guarded) for score, guarded in rankings] for share in SHARES]
        for cost in costs
    ]
    q = measured.qini.area
    print(
        f"world {seed}: {time.perf_counter() - started:.0f} s; mean effect {measured.mean[0]:.2f} ± {measured.mean[1]:.2f}, true "
        f"{effect.mean():.2f}; Qini {q[0]:.3f} ({q[1]:.3f} to {q[2]:.3f}); {measured.treated:,} treated",
        flush=True,
    )
    return [[tuple(1000 * np.array(row) / len(effect)) for row in of_cost] for of_cost in made]


def _knowing(x: Array, effect: Array, seed: int) -> Array:
    """The true effect as the history foretells it: learnt from the true effects of other customers."""
    fold = np.random.default_rng(seed).integers(0, 5, len(effect))
    said = np.zeros(len(effect))
    for k in range(5):
        model = XGBRegressor(
            n_estimators=300,
            max_depth=4,
            learning_rate=0.05,
            min_child_weight=20,
            n_jobs=2,
            random_state=seed,
        )
        said[fold == k] = model.fit(x[fold != k], effect[fold != k]).predict(x[fold == k])
    return said


def _profit(effect: Array, cost: Array, score: Array, share: float, guarded: bool) -> float:
    """True effect less cost of treating the best within a share of what all would cost.

    Who knows something of the effect takes those first who bring most for the money, and stops where it pays no more.
    """
    order = np.argsort(-(score / cost if guarded else score), kind="stable")
    if guarded:
        order = order[score[order] > cost[order]]
    chosen = order[np.cumsum(cost[order]) <= share * cost.sum() + 1e-9]
    return float((effect[chosen] - cost[chosen]).sum())


if __name__ == "__main__":
    main(*sys.argv[1:])
