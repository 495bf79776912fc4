"""What a command shows at its end: tables and sentences for people, or one JSON object for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from retinue.decisions.exports import Exported
    from retinue.forecasting.scoring import Scored
    from retinue.forecasting.sequence import SequencePredictor
    from retinue.forecasting.tuned import TunedPredictor
    from retinue.options import Options
    from retinue.pipeline import Run
    from retinue.pretraining.pretrained import Pretrained

WIDE = 250  # columns, where the output goes to a file or a pipe
# tables that --json holds, by command; a run's headline is made from its forecasts
TABLES = {
    "prepare": (),
    "doctor": ("quality",),
    "features": (),
    "segment": ("segment_profiles",),
    "forecast": ("quality",),
    "decide": ("limits", "budget_curve", "quadrant_moves"),
    "report": ("quality",),
    "run": ("quality",),
}


def show_json(command: str, run: Run) -> None:
    """One JSON object on stdout: the folder, the tables that the command shows, and the totals of the forecasts."""
    from retinue.forecasting.scoring import totals

    found: dict[str, object] = {"command": command, "folder": str(run.folder)}
    for name in TABLES[command]:
        if run.table(name).is_file():
            found[name] = run.read(name).to_dicts()
    if command in ("forecast", "report", "run"):
        found["forecasts_summary"] = totals([run.read("forecasts")]).to_dicts()
    print(json.dumps(found, default=str, ensure_ascii=False))


def output() -> Console:
    """Where results are shown: as wide as the terminal, or wide enough for whole tables in a file or pipe."""
    return Console(width=None if sys.stdout.isatty() else WIDE)


def show_exported(done: Exported) -> None:
    """Rows by channel, and the files."""
    for channel, rows in done.rows.items():
        print(f"export: {channel}: {rows:,} rows")
    print(
        "export: done; "
        + (", ".join(str(path) for path in done.files) or "nobody gets an action, no file is written")
    )


def show_scored(run: Run, done: Scored) -> None:
    """Shards, totals, what changed since the day before, and the page."""
    from retinue.forecasting.scoring import PAGE

    print(
        f"forecast: {len(done.written)} shards written, {len(done.kept)} stood already, {len(done.elsewhere)} in the hands "
        f"of another process; they are in {run.folder / 'forecasts'}"
    )
    if done.totals is not None:
        _show_totals(output(), done.totals, run.store.local_zone)
        _show_changes(run)
        if (run.folder / PAGE).is_file():  # another process may still be at it
            print(f"report: {run.folder / PAGE}")


def _show_changes(run: Run) -> None:
    """How these forecasts differ from those of the last earlier day, a line for each horizon."""
    import polars as pl

    from retinue.reporting.words import Money, day
    from retinue.schema import FORECAST_CHANGES

    path, store = run.table(FORECAST_CHANGES.name), run.store
    if not path.is_file():
        return
    money = Money(run.options.data.currency or store.manifest.currency)
    for row in pl.read_parquet(path).iter_rows(named=True):
        before = day(row["previous_cutoff"], store.local_zone).replace("\xa0", " ")
        print(
            f"since {before}, {row['horizon_days']} days ahead: "
            f"{row['new_customers']:,} new customers, {row['gone_customers']:,} gone; of {row['in_both']:,} in both the churn "
            f"risk of {row['risk_rose']:,} rose and of {row['risk_fell']:,} fell by .1 or more, and their clv went from "
            f"{money.short(row['clv_before'])} to {money.short(row['clv_now'])}"
            + (
                ""
                if row["model"] == row["previous_model"]
                else f"; the model was {row['previous_model']} then"
            )
        )


def show_train(run: Run, folder: Path, predictor: SequencePredictor | TunedPredictor) -> None:
    """What the network took and how well it did on the customers held out, from the first process alone."""
    from retinue.accel.processes import process_rank

    if process_rank() == 0:
        card = predictor.trained.card
        print(
            f"train: {card['readouts']:,} readouts of {card['customers']:,} customers, best at step "
            f"{card['best_step']:,} with a held-out log score of {card['best_log_score']:.4f}; "
            f"{card['tokens_per_second']:,.0f} tokens/s, {card['padding_waste']:.0%} padding"
        )
        print(f"train: done; the checkpoint is in {folder}")


def show_pretrain(folder: Path, found: Pretrained) -> None:
    """How the base model does on held-out families, from the first process alone."""
    from retinue.accel.processes import process_rank

    if process_rank() == 0:
        card = found.trained.card
        table = Table("held-out bases", "bases", "log score of counts", "total off, median")
        for name, row in sorted(card["held_out"].items()):
            off = f"{row['log_total_off']:.1%}"
            table.add_row(name, str(row["bases"]), f"{row['log_score']:.4f}", off)
        output().print(table)
        print(
            f"pretrain: best at step {card['best_step']:,} with a held-out log score of {card['best_log_score']:.4f}; "
            f"{card['weights']:,} weights"
        )
        print(f"pretrain: done; the base model is in {folder}")


def show(command: str, run: Run, options: Options) -> None:
    """What a person wants to see at the end: where things are, and the headline."""
    out = output()
    if command == "doctor":
        _findings(out, run)
    elif command == "features":
        _catalogue(out, run)
    elif command == "segment":
        _plain_table(
            out, run, "segment_profiles", ("segment", "segment_name", "customers", "share", "description")
        )
    elif command in ("forecast", "run", "report"):
        _problems(out, run)
        _headline(out, run)
    elif command == "decide":
        from retinue.reporting.terminal import show_decisions

        names = ("decisions", "limits", "budget_curve", "quadrant_moves")
        decisions, limits, curve, moves = (run.read(name) for name in names)
        show_decisions(out, decisions, limits, curve, moves, options)
    print(f"{command}: done; everything is in {run.folder}")
    if command in ("run", "report"):
        print(f"report: {run.folder / 'report.html'}")


def _problems(out: Console, run: Run) -> None:
    """The problems that the doctor found, where it has seen these data: they come before any total."""
    from retinue.runs import Stage, is_fresh, stage_key

    if not is_fresh(run, Stage.doctor, stage_key(Stage.doctor, run.options, run.store.manifest.mark)):
        return
    for row in run.read("quality").filter(level="problem").iter_rows(named=True):
        out.print(
            f"[bold red]problem[/] {escape(row['finding'])} {escape(row['cure'] or '')}",
            soft_wrap=True,
            highlight=False,
        )


def _findings(out: Console, run: Run) -> None:
    table = Table("level", "topic", "finding", "cure", box=None, pad_edge=False, header_style="bold")
    style = {"problem": "bold red", "warning": "yellow"}
    for row in run.read("quality").iter_rows(named=True):
        level = style.get(row["level"])
        table.add_row(
            f"[{level}]{row['level']}[/]" if level else row["level"],
            row["topic"],
            escape(row["finding"]),
            escape(row["cure"] or ""),
        )
    out.print(table)


def _catalogue(out: Console, run: Run) -> None:
    """Every feature with its unit and sentence; for those the base cannot have, why."""
    from retinue.features.query import available_at

    kept, left_out = available_at(run.store.scan(), run.cutoffs[-1], run.store.local_zone)
    table = Table("feature", "unit", "what it says", box=None, pad_edge=False, header_style="bold")
    for feature in kept:
        table.add_row(f"[cyan]{feature.name}[/]", escape(feature.unit), escape(feature.sentence))
    for one in left_out:
        table.add_row(f"[dim]{one.feature.name}[/]", "[dim]left out[/]", f"[dim]{escape(one.reason)}[/]")
    out.print(table)


def _plain_table(out: Console, run: Run, name: str, columns: Sequence[str]) -> None:
    frame = run.read(name)
    kept = [c for c in columns if c in frame.columns]
    table = Table(*kept, box=None, pad_edge=False, header_style="bold")
    for row in frame.select(kept).iter_rows():
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else escape(str(v)) for v in row))
    out.print(table)


def _headline(out: Console, run: Run) -> None:
    from retinue.forecasting.scoring import totals

    _show_totals(out, totals([run.read("forecasts")]), run.store.local_zone)


def _show_totals(out: Console, lines: pl.DataFrame, zone: str) -> None:
    """Sums by cutoff and horizon; the cutoff as the day it is where the shoppers are."""
    from zoneinfo import ZoneInfo

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in lines.columns:
        table.add_column(
            name.replace("_", " "), overflow="fold"
        )  # a number cut short would be another number
    for row in lines.iter_rows():
        table.add_row(
            f"{row[0].astimezone(ZoneInfo(zone)):%Y-%m-%d}",
            *(f"{v:,.0f}" if isinstance(v, (int, float)) else str(v) for v in row[1:]),
        )
    out.print(table)
