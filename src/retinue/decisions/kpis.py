"""Key figures in one table: each with its definition in docs/kpis.md, by group, now and before."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from retinue.evaluation.drift import LARGE, feature_drift, feature_profiles
from retinue.evaluation.realised import realised
from retinue.events.store import Store
from retinue.events.timeline import days_before, history, is_observed
from retinue.options import Options
from retinue.schema import (
    CLV,
    CUSTOMER_ID,
    CUSTOMERS,
    CUTOFF,
    DIMENSION,
    EVENT_TYPE,
    EXPECTED_ORDERS,
    FREQUENCY,
    GROUP,
    HORIZON_DAYS,
    KPI,
    KPI_BEFORE,
    KPI_UNIT,
    KPI_VALUE,
    KPIS,
    LIFECYCLE,
    P_CHURN,
    PSI,
    RATING,
    REALISED_ORDERS,
    SEGMENT_NAME,
    SIGNAL,
    T_DAYS,
)

ALL = "all"
LEADING, LAGGING = "leading", "lagging"
TENURE = ((90, "under 3 months"), (365, "3 to 12 months"), (730, "1 to 2 years"))
TOP, MIDDLE, LOWER = "top 10 %", "next 40 %", "lower half"
GROUPS = {
    "cohort": "acquisition quarter",
    "segment": "segment",
    "tenure": "tenure",
    "tier": "tier",
    "channel": "channel",
}


@dataclass(frozen=True)
class Figure:
    """One key figure: how it is counted from a customer's row, and whether it foretells."""

    name: str
    unit: str
    signal: str
    value: pl.Expr
    needs: tuple[str, ...]
    by: tuple[str, ...] = ()


def _mean(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Float64).mean()


def _ratio(over: str, under: str) -> pl.Expr:
    below = pl.col(under).cast(pl.Float64).sum()
    return pl.when(below > 0).then(pl.col(over).cast(pl.Float64).sum() / below)


EVERY = ("cohort", "segment", "tenure", "tier", "channel")
FIGURES = (
    Figure("repeat_purchase_rate", "share", LAGGING, (pl.col(FREQUENCY) > 0).mean(), (FREQUENCY,), EVERY),
    Figure("orders_per_customer_90d", "orders", LAGGING, _mean("orders_90d"), ("orders_90d",), EVERY),
    Figure("orders_per_customer", "orders", LAGGING, _mean("orders_ever"), ("orders_ever",), EVERY),
    Figure(
        "days_since_last_order_median", "days", LAGGING, pl.col("days_since_last").cast(pl.Float64).median(),
        ("days_since_last",), EVERY,
    ),
    Figure(
        "average_order_value", "account currency", LAGGING, _ratio("net_spend_ever", "orders_ever"),
        ("net_spend_ever", "orders_ever"), EVERY,
    ),
    Figure("net_spend_90d", "account currency", LAGGING, pl.col("net_spend_90d").sum(), ("net_spend_90d",), EVERY),
    Figure("margin_90d", "account currency", LAGGING, pl.col("margin_90d").sum(), ("margin_90d",), ("segment", "tier")),
    Figure("churn_rate", "share", LAGGING, 1 - _ratio("came_again", "was_active"), ("was_active",), EVERY),
    Figure("retention_rate", "share", LAGGING, _ratio("came_again", "was_active"), ("was_active",), EVERY),
    Figure("refund_rate", "share", LAGGING, _ratio("refund_value_ever", "ordered_ever"), ("ordered_ever",), EVERY),
    Figure("csat", "share", LAGGING, _ratio("satisfied", "surveys"), ("surveys",), ("segment", "tier")),
    Figure("nps", "score", LAGGING, 100 * _ratio("promotes", "surveys"), ("surveys",), ("segment", "tier")),
    Figure("expected_churn_rate", "share", LEADING, _mean(P_CHURN), (P_CHURN,), EVERY),
    Figure("expected_orders_per_customer", "orders", LEADING, _mean(EXPECTED_ORDERS), (EXPECTED_ORDERS,), EVERY),
    Figure("clv_per_customer", "account currency", LEADING, _mean(CLV), (CLV,), EVERY),
    Figure("at_risk_share", "share", LEADING, _mean("at_risk"), ("at_risk",), EVERY),
    Figure(
        "cooling_or_dormant_share", "share", LEADING, pl.col(LIFECYCLE).is_in(["cooling", "dormant"]).mean(), (LIFECYCLE,),
        ("segment", "tier"),
    ),
    Figure("new_customers_share", "share", LEADING, (pl.col(LIFECYCLE) == "new").mean(), (LIFECYCLE,)),
    Figure("visits_per_customer_30d", "visits", LEADING, _mean("visits_30d"), ("visits_30d",), ("segment",)),
    Figure("email_open_rate", "share", LEADING, _mean("email_open_rate"), ("email_open_rate",), ("segment",)),
    Figure("open_tickets_per_customer", "tickets", LEADING, _mean("open_tickets"), ("open_tickets",), ("segment",)),
)  # fmt: skip


@dataclass(frozen=True)
class Snapshot:
    """A base at one cutoff; `forecasts` is empty where none was made."""

    cutoff: datetime
    features: pl.DataFrame
    segments: pl.DataFrame
    forecasts: pl.DataFrame


def kpi_table(
    store: Store,
    now: Snapshot,
    before: Snapshot | None,
    options: Options,
    more: Mapping[str, float] | None = None,
) -> pl.DataFrame:
    """The `kpis` table: every figure that the base can have, for all customers and by group.

    Args:
        store: prepared events.
        now: at the cutoff.
        before: the same customers' base `segments.compare_days` earlier; forecasts may be empty.
        options: value, decisions, segments.
        more: figures of the whole base that are counted elsewhere (save rate, retention ROI), all lagging.
    """
    rows = _rows(store, now, options)
    told = [_of(rows)]
    earlier = None
    if before is not None and before.features.height:
        earlier = _of(_rows(store, before, options))
    table = pl.concat(told)
    keys = [KPI, DIMENSION, GROUP]
    if earlier is None:
        table = table.with_columns(pl.lit(None, pl.Float64).alias(KPI_BEFORE))
    else:
        table = table.join(
            earlier.select(*keys, pl.col(KPI_VALUE).alias(KPI_BEFORE)),
            on=keys,
            how="left",
            maintain_order="left",
        )
    judged = {**_trigger(store, now, options), **(more or {})}
    signals = [(name, value, LAGGING) for name, value in judged.items()]
    if before is not None and before.features.height and now.features.height:
        drifted = feature_drift(feature_profiles(before.features, "before"), now.features)
        signals.append(("drifted_features_share", float((drifted[PSI] >= LARGE).mean() or 0.0), LEADING))  # type: ignore[arg-type]
    extra = pl.DataFrame(
        [
            (name, ALL, ALL, value, None, _unit(name), now.features.height, signal)
            for name, value, signal in signals
        ],
        schema=KPIS.schema,
        orient="row",
    )
    return KPIS.check(pl.concat([table.select(KPIS.schema.names()), extra]))


def _unit(name: str) -> str:
    return "ratio" if name == "retention_roi" else "share"


def _of(rows: pl.DataFrame) -> pl.DataFrame:
    return pl.concat(list(_figures(rows)))


def _figures(rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    for figure in FIGURES:
        if not set(figure.needs) <= set(rows.columns):
            continue
        for dimension in (ALL, *figure.by):
            if dimension != ALL and dimension not in rows.columns:
                continue
            key = pl.lit(ALL).alias(GROUP) if dimension == ALL else pl.col(dimension).alias(GROUP)
            yield (
                rows.with_columns(key)
                .filter(pl.col(GROUP).is_not_null())
                .group_by(GROUP)
                .agg(figure.value.cast(pl.Float64).alias(KPI_VALUE), pl.len().cast(pl.Int64).alias(CUSTOMERS))
                .sort(GROUP)
                .select(
                    pl.lit(figure.name).alias(KPI), pl.lit(dimension).alias(DIMENSION), GROUP, KPI_VALUE,
                    pl.lit(figure.unit).alias(KPI_UNIT), CUSTOMERS, pl.lit(figure.signal).alias(SIGNAL),
                )
            )  # fmt: skip


def _rows(store: Store, at: Snapshot, options: Options) -> pl.DataFrame:
    """One row per customer who has ordered, with the groups and all that figures count."""
    keys = [CUSTOMER_ID, CUTOFF]
    rows = at.features.filter(pl.col(FREQUENCY).is_not_null())
    rows = rows.join(
        at.segments.select(*keys, pl.col(SEGMENT_NAME).alias("segment"), LIFECYCLE), on=keys, how="left"
    )
    if at.forecasts.height:
        longest = at.forecasts.filter(pl.col(HORIZON_DAYS) == pl.col(HORIZON_DAYS).max())
        rows = rows.join(longest.select(*keys, P_CHURN, EXPECTED_ORDERS, CLV), on=keys, how="left")
        rows = rows.with_columns((pl.col(P_CHURN) >= options.decisions.risk_threshold).alias("at_risk"))
    rows = rows.with_columns(_groups(rows))
    rows = _with_money(rows, options)
    return _with_surveys(
        store, at.cutoff, _with_retention(store, at.cutoff, rows, options.segments.compare_days or 90)
    )


def _groups(rows: pl.DataFrame) -> list[pl.Expr]:
    tenure = pl.lit("over 2 years")
    for days, name in reversed(TENURE):
        tenure = pl.when(pl.col(T_DAYS) < days).then(pl.lit(name)).otherwise(tenure)
    found = [tenure.alias("tenure")]
    if "acquisition_month" in rows.columns:
        month = pl.col("acquisition_month").cast(pl.Date, strict=False)
        quarter = pl.format("{} Q{}", month.dt.year(), month.dt.quarter())
        found.append(pl.when(month.is_not_null()).then(quarter).alias("cohort"))
    if "acquisition_channel" in rows.columns:
        found.append(pl.col("acquisition_channel").alias("channel"))
    spend = pl.col("net_spend_ever") if "net_spend_ever" in rows.columns else pl.col(FREQUENCY)
    place = spend.cast(pl.Float64).fill_null(0.0).rank("ordinal", descending=True) / pl.len()
    tier = (
        pl.when(place <= 0.1)
        .then(pl.lit(TOP))
        .when(place <= 0.5)
        .then(pl.lit(MIDDLE))
        .otherwise(pl.lit(LOWER))
    )
    return [*found, tier.alias("tier")]


def _with_money(rows: pl.DataFrame, options: Options) -> pl.DataFrame:
    made = []
    if "net_spend_90d" in rows.columns:
        own = pl.col("margin_rate") if "margin_rate" in rows.columns else pl.lit(None, pl.Float64)
        made.append((pl.col("net_spend_90d") * own.fill_null(options.value.margin_rate)).alias("margin_90d"))
    if {"net_spend_ever", "refund_value_ever"} <= set(rows.columns):
        made.append(
            (pl.col("net_spend_ever") + pl.col("refund_value_ever").fill_null(0.0)).alias("ordered_ever")
        )
    return rows.with_columns(made)


def _with_retention(store: Store, cutoff: datetime, rows: pl.DataFrame, days: int) -> pl.DataFrame:
    """Who ordered in the window before the last, and of these who came again in the last."""
    zone = store.local_zone
    middle = days_before(cutoff, days, zone)
    start = days_before(cutoff, 2 * days, zone)
    if datetime.fromisoformat(store.manifest.first_event) > start:
        return rows
    known = history(store.scan(), cutoff)
    active = realised(known, start, days, zone).filter(pl.col(REALISED_ORDERS) > 0)
    # new customers of the first window are not in `realised` of its start: they are active as well
    first = realised(known, middle, days, zone).collect()
    new = rows.filter(pl.col(T_DAYS).is_between(days, 2 * days, closed="left")).select(CUSTOMER_ID)
    was = pl.concat([active.select(CUSTOMER_ID).collect(), new]).unique()
    came = first.filter(pl.col(REALISED_ORDERS) > 0).select(CUSTOMER_ID)
    was = was.with_columns(pl.lit(1.0).alias("was_active"))
    came = came.with_columns(pl.lit(1.0).alias("came"))
    told = rows.join(was, on=CUSTOMER_ID, how="left").join(came, on=CUSTOMER_ID, how="left")
    return told.with_columns(
        pl.col("was_active").fill_null(0.0),
        (pl.col("was_active").fill_null(0.0) * pl.col("came").fill_null(0.0)).alias("came_again"),
    )


def _with_surveys(store: Store, cutoff: datetime, rows: pl.DataFrame) -> pl.DataFrame:
    """Each customer's surveys: how many, how many satisfied (4 or 5 of 5), and promoters (5) less detractors (3 or less)."""
    scan = history(store.scan(), cutoff)
    if RATING not in scan.collect_schema():
        return rows
    rating = pl.col(RATING)
    told = (
        scan.filter((pl.col(EVENT_TYPE) == "survey") & rating.is_not_null())
        .group_by(CUSTOMER_ID)
        .agg(
            pl.len().cast(pl.Float64).alias("surveys"),
            (rating >= 4).sum().cast(pl.Float64).alias("satisfied"),
            ((rating > 4.5).cast(pl.Float64) - (rating < 3.5).cast(pl.Float64)).sum().alias("promotes"),
        )
        .collect()
    )
    return rows.join(told, on=CUSTOMER_ID, how="left") if told.height else rows


def _trigger(store: Store, now: Snapshot, options: Options) -> dict[str, float]:
    """Precision, recall and F1 of who was called at risk, and predicted against realised totals, once it came true."""
    if not now.forecasts.height:
        return {}
    days = int(now.forecasts[HORIZON_DAYS].max())  # type: ignore[arg-type]
    if not is_observed(store.observation_end, now.cutoff, days, store.local_zone):
        return {}
    came = realised(store.scan(), now.cutoff, days, store.local_zone).collect()
    rows = now.forecasts.filter(pl.col(HORIZON_DAYS) == days).join(came, on=CUSTOMER_ID, how="inner")
    called = rows[P_CHURN] >= options.decisions.risk_threshold
    left = rows[REALISED_ORDERS] == 0
    hits = int((called & left).sum())
    precision = hits / max(int(called.sum()), 1)
    recall = hits / max(int(left.sum()), 1)
    total, expected = float(rows[REALISED_ORDERS].sum()), float(rows[EXPECTED_ORDERS].sum())
    told = {"trigger_precision": precision, "trigger_recall": recall}
    told["trigger_f1"] = 2 * precision * recall / (precision + recall) if hits else 0.0
    told["predicted_over_realised_churn"] = float(rows[P_CHURN].sum()) / max(int(left.sum()), 1)
    if total:
        told["predicted_over_realised_orders"] = expected / total
    return told


@dataclass(frozen=True)
class Target:
    """A target with how far the figure has come; all as shares of what it was before."""

    kpi: str
    aim: float
    change: float | None
    progress: float | None


def progress(table: pl.DataFrame, targets: Mapping[str, float]) -> list[Target]:
    """How far base-wide figures have come towards their targets; unknown figures have no change."""
    told = []
    whole = table.filter(pl.col(DIMENSION) == ALL)
    for name, aim in targets.items():
        row = whole.filter(pl.col(KPI) == name).to_dicts()
        now, before = (row[0][KPI_VALUE], row[0][KPI_BEFORE]) if row else (None, None)
        change = now / before - 1 if now is not None and before else None
        told.append(Target(name, aim, change, change / aim if change is not None and aim else None))
    return told


def judged_elsewhere(folder: Path) -> dict[str, float]:
    """Save rate and retention ROI of the experiments analysed in a run folder; the last by name counts."""
    told: dict[str, float] = {}
    for path in sorted(folder.glob("experiments/*/result.json")):
        told |= json.loads(path.read_text(encoding="utf-8"))["kpis"]
    return told
