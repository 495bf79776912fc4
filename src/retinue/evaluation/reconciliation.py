"""Matured forecasts held against what came true, by group and horizon, and whether making new ones would pay."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from retinue.evaluation.drift import LARGE
from retinue.schema import (
    COHORT,
    CUSTOMER_ID,
    CUSTOMERS,
    CUTOFF,
    DECILE,
    DIMENSION,
    EXPECTED_ORDERS,
    EXPECTED_SPEND,
    FEATURE,
    GROUP,
    HORIZON_DAYS,
    LEDGER_SEGMENT,
    P_CHURN,
    PREDICTED_CHURN,
    PREDICTED_ORDERS,
    PREDICTED_SPEND,
    PSI,
    REALISED_CHURN,
    REALISED_ORDERS,
    REALISED_SPEND,
    RECKONED_CUTOFF,
    RECONCILED,
    SPEND_GAP_ERROR,
    SUPERSEDED,
    VALUE_TIER,
)

ALL = "all"
DIMENSIONS = {
    ALL: pl.lit("all customers"),
    "decile": pl.col(DECILE).cast(pl.String).str.zfill(2),
    "value tier": pl.col(VALUE_TIER),
    "segment": pl.col(LEDGER_SEGMENT).fill_null("no segment"),
    "cohort": pl.col(COHORT),
}
STANDARD_ERRORS = 2.0


def reconcile(matured: pl.DataFrame) -> pl.DataFrame:
    """The `reconciled` table: predicted and realised totals of every group, per horizon and cutoff and pooled.

    Horizons are never added up. Superseded forecasts are left out. The error of the spend gap is clustered by customer.

    Args:
        matured: the `matured` table.
    """
    counted = matured.filter(~pl.col(SUPERSEDED))
    parts = [pl.DataFrame(schema=RECONCILED.schema)]
    for name, group in DIMENSIONS.items():
        rows = counted.with_columns(pl.lit(name).alias(DIMENSION), group.alias(GROUP))
        parts += [
            _totals(rows),
            _totals(rows.with_columns(pl.lit(None, RECKONED_CUTOFF.dtype).alias(CUTOFF))),
        ]
    keys = [DIMENSION, HORIZON_DAYS, RECKONED_CUTOFF, GROUP]
    return RECONCILED.check(pl.concat(parts).sort(keys, nulls_last=True))


def _totals(rows: pl.DataFrame) -> pl.DataFrame:
    keys = [DIMENSION, GROUP, HORIZON_DAYS, CUTOFF]
    gap = (pl.col(REALISED_SPEND) - pl.col(EXPECTED_SPEND)).alias("gap")
    by_customer = rows.sort(CUSTOMER_ID).group_by(*keys, CUSTOMER_ID).agg(gap.sum())
    spread = (pl.col("gap").std() * pl.len().sqrt()).fill_null(0.0)
    errors = by_customer.sort(CUSTOMER_ID).group_by(keys).agg(spread.alias(SPEND_GAP_ERROR))
    totals = (
        rows.sort(CUSTOMER_ID, CUTOFF)
        .group_by(keys)
        .agg(
            pl.len().cast(pl.Int64).alias(CUSTOMERS),
            pl.col(P_CHURN).mean().alias(PREDICTED_CHURN),
            (pl.col(REALISED_ORDERS) == 0).mean().alias(REALISED_CHURN),
            pl.col(EXPECTED_ORDERS).sum().alias(PREDICTED_ORDERS),
            pl.col(REALISED_ORDERS).sum(),
            pl.col(EXPECTED_SPEND).sum().alias(PREDICTED_SPEND),
            pl.col(REALISED_SPEND).sum(),
        )
    )
    return totals.join(errors, on=keys, nulls_equal=True).select(RECONCILED.schema.names())


@dataclass(frozen=True)
class Window:
    """Totals of all customers in one matured window; money in account currency."""

    cutoff: datetime
    horizon_days: int
    predicted_spend: float
    realised_spend: float
    spend_gap_error: float
    misplaced_spend: float

    @property
    def gap_errors(self) -> float:
        """Realised less predicted spend in standard errors; 0 where there is no spread."""
        gap = self.realised_spend - self.predicted_spend
        return gap / self.spend_gap_error if self.spend_gap_error > 0 else 0.0


def windows(reconciled: pl.DataFrame) -> list[Window]:
    """Every matured window by horizon and time, with the spend that its deciles misjudged beyond chance."""
    at_one_time = reconciled.filter(pl.col(RECKONED_CUTOFF).is_not_null())
    gap = (pl.col(REALISED_SPEND) - pl.col(PREDICTED_SPEND)).abs()
    beyond = (gap - STANDARD_ERRORS * pl.col(SPEND_GAP_ERROR)).clip(lower_bound=0.0)
    keys = [HORIZON_DAYS, RECKONED_CUTOFF]
    misplaced = (
        at_one_time.filter(pl.col(DIMENSION) == "decile").group_by(keys).agg(beyond.sum().alias("misplaced"))
    )
    whole = at_one_time.filter(pl.col(DIMENSION) == ALL).join(misplaced, on=keys).sort(keys)
    wanted = whole.select(
        RECKONED_CUTOFF, HORIZON_DAYS, PREDICTED_SPEND, REALISED_SPEND, SPEND_GAP_ERROR, "misplaced"
    )
    return [Window(*row) for row in wanted.iter_rows()]


@dataclass(frozen=True)
class Verdict:
    """Whether new forecasts would pay, and why.

    latest: the last matured window of the longest matured horizon, or None; drifted: features that moved by
    a PSI of 0.25 or more; features: how many were compared; cost: spend that the latest window misjudged
    beyond chance, account currency per horizon: the most that better forecasts could put right.
    """

    latest: Window | None
    drifted: list[str]
    features: int
    cost: float
    retrain_cost: float

    @property
    def miscalibrated(self) -> bool:
        """Whether the total of spend missed by more than two standard errors."""
        return self.latest is not None and abs(self.latest.gap_errors) > STANDARD_ERRORS

    @property
    def pays(self) -> bool | None:
        """None where nothing has matured."""
        return None if self.latest is None else self.cost > self.retrain_cost


def verdict(reconciled: pl.DataFrame, drift: pl.DataFrame, retrain_cost: float) -> Verdict:
    """Weighs what staleness costs against what new forecasts cost.

    Args:
        reconciled: the `reconciled` table.
        drift: the `drift` table, empty where there was nothing to compare with.
        retrain_cost: account currency.
    """
    seen = windows(reconciled)
    latest = seen[-1] if seen else None  # the longest horizon stands last, its latest cutoff last of all
    moved = drift.filter(pl.col(PSI) >= LARGE)[FEATURE].to_list()
    return Verdict(latest, moved, drift.height, latest.misplaced_spend if latest else 0.0, retrain_cost)
