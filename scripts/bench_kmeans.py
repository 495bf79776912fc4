"""Our k-means beside scikit-learn's MiniBatchKMeans, in one process by turns: python scripts/bench_kmeans.py [--busy].

Inertia is the sum of squared distances to the nearest centroid, over all rows and in float64 for everybody, so that it
compares. scikit-learn runs on all threads, ours on one, as in the product. --busy is for a machine that is doing other work:
one thread for everybody, and the processor's seconds in place of the clock's.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits

from retinue.accel.engine import EngineChoice
from retinue.accel.kmeans import kmeans
from retinue.options import Engine

Matrix = NDArray[np.float64]
CPU = EngineChoice(Engine.cpu, "a benchmark")
AT_ONCE = 20_000
WARM_UP_ROWS = 4_000


def clustered(rows: int, columns: int, seed: int) -> Matrix:
    """Ninety groups of very unequal sizes, their spread drawn from heavy tails, on standardised columns."""
    lot = np.random.default_rng(seed)
    shares = lot.pareto(1.2, 90) + 0.05
    group = lot.choice(90, rows, p=shares / shares.sum())
    centres = 2.0 * lot.standard_normal((90, columns))
    matrix = centres[group] + lot.standard_t(3, (rows, columns))
    return np.asarray((matrix - matrix.mean(0)) / matrix.std(0))


def uniform(rows: int, columns: int, seed: int) -> Matrix:
    """No groups at all."""
    return np.random.default_rng(seed).random((rows, columns))


def inertia(matrix: Matrix, centroids: Matrix) -> float:
    """Sum of squared distances to the nearest centroid."""
    norms, total = (centroids**2).sum(1), 0.0
    for begin in range(0, len(matrix), AT_ONCE):
        part = matrix[begin : begin + AT_ONCE]
        total += float(((norms - 2 * part @ centroids.T).min(1) + (part**2).sum(1)).sum())
    return total


@contextmanager
def threads(busy: bool) -> Iterator[None]:
    """One thread where the machine is busy."""
    with threadpool_limits(1 if busy else None):
        yield


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--rows", type=int, default=200_000)
    words.add_argument("--columns", type=int, default=32)
    words.add_argument("--k", type=int, default=64)
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--busy", action="store_true", help="processor seconds on one thread")
    asked = words.parse_args()
    clock, k = time.process_time if asked.busy else time.perf_counter, asked.k

    def mini_batch(starts: int | str) -> Callable[[Matrix, int], Matrix]:
        def fit(matrix: Matrix, seed: int) -> Matrix:
            fitted = MiniBatchKMeans(k, n_init=starts, random_state=seed).fit(matrix)
            return np.asarray(fitted.cluster_centers_)

        return fit

    def of_ours(restarts: int) -> Callable[[Matrix, int], Matrix]:
        return lambda matrix, seed: kmeans(matrix, k, seed, CPU, restarts)

    methods = {
        "MiniBatchKMeans, as it comes": mini_batch("auto"),
        "MiniBatchKMeans, n_init=10": mini_batch(10),
        "retinue, 1 start": of_ours(1),
        "retinue, 10 starts": of_ours(10),
    }
    table = Table(
        "rows", "method", "seconds, by seed", "median", "inertia / MiniBatchKMeans's, by seed", "mean"
    )
    with threads(asked.busy):
        for fit in methods.values():
            fit(uniform(WARM_UP_ROWS, asked.columns, 0), 0)
        for made in (clustered, uniform):
            took: dict[str, list[float]] = {name: [] for name in methods}
            left: dict[str, list[float]] = {name: [] for name in methods}
            for seed in range(asked.seeds):
                matrix = made(asked.rows, asked.columns, seed)
                for name, fit in methods.items():
                    start = clock()
                    centroids = fit(matrix, seed)
                    took[name].append(clock() - start)
                    left[name].append(inertia(matrix, centroids))
            usual = np.array(next(iter(left.values())))
            for name in methods:
                share = np.array(left[name]) / usual
                seconds = ", ".join(f"{each:.2f}" for each in took[name])
                shares = ", ".join(f"{each:.4f}" for each in share)
                table.add_row(
                    made.__name__,
                    name,
                    seconds,
                    f"{np.median(took[name]):.2f}",
                    shares,
                    f"{share.mean():.4f}",
                )
    load = f"load {os.getloadavg()[0]:.1f}" + ", processor seconds on one thread" * asked.busy
    sizes = f"{asked.rows:,} x {asked.columns}, k = {k}"
    table.title = f"{sizes}; {platform.machine()}, {os.cpu_count()} cores, {load}; scikit-learn {version('scikit-learn')}"
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
