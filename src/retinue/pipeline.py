"""The way through the house: which stage follows which, what each reads and leaves, and what may be skipped."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import Enum
from functools import cache, partial
from pathlib import Path
from typing import Any

import polars as pl

from retinue.accel import choose_engine, collect
from retinue.config import Options, Rung, as_yaml
from retinue.decisions.quadrants import quadrants
from retinue.evaluation.realised import evaluate, realised
from retinue.events.doctor import doctor
from retinue.events.prepare import fingerprint, prepare
from retinue.events.store import Store, write_table, write_text
from retinue.events.timeline import check_cutoff, days_before, instant, is_after, is_observed
from retinue.features.catalogue import LeftOut
from retinue.features.query import available
from retinue.features.table import build
from retinue.forecasting.ladder import choose_rung
from retinue.forecasting.score import forecast
from retinue.reporting.activity import activity_tables
from retinue.reporting.report import build_report
from retinue.reporting.tables import ReportTables
from retinue.schema import (
    CUSTOMER_ID,
    CUTOFF,
    DECISIONS,
    FORECASTS,
    HORIZON_DAYS,
    QUALITY,
    SEGMENTS,
    InputError,
)
from retinue.segments.fit import assign, fit_segments
from retinue.segments.lineage import lineage
from retinue.segments.migration import migration
from retinue.segments.model import SegmentModel
from retinue.segments.profiles import profiles

log = logging.getLogger("retinue")


class Stage(Enum):
    """The stages in the order they run; each leaves finished tables and a stamp."""

    prepare = "prepare"
    doctor = "doctor"
    features = "features"
    segment = "segment"
    forecast = "forecast"
    report = "report"


NEEDS: dict[Stage, tuple[Stage, ...]] = {
    Stage.prepare: (),
    Stage.doctor: (Stage.prepare,),
    Stage.features: (Stage.prepare,),
    Stage.segment: (Stage.features,),
    Stage.forecast: (Stage.features,),
    Stage.report: (Stage.doctor, Stage.segment, Stage.forecast),
}

OUTPUTS: dict[Stage, tuple[str, ...]] = {
    Stage.prepare: ("events/manifest.json",),
    Stage.doctor: ("quality.parquet",),
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
def _only_run(folder: Path) -> Iterator[None]:
    """Holds the folder's lock; the kernel drops it with the process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
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


def _stage_options(stage: Stage, options: Options) -> Any:
    """The options that a stage's tables depend on."""
    match stage:
        case Stage.prepare:
            return [asdict(options.data), options.shards, fingerprint(options.data, options.shards)]
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
                asdict(options.value),
                asdict(options.decisions),
                options.seed,
            ]
        case Stage.report:
            return [options.horizons, options.data.name, asdict(options.value), asdict(options.decisions)]


def _text_of(path: str | None) -> str | None:
    """Content of the earlier segment model; its own reader says what is wrong with it."""
    return Path(path).read_text(encoding="utf-8", errors="replace") if path and Path(path).is_file() else path


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


def _prepare(run: Run) -> None:
    prepare(run.options.data, run.folder / "events", run.options.shards, run.progress)


def _doctor(run: Run) -> None:
    write_table(QUALITY.check(doctor(run.store, run.horizon_days, run.cutoffs[-1])), run.table("quality"))


def left_out_lines(left_out: Sequence[LeftOut]) -> list[str]:
    """One line for the event types a base lacks, and one for each other reason, with how many features that costs."""
    reasons = Counter("" if "no events" in one.reason else one.reason for one in left_out)
    types = sorted({kind for one in left_out if "no events" in one.reason for kind in one.feature.types})
    reasons_in_words = {"": f"the base has no events of type {', '.join(types)}"}
    return [f"{reasons_in_words.get(why, why)}: {count} features left out" for why, count in reasons.items()]


def _features(run: Run) -> None:
    store, cutoffs = run.store, run.cutoffs
    engine = choose_engine(run.options.engine)
    for line in left_out_lines(available(store.manifest)[1]):
        log.info("features: %s", line)

    def told(done: int, shards: int) -> None:
        run.progress("features", done / shards)

    # A shard fits in memory, where Polars' in-memory engine beats its streaming one.
    how = partial(collect, engine=engine) if engine.is_gpu else pl.LazyFrame.collect
    build(store, cutoffs, run.table("features"), told, collect=how)
    before = run.table("features_before")
    before.unlink(missing_ok=True)
    earlier = days_before(cutoffs[-1], run.options.segments.compare_days)
    if earlier != cutoffs[-1] and is_after(earlier, datetime.fromisoformat(store.manifest.first_event)):
        build(store, [earlier], before, collect=how)


def _segment(run: Run) -> None:
    options, features = run.options, run.read("features")
    latest = features.filter(pl.col(CUTOFF) == run.cutoffs[-1])
    previous = SegmentModel.load(Path(options.segments.previous)) if options.segments.previous else None
    model = fit_segments(latest, options.segments, options.seed, choose_engine(options.engine), previous)
    segments = SEGMENTS.check(assign(model, features, options.segments))
    now = segments.filter(pl.col(CUTOFF) == run.cutoffs[-1])
    moves = migration(now.head(0), now)
    if run.table("features_before").is_file():
        moves = migration(assign(model, run.read("features_before"), options.segments), now)
    model.save(run.folder / "segment_model.json")
    write_table(profiles(model, latest, now), run.table("segment_profiles"))
    write_table(moves, run.table("segment_migration"))
    write_table(lineage(model), run.table("segment_lineage"))
    write_table(segments, run.table("segments"))


def _forecast(run: Run) -> None:
    options, store, features = run.options, run.store, run.read("features")
    forecasts, metrics = [], {}
    for cutoff in run.cutoffs:
        rung, scores = options.forecaster, None
        if rung is Rung.auto:
            rung, scores = choose_rung(store, cutoff, run.horizon_days, options)
            log.info("forecast: %s, chosen on held-out history", rung.value)
        made = forecast(features.filter(pl.col(CUTOFF) == cutoff), options, rung, options.horizons)
        forecasts.append(FORECASTS.check(made))
        metrics[cutoff.isoformat()] = _metrics(run, made, cutoff, rung, scores)
    table = pl.concat(forecasts).sort(CUSTOMER_ID, CUTOFF, HORIZON_DAYS)
    latest = metrics[run.cutoffs[-1].isoformat()]
    decided = quadrants(table.filter(pl.col(CUTOFF) == run.cutoffs[-1]), options.decisions)
    write_text(
        json.dumps(latest | {"cutoffs": metrics}, indent=1, ensure_ascii=False), run.folder / "metrics.json"
    )
    write_table(DECISIONS.check(decided), run.table("decisions"))
    write_table(table, run.table("forecasts"))


def _metrics(
    run: Run, made: pl.DataFrame, cutoff: datetime, rung: Rung, scores: pl.DataFrame | None
) -> dict[str, Any]:
    """What came true at each horizon that the data cover, and why not at the others."""
    store = run.store
    found: dict[str, Any] = {
        "cutoff": cutoff.isoformat(),
        "model": rung.value,
        "realised": {},
        "not_realised": {},
    }
    if scores is not None:
        found["rungs"] = scores.to_dicts()
    for days in run.options.horizons:
        if is_observed(store.observation_end, cutoff, days):
            truth = realised(store.scan(), cutoff, days, store.local_zone).collect()
            found["realised"][str(days)] = evaluate(made.filter(pl.col(HORIZON_DAYS) == days), truth)
        else:
            end = f"{store.observation_end:%Y-%m-%d}"
            found["not_realised"][str(days)] = f"the data end on {end}, before cutoff + {days} days"
    return found


def _report(run: Run) -> None:
    options, store, cutoff = run.options, run.store, run.cutoffs[-1]
    latest = pl.col(CUTOFF) == cutoff
    tables = ReportTables(
        name=options.data.name,
        currency=options.data.currency or store.manifest.currency,
        cutoff=cutoff,
        horizon_days=run.horizon_days,
        horizons=options.horizons,
        manifest=store.manifest,
        features=run.read("features").filter(latest),
        segments=run.read("segments").filter(latest),
        segment_profiles=run.read("segment_profiles"),
        forecasts=run.read("forecasts").filter(latest),
        decisions=run.read("decisions"),
        quality=run.read("quality"),
        activity=activity_tables(store, cutoff, store.local_zone),
        value=options.value,
        quadrant_rules=options.decisions,
        migration=run.read("segment_migration"),
        metrics=json.loads((run.folder / "metrics.json").read_text(encoding="utf-8")),
    )
    write_text(build_report(tables), run.folder / "report.html")


WORK: dict[Stage, Callable[[Run], None]] = {
    Stage.prepare: _prepare,
    Stage.doctor: _doctor,
    Stage.features: _features,
    Stage.segment: _segment,
    Stage.forecast: _forecast,
    Stage.report: _report,
}


def advance(options: Options, until: Stage, progress: Progress = unheard) -> Run:
    """Brings the run folder up to a stage; stages whose inputs are unchanged are not run again.

    Raises:
        InputError: a mistake in data or options, or another run in the same folder.
    """
    run = Run(options, options.folder, progress)
    _check_output(run.folder)
    with _only_run(run.folder):
        choose_engine(options.engine)
        write_text(as_yaml(options), run.folder / "config.yaml")
        for stage in _chain(until):
            key = stage_key(stage, options)
            if is_fresh(run, stage, key):
                log.info("%s: unchanged, kept", stage.value)
                continue
            _stamp(run, stage).unlink(missing_ok=True)
            started = time.monotonic()
            WORK[stage](run)
            write_text(json.dumps({"key": key, "files": _sizes(run, stage)}), _stamp(run, stage))
            log.info("%s: done in %.1f s", stage.value, time.monotonic() - started)
    return run


def _check_output(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output={folder}: is a file; give a folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"output={folder}: cannot be made ({error.strerror}); give a folder you may write to."
        ) from error
