"""Plausible report tables from a seeded simulation of buyers with gamma rates and lifetimes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from retinue.config import resolve
from retinue.decisions import quadrant_moves, quadrants
from retinue.decisions.decide import budget_curve, customers_of, decide
from retinue.decisions.kpis import progress
from retinue.decisions.offers import offers
from retinue.events.store import Manifest, Store, write_table
from retinue.options import DecisionOptions, ValueOptions
from retinue.reporting import ActivityTables, ReportTables, activity_tables
from retinue.reporting.tables import DAYS_SINCE_LAST, ORDERS_EVER, ActionTables
from retinue.schema import (
    ACQUISITION,
    AMOUNT,
    ASSIGNMENTS,
    BASE,
    CLV,
    CLV_LOWER,
    CLV_UPPER,
    CUSTOMER,
    CUSTOMER_ID,
    CUSTOMERS,
    CUTOFF,
    DESCRIPTION,
    EVENT_TIME,
    EVENT_TYPE,
    EVIDENCE,
    EXPECTED_ORDERS,
    EXPECTED_SPEND,
    EXPERIMENT_EFFECTS,
    FORECASTS,
    HORIZON_DAYS,
    KNOWN_TIME,
    KPIS,
    LIFECYCLE,
    MIGRATION,
    MODEL,
    NAMED_CAUSE,
    NET_SPEND_EVER,
    NEXT_ORDER_DAYS,
    ORDER,
    P_CHURN,
    QUALITY,
    SEGMENT,
    SEGMENT_NAME,
    SEGMENTS,
    TOP_BUYS,
    UTC_TIME,
)

CUTOFF_AT = datetime(2014, 12, 31, 23, 59, 59, 999999, UTC)
START = datetime(2013, 1, 1, tzinfo=UTC)
_NAMES = {
    1: "Frequent big spenders",
    2: "Steady middle-sized baskets",
    3: "One-time buyers, long silent",
    4: "New customers with a first order",
}


def manifest(events: pl.DataFrame, shards: int = 1, **changes: Any) -> Manifest:
    """What a store of these events would say of itself."""
    made = Manifest(
        fingerprint="0f1e2d3c4b5a69788796a5b4c3d2e1f0",
        shards=shards,
        rows_in=events.height + 57,
        rows_kept=events.height,
        rows_quarantined=40,
        rows_duplicate=17,
        events=events.height,
        customers=events[CUSTOMER].n_unique(),
        columns=events.columns,
        event_types=dict(events.group_by(EVENT_TYPE).len().sort(EVENT_TYPE).iter_rows()),
        first_event=str(events[EVENT_TIME].min()),
        last_event=str(events[EVENT_TIME].max()),
        observation_end=CUTOFF_AT.isoformat(),
        observation_end_given=False,
        time_zone="UTC",
        local_zone="UTC",
        has_clock=True,
        currency="GBP",
        notes=[],
    )
    return replace(made, **changes)


def event_table(rows: list[tuple[str, int, datetime]], kind: str = ORDER) -> pl.DataFrame:
    """Events from (customer_id, customer, time)."""
    frame = pl.DataFrame(
        rows, schema={CUSTOMER_ID: pl.String, CUSTOMER: pl.Int64, EVENT_TIME: UTC_TIME}, orient="row"
    )
    return frame.with_columns(
        pl.lit("shop").alias(BASE),
        pl.col(EVENT_TIME).alias(KNOWN_TIME),
        pl.lit(kind).alias(EVENT_TYPE),
        pl.lit(10.0).alias(AMOUNT),
    )


def store_of(events: pl.DataFrame, folder: Path, shards: int = 1) -> Store:
    """A store of these events, sharded as the contract says."""
    made = Store(folder, manifest(events, shards))
    for shard in range(shards):
        mine = events.filter(pl.col(CUSTOMER) % shards == shard).sort(CUSTOMER, EVENT_TIME)
        write_table(mine, made.shard_path(shard))
    made.write_manifest()
    return made


def simulated_events(customers: int, seed: int) -> pl.DataFrame:
    """Orders of buyers who join over two years, buy at gamma rates and leave after exponential lifetimes."""
    random = np.random.default_rng(seed)
    span = (CUTOFF_AT - START).days
    rows = []
    for i in range(customers):
        now, rate = float(random.uniform(0, span)), float(random.gamma(0.8, 1 / 45))
        leaves = now + float(random.exponential(260))
        while now < min(leaves, span):
            rows.append((f"C{i:05d}", 7919 * i + 13, START + timedelta(minutes=int(now * 1440))))
            now += float(random.exponential(1 / max(rate, 1e-4)))
    events = event_table(rows)
    worth = 12 + 30 * random.gamma(1.2, 1.0, customers)
    spread = random.lognormal(0, 0.4, events.height)
    order = events[CUSTOMER].to_numpy() // 7919
    return events.with_columns(pl.Series(AMOUNT, np.round(worth[order] * spread, 2)))


def features_of(events: pl.DataFrame) -> pl.DataFrame:
    """The few features that the report reads."""
    return (
        events.group_by(CUSTOMER_ID, CUSTOMER)
        .agg(
            pl.len().cast(pl.Float64).alias(ORDERS_EVER),
            pl.col(AMOUNT).sum().alias(NET_SPEND_EVER),
            ((CUTOFF_AT - pl.col(EVENT_TIME).max()).dt.total_days()).cast(pl.Float64).alias(DAYS_SINCE_LAST),
            ((CUTOFF_AT - pl.col(EVENT_TIME).min()).dt.total_days() + 1).cast(pl.Float64).alias("T_days"),
        )
        .with_columns(pl.lit(CUTOFF_AT, UTC_TIME).alias(CUTOFF))
        .sort(CUSTOMER_ID)
    )


def forecasts_of(features: pl.DataFrame, horizon_days: int) -> pl.DataFrame:
    """A simple forecast: the own rate, shrunk, fading with silence."""
    rate = (pl.col(ORDERS_EVER) - 0.6) / (pl.col("T_days") + 90)
    fading = (-pl.col(DAYS_SINCE_LAST) * rate * 0.8).exp() * (-pl.col(DAYS_SINCE_LAST) / 500).exp()
    each = pl.col(NET_SPEND_EVER) / pl.col(ORDERS_EVER)
    orders = (rate * fading * horizon_days).alias(EXPECTED_ORDERS)
    return (
        features.with_columns(orders)
        .with_columns(
            (-pl.col(EXPECTED_ORDERS)).exp().alias(P_CHURN),
            (pl.col(EXPECTED_ORDERS) * each).alias(EXPECTED_SPEND),
        )
        .with_columns(
            pl.lit(horizon_days, pl.Int32).alias(HORIZON_DAYS),
            pl.lit("pareto_nbd").alias(MODEL),
            (pl.col(EXPECTED_SPEND) * 0.95).alias(CLV),
            pl.when(pl.col(P_CHURN) > 0.05)
            .then(0.0)
            .otherwise(pl.col(EXPECTED_SPEND) * 0.3)
            .alias(CLV_LOWER),
            (pl.col(EXPECTED_SPEND) * 2.4 + 0.2 * each).alias(CLV_UPPER),
            pl.when(pl.col(P_CHURN) < 0.5).then(horizon_days * 0.5).otherwise(None).alias(NEXT_ORDER_DAYS),
        )
        .select(FORECASTS.schema.names())
        .sort(CUSTOMER_ID, HORIZON_DAYS)
    )


def segments_of(features: pl.DataFrame) -> pl.DataFrame:
    """Segments and stages by plain rules."""
    silent, orders = pl.col(DAYS_SINCE_LAST), pl.col(ORDERS_EVER)
    segment = (
        pl.when(pl.col("T_days") < 90).then(4).when(orders < 2).then(3).when(orders < 6).then(2).otherwise(1)
    )
    stage = (
        pl.when(pl.col("T_days") < 90)
        .then(pl.lit("new"))
        .when(silent < 60)
        .then(pl.lit("active"))
        .when(silent < 150)
        .then(pl.lit("cooling"))
        .when(silent < 300)
        .then(pl.lit("dormant"))
        .otherwise(pl.lit("lapsed"))
    )
    placed = features.with_columns(segment.cast(pl.Int32).alias(SEGMENT), stage.alias(LIFECYCLE))
    names = pl.col(SEGMENT).replace_strict(_NAMES, return_dtype=pl.String).alias(SEGMENT_NAME)
    return placed.with_columns(names).select(SEGMENTS.schema.names()).sort(CUSTOMER_ID)


def metrics_of(horizon_days: int) -> dict[str, Any]:
    """Scores in the form of metrics.json."""
    deciles = [
        {"decile": i + 1, "customers": 300, "predicted": 900 * 0.6**i, "realised": 930 * 0.58**i}
        for i in range(10)
    ]
    reliability = [
        {"predicted": p, "realised": min(1.0, p + 0.03), "customers": n}
        for p, n in zip((0.05, 0.25, 0.45, 0.65, 0.85, 0.96), (120, 240, 300, 500, 800, 1040), strict=True)
    ]
    scores = {
        "cutoff": CUTOFF_AT.isoformat(), "horizon_days": horizon_days, "customers": 3000,
        "churn": {"auroc": 0.763, "brier": 0.166, "log_loss": 0.51, "ece": 0.021, "reliability": reliability},
        "orders": {"rmse": 1.726, "bias_percent": -13.0, "log_score": 1.02},
        "value": {"gini": 0.719, "mae": 31.7, "mae_of_mean": 33.1, "rmse": 112.4, "bias_percent": -12.0,
                  "coverage_90": 0.91, "deciles": deciles, "crps": None},
        "all_zero": {"churn": {"auroc": 0.5}, "orders": {"rmse": 2.08}, "value": {"mae": 32.96, "rmse": 131.0}},
    }  # fmt: skip
    rungs = [
        {"model": "pareto_nbd", "log_score": 0.5012, "chosen": True},
        {"model": "bg_nbd", "log_score": 0.5101, "chosen": False},
    ]
    return {
        "cutoff": CUTOFF_AT.isoformat(), "model": "pareto_nbd", "realised": {str(horizon_days): scores},
        "not_realised": {}, "rungs": rungs,
    }  # fmt: skip


def migration_of(segments: pl.DataFrame) -> pl.DataFrame:
    """A made-up migration: most stay, some slide to the next stage."""
    rows = []
    for dimension, column in (("segment", SEGMENT_NAME), ("lifecycle", LIFECYCLE)):
        names = segments[column].unique().sort().to_list()
        for i, name in enumerate(names):
            rows += [
                (dimension, name, name, 300 - 20 * i, 0.75),
                (dimension, name, names[(i + 1) % len(names)], 100, 0.25),
            ]
        rows.append((dimension, "not there yet", names[0], 55, 1.0))
    return pl.DataFrame(rows, schema=MIGRATION.schema, orient="row")


def profiles_of(segments: pl.DataFrame) -> pl.DataFrame:
    """Descriptions of the segments."""
    return (
        segments.group_by(SEGMENT, SEGMENT_NAME)
        .agg(pl.len().cast(pl.Int64).alias(CUSTOMERS))
        .sort(SEGMENT)
        .with_columns(pl.format("{} customers with habits of their own.", CUSTOMERS).alias(DESCRIPTION))
    )


def quality_rows() -> pl.DataFrame:
    """Findings, deliberately not worst first."""
    rows = [
        ("fact", "rows", "61,402 rows read: 61,345 used, 40 set aside, 17 exact duplicates.", None),
        (
            "warning",
            "identity",
            "rows without a customer id: 40 (0.1%).",
            "Map another column with data.columns.customer_id=…",
        ),
        (
            "warning",
            "span",
            "24 months of data hold one whole yearly cycle beside the horizon.",
            "Add earlier history.",
        ),
    ]
    return pl.DataFrame(rows, schema=QUALITY.schema, orient="row")


def empty_activity() -> ActivityTables:
    """Activity of a base with no order."""
    return activity_tables_of(event_table([]))


def activity_tables_of(events: pl.DataFrame, folder: Path | None = None) -> ActivityTables:
    """Activity tables by way of a store in a folder that is thrown away."""
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        return activity_tables(store_of(events, Path(folder or place)), CUTOFF_AT, "UTC")


def report_tables(customers: int = 300, seed: int = 5, **changes: Any) -> ReportTables:
    """Everything a report needs, from a simulated base."""
    events = simulated_events(customers, seed)
    features = features_of(events)
    forecasts = pl.concat([forecasts_of(features, h) for h in (90, 365)]).sort(CUSTOMER_ID, HORIZON_DAYS)
    segments = segments_of(features)
    made = ReportTables(
        name="demo shop",
        currency="GBP",
        cutoff=CUTOFF_AT,
        horizon_days=365,
        horizons=[90, 365],
        manifest=manifest(events),
        features=features,
        segments=segments,
        segment_profiles=profiles_of(segments),
        forecasts=forecasts,
        decisions=quadrants(forecasts, DecisionOptions()),
        quality=quality_rows(),
        activity=activity_tables_of(events),
        value=ValueOptions(),
        quadrant_rules=DecisionOptions(),
        migration=migration_of(segments),
        metrics=metrics_of(365),
    )
    return replace(made, **changes)


def with_actions(tables: ReportTables) -> ReportTables:
    """The same with causes, decisions under a budget, key figures, a measured effect and an experiment."""
    menu, rules = resolve(["actions=retail"]).actions.actions, DecisionOptions()
    longest = tables.forecasts.filter(pl.col(HORIZON_DAYS) == 365)
    told = longest.with_columns(
        pl.lit("service").alias(NAMED_CAUSE), pl.lit("2 tickets <in> 90 days").alias(EVIDENCE)
    )
    quadrant = quadrants(longest, rules)
    customers = customers_of(quadrant, told, tables.features, tables.segments, ASSIGNMENTS.schema.to_frame())
    made = offers(customers, menu, rules)
    decided = decide(customers, quadrant, made, menu, rules, 50.0)
    events = simulated_events(40, 1).with_columns(
        pl.Series(
            CUSTOMER_ID,
            [tables.decisions[CUSTOMER_ID][i % 30] for i in range(simulated_events(40, 1).height)],
        )
    )
    figures = pl.DataFrame(
        [
            ("churn_rate", "all", "all", 0.2, 0.25, "share", 300, "lagging"),
            ("churn_rate", "segment", "one", 0.1, None, "share", 30, "lagging"),
        ],
        schema=KPIS.schema, orient="row",
    )  # fmt: skip
    effects = pl.DataFrame(
        [("treated", "margin", "all", 150, 150, 10.0, 12.0, 2.0, 0.5, 3.5, 0.01)],
        schema=EXPERIMENT_EFFECTS.schema,
        orient="row",
    )
    curve = {
        "share": [0.0, 0.5, 1.0],
        "gain": [0.0, 2.0, 2.5],
        "lower": [0.0, 1.0, 1.0],
        "upper": [0.0, 3.0, 4.0],
    }
    tenth = {"tenth": 1, "customers": 30, "predicted": 1.0, "estimated": 1.2, "error": 0.3}
    learnt = {
        "mean": [2.5, 0.5],
        "treated": 150,
        "control": 150,
        "qini": [0.7, 0.2, 1.1],
        "curve": curve,
        "calibration": [tenth],
    }
    actions = ActionTables(
        menu="retail",
        limits=decided.limits,
        moves=quadrant_moves(
            told.with_columns(pl.col(CUTOFF).dt.offset_by("-90d"), pl.col(P_CHURN).reverse()),
            told,
            tables.features,
            rules,
        ),
        curve=budget_curve(customers, made, menu, rules),
        kpis=figures,
        acquisition=ACQUISITION.schema.to_frame(),
        buys=TOP_BUYS.schema.to_frame(),
        targets=progress(figures, {"churn_rate": -0.1}),
        months=6,
        experiments={"winback": effects},
        uplift={"push": learnt},
        curves=tables.forecasts.filter(
            pl.col(CUSTOMER_ID).is_in(tables.decisions[CUSTOMER_ID].head(30).implode())
        ),
        events=events,
    )
    return replace(tables, decisions=decided.table, actions=actions)
