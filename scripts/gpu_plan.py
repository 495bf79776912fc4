"""Proves without a GPU that every query would run on one, and on several: `make gpu-plan`; exits 1 where one would not."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from tests.parity.gates import blind_to, forgotten, summary, verdicts  # noqa: E402


def main() -> int:
    started = time.perf_counter()
    if unseen := blind_to():
        print(f"The gates are blind: they let through {', '.join(unseen)}.")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        found = list(verdicts(Path(folder)))
    for verdict in found:
        print(f"{verdict.name:<60} {verdict.words}")
    faults, missing = [v for v in found if v.fault], forgotten({v.name for v in found})
    for fault in faults:
        print(f"FAULT: {fault.name} {fault.fault}")
    for name in missing:
        print(f"FAULT: {name} is not among the queries")
    print(f"{summary(found)} ({time.perf_counter() - started:.1f} s).")
    return int(bool(faults or missing))


if __name__ == "__main__":
    from tests.parity.options import report

    raise SystemExit(main() or report())
