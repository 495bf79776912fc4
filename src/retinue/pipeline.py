"""The way through the house: what each stage does with the tables before it, and the judging of forecasts."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from zoneinfo import ZoneInfo

import polars as pl

from retinue.accel.devices import memory_report
from retinue.accel.engine import choose_engine, collect
from retinue.cluster import spread_of
from retinue.config import as_yaml
from retinue.events.doctor import doctor
from retinue.events.prepare import check_unchanged, fingerprint, prepare
from retinue.events.store import Store, write_table, write_text
from retinue.events.timeline import days_before, instant, is_after
from retinue.features.query import available_at
from retinue.features.table import build
from retinue.options import Options
from retinue.runs import (
    Progress,
    Run,
    Stage,
    chain,
    check_output,
    checksums,
    is_fresh,
    only_run,
    stage_key,
    stamp_path,
    unheard,
)
from retinue.schema import (
    EVENT_TIME,
    EVENT_TYPE,
    ORDER,
    QUALITY,
    InputError,
)
from retinue.sequences.tokens import write_tokens
from retinue.watchdog import time_limit

log = logging.getLogger("retinue")

__all__ = ["Run", "Stage", "advance"]


def _prepare(run: Run) -> None:
    spread = spread_of(run.options.engine)
    store = prepare(run.options.data, run.folder / "events", run.options.shards, run.progress, spread)
    write_tokens(store, run.folder / "tokens", run.progress, spread)


def _doctor(run: Run) -> None:
    write_table(QUALITY.check(doctor(run.store, run.horizon_days, run.cutoffs[-1])), run.table("quality"))


def _check_orders(store: Store, cutoff: datetime) -> None:
    """Raises InputError where all orders lie after the cutoff."""
    orders = store.scan().filter(pl.col(EVENT_TYPE) == ORDER)
    first = orders.select(pl.col(EVENT_TIME).min()).collect(engine="streaming").item()
    if first is not None and not is_after(cutoff, first):
        day = f"{first.astimezone(ZoneInfo(store.local_zone)):%Y-%m-%d}"
        raise InputError(
            f"cutoff={cutoff.astimezone(ZoneInfo(store.local_zone)):%Y-%m-%d}: not one order lies by it, so there is nobody to "
            f"forecast; the first order is of {day}. Give a later cutoff."
        )


def _features(run: Run) -> None:
    store, cutoffs = run.store, run.cutoffs
    _check_orders(store, cutoffs[-1])
    engine = choose_engine(run.options.engine)
    kept, left_out = available_at(store.scan(), cutoffs[-1], store.local_zone)
    if left_out:
        of = len(kept) + len(left_out)
        log.info(
            "features: %d of %d left out, as the base lacks what they need; retinue features names each",
            len(left_out),
            of,
        )

    def told(done: int, shards: int) -> None:
        run.progress("features", done / shards)

    # A shard fits in memory, where Polars' in-memory engine beats its streaming one.
    how = partial(collect, engine=engine) if engine.is_gpu else pl.LazyFrame.collect
    build(store, cutoffs, run.table("features"), told, kept, how, spread_of(run.options.engine))
    before = run.table("features_before")
    before.unlink(missing_ok=True)
    earlier = days_before(cutoffs[-1], run.options.segments.compare_days, store.local_zone)
    if earlier != cutoffs[-1] and is_after(earlier, datetime.fromisoformat(store.manifest.first_event)):
        build(store, [earlier], before, features=kept, collect=how)


LIGHT: dict[Stage, Callable[[Run], None]] = {
    Stage.prepare: _prepare,
    Stage.doctor: _doctor,
    Stage.features: _features,
}


def _work(stage: Stage, run: Run) -> None:
    """Does a stage; those that need torch, scikit-learn or Plotly import them here."""
    if stage in LIGHT:
        LIGHT[stage](run)
        return
    from retinue.stages import HEAVY  # noqa: PLC0415

    HEAVY[stage](run)


def advance(options: Options, until: Stage, progress: Progress = unheard) -> Run:
    """Brings the run folder up to a stage; stages whose inputs are unchanged are not run again.

    Raises:
        InputError: a mistake in data or options, or another run in the same folder.
    """
    run = Run(options, options.folder, progress)
    for text in options.cutoffs:
        instant(text, "UTC")  # a slip is told before hours of work, not after
    check_output(run.folder)
    mark = files = fingerprint(options.data, options.shards)
    with only_run(run.folder):
        engine = choose_engine(options.engine)
        for stage in chain(until):
            if stage is not Stage.prepare:
                run.cutoffs  # noqa: B018 (a cutoff before all events is refused before a table is touched)
            key = stage_key(stage, options, mark)
            if is_fresh(run, stage, key):
                log.info("%s: unchanged, kept", stage.value)
                mark = run.store.manifest.mark
                continue
            stamp_path(run, stage).unlink(missing_ok=True)
            started = time.monotonic()
            with _limited(run, stage) as limited:
                _work(stage, limited)
            mark = run.store.manifest.mark
            if stage is Stage.prepare and run.store.manifest.fingerprint != files:
                check_unchanged(options.data, options.shards, files)
            write_text(json.dumps({"key": key, "files": checksums(run, stage)}), stamp_path(run, stage))
            log.info("%s: done in %.1f s", stage.value, time.monotonic() - started)
            seen = logging.INFO if engine.is_gpu else logging.DEBUG  # a GPU is full sooner than a host
            log.log(seen, "%s: memory in GiB %s", stage.value, memory_report())
        check_unchanged(options.data, options.shards, files)
        write_text(as_yaml(options), run.folder / "config.yaml")
    return run


@contextmanager
def _limited(run: Run, stage: Stage) -> Iterator[Run]:
    """The run, ended with one line where the stage takes longer than run.stage_timeout_minutes."""
    minutes = run.options.run.stage_timeout_minutes
    if minutes is None:
        yield run
        return
    message = (
        f"error {stage.value}: took longer than run.stage_timeout_minutes={minutes:g} and was ended at: {{at}}. Finished stages "
        "are kept. Give it more minutes, fewer customers or a simpler forecaster, and run the same command again."
    )
    with time_limit(minutes * 60, message) as limit:
        last = ["its start"]

        def noted(text: str, done: float) -> None:
            last[0] = f"{text}, {done:.0%}"
            limit.at(last[0])
            run.progress(text, done)

        try:
            yield replace(run, progress=noted)
        except KeyboardInterrupt:
            if limit.is_over:
                raise InputError(message.removeprefix("error ").replace("{at}", last[0])) from None
            raise
