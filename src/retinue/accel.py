"""What hardware there is and what runs on it. The only file that knows a GPU, and the only importer of RAPIDS."""

from __future__ import annotations

import importlib
import logging
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, assert_never

import numpy as np
import numpy.typing as npt
import polars as pl

from retinue.options import Accelerator, Engine
from retinue.schema import InputError

if TYPE_CHECKING:
    import torch

Matrix = npt.NDArray[np.float64]
T = TypeVar("T")
U = TypeVar("U")

STORE_SHARE = (
    0.5  # of a GPU's free memory that data may take; weights, gradients and hidden numbers need the rest
)
FIRST_ROWS = 1_000
REPEATS = 4
WHOLE_ROWS = 65_536  # up to so many rows every start sees them all
SAMPLE_ROWS, ROWS_PER_CENTROID = 8_192, 128  # of a larger matrix, whichever is more
LAST_ROUNDS = 2

GIB = 2**30
POOL_SHARE = 0.8  # of free device memory: where in-memory queries begin; the pool grows into the host's
SPILL_DEVICE_LIMIT = "70%"  # of the device: beyond it streaming queries move partitions to the host
KMEANS_SHARE = 0.5  # of free device memory: the rest is for distances, and for what torch holds
KMEANS_COPIES = 2  # the rows as given, and in the order that cuML wants
BF16: Final = "bf16-mixed"
FLOAT32: Final = "32-true"
LEAST_BF16 = (8, 0)  # compute capability: Ampere and later multiply in bfloat16 and TF32

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
        case Engine.ray:
            choice = EngineChoice(
                Engine.ray, "engine=ray was asked for; each node runs Polars on its processors"
            )
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
        return (
            "cudf-polars is not installed (pip install 'retinue[gpu-cu13]', or gpu-cu12 for an older driver)"
        )
    try:
        runtime = importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        return f"the CUDA bindings do not load ({error})"
    code, devices = runtime.cudaGetDeviceCount()  # an error code in place of an exception
    if int(code) != 0 or devices < 1:
        return f"there is no CUDA device (cudaGetDeviceCount says {int(code)})"
    return ""


def collect(query: pl.LazyFrame, engine: EngineChoice, whole_base: bool = False) -> pl.DataFrame:
    """The query's rows: Polars streaming on the CPU; cuDF on the GPU, raising on what it cannot run.

    Args:
        query: of operations that both have.
        engine: of this run.
        whole_base: whether it reads the events of all customers, which a device may not hold at once.
    """
    if not engine.is_gpu:
        return query.collect(engine="streaming")
    memory = None if whole_base else _query_memory()
    return query.collect(engine=cudf_engine(whole_base, memory, _device_bytes()[1] if whole_base else None))


def cudf_engine(
    whole_base: bool = False, memory: Any = None, device_bytes: int | None = None
) -> pl.GPUEngine:
    """How cuDF runs a query; what it cannot run is an error, never a silent run on the CPU.

    A shard's query runs in one piece. One over the whole base streams over partitions, and those that find no room on the
    device wait on the host: past `RAPIDSMPF_SPILL_DEVICE_LIMIT`, the variable that cuDF reads, 70 % where nobody has set it.

    Args:
        whole_base: whether the query reads the events of all customers.
        memory: RMM resource of a query in one piece; None is cuDF's own.
        device_bytes: memory of the device, which sizes of partitions follow from; None asks the driver's library.
    """
    if not whole_base:
        return pl.GPUEngine(executor="in-memory", raise_on_fail=True, memory_resource=memory)
    os.environ.setdefault("RAPIDSMPF_SPILL_DEVICE_LIMIT", SPILL_DEVICE_LIMIT)
    options: dict[str, Any] = {"fallback_mode": "raise"}
    if device_bytes is not None:
        options["min_device_size"] = device_bytes
    return pl.GPUEngine(executor="streaming", raise_on_fail=True, executor_options=options)


def _cuda(call: str, *given: Any) -> list[Any]:
    """What a call of the CUDA runtime gives; it returns its errors in place of raising them."""
    runtime: Any = importlib.import_module("cuda.bindings.runtime")
    code, *found = getattr(runtime, call)(*given)
    if int(code) != 0:
        raise RuntimeError(f"{call}: {code!r}")
    return list(found)


def _device_bytes() -> tuple[int, int]:
    """Free and all memory of the current device."""
    free, total = _cuda("cudaMemGetInfo")
    return int(free), int(total)


@cache
def _query_memory() -> Any:
    """The memory of queries in one piece: a pool that pages to the host where the device is full, and counts its peak.

    Where the device cannot page (WSL2), or POLARS_GPU_ENABLE_CUDA_MANAGED_MEMORY=0 forbids it, plain device memory.
    """
    memory: Any = importlib.import_module("rmm.mr")
    attributes: Any = importlib.import_module("cuda.bindings.runtime").cudaDeviceAttr
    (device,) = _cuda("cudaGetDevice")
    (pages,) = _cuda("cudaDeviceGetAttribute", attributes.cudaDevAttrConcurrentManagedAccess, device)
    if not pages or os.environ.get("POLARS_GPU_ENABLE_CUDA_MANAGED_MEMORY") == "0":
        return memory.StatisticsResourceAdaptor(memory.CudaAsyncMemoryResource())
    importlib.import_module("pylibcudf").prefetch.enable()
    begin = int(_device_bytes()[0] * POOL_SHARE) // 256 * 256  # RMM allocates multiples of 256 bytes
    pool = memory.PoolMemoryResource(memory.ManagedMemoryResource(), initial_pool_size=begin)
    return memory.StatisticsResourceAdaptor(memory.PrefetchResourceAdaptor(pool))


def to_torch(
    query: pl.LazyFrame | pl.DataFrame, engine: EngineChoice, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Columns of numbers or truth values as a tensor (rows, columns) on the engine's device; null becomes NaN.

    On a GPU the rows never pass through the host: cuDF hands its result over by DLPack. The tensor shares no memory with
    the frame, so that writing to it changes nothing else.

    Args:
        query: at least one column.
        engine: runs the query, and is where the tensor lives.
        dtype: torch.float32 (the default) or torch.float64.
    """
    import torch  # noqa: PLC0415  rooms without torch (the GPU plan) import this file too

    kind = pl.Float64 if dtype == torch.float64 else pl.Float32
    numbers = numbers_of(query.lazy(), kind)
    if engine.is_gpu:
        return _on_device(numbers)
    array = collect(numbers, engine).to_numpy()
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def numbers_of(query: pl.LazyFrame, kind: type[pl.Float32 | pl.Float64]) -> pl.LazyFrame:
    """The query's columns in one float type with NaN for null, which is all that DLPack can carry."""
    return query.select(pl.all().cast(kind).fill_null(pl.lit(float("nan"), kind)))


def _on_device(numbers: pl.LazyFrame) -> torch.Tensor:
    """The result of a cuDF query in one piece, where cuDF has left it.

    `collect` copies to the host, and cudf-polars 26.10 has no public way that does not. This takes its private one;
    `make gpu-plan` holds that the pinned version has it.
    """
    import torch  # noqa: PLC0415  as above
    from torch.utils.dlpack import from_dlpack  # noqa: PLC0415

    callback: Any = importlib.import_module("cudf_polars.callback")
    nodes: Any = importlib.import_module("cudf_polars.dsl.ir")
    interop: Any = importlib.import_module("pylibcudf.interop")
    plan, options = translated(numbers)
    with (
        callback.set_device(None),
        callback.set_memory_resource(_query_memory(), None, options.executor),
    ):
        found = plan.evaluate(cache={}, timer=None, context=nodes.IRExecutionContext())
        shape = found.table.shape()
        if not shape[0]:  # libcudf hands over nothing where there are no rows
            return torch.from_numpy(numbers.clear().collect().to_numpy().copy()).cuda()
        capsule = interop.to_dlpack(found.table, stream=found.stream)
        found.stream.synchronize()  # torch works on a stream of its own
    return from_dlpack(capsule).reshape(shape)  # one column comes without its second dimension


def translated(query: pl.LazyFrame) -> tuple[Any, Any]:
    """The query as cuDF's plan, and cuDF's reading of our options.

    Raises:
        NotImplementedError: cuDF lacks an operation of it.
    """
    translate: Any = importlib.import_module("cudf_polars.dsl.translate")
    translator = translate.Translator(query._ldf.visit(), cudf_engine())
    plan = translator.translate_ir()
    if (error := translator.unsupported_operations_error()) is not None:
        raise error
    return plan, translator.config_options


def torch_device(engine: EngineChoice) -> torch.device:
    """Where tensors of this run live."""
    import torch  # noqa: PLC0415  as above

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


def training_device(asked: Accelerator) -> torch.device:
    """Where a network trains: a GPU needs torch alone, not cuDF, so this does not follow from the engine.

    Raises:
        InputError: no GPU where one is asked for.
    """
    import torch  # noqa: PLC0415  as above

    there = torch.cuda.is_available()
    if asked is Accelerator.gpu and not there:
        raise InputError("trainer.accelerator=gpu: no CUDA device is here. Give trainer=cpu.")
    return torch.device("cuda" if there and asked is not Accelerator.cpu else "cpu")


@dataclass(frozen=True)
class Precision:
    """In what a network trains, in Lightning's words, and why."""

    name: Literal["bf16-mixed", "32-true"]
    reason: str


def choose_precision(bf16: bool, device: torch.device) -> Precision:
    """Bfloat16 where it is asked for and the device multiplies in it, else float32."""
    import torch  # noqa: PLC0415  as above

    return precision_of(bf16, torch.cuda.get_device_capability(device) if device.type == "cuda" else None)


def precision_of(bf16: bool, capability: tuple[int, int] | None) -> Precision:
    """As `choose_precision`, by the compute capability of the device; None is the CPU."""
    if not bf16:
        return Precision(FLOAT32, "trainer.bf16=false")
    if capability is None:
        return Precision(FLOAT32, "the CPU computes in float32")
    if capability < LEAST_BF16:
        has, least = (".".join(map(str, version)) for version in (capability, LEAST_BF16))
        return Precision(FLOAT32, f"the device has compute capability {has}, bfloat16 needs {least}")
    return Precision(BF16, "trainer.bf16=true")


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Products of float32 matrices in TF32 beside bfloat16, which keeps fewer bits still; else, and afterwards, as before."""
    import torch  # noqa: PLC0415  as above

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == BF16 else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def memory_report() -> dict[str, float]:
    """GiB: most of the host's that this process has held; of a GPU that it has used, all, free, and most by torch and cuDF.

    A GPU that is not in use stays so: asking would start it.
    """
    found = {"host_peak": _host_peak_bytes() / GIB}
    torch: Any = sys.modules.get("torch")
    of_torch = torch is not None and torch.cuda.is_initialized()
    of_queries = _query_memory.cache_info().currsize > 0
    if of_torch or of_queries:
        free, total = torch.cuda.mem_get_info() if of_torch else _device_bytes()
        found |= {"device_total": total / GIB, "device_free": free / GIB}
    if of_torch:
        found["torch_peak"] = torch.cuda.max_memory_allocated() / GIB
    if of_queries:
        found["cudf_peak"] = _query_memory().allocation_counts.peak_bytes / GIB
    return {name: round(value, 3) for name, value in found.items()}


def _host_peak_bytes() -> int:
    """Most resident memory; from /proc where there is one, since a fork's maxrss begins with its parent's."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    told = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    if told is not None:
        return told * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


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


def side_by_side(work: Callable[[T], U], items: Sequence[T]) -> list[U]:
    """What a function makes of each item, in order: as many at a time as torch has threads, each on one of them.

    Sooner done than one after another on all threads, where each is small, and the same to the last bit whatever
    their number.
    """
    import torch  # noqa: PLC0415  as above

    workers = min(torch.get_num_threads(), len(items))
    with one_thread():  # what threads of others begin with is one number for all, and set anew at the end
        if workers <= 1:
            return [work(item) for item in items]
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, items))


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
    (devices,) = _cuda("cudaGetDeviceCount")
    has_dask = find_spec("dask_cuda") is not None
    rows, columns = matrix.shape
    plan = plan_kmeans(rows, columns, _device_bytes()[0], devices, has_dask)
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


def main() -> int:
    """Says what there is and puts it to work once: `python -m retinue.accel`; 1 where there is no GPU to work on."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    engine = choose_engine(Engine.auto)
    device = training_device(Accelerator.auto)
    precision = choose_precision(True, device)
    print(
        f"networks train on: {device.type}; with trainer.bf16=true in {precision.name} ({precision.reason})"
    )
    told = to_torch(pl.LazyFrame({"x": [1, 2]}).select(pl.col("x").sum()), engine)
    print(f"a query and its tensor: {told.item():.0f} on {told.device.type}")
    print(f"memory in GiB: {memory_report()}")
    return int(not engine.is_gpu or device.type != "cuda")


if __name__ == "__main__":
    raise SystemExit(main())
