"""How many segments."""

from __future__ import annotations

import numpy as np
import pytest

from retinue.options import SegmentOptions
from retinue.segments.choice import Problem, Trial, _taken, choose_centroids, sample_rows
from retinue.segments.model import nearest_rows
from tests.segments.planted import CPU


def blobs(centers: np.ndarray, size: int = 250, spread: float = 0.25, seed: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.concatenate([c + spread * random.standard_normal((size, len(c))) for c in centers])


def problem(
    matrix: np.ndarray, options: SegmentOptions, tells: list[bool] | None = None, standing: int = 0
) -> Problem:
    told = np.array(tells) if tells else np.ones(matrix.shape[1], dtype=bool)
    return Problem(
        matrix,
        told,
        lambda c: np.bincount(nearest_rows(matrix, c), minlength=len(c)),
        options,
        0,
        CPU,
        standing,
    )


CORNERS = np.array([[2.0, 2.0, 0.0], [-2.0, 2.0, 1.0], [2.0, -2.0, -1.0], [-2.0, -2.0, 0.0], [0.0, 0.0, 3.0]])
OPTIONS = SegmentOptions(max_segments=7, bootstraps=4)


@pytest.mark.parametrize("planted", [2, 3, 4, 5])
def test_the_number_of_blobs_is_found(planted: int) -> None:
    centroids, record = choose_centroids(problem(blobs(CORNERS[:planted]), OPTIONS))
    assert len(centroids) == planted
    assert [trial["segments"] for trial in record] == list(range(2, 8))


def test_one_round_cloud_is_one_segment() -> None:
    cloud = np.random.default_rng(3).standard_normal((1500, 5))
    centroids, record = choose_centroids(problem(cloud, OPTIONS))
    assert len(centroids) == 1
    np.testing.assert_allclose(centroids[0], cloud.mean(axis=0), atol=1e-6)
    assert all(trial["rejected"] for trial in record)


def test_a_segment_below_the_minimum_is_not_kept() -> None:
    matrix = np.concatenate([blobs(CORNERS[:2], 400), blobs(CORNERS[4:5], 30)])
    free = SegmentOptions(max_segments=4, bootstraps=4, min_share=0.01, min_customers=5)
    bound = SegmentOptions(max_segments=4, bootstraps=4, min_share=0.05, min_customers=5)
    by_count = SegmentOptions(max_segments=4, bootstraps=4, min_share=0.01, min_customers=31)
    assert len(choose_centroids(problem(matrix, free))[0]) == 3
    assert len(choose_centroids(problem(matrix, bound))[0]) == 2
    assert len(choose_centroids(problem(matrix, by_count))[0]) == 2


def test_a_habit_alone_makes_no_segment() -> None:
    matrix = blobs(np.array([[2.0, 0.0], [-2.0, 0.0]]))
    assert len(choose_centroids(problem(matrix, OPTIONS, [True, False]))[0]) == 2
    assert len(choose_centroids(problem(matrix, OPTIONS, [False, True]))[0]) == 1


def trial(segments: int, stability: float, unexplained: float) -> Trial:
    return Trial(segments, stability, unexplained, 0.2, "")


def test_the_largest_among_the_most_stable_is_taken() -> None:
    trials = [trial(2, 0.97, 0.7), trial(3, 0.85, 0.6), trial(4, 0.9, 0.5), trial(5, 0.8, 0.4)]
    assert _taken(trials, standing=0) == 4


def test_the_standing_number_stays_unless_another_halves_the_unexplained() -> None:
    trials = [trial(2, 0.97, 0.7), trial(3, 0.85, 0.6), trial(4, 0.9, 0.5)]
    assert _taken(trials, standing=3) == 3
    assert _taken([trial(2, 0.97, 0.7), trial(3, 0.7, 0.6), trial(4, 0.9, 0.5)], standing=3) == 4
    assert _taken([trial(2, 0.97, 0.7), trial(3, 0.85, 0.6), trial(4, 0.9, 0.29)], standing=3) == 4
    assert _taken(trials, standing=7) == 4


def test_a_sample_is_ascending_without_doubles_and_whole_where_it_can_be() -> None:
    assert sample_rows(5, 10, 0).tolist() == [0, 1, 2, 3, 4]
    drawn = sample_rows(1000, 100, 0)
    assert len(set(drawn.tolist())) == 100
    assert drawn.tolist() == sorted(drawn.tolist())
    assert drawn.tolist() == sample_rows(1000, 100, 0).tolist() != sample_rows(1000, 100, 1).tolist()
