"""k-means: scikit-learn on a CPU, on GPUs cuML, wherever the rows find room."""

from __future__ import annotations

import importlib
import logging
import math
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from retinue.accel.devices import GIB
from retinue.accel.engine import EngineChoice, cuda, device_bytes

Matrix = npt.NDArray[np.float64]

FIRST_ROWS = 1_000
WHOLE_ROWS = 65_536  # up to so many rows every start sees them all
SAMPLE_ROWS, ROWS_PER_CENTROID = 8_192, 128  # of a larger matrix, whichever is more
LAST_ROUNDS = 2
KMEANS_SHARE = 0.5  # of free device memory: the rest is for distances, and for what torch holds
KMEANS_COPIES = 2  # the rows as given, and in the order that cuML wants

log = logging.getLogger(__name__)


def kmeans(matrix: Matrix, k: int, seed: int, engine: EngineChoice, restarts: int = 10) -> Matrix:
    """Centroids of the best of several k-means++ starts (Arthur & Vassilvitskii 2007), in ascending order.

    On the CPU a matrix of more than 65,536 rows is fitted on a sample, then to all rows in two more rounds, in float32:
    much sooner done than rounds over all rows from the start, and about 1 % of inertia worse.

    Args:
        matrix: (rows, features), finite.
        k: number of centroids wanted.
        seed: of the starts.
        engine: cuML on the GPU; scikit-learn on the CPU, on one thread so that their number changes nothing.
        restarts: starts, the least inertia wins.

    Returns:
        (k, features); fewer rows where the matrix has fewer than k distinct ones.
    """
    few = len(np.unique(matrix[:FIRST_ROWS], axis=0)) <= k  # sorting all rows is dear, and seldom needed
    if few and len(distinct := np.unique(matrix, axis=0)) <= k:
        return distinct
    centroids = (
        _fit_cuml(matrix, k, seed, restarts) if engine.is_gpu else _fit_sklearn(matrix, k, seed, restarts)
    )
    return centroids[np.lexsort(centroids.T[::-1])]


def _fit_sklearn(matrix: Matrix, k: int, seed: int, restarts: int) -> Matrix:
    from sklearn.cluster import KMeans  # noqa: PLC0415  slow to import
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    if len(matrix) > WHOLE_ROWS and (rows := _sample(matrix, k, seed)) is not None:
        return _fit_large(matrix, rows, k, seed, restarts)
    with threadpool_limits(1):
        fitted = KMeans(k, init="k-means++", n_init=restarts, random_state=seed, algorithm="lloyd").fit(
            matrix
        )
    return np.asarray(fitted.cluster_centers_, dtype=np.float64)


def _sample(matrix: Matrix, k: int, seed: int) -> npt.NDArray[np.int64] | None:
    """Rows to start from, in ascending order; None where they are no sample, or have no k distinct ones."""
    size = max(SAMPLE_ROWS, ROWS_PER_CENTROID * k)
    if size >= len(matrix):
        return None
    rows = np.sort(np.random.default_rng(seed).choice(len(matrix), size, replace=False, shuffle=False))
    few = len(np.unique(matrix[rows[:FIRST_ROWS]], axis=0)) <= k
    return None if few and len(np.unique(matrix[rows], axis=0)) <= k else rows


def _fit_large(matrix: Matrix, rows: npt.NDArray[np.int64], k: int, seed: int, restarts: int) -> Matrix:
    """The best start on some rows, then rounds over all; in float32, around the mean so that nothing is lost."""
    from sklearn.cluster import KMeans  # noqa: PLC0415  as above
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    middle: Matrix = matrix[rows].mean(axis=0)
    centred = np.empty(matrix.shape, np.float32)
    np.subtract(matrix, middle, out=centred, casting="same_kind")
    with threadpool_limits(1):
        first = KMeans(k, init="k-means++", n_init=restarts, random_state=seed, tol=1e-3).fit(centred[rows])
        last = KMeans(k, init=first.cluster_centers_, n_init=1, max_iter=LAST_ROUNDS, tol=0, copy_x=False)
        centroids: Matrix = last.fit(centred).cluster_centers_.astype(np.float64)
    return centroids + middle


class KMeansWay(Enum):
    """How cuML gets at the rows."""

    whole = "whole"  # on one device
    buffered = "buffered"  # on the host, a buffer of them on the device at a time
    spread = "spread"  # over all devices


@dataclass(frozen=True)
class KMeansPlan:
    """A way to fit, why, and for `buffered` how many rows the device holds at a time."""

    way: KMeansWay
    reason: str
    buffer_rows: int = 0


def plan_kmeans(rows: int, columns: int, free_bytes: int, devices: int, has_dask: bool) -> KMeansPlan:
    """The way to fit float64 rows: on one device, else spread over several, else a buffer at a time.

    Args:
        rows: of the matrix.
        columns: of the matrix.
        free_bytes: of one device; the others are taken to be like it.
        devices: that this process sees.
        has_dask: whether dask-cuda is installed, which spreads the rows.
    """
    each, room = columns * 8 * KMEANS_COPIES, int(free_bytes * KMEANS_SHARE)
    told = f"{rows * each / GIB:.2f} GiB of rows, {room / GIB:.2f} GiB of room on each of {devices} devices"
    if rows * each <= room:
        return KMeansPlan(KMeansWay.whole, told)
    if devices > 1 and rows * each <= room * devices and has_dask:
        return KMeansPlan(KMeansWay.spread, told)
    if devices > 1 and not has_dask:
        told += ", dask-cuda is not installed"
    return KMeansPlan(KMeansWay.buffered, told, max(1, room // each))


def _fit_cuml(matrix: Matrix, k: int, seed: int, restarts: int) -> Matrix:
    (devices,) = cuda("cudaGetDeviceCount")
    has_dask = find_spec("dask_cuda") is not None
    rows, columns = matrix.shape
    plan = plan_kmeans(rows, columns, device_bytes()[0], devices, has_dask)
    log.debug("k-means: %s (%s)", plan.way.value, plan.reason)
    return fit_as_planned(matrix, k, seed, restarts, plan)


def fit_as_planned(matrix: Matrix, k: int, seed: int, restarts: int, plan: KMeansPlan) -> Matrix:
    """The centroids of cuML, (k, features), in no order; the ways differ in where the rows are, and in their starts."""
    options: dict[str, Any] = {"n_clusters": k, "n_init": restarts, "random_state": seed}
    match plan.way:
        case KMeansWay.spread:
            return _fit_spread(matrix, options)
        case KMeansWay.buffered:
            # its k-means++ starts draw from so many rows; left alone it draws from three for each centroid
            some = min(len(matrix), plan.buffer_rows)
            options |= {"device_buffer_samples": plan.buffer_rows, "init_size": some}
        case KMeansWay.whole:
            pass
        case _:
            assert_never(plan.way)
    cluster: Any = importlib.import_module("cuml.cluster")
    fitted = cluster.KMeans(init="k-means++", output_type="numpy", **options).fit(matrix)
    return np.asarray(fitted.cluster_centers_, dtype=np.float64)


def _fit_spread(matrix: Matrix, options: dict[str, Any]) -> Matrix:
    """With k-means|| starts (Bahmani et al. 2012), since k-means++ does not run over several devices."""
    dask_cuda: Any = importlib.import_module("dask_cuda")
    distributed: Any = importlib.import_module("distributed")
    array: Any = importlib.import_module("dask.array")
    cluster: Any = importlib.import_module("cuml.dask.cluster")
    cupy: Any = importlib.import_module("cupy")
    with dask_cuda.LocalCUDACluster() as workers, distributed.Client(workers) as client:
        rows = math.ceil(len(matrix) / len(client.nthreads()))
        parts = array.from_array(matrix, chunks=(rows, -1)).map_blocks(cupy.asarray)
        fitted = cluster.KMeans(client=client, init="k-means||", **options).fit(parts)
        return np.asarray(cupy.asnumpy(fitted.cluster_centers_), dtype=np.float64)
