"""The way of an experiment: how large it must be, who is in which arm, and what it found, in <output>/experiments/<name>."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from retinue.decisions.experiments.analyse import (
    LEAST_PER_ARM,
    Found,
    Metric,
    Return,
    analyse,
    corrected_p,
    retention_return,
)
from retinue.decisions.experiments.assign import FILE, assign, assigned_in
from retinue.decisions.experiments.design import Past, customers_needed, designs
from retinue.decisions.foretold import foretold
from retinue.decisions.offers import in_holdout
from retinue.evaluation.realised import realised
from retinue.events.store import Store, write_table, write_text
from retinue.events.timeline import days_before, horizon_end, instant, is_after, is_observed
from retinue.options import Options
from retinue.pipeline import advance
from retinue.runs import Progress, Run, Stage, only_run, unheard
from retinue.schema import (
    ARM,
    ASSIGNMENTS,
    CUSTOMER_ID,
    CUTOFF,
    EFFECT,
    ENDS,
    GROUP,
    LIFECYCLE,
    METRIC,
    PROPENSITY,
    QUADRANT,
    REALISED_ORDERS,
    REALISED_SPEND,
    SEGMENT_NAME,
    STARTS,
    STRATUM,
    InputError,
)

KEPT = "kept (any order)"
FORETOLD = "foretold.parquet"
WINDOWS = (7, 14, 30, 60, 90, 180)
METRICS = (
    Metric("margin", "margin", "foretold_margin"),
    Metric("orders", "orders", "foretold_orders"),
    Metric(KEPT, "kept", "foretold_kept"),
    Metric("kept in the second half", "kept_later", "foretold_kept"),
    Metric("clv at the end", "clv_after", "foretold_clv"),
)

log = logging.getLogger(__name__)


def folder_of(options: Options) -> Path:
    """Where an experiment's tables stand."""
    return options.folder / "experiments" / options.experiments.name


def run_design(options: Options, progress: Progress = unheard) -> tuple[Run, pl.DataFrame, int | None]:
    """By length of the window: the smallest effect on margin per customer that would be found, and customers needed.

    The base's own past tells the variance: outcomes of the window that ended at the cutoff, beside the base model's
    forecast of them made before it.

    Raises:
        InputError: a mistake in data or options, or no past window.
    """
    run = advance(options, Stage.decide, progress)
    asked, people = options.experiments, _participants(run)
    sizes = {arm: int(people.height * share) for arm, share in asked.shares.items()}
    rows, needed = [], None
    for days in sorted({*WINDOWS, asked.days}):
        past = _past(run, people, days)
        if past is None:
            continue
        made = designs(past, sizes, asked.control, asked.power, asked.alpha)
        rows.append(made.select(pl.lit(days, pl.Int32).alias("days"), pl.all()))
        if days == asked.days and asked.effect is not None:
            share = 1 - asked.shares[asked.control]
            needed = customers_needed(past, asked.effect, share, asked.power, asked.alpha)
    if not rows:
        raise InputError(
            f"experiments.days={asked.days}: the data hold no past window so long. Ask for fewer days."
        )
    table = pl.concat(rows)
    write_table(table, folder_of(options) / "design.parquet")
    return run, table, needed


def run_assign(options: Options, progress: Progress = unheard) -> tuple[Run, pl.DataFrame]:
    """Draws the arms, and keeps what was forecast of each customer before anything was done.

    Raises:
        InputError: a mistake in data or options.
    """
    run = advance(options, Stage.decide, progress)
    asked, folder = options.experiments, folder_of(options)
    people = _participants(run)
    window = _window(options, run)
    with only_run(run.folder):
        made = assign(people, asked.name, asked.shares, window, asked.strata, assigned_in(options.folder))
        if made.is_empty():
            raise InputError(
                "experiments: nobody is left to take part; others run, or quadrants leave nobody."
            )
        _check_arms(made, asked.shares)
        said = foretold(run.store, run.cutoffs[-1], asked.days, options)[0].join(
            made.select(CUSTOMER_ID), on=CUSTOMER_ID, how="semi"
        )
        if (folder / FORETOLD).is_file():  # what was foretold before a customer was assigned stays
            kept = pl.read_parquet(folder / FORETOLD)
            said = pl.concat([kept, said.join(kept, on=CUSTOMER_ID, how="anti")])
        write_table(said, folder / FORETOLD)
        write_table(made, folder / FILE)
        write_text(json.dumps(asdict(asked) | {"shares": asked.shares}, indent=1), folder / "experiment.json")
    return run, made


def _check_arms(made: pl.DataFrame, shares: dict[str, float]) -> None:
    """Raises InputError where nobody was drawn for an arm, and warns where too few were to be analysed."""
    sizes = dict(made.group_by(ARM).len().iter_rows())
    for arm, share in shares.items():
        size, needed = sizes.get(arm, 0), LEAST_PER_ARM / made.height
        if not size:
            raise InputError(
                f"experiments.arms.{arm}={share:g}: nobody of the {made.height:,} customers who take part was drawn for it. "
                + (
                    f"Give it {math.ceil(needed * 1000) / 1000:g} or more, or leave it out."
                    if needed < 1
                    else "Leave it out."
                )
            )
        if size < LEAST_PER_ARM:
            log.warning(
                "experiment: arm '%s' has %d customers; an analysis needs %d in each arm",
                arm,
                size,
                LEAST_PER_ARM,
            )


def run_analyse(options: Options, progress: Progress = unheard) -> tuple[Run, Found]:
    """Compares the arms on all outcomes that the data cover so far; each call is a look, and the error is held over all.

    Raises:
        InputError: a mistake in data or options, nothing assigned, or no outcome yet.
    """
    run = advance(options, Stage.prepare, progress)
    folder, asked = folder_of(options), options.experiments
    path = folder / FILE
    if not path.is_file():
        raise InputError(
            f"experiments.name={asked.name}: nothing is assigned in {folder}. Run: retinue experiment assign …"
        )
    assigned, said = (
        ASSIGNMENTS.check(pl.read_parquet(path)),
        pl.read_parquet(folder / FORETOLD),
    )
    starts = assigned[STARTS][0]
    days = _days_between(starts, assigned[ENDS][0])
    observed = _observed(run.store, starts, days)
    if observed < 1:
        raise InputError(
            f"experiments.name={asked.name}: the data end on {run.store.observation_end:%Y-%m-%d} and hold no whole day after "
            f"the start on {starts:%Y-%m-%d}. Wait for outcomes."
        )
    rows = _outcomes(run, assigned, said, starts, observed)
    looks_path = folder / "looks.json"
    looks = json.loads(looks_path.read_text(encoding="utf-8")) if looks_path.is_file() else []
    looks = [look for look in looks if look < observed / days] + [observed / days]
    plan = json.loads((folder / "experiment.json").read_text(encoding="utf-8"))
    # plans of before hold no shares; the assignments then say those of the arms that somebody was drawn for
    shares = plan.get("shares") or dict(assigned.group_by(ARM).agg(pl.col(PROPENSITY).first()).iter_rows())
    control = plan["control"]
    analysis = analyse(rows, control, dict(sorted(shares.items())), METRICS, looks, asked.alpha)
    returns = {
        arm: retention_return(
            analysis.effects, arm, "margin", asked.cost * rows.filter(pl.col(ARM) == arm).height
        )
        for arm in shares
        if arm != control
    }
    with only_run(run.folder):
        write_table(analysis.effects, folder / "effects.parquet")
        write_text(json.dumps(looks), looks_path)
        write_text(
            json.dumps(_result(analysis.effects, returns, asked.name), indent=1), folder / "result.json"
        )
    return run, Found(analysis, corrected_p(analysis.effects), returns, observed / days)


def _result(effects: pl.DataFrame, returns: dict[str, Return], name: str) -> dict[str, Any]:
    """The experiment in a few numbers, for key figures and the report; the arm with the largest margin speaks."""
    arm = max(returns, key=lambda one: returns[one].margin[0])
    paid = returns[arm]
    kept = effects.filter((pl.col(ARM) == arm) & (pl.col(METRIC) == KEPT) & (pl.col(GROUP) == "all"))
    figures = {"save_rate": float(kept[EFFECT][0])} if kept.height else {}
    if paid.cost > 0:
        figures["retention_roi"] = paid.roi[0]
    return {"name": name, "arm": arm, "margin": paid.margin, "cost": paid.cost, "kpis": figures}


def _participants(run: Run) -> pl.DataFrame:
    """Customers with a decision who may take part: in the quadrants asked for, not suppressed, not in the global holdout."""
    options = run.options
    people = run.read("decisions").join(
        run.read("segments").select(CUSTOMER_ID, CUTOFF, SEGMENT_NAME, LIFECYCLE),
        on=[CUSTOMER_ID, CUTOFF],
        how="left",
    )
    people = people.filter((pl.col(LIFECYCLE) != "suppressed").fill_null(True))
    if options.experiments.quadrants:
        people = people.filter(pl.col(QUADRANT).is_in(options.experiments.quadrants))
    return people.filter(~pl.Series(in_holdout(people[CUSTOMER_ID], options.decisions.holdout)))


def _window(options: Options, run: Run) -> tuple[datetime, datetime]:
    asked, zone = options.experiments, run.store.local_zone
    cutoff = run.cutoffs[-1]
    starts = instant(asked.starts, zone, "experiments.starts") if asked.starts else cutoff
    if not is_after(starts, cutoff):
        raise InputError(
            f"experiments.starts={asked.starts}: lies before the cutoff ({cutoff:%Y-%m-%d}), whose forecast is the covariate: it "
            "would know outcomes. Give a later start, or an earlier cutoff."
        )
    return starts, horizon_end(starts, asked.days, zone)


def _days_between(starts: datetime, ends: datetime) -> int:
    return round((ends - starts) / timedelta(days=1))


def _observed(store: Store, starts: datetime, days: int) -> int:
    """Whole days after the start that the data cover, at most the window."""
    low, high = 0, days
    while low < high:
        middle = (low + high + 1) // 2
        if is_observed(store.observation_end, starts, middle, store.local_zone):
            low = middle
        else:
            high = middle - 1
    return low


def _past(run: Run, people: pl.DataFrame, days: int) -> Past | None:
    """Outcomes of the participants in the window that ended at the cutoff; None where the history is too short."""
    store, cutoff = run.store, run.cutoffs[-1]
    earlier = days_before(cutoff, days, store.local_zone)
    first = datetime.fromisoformat(store.manifest.first_event)
    if earlier - first < timedelta(days=days):
        return None
    said = foretold(store, earlier, days, run.options)[0].join(
        people.select(CUSTOMER_ID), on=CUSTOMER_ID, how="semi"
    )
    if said.height < 2:
        return None
    came = realised(store.scan(), earlier, days, store.local_zone).collect()
    rows = said.join(came, on=CUSTOMER_ID, how="left", maintain_order="left")
    spend = rows[REALISED_SPEND].fill_null(0.0).to_numpy() * run.options.value.margin_rate
    return Past(np.asarray(spend, np.float64), rows["foretold_margin"].to_numpy())


def _outcomes(
    run: Run, assigned: pl.DataFrame, said: pl.DataFrame, starts: datetime, days: int
) -> pl.DataFrame:
    """One row per assigned customer: arm, stratum, outcomes so far, and what was foretold."""
    store, zone = run.store, run.store.local_zone
    came = realised(store.scan(), starts, days, zone).collect()
    half = max(days // 2, 1)
    later = came.select(CUSTOMER_ID, REALISED_ORDERS)
    if days > 1:
        middle = horizon_end(starts, half, zone)
        later = (
            realised(store.scan(), middle, days - half, zone).collect().select(CUSTOMER_ID, REALISED_ORDERS)
        )
    after, _ = foretold(store, horizon_end(starts, days, zone), run.horizon_days, run.options)
    return (
        assigned.select(CUSTOMER_ID, ARM, STRATUM)
        .join(came, on=CUSTOMER_ID, how="left", maintain_order="left")
        .join(later.rename({REALISED_ORDERS: "later"}), on=CUSTOMER_ID, how="left", maintain_order="left")
        .join(
            after.select(CUSTOMER_ID, pl.col("foretold_clv").alias("clv_after")),
            on=CUSTOMER_ID,
            how="left",
            maintain_order="left",
        )
        .join(said, on=CUSTOMER_ID, how="left", maintain_order="left")
        .select(
            CUSTOMER_ID,
            ARM,
            STRATUM,
            (pl.col(REALISED_SPEND).fill_null(0.0) * run.options.value.margin_rate).alias("margin"),
            pl.col(REALISED_ORDERS).fill_null(0.0).alias("orders"),
            (pl.col(REALISED_ORDERS).fill_null(0.0) > 0).cast(pl.Float64).alias("kept"),
            (pl.col("later").fill_null(0.0) > 0).cast(pl.Float64).alias("kept_later"),
            pl.col("clv_after").fill_null(0.0),
            pl.col("foretold_margin", "foretold_orders", "foretold_kept", "foretold_clv").fill_null(0.0),
        )
    )
