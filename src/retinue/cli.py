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

from retinue.help import COMMANDS, command_help, overview
from retinue.results import (
    TABLES,
    output,
    show,
    show_exported,
    show_json,
    show_pretrain,
    show_scored,
    show_train,
)
from retinue.schema import InputError
from retinue.watchdog import heard_within_grace

if TYPE_CHECKING:
    from pathlib import Path

    from retinue.options import Options

MULTIRUN, JSON = "--multirun", "--json"
ONE_STORE = ("prepare", "doctor", "worlds", "pretrain")  # commands that take several bases at once
FAULT = 70  # the exit code of a fault of ours, EX_SOFTWARE of sysexits.h


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
    as_json = JSON in rest
    rest = [word for word in rest if word != JSON]
    if as_json and command not in TABLES:
        raise InputError(
            f"--json: is known of {', '.join(TABLES)}, not of {command}; its tables stand in the output folder."
        )
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
        end = _experiment(verb, options, progress) if verb else _work(command, options, progress, as_json)
    if command != "worlds":
        _keep_words(options.folder, rest)
    end()
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

    out, folder = output(), folder_of(options)
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


def _work(command: str, options: Options, progress: Any, as_json: bool) -> Callable[[], None]:  # noqa: PLR0911
    """Does the command; what it returns shows the result."""
    if command == "worlds":
        return _world(options)
    from retinue.pipeline import Stage, advance

    if command == "backtest":
        from retinue.judge import run_backtest
        from retinue.reporting.terminal import show_backtest

        run, found = run_backtest(options, progress)
        return partial(show_backtest, output(), run.folder, found)
    if command == "train":
        from retinue.train import run_train

        return partial(show_train, *run_train(options, progress))
    if command == "pretrain":
        from retinue.pretrain import run_pretrain

        return partial(show_pretrain, *run_pretrain(options))
    if command == "forecast" and options.checkpoint is not None:
        from retinue.score import run_scoring

        return partial(show_scored, *run_scoring(options, progress))
    if command == "export":
        from retinue.decisions.exports import export

        run = advance(options, Stage.decide, progress)
        menu = options.actions.actions
        needing = [name for name, action in menu.items() if action.needs_consent]
        folder = run.folder / "exports"
        done = export(run.read("decisions"), folder, options.delta, options.export, needing)
        return partial(show_exported, done)
    if command == "policy":
        from retinue.policy import run_policy
        from retinue.reporting.terminal import show_policy

        run, judged = run_policy(options, progress)
        estimates = {"what was done": judged.logged} | judged.estimates
        return partial(show_policy, output(), judged.customers, judged.without_support, estimates, options)
    if command == "ledger":
        from retinue.judge import run_ledger
        from retinue.reporting.terminal import show_ledger

        run, reckoning = run_ledger(options, progress)
        return partial(show_ledger, output(), run.folder, run.store.local_zone, reckoning)
    if options.tracking.value in ("offline", "online"):
        logging.getLogger("retinue").warning(
            "tracking=%s: %s keeps no W&B run; retinue train, backtest and forecast checkpoint=… do",
            options.tracking.value,
            command,
        )
    stage = Stage.report if command in ("run", "report") else Stage[command]
    run = advance(options, stage, progress)
    return partial(show_json, command, run) if as_json else partial(show, command, run, options)


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


if __name__ == "__main__":
    sys.exit(main())
