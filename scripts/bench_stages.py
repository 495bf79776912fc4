"""Speed and memory of every stage, one table after another: python scripts/bench_stages.py. Run on an idle machine."""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent


def machine() -> str:
    """Processor, cores and the versions that matter."""
    names = ("polars", "torch", "numpy", "scikit-learn")
    return f"{platform.machine()}, {os.cpu_count()} cores; " + ", ".join(f"{n} {version(n)}" for n in names)


def whole_run() -> None:
    """`retinue run data=cdnow` from nothing, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "retinue.cli", "run", "data=cdnow", f"output={folder}/out"]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"{'seconds':>9} {'peak GiB':>9}\n{seconds:>9.1f} {peak:>9.2f}", flush=True)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument(
        "--rows", type=int, nargs="*", default=[1_000_000, 10_000_000], help="of the prepare bench"
    )
    words.add_argument("--events", type=int, default=5_000_000, help="of the features bench")
    asked = words.parse_args()
    print(machine())
    print("\nretinue run data=cdnow", flush=True)
    whole_run()
    benches = {
        "features of one cutoff": ["bench_features.py", str(asked.events)],
        "statistical models": ["bench_btyd.py"],
        "prepare, CSV": ["bench_prepare.py", "csv", *map(str, asked.rows)],
        "prepare, Parquet": ["bench_prepare.py", "parquet", *map(str, asked.rows)],
    }
    for title, (script, *args) in benches.items():
        print(f"\n{title}", flush=True)
        subprocess.run([sys.executable, str(HERE / script), *args], check=True)


if __name__ == "__main__":
    main()
