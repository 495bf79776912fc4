"""What the later stages do: segments, forecasts, decisions and the report, from finished tables."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from retinue.accel.engine import choose_engine
from retinue.decisions.acquisition import acquisition, top_buys
from retinue.decisions.causes import reasons
from retinue.decisions.decide import budget_curve, customers_of, decide
from retinue.decisions.experiments.assign import assigned_in, running
from retinue.decisions.kpis import Snapshot, judged_elsewhere, kpi_table, progress
from retinue.decisions.offers import Offers, offers
from retinue.decisions.quadrants import quadrant_moves, quadrants
from retinue.evaluation.realised import evaluate, realised
from retinue.events.store import write_table, write_text
from retinue.events.timeline import history, is_observed
from retinue.forecasting.ladder import champion
from retinue.forecasting.ledger import About, Ledger
from retinue.forecasting.rungs import Scorer, fit_rung, training_at
from retinue.options import ActionOptions, EffectSource, Rung
from retinue.reporting.activity import activity_tables
from retinue.reporting.report import build_report
from retinue.reporting.tables import ActionTables, ReportTables
from retinue.runs import (
    Run,
    Stage,
    stage_key,
)
from retinue.schema import (
    CUSTOMER_ID,
    CUTOFF,
    HORIZON_DAYS,
    MOVES,
    SEGMENTS,
    VALUE_AT_STAKE,
    VALUE_IF_RETAINED,
)
from retinue.segments.fit import assign, fit_segments
from retinue.segments.lineage import lineage
from retinue.segments.migration import migration
from retinue.segments.model import SegmentModel
from retinue.segments.moves import moves
from retinue.segments.profiles import profiles

log = logging.getLogger("retinue")
STORIES = 500  # customers whose story the report tells
CURVE_STEPS = 12


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
    keep(run, table)


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


def keep(run: Run, forecasts: pl.DataFrame) -> None:
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


HEAVY: dict[Stage, Callable[[Run], None]] = {
    Stage.segment: _segment,
    Stage.forecast: _forecast,
    Stage.decide: _decide,
    Stage.report: _report,
}
