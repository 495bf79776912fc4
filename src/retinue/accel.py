"""What hardware there is and what runs on it. The only file that knows a GPU, and the only cuML importer."""

from __future__ import annotations

import importlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np
import numpy.typing as npt
import polars as pl

from retinue.config import Engine
from retinue.schema import InputError

if TYPE_CHECKING:
    import torch

Matrix = npt.NDArray[np.float64]

STORE_SHARE = (
    0.5  # of a GPU's free memory that data may take; weights, gradients and hidden numbers need the rest
)
FIRST_ROWS = 1_000
REPEATS = 4

log = logging.getLogger(__name__)
_told: set[EngineChoice] = set()


@dataclass(frozen=True)
class EngineChoice:
    """The engine of this run, and why; `name` is never `auto`."""

    name: Engine
    reason: str

    @property
    def is_gpu(self) -> bool:
        """Whether queries and k-means run on the GPU."""
        return self.name is Engine.gpu


def choose_engine(asked: Engine) -> EngineChoice:
    """The engine that runs the queries, logged with its reason.

    Raises:
        InputError: `gpu` was asked for, and the extra or the device is not there.
    """
    missing = _gpu_obstacle()
    match asked:
        case Engine.cpu:
            choice = EngineChoice(Engine.cpu, "engine=cpu was asked for")
        case Engine.gpu:
            if missing:
                raise InputError(f"engine=gpu: needs a GPU, but {missing}. Use engine=auto or engine=cpu.")
            choice = EngineChoice(Engine.gpu, "engine=gpu was asked for")
        case Engine.auto:
            found = missing or "a CUDA device and cudf-polars are there"
            choice = EngineChoice(Engine.cpu if missing else Engine.gpu, found)
        case _:
            assert_never(asked)
    if choice not in _told:
        _told.add(choice)
        log.info("engine: %s (%s)", choice.name.value, choice.reason)
    return choice


def _gpu_obstacle() -> str:
    """Why queries cannot run on a GPU here, as a clause; empty where they can."""
    if find_spec("cudf_polars") is None:
        return "cudf-polars is not installed (pip install 'retinue[gpu-cu12]')"
    try:
        runtime = importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        return f"the CUDA bindings do not load ({error})"
    code, devices = runtime.cudaGetDeviceCount()  # an error code in place of an exception
    if int(code) != 0 or devices < 1:
        return f"there is no CUDA device (cudaGetDeviceCount says {int(code)})"
    return ""


def collect(query: pl.LazyFrame, engine: EngineChoice) -> pl.DataFrame:
    """The query's rows: Polars streaming on the CPU; cuDF on the GPU, raising on what it cannot run."""
    if engine.is_gpu:
        return query.collect(engine=pl.GPUEngine(raise_on_fail=True))
    return query.collect(engine="streaming")


def torch_device(engine: EngineChoice) -> torch.device:
    """Where tensors of this run live."""
    import torch  # noqa: PLC0415  rooms without torch (the GPU plan) import this file too

    return torch.device("cuda" if engine.is_gpu and torch.cuda.is_available() else "cpu")


def data_fit(needed: int, free: int) -> bool:
    """Whether data of so many bytes may lie on a device with so many free, with `STORE_SHARE` of these at most."""
    return needed <= STORE_SHARE * free


def data_device(needed: int, device: torch.device) -> torch.device:
    """Where data of so many bytes lie that a network on a device reads: there, or on the host where they do not fit."""
    import torch  # noqa: PLC0415  as above

    if device.type != "cuda" or data_fit(needed, torch.cuda.mem_get_info(device)[0]):
        return device
    log.info("data: %.1f GB stay on the host, they do not fit on the GPU", needed / 1e9)
    return torch.device("cpu")


def xgboost_device(engine: EngineChoice) -> str:
    """Where trees grow: cuda or cpu, in XGBoost's words."""
    return "cuda" if engine.is_gpu else "cpu"


def matmul_rate(
    device: torch.device,
    seconds: float = 0.3,
    side: int = 1_024,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Floating point operations per second of this device in square products, bfloat16 on a GPU, else float32.

    Args:
        device: to measure.
        seconds: to measure for; the fastest product counts.
        side: of the matrices.
        clock: seconds, of the wall or of the processor.
    """
    import torch  # noqa: PLC0415  as above

    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    left, right = (torch.rand(side, side, device=device, dtype=kind) for _ in range(2))
    out = left @ right
    best, began = math.inf, clock()
    while clock() - began < seconds:
        start = clock()
        for _ in range(REPEATS):
            torch.mm(left, right, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, (clock() - start) / REPEATS)
    return 2 * side**3 / best


def process_rank() -> int:
    """Which of the processes that share one job this is, as torchrun, Slurm or Lightning says it; 0 where alone."""
    if "RANK" not in os.environ and os.environ.get("SLURM_NTASKS", "1") != "1":
        return int(os.environ.get("SLURM_PROCID", "0"))
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))


def process_count() -> int:
    """How many processes share one job, as torchrun or Slurm says it; 1 where alone."""
    return int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1")))


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread, for problems so small that waking another costs more than it brings (also a decorator)."""
    import torch  # noqa: PLC0415  as above

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def kmeans(matrix: Matrix, k: int, seed: int, engine: EngineChoice, restarts: int = 10) -> Matrix:
    """Centroids of the best of several k-means++ starts (Arthur & Vassilvitskii 2007), in ascending order.

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

    with threadpool_limits(1):
        fitted = KMeans(k, init="k-means++", n_init=restarts, random_state=seed, algorithm="lloyd").fit(
            matrix
        )
    return np.asarray(fitted.cluster_centers_, dtype=np.float64)


def _fit_cuml(matrix: Matrix, k: int, seed: int, restarts: int) -> Matrix:
    cluster: Any = importlib.import_module("cuml.cluster")
    fitted = cluster.KMeans(
        n_clusters=k, init="k-means++", n_init=restarts, random_state=seed, output_type="numpy"
    ).fit(matrix)
    return np.asarray(fitted.cluster_centers_, dtype=np.float64)
