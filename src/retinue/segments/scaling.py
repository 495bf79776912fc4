"""From features to a matrix in which one unit means the same thing in every column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

Matrix = npt.NDArray[np.float64]

CLIP = 3.0
DECIMALS = 9
IQR_OF_NORMAL = 1.3489795
CHUNK_ROWS = 200_000


@dataclass(frozen=True)
class Scaler:
    """Signed log where `logs`, minus the median, over the spread, clipped at ±3, times the weight.

    A null becomes 0, the base's median, so that the unknown pulls towards no segment. A column that the
    table lacks counts as null.
    """

    columns: tuple[str, ...]
    logs: tuple[bool, ...]
    centers: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]

    def transform(self, features: pl.DataFrame) -> Matrix:
        """Matrix (rows, columns) in scaled units, rounded to 1e-9 so that no thread count shows in it."""
        shifted = signed_log(raw_matrix(features, self.columns), self.logs) - np.array(self.centers)
        scaled = np.clip(shifted / np.array(self.scales), -CLIP, CLIP)
        weighted = np.nan_to_num(scaled, nan=0.0) * np.array(self.weights)
        matrix: Matrix = np.round(weighted, DECIMALS) + 0.0  # no -0.0
        return matrix

    def chunks(self, features: pl.DataFrame) -> Iterator[Matrix]:
        """The matrix in pieces of bounded size, in row order."""
        for piece in features.iter_slices(CHUNK_ROWS):
            yield self.transform(piece)


def fit_scaler(
    features: pl.DataFrame, columns: tuple[str, ...], logs: tuple[bool, ...], weights: tuple[float, ...]
) -> Scaler:
    """Medians and spreads of the known values.

    The spread is the interquartile range in a normal's units or, where larger, the standard deviation within
    the 1st and 99th percentiles: one tight majority must not blow up its own noise, nor one outlier the scale.
    """
    values = signed_log(raw_matrix(features, columns), logs)
    centers, scales = [], []
    for column in values.T:
        known = np.sort(column[np.isfinite(column)])
        lowest, low, center, high, highest = np.quantile(known, (0.01, 0.25, 0.5, 0.75, 0.99))
        spread = max((high - low) / IQR_OF_NORMAL, float(np.std(np.clip(known, lowest, highest))))
        centers.append(float(np.round(center, DECIMALS)))
        scales.append(float(np.round(spread or np.std(known), DECIMALS)) or 1.0)
    return Scaler(columns, logs, tuple(centers), tuple(scales), weights)


def raw_matrix(features: pl.DataFrame, columns: tuple[str, ...]) -> Matrix:
    """Matrix (rows, columns) in the features' own units; null and infinite become NaN."""
    known = [
        pl.col(name).cast(pl.Float64)
        if name in features.columns
        else pl.lit(None, dtype=pl.Float64).alias(name)
        for name in columns
    ]
    if not columns:
        return np.empty((len(features), 0))
    matrix = features.with_columns(known).select(columns).fill_null(float("nan")).to_numpy()
    return np.where(np.isfinite(matrix), matrix, np.nan)


def signed_log(values: Matrix, logs: tuple[bool, ...]) -> Matrix:
    """sign(x) · log(1 + |x|) in the columns where `logs`; the others as they are."""
    return np.where(np.array(logs, dtype=bool), np.sign(values) * np.log1p(np.abs(values)), values)
