"""Our rungs beside lifetimes, pymc-marketing and LightGBM, same cutoffs and metrics: python scripts/bench_peers.py --markdown.

Needs the extra `bench`; a peer that is not installed is left out, with a line that says so. Each method runs in a process
of its own (bench_peer.py), so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
METHODS = (
    "all_zero",
    "lifetimes:bg_nbd",
    "lifetimes:pareto_nbd",
    "pymc-marketing:bg_nbd",
    "pymc-marketing:pareto_nbd",
    "lightgbm",
    "retinue:own_rate",
    "retinue:bg_nbd",
    "retinue:pareto_nbd",
    "retinue:xgboost",
    "retinue:blend",
    "retinue:auto",
    "retinue:sequence_gru",
    "retinue:sequence_transformer",
    "retinue:blend+sequence_gru",
    "retinue:auto+sequence_gru",
)
RIVAL = "lightgbm"
FIGURES: tuple[tuple[str, str, str, str], ...] = (
    ("AUROC", "churn", "auroc", ".3f"),
    ("Brier", "churn", "brier", ".3f"),
    ("log score", "orders", "log_score", ".3f"),
    ("orders RMSE", "orders", "rmse", ".3f"),
    ("orders bias %", "orders", "bias_percent", "+.1f"),
    ("spend Gini", "value", "gini", ".3f"),
    ("spend MAE", "value", "mae_of_mean", ".2f"),
    ("spend bias %", "value", "bias_percent", "+.1f"),
    ("inputs s", "seconds", "inputs", ".1f"),
    ("fit s", "seconds", "fit", ".1f"),
    ("forecast s", "seconds", "forecast", ".2f"),
)
HEADER = (
    "method",
    *(title for title, *_ in FIGURES),
    "spend halved",
    "log score below LightGBM's",
    "peak MiB",
)
PACKAGES = (
    "lifetimes",
    "pymc-marketing",
    "pymc",
    "lightgbm",
    "xgboost",
    "torch",
    "polars",
    "numpy",
    "pandas",
)


@dataclass(frozen=True)
class Base:
    """A base, its cutoff and horizon; `options` go to `retinue prepare`."""

    name: str
    cutoff: str
    days: int
    options: tuple[str, ...] = ()


BASES = (
    Base("cdnow", "1997-09-30", 273),
    Base("complete_journey", "2017-09-30", 90),
    Base("online_retail", "2011-09-09", 91, ("data.path={retail}",)),
)


def below(found: dict[str, Any], rival: dict[str, Any]) -> str:
    """By how much the mean negative log score of counts is below the rival's, ± its paired standard error."""
    mine, other = found.get("log_scores"), rival.get("log_scores")
    if not mine or not other or found is rival:
        return ""
    lead = np.array(mine) - np.array(other)
    error = lead.std(ddof=1) / np.sqrt(len(lead))
    return f"{lead.mean():+.4f} ± {error:.4f} ({lead.mean() / error:+.1f} se)"


def cells(method: str, found: dict[str, Any], rival: dict[str, Any]) -> list[str]:
    """One row of the table; what a method does not give is blank, one that could not run says why."""
    if "skipped" in found:
        return [method, found["skipped"], *[""] * (len(HEADER) - 2)]
    if not method.startswith("retinue:"):
        method = found["model"]
    elif method.startswith("retinue:auto"):
        method = f"{method} ({found['model']})"
    figures = [(found[group][name], form) for _, group, name, form in FIGURES]
    return [
        method,
        *("" if one is None else format(one, form) for one, form in figures),
        "" if found["halved"] is None else f"{found['halved']:.3f}",
        below(found, rival),
        f"{found['peak_mib']:.0f}",
    ]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """The rows as a Markdown table."""
    lines = [HEADER, ["---"] * len(HEADER), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def measured(method: str, folder: Path, base: Base, limit_seconds: float) -> dict[str, Any]:
    """What bench_peer.py says of one method; the reason where it failed or took too long."""
    command = [sys.executable, str(HERE / "bench_peer.py"), method, str(folder), base.cutoff, str(base.days)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"skipped": f"stopped after {limit_seconds:.0f} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"skipped": f"failed: {last}"}
    for line in done.stderr.splitlines():
        if line.startswith("expected orders"):
            print(f"{base.name} {method}: {line}", file=sys.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def prepared(base: Base, where: Path, retail: Path) -> Path:
    """The base's events, prepared in `where` unless they are there."""
    folder = where / base.name / "events"
    if not (folder / "manifest.json").is_file():
        options = [option.format(retail=retail) for option in base.options]
        words = ["prepare", f"data={base.name}", *options, f"output={where / base.name}"]
        subprocess.run([sys.executable, "-m", "retinue.cli", *words], check=True, stdout=sys.stderr)
    return folder


def machine() -> str:
    """Processor, cores, load and the versions that matter."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return f"{platform.machine()}, {os.cpu_count()} cores, load {load}; " + ", ".join(found)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--bases", nargs="*", default=[base.name for base in BASES], help="some of the three")
    words.add_argument(
        "--methods",
        nargs="*",
        default=METHODS,
        metavar="METHOD",
        help="any of the list in this file; with #N, seed N",
    )
    words.add_argument("--folder", type=Path, default=Path("runs/peers"), help="prepared bases are kept here")
    words.add_argument(
        "--retail", type=Path, default=Path("online_retail.parquet"), help="file of Online Retail"
    )
    words.add_argument("--limit", type=float, default=900.0, help="seconds that one method may take")
    words.add_argument("--markdown", action="store_true")
    asked = words.parse_args()
    print(machine())
    for base in (base for base in BASES if base.name in asked.bases):
        folder = prepared(base, asked.folder, asked.retail)
        found = {method: measured(method, folder, base, asked.limit) for method in asked.methods}
        rows = [cells(method, figures, found.get(RIVAL, {})) for method, figures in found.items()]
        customers = next((f"{one['customers']:,}" for one in found.values() if "customers" in one), "no")
        title = f"{base.name}, {base.cutoff}, {base.days} days, {customers} customers"
        if asked.markdown:
            print(f"\n{title}\n\n{markdown(rows)}", flush=True)
            continue
        table = Table(*HEADER, title=title)
        for row in rows:
            table.add_row(*row)
        Console(width=180).print(table)


if __name__ == "__main__":
    main()
