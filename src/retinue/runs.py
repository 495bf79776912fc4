"""A run folder: the stages in their order, what each leaves, the stamps that let a finished one be kept, and the lock."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from retinue.config import shipped_base_model
from retinue.events.prepare import fingerprint
from retinue.events.store import Store
from retinue.events.timeline import check_cutoff, instant, is_after
from retinue.options import Options
from retinue.schema import InputError


class Stage(Enum):
    """The stages in the order they run; each leaves finished tables and a stamp."""

    prepare = "prepare"
    doctor = "doctor"
    features = "features"
    segment = "segment"
    forecast = "forecast"
    decide = "decide"
    report = "report"


NEEDS: dict[Stage, tuple[Stage, ...]] = {
    Stage.prepare: (),
    Stage.doctor: (Stage.prepare,),
    Stage.features: (Stage.prepare,),
    Stage.segment: (Stage.features,),
    Stage.forecast: (Stage.features,),
    Stage.decide: (Stage.segment, Stage.forecast),
    Stage.report: (Stage.doctor, Stage.decide),
}

OUTPUTS: dict[Stage, tuple[str, ...]] = {
    Stage.prepare: ("events/manifest.json", "tokens/manifest.json"),
    Stage.doctor: ("quality.parquet",),
    Stage.features: ("features.parquet", "features_before.parquet"),
    Stage.segment: (
        "segments.parquet",
        "segment_profiles.parquet",
        "segment_lineage.parquet",
        "segment_migration.parquet",
        "moves.parquet",
        "segment_model.json",
    ),
    Stage.forecast: ("forecasts.parquet", "curves.parquet", "metrics.json"),
    Stage.decide: (
        "decisions.parquet",
        "limits.parquet",
        "budget_curve.parquet",
        "quadrant_moves.parquet",
        "kpis.parquet",
        "acquisition.parquet",
        "top_buys.parquet",
    ),
    Stage.report: ("report.html",),
}

log = logging.getLogger(__name__)
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
        """Cutoffs as instants, ascending; the end of observation where none was given.

        Raises:
            InputError: a cutoff before the first event.
        """
        store = self.store
        given = sorted({instant(text, store.local_zone) for text in self.options.cutoffs}) or [
            store.observation_end
        ]
        for cutoff in given:
            check_cutoff(cutoff, datetime.fromisoformat(store.manifest.first_event))
        return given

    @property
    def horizon_days(self) -> int:
        """The leading horizon: the longest."""
        return self.options.horizons[-1]


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Holds the folder's lock; the kernel drops it with the process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise InputError(f"{path}: is a symbolic link, which a run does not follow. Remove it.") from error
    with os.fdopen(descriptor, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"output={folder}: another run is writing there. Wait for it, or give another output."
            ) from error
        yield


@cache
def _code_fingerprint() -> str:
    """Changes when any of our source files does, so that no table outlives the code that made it."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _stage_options(stage: Stage, options: Options, mark: str | None) -> Any:  # noqa: PLR0911
    """The options that a stage's tables depend on."""
    match stage:
        case Stage.prepare:
            return [asdict(options.data), options.shards, mark or fingerprint(options.data, options.shards)]
        case Stage.doctor:
            return [options.cutoffs, options.horizons]
        case Stage.features:
            return [options.cutoffs, options.segments.compare_days]
        case Stage.segment:
            return [asdict(options.segments), options.seed, _text_of(options.segments.previous)]
        case Stage.forecast:
            return [
                options.horizons,
                options.forecaster,
                options.segments.new_days,
                asdict(options.value),
                options.decisions.reasons_for,
                options.seed,
                [asdict(options.model), asdict(options.training)],
                options.rungs,
                _text_of(f"{options.init}/card.json" if options.init else None),
                _text_of(str(Path(options.base_model or shipped_base_model()) / "card.json")),
            ]
        case Stage.decide:
            elsewhere = sorted(options.folder.glob("experiments/*/result.json"))
            assigned = sorted(options.folder.glob("experiments/*/assignments.parquet"))
            return [
                [asdict(options.decisions), asdict(options.actions), options.budget, options.seed],
                asdict(options.value),
                [_text_of(str(path)) for path in elsewhere],
                [hashlib.sha256(path.read_bytes()).hexdigest() for path in assigned],
                sorted(path.name for path in options.ledger_folder.glob("*.parquet")),
            ]
        case Stage.report:
            reconciled = options.folder / "reconciled.parquet"
            seen = hashlib.sha256(reconciled.read_bytes()).hexdigest() if reconciled.is_file() else None
            return [
                options.horizons,
                options.data.name,
                asdict(options.value),
                asdict(options.decisions),
                asdict(options.kpis),
                seen,
                [_text_of(str(path)) for path in sorted(options.folder.glob("experiments/*/result.json"))],
            ]


def _text_of(path: str | None) -> str | None:
    """Content of an earlier segment model or a base model's card; its own reader says what is wrong with it."""
    return Path(path).read_text(encoding="utf-8", errors="replace") if path and Path(path).is_file() else path


def stage_key(stage: Stage, options: Options, mark: str | None = None) -> str:
    """What a stage's tables follow from: code, its options, and the keys of the stages it needs.

    Args:
        stage: which.
        options: of the run.
        mark: of the input as it was when the work began: its fingerprint, or the mark of the store made of it. None reads
            the files as they are now.
    """
    parts = [_code_fingerprint(), stage.value, _stage_options(stage, options, mark)]
    parts += [stage_key(need, options, mark) for need in NEEDS[stage]]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def stamp_path(run: Run, stage: Stage) -> Path:
    """Says that the stage is finished, and from which inputs."""
    return run.folder / ".stages" / f"{stage.value}.json"


def checksums(run: Run, stage: Stage) -> dict[str, str]:
    """Size and CRC-32 of each file that the stage has left."""
    paths = [run.folder / name for name in OUTPUTS[stage]]
    if stage is Stage.prepare:
        paths += sorted((run.folder / "events").glob("*.parquet"))
        paths += sorted((run.folder / "tokens").glob("shard-*/*.npy"))
    return {str(p.relative_to(run.folder)): _checksum(p) for p in paths if p.is_file()}


def _checksum(path: Path) -> str:
    crc, size = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            crc, size = zlib.crc32(chunk, crc), size + len(chunk)
    return f"{size}-{crc:08x}"


def is_fresh(run: Run, stage: Stage, key: str) -> bool:
    """Whether the stage was finished from the same inputs and its files still stand as it left them."""
    path = stamp_path(run, stage)
    if not path.is_file():
        return False
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        log.warning("%s: cannot be read; the stage is done again", path)
        return False
    if not isinstance(stamp, dict) or stamp.get("key") != key or stamp.get("files") != checksums(run, stage):
        return False
    return stage is not Stage.prepare or not _future_has_come(run)


def _future_has_come(run: Run) -> bool:
    """Whether rows that were set aside as lying in the future no longer do."""
    future_from = run.store.manifest.future_from
    return future_from is not None and is_after(datetime.now(UTC), datetime.fromisoformat(future_from))


def chain(stage: Stage) -> list[Stage]:
    """The stage and all it needs, in running order."""
    needed = {stage}
    for later in reversed(Stage):
        if later in needed:
            needed.update(NEEDS[later])
    return [s for s in Stage if s in needed]


def check_output(folder: Path) -> None:
    """Makes the folder, or raises InputError."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output={folder}: is a file; give a folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"output={folder}: cannot be made ({error.strerror}); give a folder you may write to."
        ) from error
