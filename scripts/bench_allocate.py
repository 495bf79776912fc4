"""The allocator on many customers: seconds, memory, how far below the best possible at most, and what binds.

python scripts/bench_allocate.py [customers …]
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from retinue.decisions.allocate import allocate
from retinue.decisions.problem import NONE, Problem

ACTIONS = 8


def case(customers: int, seed: int) -> Problem:
    """Eight actions on four channels, a budget, two channel budgets, agent hours, two capacities and two floors."""
    rng = np.random.default_rng(seed)
    gain = rng.lognormal(2, 1, (customers, 1)) * rng.uniform(0.1, 1, (customers, ACTIONS))
    cost = (
        rng.uniform(0.1, 1, (1, ACTIONS))
        * rng.lognormal(0.5, 0.5, (customers, 1))
        * rng.uniform(0.8, 1.2, (customers, ACTIONS))
    )
    net = gain - cost
    net[(rng.random(net.shape) < 0.3) | (net < 0)] = -np.inf
    most = np.where(np.isfinite(net), cost, 0).max(axis=1).sum()
    channel = np.arange(ACTIONS) % 4
    return Problem(
        net,
        cost,
        pays=np.vstack([np.ones(ACTIONS), channel == 0, channel == 1]).astype(np.float64),
        budgets=most * np.array([0.25, 0.03, 0.05]),
        uses=np.vstack([np.where(channel == 2, 0.2, 0.0), np.eye(ACTIONS)[0], np.eye(ACTIONS)[5]]),
        capacities=customers * np.array([0.01, 0.05, 0.03]),
        group=rng.integers(-1, 2, customers),
        floors=np.floor(customers * np.array([0.15, 0.05])),
    )


def main(*sizes: str) -> None:
    table = Table(
        "customers",
        "seconds",
        "below the best by at most",
        "given an action",
        "binding limits",
        "GiB at most",
        title=f"{ACTIONS} actions",
    )
    for customers in map(int, sizes or ("10000", "100000", "1000000")):
        problem = case(customers, 0)
        started = time.perf_counter()
        found = allocate(problem)
        seconds = time.perf_counter() - started
        assert problem.fits(found.usage)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        table.add_row(
            f"{customers:,}", f"{seconds:.1f}", f"{found.gap:.5%}", f"{(found.choice != NONE).mean():.0%}",
            f"{(found.prices > 0).sum()} of {len(found.prices)}", f"{peak:.2f}",
        )  # fmt: skip
    Console(width=130).print(table)


if __name__ == "__main__":
    main(*sys.argv[1:])
