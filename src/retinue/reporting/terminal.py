"""What a backtest and a ledger say at the end, as rich tables on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from retinue.evaluation.reconciliation import windows
from retinue.forecasting.backtest import Backtest
from retinue.forecasting.ledger import Reckoning
from retinue.options import Options
from retinue.reporting.backtest_page import lead, leading_grid, versus_grid
from retinue.reporting.budget import (
    actions_grid,
    assumed_words,
    curve_grid,
    limits_grid,
    moved_grid,
    untreated_grid,
)
from retinue.reporting.figures import Grid
from retinue.reporting.ledger_page import verdict_words
from retinue.reporting.words import NONE, Money, count, day, number, share
from retinue.schema import ARM, FINDING, GROUP, MODEL, P_VALUE, PASSED, RUN, SENTINEL, STRATUM

if TYPE_CHECKING:
    from retinue.decisions.experiments.analyse import Found
    from retinue.decisions.off_policy import Estimate


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


def show_decisions(
    out: Console,
    decisions: pl.DataFrame,
    limits: pl.DataFrame,
    curve: pl.DataFrame,
    moves: pl.DataFrame,
    options: Options,
) -> None:
    """What each action does, why the others get none, what limits and other budgets are worth, and who moved since last."""
    money = Money(options.data.currency)
    _print(out, actions_grid(decisions, money))
    out.print()
    _print(out, untreated_grid(decisions))
    if limits.height:
        out.print()
        _print(out, limits_grid(limits, money))
    out.print("\nwhat other budgets would bring", highlight=False)
    _print(out, curve_grid(curve, money))
    if moves.height:
        out.print("\nwho changed quadrant since the forecasts before", highlight=False)
        _print(out, moved_grid(moves))
    if warning := assumed_words(decisions, options.actions.name):
        out.print(f"[yellow]{escape(warning)}[/]", highlight=False, soft_wrap=True)


def show_policy(
    out: Console, customers: int, without_support: int, estimates: dict[str, Estimate], options: Options
) -> None:
    """Net margin per customer of what was done and of the policy that is judged, with intervals."""
    money = Money(options.data.currency)
    rows = tuple(
        (
            name,
            money.full(e.value),
            f"{money.full(e.lower)} to {money.full(e.upper)}",
            count(round(e.effective)),
        )
        for name, e in estimates.items()
    )
    _print(
        out, Grid(("Net margin per customer", "Estimate", "95% interval", "Customers it amounts to"), rows)
    )
    out.print(f"\n{count(customers)} customers", highlight=False)
    if without_support:
        out.print(
            f"nothing can be said of {count(without_support)} more: the log left no chance for what this policy does",
            highlight=False,
        )
    print("policy: done")


def show_design(
    out: Console, folder: Path, table: pl.DataFrame, needed: int | None, options: Options
) -> None:
    """The smallest effect that each length of window would find."""
    asked, money = options.experiments, Money(options.data.currency)
    rows = tuple(
        (count(days), arm, count(treated), count(control), money.full(mean), money.full(deviation), share(explained),
         money.full(plain), money.full(smallest), share(smallest / mean) if mean else NONE)
        for days, arm, treated, control, mean, deviation, explained, plain, smallest in table.iter_rows()
    )  # fmt: skip
    header = ("Days", "Arm", "Customers", "Control", "Mean margin", "Deviation", "Forecast explains",
              "Smallest effect without it",
              "Smallest effect", "of the mean")  # fmt: skip
    _print(out, Grid(header, rows))
    out.print(
        f"\nan effect of that size is found {share(asked.power)} of the time, and a false alarm raised {share(asked.alpha)} of "
        "the time, over all looks",
        highlight=False,
    )
    if needed is not None and asked.effect is not None:
        out.print(
            f"an effect of {money.full(asked.effect)} in {asked.days} days takes {count(needed)} customers",
            highlight=False,
        )
    print(f"experiment: done; {folder / 'design.parquet'}")


def show_assigned(out: Console, folder: Path, assigned: pl.DataFrame) -> None:
    """How many customers of each stratum are in each arm."""
    arms = sorted(assigned[ARM].unique().to_list())
    counts = {
        key: n
        for *key_parts, n in assigned.group_by(STRATUM, ARM).len().iter_rows()
        for key in [tuple(key_parts)]
    }
    strata = sorted(assigned[STRATUM].unique().to_list())
    rows = [(stratum, *(count(counts.get((stratum, arm), 0)) for arm in arms)) for stratum in strata]
    rows.append(("all", *(count(assigned.filter(pl.col(ARM) == arm).height) for arm in arms)))
    _print(out, Grid(("Stratum", *arms), tuple(rows)))
    print(f"experiment: done; {folder / 'assignments.parquet'} says who is in which arm")


def show_analysis(out: Console, folder: Path, found: Found, options: Options) -> None:
    """Whether the arms can be compared, every effect with its interval, and whether it paid."""
    money = Money(options.data.currency)
    out.print(
        f"{share(found.observed)} of the window is observed; intervals hold {share(1 - found.analysis.level, 2)}",
        highlight=False,
    )
    if not found.analysis.is_sound:
        out.print(
            f"[bold red]the arms do not have the planned sizes (p = {found.analysis.mismatch:.2g}): something decided who was "
            "counted. Do not trust the effects.[/]",
            soft_wrap=True,
        )
    _print(out, effects_grid(found.analysis.effects.filter(pl.col(GROUP) == "all")))
    level = found.analysis.level
    if strata := found.by_stratum.filter(pl.col(P_VALUE) < level).height:
        out.print(
            f"{strata} effects by stratum have a p-value below this look's {level:.2g} once corrected for their number (Holm)"
        )
    for arm, paid in sorted(found.returns.items()):
        low, high = paid.margin[1:]
        roi = (
            f"; return on it {paid.roi[0]:.1f} ({paid.roi[1]:.1f} to {paid.roi[2]:.1f})" if paid.cost else ""
        )
        out.print(
            f"{arm}: {money.full(paid.margin[0])} of margin more ({money.full(low)} to {money.full(high)}) for "
            f"{money.full(paid.cost)}{roi}",
            highlight=False,
        )
    print(f"experiment: done; {folder / 'effects.parquet'}")


def effects_grid(effects: pl.DataFrame) -> Grid:
    """A row per arm, metric and group."""
    rows = tuple(
        (arm, metric, group, count(treated), count(control), number(before, 3), number(after, 3), number(effect, 3),
         f"{number(low, 3)} to {number(high, 3)}", f"{p:.3f}")
        for arm, metric, group, treated, control, before, after, effect, low, high, p in effects.iter_rows()
    )  # fmt: skip
    return Grid(
        ("Arm", "Metric", "Group", "Treated", "Control", "Control mean", "Treated mean", "Effect", "Interval", "p"), rows,
        text_columns=3,
    )  # fmt: skip
