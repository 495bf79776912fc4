"""Which engine runs the queries, how cuDF runs them, and how their results become tensors."""

from __future__ import annotations

import importlib
import logging
import os
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, assert_never

import polars as pl

from retinue.options import Engine
from retinue.schema import InputError

if TYPE_CHECKING:
    import torch

POOL_SHARE = 0.8  # of free device memory: where in-memory queries begin; the pool grows into the host's
SPILL_DEVICE_LIMIT = "70%"  # of the device: beyond it streaming queries move partitions to the host

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
    memory = None if whole_base else query_memory()
    return query.collect(engine=cudf_engine(whole_base, memory, device_bytes()[1] if whole_base else None))


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


def cuda(call: str, *given: Any) -> list[Any]:
    """What a call of the CUDA runtime gives; it returns its errors in place of raising them."""
    runtime: Any = importlib.import_module("cuda.bindings.runtime")
    code, *found = getattr(runtime, call)(*given)
    if int(code) != 0:
        raise RuntimeError(f"{call}: {code!r}")
    return list(found)


def device_bytes() -> tuple[int, int]:
    """Free and all memory of the current device."""
    free, total = cuda("cudaMemGetInfo")
    return int(free), int(total)


@cache
def query_memory() -> Any:
    """The memory of queries in one piece: a pool that pages to the host where the device is full, and counts its peak.

    Where the device cannot page (WSL2), or POLARS_GPU_ENABLE_CUDA_MANAGED_MEMORY=0 forbids it, plain device memory.
    """
    memory: Any = importlib.import_module("rmm.mr")
    attributes: Any = importlib.import_module("cuda.bindings.runtime").cudaDeviceAttr
    (device,) = cuda("cudaGetDevice")
    (pages,) = cuda("cudaDeviceGetAttribute", attributes.cudaDevAttrConcurrentManagedAccess, device)
    if not pages or os.environ.get("POLARS_GPU_ENABLE_CUDA_MANAGED_MEMORY") == "0":
        return memory.StatisticsResourceAdaptor(memory.CudaAsyncMemoryResource())
    importlib.import_module("pylibcudf").prefetch.enable()
    begin = int(device_bytes()[0] * POOL_SHARE) // 256 * 256  # RMM allocates multiples of 256 bytes
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
        callback.set_memory_resource(query_memory(), None, options.executor),
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
