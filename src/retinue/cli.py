"""The door: `retinue <command> key=value …`. Reads words, shows progress and tables, and tells errors in one line."""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from retinue.help import COMMANDS, command_help, overview
from retinue.schema import InputError
from retinue.watchdog import heard_within_grace

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

MULTIRUN = "--multirun"
ONE_STORE = ("prepare", "doctor", "worlds", "pretrain")  # commands that take several bases at once
FAULT = 70  # the exit code of a fault of ours, EX_SOFTWARE of sysexits.h
WIDE = 250  # columns, where the output goes to a file or a pipe


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code.

    0 done, 1 a mistake in data or options or a refusal of the system, 70 a fault of ours, 130 stopped.
    """
    words = list(sys.argv[1:] if words is None else words)
    screen = Console(stderr=True)
    signal.signal(signal.SIGTERM, _stop)
    try:
        with heard_within_grace():
            return _command(words, screen)
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        return _ended(error, words, screen)


def _ended(error: BaseException, words: Sequence[str], screen: Console) -> int:
    """Says in one line why a command ended; the exit code."""
    match error:
        case KeyboardInterrupt():
            screen.print("stopped; finished stages are kept, the same command goes on from there")
            return 130
        case BrokenPipeError():
            return 1
        case InputError():
            text = str(error)
        case MemoryError():
            text = "memory: there is not enough. Close other programs, or run with more shards."
        case OSError():
            text = _refused_by_system(error)
        case _:
            _say_error(screen, fault_of(error, words))
            return FAULT
    _say_error(screen, text)
    return 1


def _output() -> Console:
    """Where results are shown: as wide as the terminal, or wide enough for whole tables in a file or pipe."""
    return Console(width=None if sys.stdout.isatty() else WIDE)


def _say_error(screen: Console, text: str) -> None:
    screen.print(f"[bold red]error[/] {_escaped(text)}", soft_wrap=True, highlight=False)


def _refused_by_system(error: OSError) -> str:
    """One line for what the disk or the rights refuse."""
    cures = {
        errno.ENOSPC: "Free some space, or give another output=<folder>",
        errno.EDQUOT: "Free some space, or give another output=<folder>",
        errno.EROFS: "Give an output=<folder> that may be written to",
        errno.EACCES: "Give yourself the right to it, or another folder",
        errno.ENAMETOOLONG: "Give a shorter output=<folder>",
        errno.EIO: "Check the disk",
    }
    cure = cures.get(error.errno or 0, "Check the file and its folder")
    where = error.filename or "the system"
    return f"{where}: {error.strerror or error}. {cure}; finished stages are kept, the same command goes on from there."


def fault_of(error: BaseException, words: Sequence[str]) -> str:
    """One line for a fault of ours; where and how it came about is written to a file that can be sent."""
    lines = [
        f"retinue {metadata.version('retinue')}, Python {platform.python_version()}, {platform.platform()}",
        *(f"{name} {metadata.version(name)}" for name in ("polars", "torch", "numpy")),
        f"words: {shlex.join(words)}",
        "".join(traceback.format_exception(error)),
    ]
    with tempfile.NamedTemporaryFile("w", prefix="retinue-fault-", suffix=".txt", delete=False) as file:
        file.write("\n".join(lines))
    what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return f"a fault of retinue ({what}). Please send {file.name}: it holds the words of this command and where it failed."


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def _command(words: list[str], screen: Console) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        overview()
        return 0
    if words[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"retinue {version('retinue')}")
        return 0
    command, *rest = words
    if command not in COMMANDS:
        raise InputError(
            f"'{command}' is not a command; there are {', '.join(COMMANDS)}. See retinue --help."
        )
    if any(word in ("-h", "--help", "--help=all") for word in rest):
        command_help(command, everything="--help=all" in rest)
        return 0
    if MULTIRUN in rest:
        return _multirun(command, [word for word in rest if word != MULTIRUN], screen)
    from retinue.config import expanded, resolve

    if command == "worlds":
        rest = [
            f"worlds.{word}" if word.split("=")[0] in ("kind", "customers", "days") else word for word in rest
        ]
    verb = ""
    if command == "experiment":
        verb, rest = _verb(rest)
    rest = expanded(rest)
    options = resolve(rest)
    os.umask(int(options.run.umask, 8))
    if options.data.columns.base is not None and command not in ONE_STORE:
        return _each_base(command, words, options, screen)
    _log_to(screen)
    with _progress(screen) as progress:
        show = _experiment(verb, options, progress) if verb else _work(command, options, progress)
    if command != "worlds":
        _keep_words(options.folder, rest)
    show()
    return 0


def _each_base(command: str, words: list[str], options: Options, screen: Console) -> int:
    """Runs the command once for each base that data.columns.base names, and compares them on a page."""
    from retinue.bases import compare, names_of, words_of

    if options.data.source.value != "files":
        raise InputError("data.columns.base: is read with data=files only.")
    names = names_of(options)
    verb = words[1:2] if command == "experiment" else []
    rest = [word for word in words[1:] if word not in verb]
    for place, name in enumerate(names, 1):
        print(f"{command}: base {place} of {len(names)}: {name}", flush=True)
        _command([command, *verb, *words_of(rest, options, name)], screen)
    page = compare(options, names)
    if page is not None:
        print(f"bases: {page}")
    return 0


def _keep_words(folder: Path, words: list[str]) -> None:
    """Keeps the words of a command that went through, for commands on the same folder that name no data."""
    from retinue.config import WORDS
    from retinue.events.store import write_text

    if (folder / ".stages").is_dir():
        write_text(json.dumps(words), folder / WORDS)


def _verb(words: list[str]) -> tuple[str, list[str]]:
    """What is to be done with an experiment, and the other words."""
    verbs = ("design", "assign", "analyse")
    if not words or words[0] not in verbs:
        raise InputError(
            f"experiment: say what to do with it first: retinue experiment {'|'.join(verbs)} key=value …"
        )
    return words[0], words[1:]


def _experiment(verb: str, options: Options, progress: Any) -> Callable[[], None]:
    """Does one step of an experiment; what it returns shows the result."""
    try:
        from retinue.experiment import folder_of, run_analyse, run_assign, run_design
    except ModuleNotFoundError as error:
        raise InputError(
            f"experiment: needs {error.name}, which is not installed. Run: pip install 'retinue[experiments]'"
        ) from error
    from retinue.reporting import terminal

    out, folder = _output(), folder_of(options)
    if verb == "design":
        return partial(terminal.show_design, out, folder, *run_design(options, progress)[1:], options)
    if verb == "assign":
        return partial(terminal.show_assigned, out, folder, run_assign(options, progress)[1])
    return partial(terminal.show_analysis, out, folder, run_analyse(options, progress)[1], options)


def _multirun(command: str, words: list[str], screen: Console) -> int:
    """Runs the command once for each combination of values, each into a folder of its own under the output."""
    from retinue.config import combinations, resolve

    runs = combinations(words)
    folder = resolve(runs[0][1]).folder
    for i, (name, chosen) in enumerate(runs):
        print(f"{command}: {i + 1} of {len(runs)}: {name or 'nothing varies'}", flush=True)
        own = [word for word in chosen if not word.startswith("output=")]
        _command([command, *own, f"output={folder / 'multirun' / name.replace('/', '_')}"], screen)
    return 0


def _work(command: str, options: Options, progress: Any) -> Callable[[], None]:  # noqa: PLR0911
    """Does the command; what it returns shows the result."""
    if command == "worlds":
        return _world(options)
    from retinue.pipeline import Stage, advance

    if command == "backtest":
        from retinue.judge import run_backtest
        from retinue.reporting.terminal import show_backtest

        run, found = run_backtest(options, progress)
        return partial(show_backtest, _output(), run.folder, found)
    if command == "train":
        from retinue.train import run_train

        return partial(_show_train, *run_train(options, progress))
    if command == "pretrain":
        from retinue.pretrain import run_pretrain

        return partial(_show_pretrain, *run_pretrain(options))
    if command == "forecast" and options.checkpoint is not None:
        from retinue.score import run_scoring

        return partial(_show_scored, *run_scoring(options, progress))
    if command == "export":
        from retinue.decisions.exports import export

        run = advance(options, Stage.decide, progress)
        menu = options.actions.actions
        needing = [name for name, action in menu.items() if action.needs_consent]
        folder = run.folder / "exports"
        done = export(run.read("decisions"), folder, options.delta, options.export, needing)
        return partial(_show_exported, done)
    if command == "policy":
        from retinue.policy import run_policy
        from retinue.reporting.terminal import show_policy

        run, judged = run_policy(options, progress)
        estimates = {"what was done": judged.logged} | judged.estimates
        return partial(show_policy, _output(), judged.customers, judged.without_support, estimates, options)
    if command == "ledger":
        from retinue.judge import run_ledger
        from retinue.reporting.terminal import show_ledger

        run, reckoning = run_ledger(options, progress)
        return partial(show_ledger, _output(), run.folder, run.store.local_zone, reckoning)
    if options.tracking.value in ("offline", "online"):
        logging.getLogger("retinue").warning(
            "tracking=%s: %s keeps no W&B run; retinue train, backtest and forecast checkpoint=… do",
            options.tracking.value,
            command,
        )
    stage = Stage.report if command in ("run", "report") else Stage[command]
    return partial(_show, command, advance(options, stage, progress), options)


def _show_exported(done: Exported) -> None:
    for channel, rows in done.rows.items():
        print(f"export: {channel}: {rows:,} rows")
    print(
        "export: done; "
        + (", ".join(str(path) for path in done.files) or "nobody gets an action, no file is written")
    )


def _show_scored(run: Run, done: Scored) -> None:
    from retinue.forecasting.scoring import PAGE

    print(
        f"forecast: {len(done.written)} shards written, {len(done.kept)} stood already, {len(done.elsewhere)} in the hands "
        f"of another process; they are in {run.folder / 'forecasts'}"
    )
    if done.totals is not None:
        _show_totals(_output(), done.totals, run.store.local_zone)
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


def _show_train(run: Run, folder: Path, predictor: SequencePredictor | TunedPredictor) -> None:
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


def _show_pretrain(folder: Path, found: Pretrained) -> None:
    """How the base model does on held-out families, from the first process alone."""
    from retinue.accel.processes import process_rank

    if process_rank() == 0:
        card = found.trained.card
        table = Table("held-out bases", "bases", "log score of counts", "total off, median")
        for name, row in sorted(card["held_out"].items()):
            off = f"{row['log_total_off']:.1%}"
            table.add_row(name, str(row["bases"]), f"{row['log_score']:.4f}", off)
        _output().print(table)
        print(
            f"pretrain: best at step {card['best_step']:,} with a held-out log score of {card['best_log_score']:.4f}; "
            f"{card['weights']:,} weights"
        )
        print(f"pretrain: done; the base model is in {folder}")


def _world(options: Options) -> Callable[[], None]:
    from pathlib import Path

    from retinue.events.timeline import instant
    from retinue.worlds import write_world

    asked = options.worlds
    folder = Path(options.output or f"runs/worlds/{asked.kind}")
    cutoffs = tuple(instant(text, "UTC") for text in options.cutoffs) or None
    horizons = tuple(options.horizons)
    made = write_world(asked.kind, asked.customers, options.seed, folder, asked.days, horizons, cutoffs)
    lines = [
        f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value}" for name, value in made.items()
    ]
    return partial(print, "\n".join([*lines, f"worlds: done; everything is in {folder}"]))


def _log_to(screen: Console) -> None:
    """Rich log lines on a terminal, plain dated ones elsewhere."""
    handler: logging.Handler
    if screen.is_terminal:
        handler = RichHandler(console=screen, show_path=False, show_level=False, markup=False)
        form = logging.Formatter("%(message)s")
    else:
        handler = logging.StreamHandler(sys.stderr)
        form = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")
    handler.setFormatter(form)
    log = logging.getLogger("retinue")
    log.handlers = [handler]
    log.propagate = False
    log.setLevel(logging.INFO)


@contextmanager
def _progress(screen: Console) -> Iterator[Any]:
    """A bar on a terminal; elsewhere a log line at each tenth of a task."""
    if screen.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=screen, transient=True) as bars:
            known: dict[str, Any] = {}

            def show(text: str, done: float) -> None:
                if text not in known:
                    known[text] = bars.add_task(text, total=1.0)
                bars.update(known[text], completed=done)

            yield show
        return
    last: dict[str, int] = {}

    def tell(text: str, done: float) -> None:
        tenth = int(done * 10)
        if last.get(text, -1) < tenth and (tenth > last.get(text, 0) or tenth == 10):
            logging.getLogger("retinue").info("%s: %d %%", text, tenth * 10)
        last[text] = max(tenth, last.get(text, 0))

    yield tell


def _show(command: str, run: Run, options: Options) -> None:
    """What a person wants to see at the end: where things are, and the headline."""
    out = _output()
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
            f"[bold red]problem[/] {_escaped(row['finding'])} {_escaped(row['cure'] or '')}",
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
            _escaped(row["finding"]),
            _escaped(row["cure"] or ""),
        )
    out.print(table)


def _catalogue(out: Console, run: Run) -> None:
    """Every feature with its unit and sentence; for those the base cannot have, why."""
    from retinue.features.query import available_at

    kept, left_out = available_at(run.store.scan(), run.cutoffs[-1], run.store.local_zone)
    table = Table("feature", "unit", "what it says", box=None, pad_edge=False, header_style="bold")
    for feature in kept:
        table.add_row(f"[cyan]{feature.name}[/]", _escaped(feature.unit), _escaped(feature.sentence))
    for one in left_out:
        table.add_row(f"[dim]{one.feature.name}[/]", "[dim]left out[/]", f"[dim]{_escaped(one.reason)}[/]")
    out.print(table)


def _plain_table(out: Console, run: Run, name: str, columns: Sequence[str]) -> None:
    frame = run.read(name)
    kept = [c for c in columns if c in frame.columns]
    table = Table(*kept, box=None, pad_edge=False, header_style="bold")
    for row in frame.select(kept).iter_rows():
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else _escaped(str(v)) for v in row))
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


if __name__ == "__main__":
    sys.exit(main())
