"""A/A tests on the real spend of CDNOW's customers: how often looks at nothing cry wolf.

python scripts/bench_aa.py [tests] [looks]; `retinue prepare data=cdnow output=runs/cdnow` first.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from retinue.decisions.experiments.sequential import bounds
from retinue.decisions.foretold import foretold
from retinue.events.store import Store
from retinue.events.timeline import instant
from retinue.options import Options
from retinue.schema import AMOUNT, CUSTOMER_ID, EVENT_TIME

CUTOFF, DAYS = "1997-09-30", 273
PLAIN = 1.959964


def main(tests: str = "10000", looks: str = "10") -> None:
    store = Store.open(Path("runs/cdnow/events"))
    cutoff = instant(CUTOFF, store.local_zone)
    said, _ = foretold(store, cutoff, DAYS, Options())
    ends = [cutoff + timedelta(days=DAYS) * (k + 1) / int(looks) for k in range(int(looks))]
    events = (
        store.scan()
        .select(CUSTOMER_ID, EVENT_TIME, AMOUNT)
        .collect()
        .filter(pl.col(EVENT_TIME).is_between(cutoff, ends[-1]))
    )
    spend = np.column_stack(
        [
            said.select(CUSTOMER_ID)
            .join(
                events.filter(pl.col(EVENT_TIME) <= end).group_by(CUSTOMER_ID).agg(pl.col(AMOUNT).sum()),
                on=CUSTOMER_ID,
                how="left",
            )
            .fill_null(0.0)[AMOUNT]
            for end in ends
        ]
    )  # (customers, looks), so far
    shares = np.array([(end - cutoff) / (ends[-1] - cutoff) for end in ends])
    adjusted = _adjusted(spend, said["foretold_margin"].to_numpy())
    table = Table(
        "outcome",
        "plain test at every look",
        "bounds",
        "the last look alone",
        title=f"{tests} A/A tests, {looks} looks, at 5 %",
    )
    for name, outcome in (("spend", spend), ("spend, adjusted by the forecast", adjusted)):
        score = np.abs(_scores(outcome, int(tests)))
        over = [
            (score >= PLAIN).any(axis=1),
            (score >= bounds(shares.tolist())).any(axis=1),
            score[:, -1] >= PLAIN,
        ]
        table.add_row(name, *(f"{100 * share.mean():.2f} %" for share in over))
    Console(width=120).print(table)


def _adjusted(outcome: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """Outcomes less what the forecast explains of them (CUPED), by look."""
    centred = forecast - forecast.mean()
    slope = centred @ (outcome - outcome.mean(axis=0)) / (centred @ centred)
    return outcome - np.outer(centred, slope)


def _scores(outcome: np.ndarray, tests: int) -> np.ndarray:
    """Standardised difference of means at each look, for random halves; (tests, looks)."""
    rng = np.random.default_rng(0)
    count = len(outcome)
    total, squares = outcome.sum(axis=0), (outcome**2).sum(axis=0)
    scores = np.empty((tests, outcome.shape[1]))
    for test in range(tests):
        half = rng.permutation(count)[: count // 2]
        mine, mine2 = outcome[half].sum(axis=0), (outcome[half] ** 2).sum(axis=0)
        sizes = np.array([[len(half)], [count - len(half)]])
        means = np.stack([mine, total - mine]) / sizes
        variance = (np.stack([mine2, squares - mine2]) / sizes - means**2) / (sizes - 1)
        scores[test] = (means[0] - means[1]) / np.sqrt(variance.sum(axis=0))
    return scores


if __name__ == "__main__":
    main(*sys.argv[1:])
