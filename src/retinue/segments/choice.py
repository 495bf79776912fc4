"""How many segments: as many as resampling finds again, large enough, and worth treating differently."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import adjusted_rand_score

from retinue.accel.engine import EngineChoice
from retinue.accel.kmeans import kmeans
from retinue.options import SegmentOptions
from retinue.segments.model import nearest_rows
from retinue.segments.scaling import Matrix

FIT_ROWS = 50_000
STABILITY_ROWS = 5_000
LEAST_STABLE = 0.6
AS_STABLE = 0.1
LEAST_DIFFERENCE = 0.5
CENTROID_DECIMALS = 6
STARTS_OF_RESAMPLE = 3

Sizes = Callable[[Matrix], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Trial:
    """One number of segments: how stable (mean adjusted Rand, null: not measured) and why it falls out.

    `unexplained` is the sum of squares around the centroids over that around the mean.
    """

    segments: int
    stability: float | None
    unexplained: float
    smallest_share: float
    rejected: str


@dataclass(frozen=True)
class Problem:
    """What is to be cut up, and the rules.

    matrix: (rows, features) in scaled units; tells: (features,) whether value, risk or action is meant;
    sizes: the base's customers per centroid; standing: number of segments of the previous fit, 0 if there
        was none.
    """

    matrix: Matrix
    tells: npt.NDArray[np.bool_]
    sizes: Sizes
    options: SegmentOptions
    seed: int
    engine: EngineChoice
    standing: int = 0


def sample_rows(rows: int, cap: int, seed: int) -> npt.NDArray[np.int64]:
    """Ascending indices of at most `cap` rows, the same for the same number of rows and seed."""
    if rows <= cap:
        return np.arange(rows, dtype=np.int64)
    return np.sort(np.random.default_rng(seed).permutation(rows)[:cap]).astype(np.int64)


def choose_centroids(problem: Problem) -> tuple[Matrix, list[dict[str, Any]]]:
    """Centroids of the largest admissible number within 0.1 of the most stable, and the search's record.

    Admissible: mean adjusted Rand (Hubert & Arabie 1985) between the fit and fits on resamples at least 0.6
    (as in Ben-Hur, Elisseeff & Guyon 2002, with the bootstrap for the subsample); each segment holds
    `min_share` and `min_customers` of the base; each pair differs by half a scaled unit in a trait of value,
    risk or action. Where nothing is admissible the base is one segment. The number of the previous fit
    stands while it is admissible, within 0.2 of the most stable, and another does not halve what it leaves
    unexplained.

    Returns:
        Matrix (segments, features), and one record per number tried.
    """
    trials: list[Trial] = []
    fits: dict[int, Matrix] = {}
    for k in range(2, problem.options.max_segments + 1):
        centroids, trial = _try(problem, k)
        trials.append(trial)
        if not trial.rejected:
            fits[k] = centroids
    record = [asdict(trial) for trial in trials]
    if not fits:
        return np.round(problem.matrix.mean(axis=0, keepdims=True), CENTROID_DECIMALS), record
    return fits[_taken([trial for trial in trials if not trial.rejected], problem.standing)], record


def _taken(admissible: list[Trial], standing: int) -> int:
    stable = {trial.segments: trial.stability or 0.0 for trial in admissible}
    unexplained = {trial.segments: trial.unexplained for trial in admissible}
    best = max(stable.values())
    taken = max(k for k, value in stable.items() if value >= best - AS_STABLE)
    stands = standing in stable and stable[standing] >= best - 2 * AS_STABLE
    return standing if stands and unexplained[taken] >= unexplained[standing] / 2 else taken


def _try(problem: Problem, k: int) -> tuple[Matrix, Trial]:
    """Fits one number of segments; the costly resampling only where the cheap rules hold."""
    options = problem.options
    rows = sample_rows(len(problem.matrix), FIT_ROWS, problem.seed)
    centroids = np.round(kmeans(problem.matrix[rows], k, problem.seed, problem.engine), CENTROID_DECIMALS)
    sizes = problem.sizes(centroids)
    total, smallest = int(sizes.sum()), int(sizes.min()) if len(sizes) == k else 0
    share = smallest / total
    left = _unexplained(problem.matrix[rows], centroids)

    def trial(stability: float | None, rejected: str) -> tuple[Matrix, Trial]:
        return centroids, Trial(k, stability, left, share, rejected)

    if smallest < max(options.min_customers, options.min_share * total):
        return trial(None, "a segment is too small")
    if not _all_differ(centroids, problem.tells):
        return trial(None, "two segments are too alike in value, risk and action")
    stability = bootstrap_stability(problem, centroids)
    return trial(stability, "" if stability >= LEAST_STABLE else "not found again in resamples")


def _unexplained(matrix: Matrix, centroids: Matrix) -> float:
    around = ((matrix - centroids[nearest_rows(matrix, centroids)]) ** 2).sum()
    return round(float(around / max(((matrix - matrix.mean(axis=0)) ** 2).sum(), 1e-300)), 9)


def _all_differ(centroids: Matrix, tells: npt.NDArray[np.bool_]) -> bool:
    told = centroids[:, tells]
    apart = np.abs(told[:, None, :] - told[None, :, :]).max(axis=2, initial=0.0)  # (segments, segments)
    return bool((apart[np.triu_indices(len(told), 1)] >= LEAST_DIFFERENCE).all())


def bootstrap_stability(problem: Problem, centroids: Matrix) -> float:
    """Mean adjusted Rand between the labels of the fit and of fits on resamples, over the same rows."""
    rows = sample_rows(len(problem.matrix), STABILITY_ROWS, problem.seed + 1)
    sample = problem.matrix[rows]
    labels = nearest_rows(sample, centroids)
    random = np.random.default_rng(problem.seed)
    agreement = []
    for resample in range(max(1, problem.options.bootstraps)):
        drawn = np.sort(random.integers(0, len(sample), len(sample)))
        again = kmeans(
            sample[drawn], len(centroids), problem.seed + resample, problem.engine, STARTS_OF_RESAMPLE
        )
        agreement.append(
            adjusted_rand_score(labels, nearest_rows(sample, np.round(again, CENTROID_DECIMALS)))
        )
    return round(float(np.mean(agreement)), 6)
