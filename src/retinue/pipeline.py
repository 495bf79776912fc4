"""The way through the house: which stage follows which, what each reads and leaves, and what may be skipped."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from retinue.accel import choose_engine
from retinue.config import Options, as_yaml
from retinue.events.prepare import fingerprint
from retinue.events.store import Store, write_text
from retinue.events.timeline import instant
from retinue.schema import InputError

log = logging.getLogger("retinue")


class Stage(Enum):
    """The stages in the order they run; each leaves finished tables and a stamp."""

    prepare = "prepare"
    features = "features"
    segment = "segment"
    forecast = "forecast"
    report = "report"


NEEDS: dict[Stage, tuple[Stage, ...]] = {
    Stage.prepare: (),
    Stage.features: (Stage.prepare,),
    Stage.segment: (Stage.features,),
    Stage.forecast: (Stage.features,),
    Stage.report: (Stage.segment, Stage.forecast),
}

OUTPUTS: dict[Stage, tuple[str, ...]] = {
    Stage.prepare: ("events/manifest.json", "quality.parquet"),
    Stage.features: ("features.parquet", "features_before.parquet"),
    Stage.segment: (
        "segments.parquet",
        "segment_profiles.parquet",
        "segment_lineage.parquet",
        "segment_migration.parquet",
        "segment_model.json",
    ),
    Stage.forecast: ("forecasts.parquet", "decisions.parquet", "metrics.json"),
    Stage.report: ("report.html",),
}

Progress = Callable[[str, float], None]


def unheard(text: str, done: float) -> None:
    """The progress of callers that want none."""


@dataclass(frozen=True)
class Run:
    """One run folder with the options that fill it."""

    options: Options
    folder: Path
    progress: Progress = unheard

    def table(self, name: str) -> Path:
        """Path of a table by name, e.g. `forecasts`."""
        return self.folder / f"{name}.parquet"

    def read(self, name: str) -> pl.DataFrame:
        """A finished table."""
        return pl.read_parquet(self.table(name))

    @property
    def store(self) -> Store:
        """The prepared events."""
        return Store.open(self.folder / "events")

    @property
    def cutoffs(self) -> list[datetime]:
        """Cutoffs as instants, ascending; the end of observation where none was given."""
        store = self.store
        given = [instant(text, store.local_zone) for text in self.options.cutoffs]
        return sorted(set(given)) or [store.observation_end]


@contextmanager
def _only_run(folder: Path) -> Iterator[None]:
    """Holds the folder's lock; the kernel drops it with the process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"output={folder}: another run is writing there. Wait for it, or give another output.") from error
        yield


@cache
def _code_fingerprint() -> str:
    """Changes when any of our source files does, so that no table outlives the code that made it."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _stage_options(stage: Stage, options: Options) -> Any:
    """The options that a stage's tables depend on."""
    match stage:
        case Stage.prepare:
            return [asdict(options.data), options.shards, fingerprint(options.data, options.shards)]
        case Stage.features:
            return [options.cutoffs, options.segments.compare_days]
        case Stage.segment:
            previous = options.segments.previous
            return [asdict(options.segments), options.seed, Path(previous).read_text() if previous else None]
        case Stage.forecast:
            return [options.horizons, options.forecaster, asdict(options.value), asdict(options.decisions), options.seed]
        case Stage.report:
            return [options.horizons, options.data.name, asdict(options.value), asdict(options.decisions)]


def stage_key(stage: Stage, options: Options) -> str:
    """What a stage's tables follow from: code, its options, and the keys of the stages it needs."""
    parts = [_code_fingerprint(), stage.value, _stage_options(stage, options)]
    parts += [stage_key(need, options) for need in NEEDS[stage]]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _stamp(run: Run, stage: Stage) -> Path:
    return run.folder / ".stages" / f"{stage.value}.json"


def _sizes(run: Run, stage: Stage) -> dict[str, int]:
    paths = [run.folder / name for name in OUTPUTS[stage]]
    if stage is Stage.prepare:
        paths += sorted((run.folder / "events").glob("*.parquet"))
    return {str(p.relative_to(run.folder)): p.stat().st_size for p in paths if p.is_file()}


def is_fresh(run: Run, stage: Stage, key: str) -> bool:
    """Whether the stage was finished from the same inputs and its files still stand as it left them."""
    path = _stamp(run, stage)
    if not path.is_file():
        return False
    stamp = json.loads(path.read_text(encoding="utf-8"))
    return bool(stamp == {"key": key, "files": _sizes(run, stage)})


def _chain(stage: Stage) -> list[Stage]:
    """The stage and all it needs, in running order."""
    needed = {stage}
    for later in reversed(Stage):
        if later in needed:
            needed.update(NEEDS[later])
    return [s for s in Stage if s in needed]


def advance(options: Options, until: Stage, progress: Progress = unheard) -> Run:
    """Brings the run folder up to a stage; stages whose inputs are unchanged are not run again.

    Raises:
        InputError: a mistake in data or options, or another run in the same folder.
    """
    from retinue import stages

    run = Run(options, options.folder, progress)
    _check_output(run.folder)
    with _only_run(run.folder):
        log.info(choose_engine(options.engine).reason)
        write_text(as_yaml(options), run.folder / "config.yaml")
        for stage in _chain(until):
            key = stage_key(stage, options)
            if is_fresh(run, stage, key):
                log.info("%s: unchanged, kept", stage.value)
                continue
            _stamp(run, stage).unlink(missing_ok=True)
            started = time.monotonic()
            stages.WORK[stage](run)
            write_text(json.dumps({"key": key, "files": _sizes(run, stage)}), _stamp(run, stage))
            log.info("%s: done in %.1f s", stage.value, time.monotonic() - started)
    return run


def _check_output(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output={folder}: is a file; give a folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output={folder}: cannot be made ({error.strerror}); give a folder you may write to.") from error
