"""Events per second of simulated worlds on one core: `python scripts/bench_worlds.py [kind …] [--events n]`."""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time

from retinue.worlds import Kind, simulate, spec_of

PLAIN = ("pareto_nbd", "bg_nbd", "mbg_cnbd_k", "pareto_ggg", "bg_bb", "two_state", "seasonal")
ONE_CORE = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=PLAIN)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--truth", action="store_true", help="also tell the truth at the end of the data")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        measure(options.inside, options.events, options.truth)
        return
    for kind in options.kinds:
        call = [sys.executable, __file__, "--inside", kind, "--events", str(options.events)]
        subprocess.run(call + ["--truth"] * options.truth, check=True, env={**os.environ, **ONE_CORE})


def measure(kind: str, events: int, truth: bool) -> None:
    """One kind, in a process of its own for its peak memory; CPU seconds, as other work stretches the wall's."""
    spec = spec_of(Kind[kind])
    spec.cutoffs = None if truth else ()
    trial = simulate(spec, 2_000, seed=0)
    customers = int(events / max(len(trial.events), 1) * 2_000)
    start, wall = time.process_time(), time.perf_counter()
    world = simulate(spec, customers, seed=1)
    cpu, wall = time.process_time() - start, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{kind:12s} {len(world.events):>11,} events {customers:>9,} customers  {cpu:6.2f} s cpu  {wall:6.2f} s wall  "
        f"{len(world.events) / cpu / 1e6:5.2f} M events/s  peak {peak:.2f} GiB"
    )


if __name__ == "__main__":
    main()
