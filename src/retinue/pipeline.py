"""The way through the house: what each stage does with the tables before it, and the judging of forecasts."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from retinue.accel.devices import memory_report
from retinue.accel.engine import choose_engine, collect
from retinue.cluster import spread_of
from retinue.config import as_yaml
from retinue.decisions.acquisition import acquisition, top_buys
from retinue.decisions.causes import reasons
from retinue.decisions.decide import budget_curve, customers_of, decide
from retinue.decisions.experiments.assign import assigned_in, running
from retinue.decisions.kpis import Snapshot, judged_elsewhere, kpi_table, progress
from retinue.decisions.offers import Offers, offers
from retinue.decisions.quadrants import quadrant_moves, quadrants
from retinue.evaluation.folds import check_origins, rolling_origins
from retinue.evaluation.realised import evaluate, realised
from retinue.evaluation.reconciliation import reconcile
from retinue.events.doctor import doctor
from retinue.events.prepare import check_unchanged, fingerprint, prepare
from retinue.events.store import Store, write_table, write_text
from retinue.events.timeline import days_before, history, instant, is_after, is_observed
from retinue.features.catalogue import LeftOut
from retinue.features.query import available_at
from retinue.features.table import build
from retinue.forecasting.backtest import Backtest, backtest, contenders
from retinue.forecasting.ladder import champion
from retinue.forecasting.ledger import About, Ledger, Reckoning, drift_since, mature, next_maturity
from retinue.forecasting.rungs import Scorer, fit_rung, training_at
from retinue.options import ActionOptions, EffectSource, Options, Rung
from retinue.reporting.activity import activity_tables
from retinue.reporting.backtest_page import build_backtest_page
from retinue.reporting.ledger_page import build_ledger_page
from retinue.reporting.report import build_report
from retinue.reporting.tables import ActionTables, ReportTables
from retinue.reporting.tracking import track
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
    CUSTOMER_ID,
    CUTOFF,
    EVENT_TIME,
    EVENT_TYPE,
    HORIZON_DAYS,
    MOVES,
    ORDER,
    QUALITY,
    SEGMENTS,
    VALUE_AT_STAKE,
    VALUE_IF_RETAINED,
    InputError,
)
from retinue.segments.fit import assign, fit_segments
from retinue.segments.lineage import lineage
from retinue.segments.migration import migration
from retinue.segments.model import SegmentModel
from retinue.segments.moves import moves
from retinue.segments.profiles import profiles
from retinue.sequences.tokens import write_tokens
from retinue.watchdog import time_limit

log = logging.getLogger("retinue")
STORIES = 500  # customers whose story the report tells
CURVE_STEPS = 12

__all__ = ["Run", "Stage", "advance", "run_backtest", "run_ledger"]


def _prepare(run: Run) -> None:
    spread = spread_of(run.options.engine)
    store = prepare(run.options.data, run.folder / "events", run.options.shards, run.progress, spread)
    write_tokens(store, run.folder / "tokens", run.progress, spread)


def _doctor(run: Run) -> None:
    write_table(QUALITY.check(doctor(run.store, run.horizon_days, run.cutoffs[-1])), run.table("quality"))


def left_out_lines(left_out: Sequence[LeftOut]) -> list[str]:
    """One line for the event types a base lacks, and one for each other reason, with how many features that costs."""
    reasons = Counter("" if "no events" in one.reason else one.reason for one in left_out)
    types = sorted({kind for one in left_out if "no events" in one.reason for kind in one.feature.types})
    reasons_in_words = {"": f"the base has no events of type {', '.join(types)}"}
    return [f"{reasons_in_words.get(why, why)}: {count} features left out" for why, count in reasons.items()]


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
    for line in left_out_lines(left_out):
        log.info("features: %s", line)

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


def _segment(run: Run) -> None:
    options, features = run.options, run.read("features")
    latest = features.filter(pl.col(CUTOFF) == run.cutoffs[-1])
    previous = SegmentModel.load(Path(options.segments.previous)) if options.segments.previous else None
    model = fit_segments(latest, options.segments, options.seed, choose_engine(options.engine), previous)
    segments = SEGMENTS.check(assign(model, features, options.segments))
    now = segments.filter(pl.col(CUTOFF) == run.cutoffs[-1])
    between, moved = migration(now.head(0), now), MOVES.schema.to_frame()
    if run.table("features_before").is_file():
        earlier = run.read("features_before")
        then = assign(model, earlier, options.segments)
        between = migration(then, now)
        moved = moves(model, (earlier, then), (latest, now), options.segments)
    write_table(moved, run.table("moves"))
    model.save(run.folder / "segment_model.json")
    write_table(profiles(model, latest, now), run.table("segment_profiles"))
    write_table(between, run.table("segment_migration"))
    write_table(lineage(model), run.table("segment_lineage"))
    write_table(segments, run.table("segments"))


def _forecast(run: Run) -> None:
    options, store, features = run.options, run.store, run.read("features")
    forecasts, metrics = [], {}
    for cutoff in run.cutoffs:
        known = features.filter(pl.col(CUTOFF) == cutoff)
        with_past = options.forecaster is not Rung.zero_shot  # which needs none
        training = training_at(store, cutoff, options.horizons, options, known, with_past)
        rung, scores = options.forecaster, None
        if rung is Rung.auto:
            rung, scores = champion(training)
            why = (
                "leads on held-out history"
                if scores.height
                else "the history is too short to try others so far ahead"
            )
            log.info("forecast: %s (%s)", rung.value, why)
            if training.unlikeness is not None and not training.is_familiar:
                log.warning(
                    "forecast: the base is unlike all that the base model has seen; fitted rungs decide"
                )
        scorer = fit_rung(rung, training)
        made = _with_reasons(run, scorer(known, options.horizons), scorer, training.buyers)
        if cutoff == run.cutoffs[-1]:
            write_table(_curves(run, made, scorer, training.buyers), run.table("curves"))
        forecasts.append(made)
        metrics[cutoff.isoformat()] = _metrics(run, made, cutoff, scorer, scores)
        if options.forecaster in (Rung.auto, Rung.zero_shot):
            metrics[cutoff.isoformat()]["unlikeness"] = training.unlikeness
    table = pl.concat(forecasts).sort(CUSTOMER_ID, CUTOFF, HORIZON_DAYS)
    latest = metrics[run.cutoffs[-1].isoformat()]
    write_text(
        json.dumps(latest | {"cutoffs": metrics}, indent=1, ensure_ascii=False), run.folder / "metrics.json"
    )
    write_table(table, run.table("forecasts"))
    _keep(run, table)


def _with_reasons(run: Run, made: pl.DataFrame, scorer: Scorer, buyers: pl.DataFrame) -> pl.DataFrame:
    """The forecasts with a cause for the customers with the most at stake."""
    stakes = quadrants(made, run.options.decisions).sort(
        VALUE_AT_STAKE, CUSTOMER_ID, descending=[True, False]
    )
    some = buyers.join(stakes.head(run.options.decisions.reasons_for), on=CUSTOMER_ID, how="semi")
    told = reasons(scorer.predictor, some, run.horizon_days)
    return made.join(told, on=[CUSTOMER_ID, CUTOFF], how="left", maintain_order="left")


def _curves(run: Run, made: pl.DataFrame, scorer: Scorer, buyers: pl.DataFrame) -> pl.DataFrame:
    """Forecasts at many horizons of the customers whose story the report tells: most at stake, and most valuable."""
    ranked = quadrants(made, run.options.decisions)
    some = [
        ranked.sort(column, CUSTOMER_ID, descending=[True, False]).head(STORIES // 2).select(CUSTOMER_ID)
        for column in (VALUE_AT_STAKE, VALUE_IF_RETAINED)
    ]
    chosen = buyers.join(pl.concat(some).unique(), on=CUSTOMER_ID, how="semi")
    longest = run.horizon_days
    days = sorted({max(1, round(longest * step / CURVE_STEPS)) for step in range(1, CURVE_STEPS + 1)})
    return scorer(chosen, days)


@dataclass(frozen=True)
class Offered:
    """The base at the latest cutoff, and what the menu would bring each of its customers.

    Attributes:
        forecasts: at all horizons.
        features: at that cutoff.
        segments: at that cutoff.
        quadrant: value x risk.
        customers: what the offers were made from, in the same order.
        made: the offers.
    """

    forecasts: pl.DataFrame
    features: pl.DataFrame
    segments: pl.DataFrame
    quadrant: pl.DataFrame
    customers: pl.DataFrame
    made: Offers


def offered(run: Run) -> Offered:
    """What could be done for whom, from finished tables."""
    options, latest = run.options, pl.col(CUTOFF) == run.cutoffs[-1]
    forecasts, features, segments = (
        run.read(name).filter(latest) for name in ("forecasts", "features", "segments")
    )
    quadrant = quadrants(forecasts, options.decisions)
    busy = running(assigned_in(run.folder), run.cutoffs[-1])
    customers = customers_of(quadrant, forecasts, features, segments, busy)
    menu = options.actions.actions
    made = offers(customers, menu, options.decisions, _measured(run, menu))
    return Offered(forecasts, features, segments, quadrant, customers, made)


def _decide(run: Run) -> None:
    options, menu, found = run.options, run.options.actions.actions, offered(run)
    forecasts, features, segments = found.forecasts, found.features, found.segments
    quadrant, customers, made = found.quadrant, found.customers, found.made
    decided = decide(customers, quadrant, made, menu, options.decisions, options.budget, options.seed)
    log.info("decide: net value within %.2g %% of the most that any allocation can reach", decided.gap * 100)
    write_table(decided.limits, run.table("limits"))
    write_table(budget_curve(customers, made, menu, options.decisions), run.table("budget_curve"))
    longest = forecasts.filter(pl.col(HORIZON_DAYS) == run.horizon_days)
    now = Snapshot(run.cutoffs[-1], features, segments, longest)
    figures = kpi_table(
        run.store, now, _before(run, forecasts.head(0)), options, judged_elsewhere(run.folder)
    )
    write_table(figures, run.table("kpis"))
    ways = acquisition(run.store, run.cutoffs[-1], features, longest, segments, options.value)
    write_table(ways, run.table("acquisition"))
    write_table(top_buys(run.store, run.cutoffs[-1], segments), run.table("top_buys"))
    earlier = Ledger(options.ledger_folder).before(run.cutoffs[-1], run.horizon_days)
    write_table(quadrant_moves(earlier, longest, features, options.decisions), run.table("quadrant_moves"))
    write_table(decided.table, run.table("decisions"))


def _before(run: Run, no_forecasts: pl.DataFrame) -> Snapshot | None:
    """The base `segments.compare_days` before the cutoff, in the segments of now."""
    if not run.table("features_before").is_file():
        return None
    features = run.read("features_before")
    model = SegmentModel.load(run.folder / "segment_model.json")
    return Snapshot(
        features[CUTOFF][0], features, assign(model, features, run.options.segments), no_forecasts
    )


def _measured(run: Run, menu: Mapping[str, ActionOptions]) -> dict[str, pl.DataFrame]:
    """Gains of the actions whose effects the base's own randomised campaigns measure; how well goes to uplift.json."""
    if not any(action.effect is EffectSource.measured for action in menu.values()):
        (run.folder / "uplift.json").unlink(missing_ok=True)
        return {}
    # econml takes seconds to import, and is needed here alone
    from retinue.decisions.experiments.measured import measured_effects, told  # noqa: PLC0415

    found = measured_effects(run.store, run.cutoffs[-1], menu, run.options)
    write_text(
        json.dumps({name: told(one) for name, one in found.items()}, indent=1), run.folder / "uplift.json"
    )
    return {name: one.gains for name, one in found.items()}


def _keep(run: Run, forecasts: pl.DataFrame) -> None:
    """Puts the forecasts into the base's ledger; the same run again changes nothing there."""
    segments = run.table("segments")
    about = About(
        run.read("features"),
        pl.read_parquet(segments) if segments.is_file() else None,
        run.store.observation_end,
        run.store.local_zone,
    )
    key = stage_key(Stage.forecast, run.options, run.store.manifest.mark)[:16]
    if Ledger(run.options.ledger_folder).append(key, forecasts, about):
        log.info("ledger: %d forecasts kept in %s", forecasts.height, run.options.ledger_folder)


def _metrics(
    run: Run, made: pl.DataFrame, cutoff: datetime, scorer: Scorer, scores: pl.DataFrame | None
) -> dict[str, Any]:
    """The totals of each horizon, what came true where the data cover it, and why not where they do not."""
    store = run.store
    found: dict[str, Any] = {
        "cutoff": cutoff.isoformat(),
        "model": scorer.rung.value,
        "totals": {},
        "realised": {},
        "not_realised": {},
    }
    if scores is not None:
        found["rungs"] = scores.to_dicts()
    for days in run.options.horizons:
        within = made.filter(pl.col(HORIZON_DAYS) == days)
        found["totals"][str(days)] = scorer.totals(within)
        if is_observed(store.observation_end, cutoff, days, store.local_zone):
            truth = realised(store.scan(), cutoff, days, store.local_zone).collect()
            found["realised"][str(days)] = evaluate(within, truth)
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
        reconciled=run.read("reconciled") if run.table("reconciled").is_file() else None,
        actions=_action_tables(run),
    )
    write_text(build_report(tables), run.folder / "report.html")


def _action_tables(run: Run) -> ActionTables:
    options, uplift = run.options, run.folder / "uplift.json"
    curves = run.read("curves")
    who = curves[CUSTOMER_ID].unique().implode()
    known = history(run.store.scan(), run.cutoffs[-1]).filter(pl.col(CUSTOMER_ID).is_in(who))
    kpis = run.read("kpis")
    effects = sorted(run.folder.glob("experiments/*/effects.parquet"))
    return ActionTables(
        menu=options.actions.name,
        limits=run.read("limits"),
        curve=run.read("budget_curve"),
        moves=run.read("quadrant_moves"),
        kpis=kpis,
        acquisition=run.read("acquisition"),
        buys=run.read("top_buys"),
        targets=progress(kpis, options.kpis.targets),
        months=options.kpis.months,
        experiments={path.parent.name: pl.read_parquet(path) for path in effects},
        uplift=json.loads(uplift.read_text(encoding="utf-8")) if uplift.is_file() else {},
        curves=curves,
        events=known.collect(),
    )


WORK: dict[Stage, Callable[[Run], None]] = {
    Stage.prepare: _prepare,
    Stage.doctor: _doctor,
    Stage.features: _features,
    Stage.segment: _segment,
    Stage.forecast: _forecast,
    Stage.decide: _decide,
    Stage.report: _report,
}


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
                WORK[stage](limited)
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


def run_backtest(options: Options, progress: Progress = unheard) -> tuple[Run, Backtest]:
    """Prepares the events and holds every rung against past futures; leaves backtest.parquet and backtest.html.

    Raises:
        InputError: a mistake in data or options, or data too short for the origins asked for.
    """
    run = advance(options, Stage.prepare, progress)
    store, days = run.store, run.horizon_days
    first = datetime.fromisoformat(store.manifest.first_event)
    origins = (
        run.cutoffs
        if options.cutoffs
        else rolling_origins(first, store.observation_end, days, options.origins, store.local_zone)
    )
    check_origins(origins, store.observation_end, days, store.local_zone)
    with only_run(run.folder):
        found = backtest(store, origins, days, contenders(options), options, progress)
        write_table(found.scores, run.table("backtest"))
        write_table(found.sentinels, run.table("backtest_sentinels"))
        currency = options.data.currency or store.manifest.currency
        write_text(
            build_backtest_page(options.data.name, currency, store.local_zone, found),
            run.folder / "backtest.html",
        )
    track(options.tracking, run.folder, options.data.name, found)
    return run, found


def run_ledger(options: Options, progress: Progress = unheard) -> tuple[Run, Reckoning]:
    """Forecasts, keeps the forecasts, and holds all kept ones that have matured against what came true.

    Leaves matured.parquet, reconciled.parquet, drift.parquet, ledger.html, and the report with its ledger section.

    Raises:
        InputError: a mistake in data or options.
    """
    advance(options, Stage.segment, progress)
    run = advance(options, Stage.forecast, progress)
    with only_run(run.folder):
        _keep(run, run.read("forecasts"))
        ledger = Ledger(options.ledger_folder)
        kept = ledger.read()
        matured = mature(kept, run.store)
        latest = run.read("features").filter(pl.col(CUTOFF) == run.cutoffs[-1])
        drift = drift_since(ledger, kept, latest)
        found = Reckoning(
            kept, matured, reconcile(matured), drift, next_maturity(kept, run.store), options.retrain_cost
        )
        write_table(matured, run.table("matured"))
        write_table(drift, run.table("drift"))
        write_table(found.reconciled, run.table("reconciled"))
        currency = options.data.currency or run.store.manifest.currency
        page = build_ledger_page(options.data.name, currency, run.store.local_zone, found)
        write_text(page, run.folder / "ledger.html")
    return advance(options, Stage.report, progress), found
