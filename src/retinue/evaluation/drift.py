"""How far a base has moved from what its forecasts were made from: inputs by PSI, calibration by reconciliation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retinue.schema import (
    CUSTOMER,
    CUSTOMER_ID,
    CUTOFF,
    DRIFT,
    EDGES,
    FEATURE,
    FEATURE_PROFILES,
    PSI,
    RUN,
    SHARES,
)

Array = NDArray[np.float64]
BINS = 10
LARGE = 0.25
FLOOR = 1e-4


def bin_edges(values: Array, bins: int = BINS) -> Array:
    """Inner edges of bins of about equal size, ascending and distinct; unknown values (NaN) are left out."""
    known = values[~np.isnan(values)]
    if not len(known):
        return np.empty(0)
    edges = np.unique(np.quantile(known, np.arange(1, bins) / bins, method="inverted_cdf"))
    return np.asarray(edges[edges < known.max()], np.float64)


def bin_shares(values: Array, edges: Array) -> Array:
    """Share of unknown values, then of each bin (-inf, edge], …, (edge, inf); (edges + 2,)."""
    unknown = np.isnan(values)
    place = np.searchsorted(edges, values[~unknown], side="left")
    counts = np.concatenate([[unknown.sum()], np.bincount(place, minlength=len(edges) + 1)])
    return np.asarray(counts / max(len(values), 1), np.float64)


def psi(reference: Array, now: Array) -> float:
    """Population stability index Σ (now - reference) × ln(now/reference) over bins; shares below 1e-4 count as 1e-4.

    Below 0.1 little has changed, from 0.25 on much (the rule of credit scoring; Siddiqi 2006).
    """
    a, b = np.maximum(reference, FLOOR), np.maximum(now, FLOOR)
    return float(np.sum((b - a) * np.log(b / a)))


def feature_profiles(features: pl.DataFrame, run: str) -> pl.DataFrame:
    """The `feature_profiles` table of one cutoff's features: bins and shares of every numeric feature."""
    rows = []
    for name in numeric_features(features):
        values = _numbers(features, name)
        edges = bin_edges(values)
        rows.append((run, features[CUTOFF][0], name, edges.tolist(), bin_shares(values, edges).tolist()))
    return FEATURE_PROFILES.check(pl.DataFrame(rows, schema=FEATURE_PROFILES.schema, orient="row"))


def feature_drift(profiles: pl.DataFrame, now: pl.DataFrame) -> pl.DataFrame:
    """The `drift` table: PSI of each profiled feature between its reference and the features of now, largest first.

    Args:
        profiles: `feature_profiles` of one run and cutoff.
        now: features table at a later cutoff; a feature it lacks is left out.
    """
    rows = [
        (run, at, name, psi(np.array(shares), bin_shares(_numbers(now, name), np.array(edges, np.float64))))
        for run, at, name, edges, shares in profiles.select(FEATURE_PROFILES.schema.names()).iter_rows()
        if name in now.columns
    ]
    table = pl.DataFrame(rows, schema=DRIFT.schema, orient="row")
    return DRIFT.check(table.sort(PSI, FEATURE, descending=[True, False]))


def numeric_features(features: pl.DataFrame) -> Sequence[str]:
    """Names of the features that are numbers, keys left out."""
    keys = {str(CUSTOMER_ID), str(CUSTOMER), str(CUTOFF), str(RUN), str(FEATURE), str(EDGES), str(SHARES)}
    return [
        name
        for name, kind in features.schema.items()
        if name not in keys and (kind.is_numeric() or kind == pl.Boolean)
    ]


def _numbers(features: pl.DataFrame, name: str) -> Array:
    return features[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
