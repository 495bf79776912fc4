"""Proves without a GPU that every query would run on one: `make gpu-plan`; exits 1 where one would not."""

from __future__ import annotations

import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from tests.parity.queries import queries, untranslatable  # noqa: E402
from tests.parity.translation import translation_errors  # noqa: E402


def main() -> int:
    if not translation_errors(untranslatable()):
        print("The gate is blind: it lets a query through that cuDF cannot run.")
        return 1
    started, refused, total = time.perf_counter(), 0, 0
    for name, query in queries():
        errors = translation_errors(query)
        refused, total = refused + bool(errors), total + 1
        print(f"{name:<40} {'; '.join(errors) or 'translates'}")
    print(f"{total - refused} of {total} queries translate to cuDF ({time.perf_counter() - started:.1f} s).")
    return int(refused > 0)


if __name__ == "__main__":
    from tests.parity.options import report

    raise SystemExit(main() or report())
