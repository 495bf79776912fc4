"""Weights & Biases runs of backtests and trainings, where the user asked for them. The only importer of wandb."""

from __future__ import annotations

import importlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl

from retinue.config import saved_options
from retinue.forecasting.backtest import Backtest
from retinue.options import Tracking
from retinue.reporting.charts_backtest import DRAWN, captured_chart, profit_chart, reliability_chart
from retinue.reporting.charts_training import BOARD, leaderboard
from retinue.reporting.figures import Chart
from retinue.reporting.training_page import training_charts, training_page
from retinue.reporting.words import Money
from retinue.schema import METRIC, MODEL, ORIGIN, POPULATION, SCORE, SCORE_ERROR
from retinue.training.checkpoint import Trained
from retinue.training.held_out import HELD_OUT_FILE, SCHEMA

INIT_SECONDS = 30
SPENT = ("best_step", "best_log_score", "tokens_per_second", "padding_waste", "matmul_share", "readouts",
         "customers")  # fmt: skip
log = logging.getLogger(__name__)


def track(tracking: Tracking, folder: Path, name: str, found: Backtest) -> None:
    """Logs a backtest's options, scores, tables, plots and page; nothing with tracking=off.

    The backtest stands without it: where wandb is not installed or cannot be reached, a warning says so.

    Args:
        tracking: off, offline (files under `folder`/wandb) or online.
        folder: of the run; holds backtest.html, and config.yaml where options were kept.
        name: of the base.
        found: what the backtest found.
    """
    _tracked(
        tracking, folder, f"backtest-{name}", "backtest", partial(_log_backtest, folder=folder, found=found)
    )


class TrainingRun:
    """A training as a W&B run that fills while it goes on; nothing where tracking is off, and training never waits for it.

    Use as a context: what ends the training ends the run, as failed.
    """

    def __init__(self, tracking: Tracking, folder: Path, checkpoint: Path, name: str) -> None:
        """Opens the run.

        Args:
            tracking: off, offline (files under `folder`/wandb), online, or auto, which is offline where wandb is there.
            folder: of the run.
            checkpoint: folder that will hold the network.
            name: of the base.
        """
        if tracking is Tracking.auto:
            tracking = Tracking.offline if find_spec("wandb") else Tracking.off
        self.tracking, self.folder, self.checkpoint, self.name = tracking, folder, checkpoint, name
        self.opened = _opened(tracking, folder, f"train-{checkpoint.name}-{name}", "train")
        self.logged = 0

    def __enter__(self) -> TrainingRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        failed = kind is not None
        self._guarded(lambda _, run: run.finish(exit_code=1) if failed else run.finish())
        if self.opened is not None:
            _say_where(self.tracking, self.folder)

    def heard(self, curve: pl.DataFrame) -> None:
        """Logs the steps of the curve that are new."""
        new = curve.slice(self.logged)
        self._guarded(lambda _, run: _log_curve(run, new))
        self.logged += new.height

    def done(self, trained: Trained) -> None:
        """Logs held-out scores, plots and page, what it took, and where the checkpoint came from."""
        self.heard(trained.curve)
        self._guarded(
            lambda wandb, run: _log_training(
                wandb, run, checkpoint=self.checkpoint, name=self.name, trained=trained
            )
        )

    def _guarded(self, log_it: Callable[[Any, Any], object]) -> None:
        """Does it where there is a run; one that fails is told of and given up."""
        if self.opened is None:
            return
        wandb, run = self.opened
        try:
            log_it(wandb, run)
        except wandb.errors.Error as error:
            _given_up(self.tracking, error)
            self.opened = None


def track_forecasts(
    tracking: Tracking, folder: Path, checkpoint: Path, name: str, lineage: Mapping[str, Any]
) -> None:
    """Logs which checkpoint made which forecasts of which events; the forecasts themselves stay where they are.

    Args:
        tracking: off or auto, which is off here; offline or online.
        folder: of the run.
        checkpoint: folder that made them; the same files are the same artifact as in the training's run.
        name: of the base.
        lineage: plain values: the checkpoint's key, cutoffs, horizons.
    """
    log_it = partial(_log_forecasts, checkpoint=checkpoint, name=name, lineage=lineage)
    _tracked(tracking, folder, f"forecast-{name}", "forecast", log_it)


def _tracked(
    tracking: Tracking, folder: Path, name: str, kind: str, log_it: Callable[[Any, Any], None]
) -> None:
    """Opens a run and has it filled; a warning where wandb is absent or fails."""
    opened = _opened(tracking, folder, name, kind)
    if opened is None:
        return
    wandb, run = opened
    try:
        log_it(wandb, run)
        run.finish()
    except wandb.errors.Error as error:
        _given_up(tracking, error)
        return
    _say_where(tracking, folder)


def _opened(tracking: Tracking, folder: Path, name: str, kind: str) -> tuple[Any, Any] | None:
    """The package and a run of it; None where there shall be none, and with a warning where there cannot be one."""
    if tracking in (Tracking.off, Tracking.auto):
        return None
    try:
        wandb = importlib.import_module("wandb")
    except ImportError:
        log.warning(
            "tracking=%s: the package wandb is not installed, so nothing is tracked. Install retinue[tracking], "
            "or leave tracking off.",
            tracking.value,
        )
        return None
    kept = folder / "config.yaml"
    try:
        run = wandb.init(
            project="retinue",
            name=name,
            job_type=kind,
            mode=tracking.value,
            dir=str(folder),
            config=saved_options(kept) if kept.is_file() else {},
            settings=wandb.Settings(silent=True, console="off", init_timeout=INIT_SECONDS),
        )
    except wandb.errors.Error as error:
        _given_up(tracking, error)
        return None
    return wandb, run


def _given_up(tracking: Tracking, error: Exception) -> None:
    said = " ".join(str(error).split())
    log.warning("tracking=%s: %s Use tracking=offline, and `wandb sync` later.", tracking.value, said)


def _say_where(tracking: Tracking, folder: Path) -> None:
    if tracking is Tracking.offline:
        log.info("tracking: an offline run is in %s; `wandb sync` sends it", folder / "wandb")


def _log_backtest(wandb: Any, run: Any, folder: Path, found: Backtest) -> None:
    for step, scores in enumerate(by_origin(found)):
        run.log(scores, step=step)
    run.summary.update(summary(found))
    money = Money("")
    charts = (captured_chart(found, money), profit_chart(found, money), reliability_chart(found))
    table = found.scores.with_columns(pl.col(ORIGIN).dt.strftime("%Y-%m-%d"))
    run.log(
        {
            "backtest": _table(wandb, table),
            "sentinels": _table(wandb, found.sentinels),
            "page": wandb.Html((folder / "backtest.html").read_text(encoding="utf-8"), inject=False),
            **{chart.key: _plot(wandb, chart) for chart in charts},
        }
    )


def _log_training(wandb: Any, run: Any, checkpoint: Path, name: str, trained: Trained) -> None:
    kept = checkpoint / HELD_OUT_FILE
    held = pl.read_parquet(kept) if kept.is_file() else SCHEMA.to_frame()
    board, card = leaderboard(held), trained.card
    run.summary.update(
        {name: card[name] for name in SPENT if card.get(name) is not None} | held_scores(board)
    )
    run.log(
        {
            "leaderboard": _table(wandb, board),
            "page": wandb.Html(training_page(name, trained, held), inject=False),
            **{chart.key: _plot(wandb, chart) for chart in training_charts(trained, held)},
        }
    )
    lineage = {key: card[key] for key in ("data_fingerprint", "git_commit", "training_end", "key")}
    _used(run, _lineage(wandb, f"events-{name}", "events", {"fingerprint": card["data_fingerprint"]}))
    run.log_artifact(_whole(wandb, checkpoint, name, lineage))


def _log_curve(run: Any, curve: pl.DataFrame) -> None:
    for row in curve.iter_rows(named=True):
        shown = {name: value for name, value in row.items() if name != "step" and value is not None}
        run.log({f"train/{name}": value for name, value in shown.items()}, step=row["step"])


def _log_forecasts(wandb: Any, run: Any, checkpoint: Path, name: str, lineage: Mapping[str, Any]) -> None:
    _used(run, _whole(wandb, checkpoint, name, {"key": lineage["checkpoint_key"]}))
    run.log_artifact(_lineage(wandb, f"forecasts-{name}", "forecasts", lineage))


def _whole(wandb: Any, checkpoint: Path, name: str, told: Mapping[str, Any]) -> Any:
    """A checkpoint with its files."""
    made = wandb.Artifact(_plain(f"{checkpoint.name}-{name}"), type="checkpoint", metadata=dict(told))
    for path in sorted(each for each in checkpoint.rglob("*") if each.is_file()):
        made.add_file(str(path), name=path.relative_to(checkpoint).as_posix())  # add_dir writes to the screen
    return made


def _lineage(wandb: Any, name: str, kind: str, told: Mapping[str, Any]) -> Any:
    """An artifact that says what something is, without a row of it."""
    made = wandb.Artifact(_plain(name), type=kind, metadata=dict(told))
    with made.new_file("lineage.json") as file:
        json.dump(dict(told), file, indent=1)
    return made


def _used(run: Any, artifact: Any) -> None:
    """An input of the run; offline no input can be named, so there it is logged beside the outputs."""
    (run.log_artifact if run.offline else run.use_artifact)(artifact)


def _plain(name: str) -> str:
    """A name that W&B takes for an artifact."""
    return re.sub(r"[^\w.-]", "-", name)[:128]


def _table(wandb: Any, table: pl.DataFrame) -> Any:
    return wandb.Table(columns=table.columns, data=[list(row) for row in table.iter_rows()])


def _plot(wandb: Any, chart: Chart) -> Any:
    """The lines of a chart as a W&B plot."""
    return wandb.plot.line_series(
        xs=[trace["x"] for trace in chart.traces],
        ys=[trace["y"] for trace in chart.traces],
        keys=[trace["name"] for trace in chart.traces],
        title=chart.title,
        xname=chart.layout["xaxis"]["title"]["text"],
    )


def by_origin(found: Backtest) -> Iterator[dict[str, float]]:
    """Per origin, ascending, the leading scores of all customers, e.g. `by_origin/bg_nbd/value.gini`."""
    rows = found.scores.filter((pl.col(POPULATION) == "all") & pl.col(METRIC).is_in(list(DRAWN)))
    for origin in found.folds.origins:
        at = rows.filter(pl.col(ORIGIN) == origin).select(MODEL, METRIC, SCORE).drop_nulls()
        yield {f"by_origin/{model}/{metric}": value for model, metric, value in at.iter_rows()}


def summary(found: Backtest) -> dict[str, float]:
    """Pooled scores and errors of all customers, e.g. `bg_nbd/value.gini` and `bg_nbd/value.gini_error`."""
    rows = found.scores.filter((pl.col(POPULATION) == "all") & pl.col(ORIGIN).is_null())
    named = rows.select(MODEL, METRIC, SCORE, SCORE_ERROR).iter_rows()
    pairs = [
        (f"{model}/{metric}", value, error) for model, metric, value, error in named if value is not None
    ]
    return {name: value for name, value, _ in pairs} | {
        f"{name}_error": error for name, _, error in pairs if error is not None
    }


def held_scores(board: pl.DataFrame) -> dict[str, float]:
    """A training run's leaderboard by name, e.g. `held_out/network/90/log_score`."""
    return {
        f"held_out/{row['model'].lower().replace(' ', '_')}/{row['horizon_days']}/{name}": row[name]
        for row in board.to_dicts()
        for name in BOARD
        if row[name] is not None
    }
