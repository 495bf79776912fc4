"""k-means finds what was planted, on a CPU and as cuML is asked for it."""

from __future__ import annotations

import importlib
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from retinue.accel.engine import (
    EngineChoice,
)
from retinue.accel.kmeans import KMeansPlan, KMeansWay, fit_as_planned, kmeans, plan_kmeans
from retinue.options import Engine

CPU = EngineChoice(Engine.cpu, "a test")


def blobs() -> np.ndarray:
    random = np.random.default_rng(0)
    return np.concatenate(
        [c + 0.1 * random.standard_normal((50, 2)) for c in ([3.0, 0.0], [0.0, 3.0], [-3.0, 0.0])]
    )


def test_kmeans_finds_planted_centres_in_ascending_order() -> None:
    centroids = kmeans(blobs(), 3, 0, CPU)
    np.testing.assert_allclose(centroids, [[-3.0, 0.0], [0.0, 3.0], [3.0, 0.0]], atol=0.1)


@pytest.mark.parametrize("shape", [(3_000, 6), (70_000, 4)])
def test_kmeans_does_not_depend_on_the_number_of_threads(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(1).standard_normal(shape)
    with threadpool_limits(1):
        one = kmeans(matrix, 5, 3, CPU, 2)
    with threadpool_limits(2):
        two = kmeans(matrix, 5, 3, CPU, 2)
    np.testing.assert_array_equal(one, two)


def many(rows: int = 70_000, seed: int = 2) -> np.ndarray:
    """Six groups far from the origin and from each other, more rows than are fitted whole."""
    random = np.random.default_rng(seed)
    centres = 1e6 + 10.0 * random.permutation(np.eye(6)).astype(float)
    return centres[random.integers(0, 6, rows)] + random.standard_normal((rows, 6))


def test_kmeans_of_many_rows_finds_what_rounds_over_all_of_them_find(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = many()
    found = kmeans(matrix, 6, 0, CPU, 3)
    monkeypatch.setattr("retinue.accel.kmeans.WHOLE_ROWS", len(matrix))
    np.testing.assert_allclose(found, kmeans(matrix, 6, 0, CPU, 3), atol=0.01)


def test_kmeans_of_many_rows_that_are_nearly_all_alike_sees_the_others() -> None:
    matrix = np.concatenate([np.zeros((70_000, 1)), [[5.0], [6.0], [9.0]]])
    assert kmeans(matrix, 3, 0, CPU)[:, 0].tolist() == pytest.approx([0.0, 5.5, 9.0], abs=1e-9)


def test_kmeans_gives_the_distinct_rows_where_there_are_too_few() -> None:
    np.testing.assert_array_equal(kmeans(np.array([[2.0], [1.0], [2.0]]), 5, 0, CPU), [[1.0], [2.0]])


class CuKMeans:
    """The k-means of cuML 26.10 by its parameters, fitted by scikit-learn; rows beyond the buffer are an error."""

    def __init__(
        self, *, n_clusters: int = 8, max_iter: int = 300, tol: float = 1e-4, verbose: bool = False,
        random_state: int | None = None, init: str = "scalable-k-means++", n_init: int | str = "auto",
        oversampling_factor: float = 2.0, max_samples_per_batch: int = 32_768, device_buffer_samples: int = 0,
        init_size: int = 0, output_type: str | None = None,
    ) -> None:  # fmt: skip
        assert output_type == "numpy"
        assert init_size <= device_buffer_samples
        self.options = {"n_clusters": n_clusters, "n_init": n_init, "random_state": random_state}

    def fit(self, matrix: np.ndarray) -> CuKMeans:
        self.cluster_centers_ = KMeans(**self.options).fit(matrix).cluster_centers_[::-1]
        return self


@pytest.mark.parametrize("way", [KMeansWay.whole, KMeansWay.buffered])
def test_kmeans_on_a_gpu_gives_the_centres_of_the_cpu(
    monkeypatch: pytest.MonkeyPatch, way: KMeansWay
) -> None:
    module = types.SimpleNamespace(KMeans=CuKMeans)
    monkeypatch.setattr(importlib, "import_module", {"cuml.cluster": module}.__getitem__)
    found = fit_as_planned(blobs(), 3, 7, 4, KMeansPlan(way, "a test", 40))
    np.testing.assert_allclose(found[np.lexsort(found.T[::-1])], kmeans(blobs(), 3, 7, CPU, 4), atol=1e-9)


@given(
    rows=st.integers(1, 10**9),
    columns=st.integers(1, 200),
    free=st.integers(2**20, 2**38),
    devices=st.integers(1, 16),
    has_dask=st.booleans(),
)
def test_a_plan_for_kmeans_fits_the_devices(
    rows: int, columns: int, free: int, devices: int, has_dask: bool
) -> None:
    plan = plan_kmeans(rows, columns, free, devices, has_dask)
    held = {
        KMeansWay.whole: rows,
        KMeansWay.spread: rows / devices,
        KMeansWay.buffered: plan.buffer_rows,
    }[plan.way]
    assert held * columns * 8 < free
    assert (plan.buffer_rows > 0) == (plan.way is KMeansWay.buffered)
    assert plan.buffer_rows < rows
    assert plan.way is not KMeansWay.spread or (devices > 1 and has_dask)


def test_kmeans_stays_on_one_device_while_it_can_and_buffers_last() -> None:
    rows, columns, free = 10_000_000, 10, 4 * 2**30  # 0.75 GiB as it is
    assert plan_kmeans(rows, columns, free, 8, True).way is KMeansWay.whole
    spread = plan_kmeans(rows, columns, free // 4, 8, True)
    assert spread.way is KMeansWay.spread
    assert "1.49 GiB of rows, 0.50 GiB of room on each of 8 devices" in spread.reason
    lacking = plan_kmeans(rows, columns, free // 4, 8, False)
    assert lacking.way is KMeansWay.buffered
    assert "dask-cuda is not installed" in lacking.reason
    assert plan_kmeans(rows, columns, free // 100, 8, True).way is KMeansWay.buffered
    alone = plan_kmeans(rows, columns, free // 4, 1, True)
    assert (alone.way, alone.buffer_rows) == (KMeansWay.buffered, free // 4 // 2 // (columns * 16))


def test_kmeans_sees_a_distinct_row_behind_many_equal_ones() -> None:
    matrix = np.concatenate([np.zeros((2000, 1)), [[5.0], [6.0], [9.0]]])
    assert kmeans(matrix, 3, 0, CPU)[:, 0].tolist() == pytest.approx([0.0, 5.5, 9.0], abs=1e-9)
    assert kmeans(matrix, 4, 0, CPU)[:, 0].tolist() == [0.0, 5.0, 6.0, 9.0]


@pytest.mark.gpu
@pytest.mark.filterwarnings(
    "default"
)  # Dask warns of what the machine lacks, such as a free port for its page
@pytest.mark.parametrize("way", list(KMeansWay))
def test_cuml_and_scikit_learn_find_the_same_centres(gpu: EngineChoice, way: KMeansWay) -> None:
    if way is KMeansWay.spread:
        pytest.importorskip("dask_cuda", reason="dask-cuda is not installed: several GPUs cannot share a fit")
    found = fit_as_planned(blobs(), 3, 0, 10, KMeansPlan(way, "a test", 40))
    np.testing.assert_allclose(found[np.lexsort(found.T[::-1])], kmeans(blobs(), 3, 0, CPU), atol=1e-3)
    np.testing.assert_allclose(kmeans(blobs(), 3, 0, gpu), kmeans(blobs(), 3, 0, CPU), atol=1e-3)
