"""What a backtest and a ledger say at the end, as rich tables on the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from retinue.evaluation.reconciliation import windows
from retinue.forecasting.backtest import Backtest
from retinue.forecasting.ledger import Reckoning
from retinue.reporting.backtest_page import lead, leading_grid, versus_grid
from retinue.reporting.figures import Grid
from retinue.reporting.ledger_page import verdict_words
from retinue.reporting.words import Money, count, day, number
from retinue.schema import FINDING, MODEL, PASSED, RUN, SENTINEL


def show_backtest(out: Console, folder: Path, found: Backtest) -> None:
    """Scores over all origins, differences from the simplest rung, and the sentinels."""
    first, last = found.folds.origins[0], found.folds.origins[-1]
    out.print(
        f"{len(found.folds.origins)} origins from {first:%Y-%m-%d} to {last:%Y-%m-%d}, "
        f"{found.folds.horizon_days} days ahead; ± is one standard error, clustered by customer",
        highlight=False,
    )
    _print(out, leading_grid(found))
    versus = versus_grid(found)
    if len(versus.header) > 1:
        out.print(
            f"\nless {found.entries[0].model}, paired; * is beyond two standard errors", highlight=False
        )
        _print(out, versus)
    out.print()
    for row in found.sentinels.iter_rows(named=True):
        mark = "[green]held[/]" if row[PASSED] else "[bold red]BROKEN[/]"
        out.print(
            f"{mark} {row[SENTINEL]}, {row[MODEL]}: {escape(row[FINDING])}", highlight=False, soft_wrap=True
        )
    out.print(lead(found), highlight=False, soft_wrap=True)
    print(f"backtest: done; {folder / 'backtest.parquet'} and {folder / 'backtest.html'}")


def show_ledger(out: Console, folder: Path, zone: str, found: Reckoning) -> None:
    """How much is kept and has matured, every matured window, and whether new forecasts would pay."""
    runs = found.kept[RUN].n_unique()
    out.print(
        f"{found.kept.height:,} forecasts of {runs} runs kept, {found.matured.height:,} matured",
        highlight=False,
    )
    rows = tuple(
        (f"{w.cutoff:%Y-%m-%d}", count(w.horizon_days), count(w.predicted_spend), count(w.realised_spend),
         number(w.gap_errors, 1))
        for w in windows(found.reconciled)
    )  # fmt: skip
    if rows:
        _print(
            out, Grid(("cutoff", "days", "predicted spend", "realised spend", "gap in standard errors"), rows)
        )
    for line in verdict_words(found.verdict, zone, Money("")):
        out.print(line, highlight=False, soft_wrap=True)
    if found.next_maturity is not None:
        out.print(f"More will mature when the data reach {day(found.next_maturity, zone)}.", highlight=False)
    print(f"ledger: done; {folder / 'reconciled.parquet'} and {folder / 'ledger.html'}")


def _print(out: Console, grid: Grid) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(grid.header):
        table.add_column(name, justify="left" if i < grid.text_columns else "right")
    for row in grid.rows:
        table.add_row(*(escape(cell) for cell in row))
    out.print(table)
