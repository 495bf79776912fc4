"""What `accel/` asks of cudf-polars 26.10 and RMM, held against the packages themselves. Needs no GPU."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any

import polars as pl

from retinue.accel.engine import SPILL_DEVICE_LIMIT, cudf_engine, numbers_of, translated

DEVICE_BYTES = 80_000_000_000
SPILL_VARIABLE = "RAPIDSMPF_SPILL_DEVICE_LIMIT"


def checks() -> Iterator[tuple[str, Callable[[], bool]]]:
    """Names, and whether each holds."""
    yield "a shard's query runs in one piece", _in_one_piece
    yield "a query over the base streams, and raises on what needs one partition", _streams
    yield "the spill limit reaches cuDF by its name", _spills
    yield "an option that cuDF does not have is refused", _unknown_is_refused
    yield "an operation that cuDF does not have is refused, not run on the CPU", _untranslatable_is_refused
    yield "numbers and truth values become one float type without null", _numbers_translate
    yield "the private way to a result on the device is there", _private_way
    yield "RMM's pool and the runtime's calls are there", _memory


def faults() -> list[str]:
    """Names of the checks that do not hold."""
    return [name for name, holds in checks() if not holds()]


def report() -> int:
    """Prints each check; 1 where one does not hold."""
    failed = faults()
    for name, _ in checks():
        print(f"{'FAULT: ' if name in failed else ''}{name}")
    return int(bool(failed))


def _read(engine: pl.GPUEngine) -> Any:
    from cudf_polars.utils.config import ConfigOptions

    return ConfigOptions.from_polars_engine(engine)


def _in_one_piece() -> bool:
    options = _read(cudf_engine())
    return bool(options.raise_on_fail and options.executor.name == "in-memory")


def _streams() -> bool:
    options = _read(cudf_engine(whole_base=True, device_bytes=DEVICE_BYTES))
    how = options.executor
    partition = min(1_500_000_000, DEVICE_BYTES // 40)
    return bool(
        options.raise_on_fail
        and (how.name, how.fallback_mode.value) == ("streaming", "raise")
        and (how.min_device_size, how.target_partition_size) == (DEVICE_BYTES, partition)
    )


def _spills() -> bool:
    from cudf_polars.engine.options import StreamingOptions
    from rapidsmpf.config import get_environment_variables

    given = os.environ.pop(SPILL_VARIABLE, None)
    try:
        cudf_engine(whole_base=True, device_bytes=DEVICE_BYTES)
        ours = get_environment_variables()["SPILL_DEVICE_LIMIT"], StreamingOptions().spill_device_limit
    finally:
        os.environ.pop(SPILL_VARIABLE)
        if given is not None:
            os.environ[SPILL_VARIABLE] = given
    return ours == (SPILL_DEVICE_LIMIT, SPILL_DEVICE_LIMIT)


def _unknown_is_refused() -> bool:
    known = {"min_device_size": DEVICE_BYTES}
    wrong = pl.GPUEngine(executor="streaming", executor_options=known | {"spill_device": "70%"})
    return _raises(TypeError, lambda: _read(wrong))


def _untranslatable_is_refused() -> bool:
    lists = pl.LazyFrame({"x": [[2, 1]]}).select(pl.col("x").list.sort())
    return _raises(NotImplementedError, lambda: translated(lists)) and _raises(
        pl.exceptions.ComputeError, lambda: lists.collect(engine=cudf_engine())
    )


def _numbers_translate() -> bool:
    frame = pl.LazyFrame({"count": [1, None], "told": [True, None], "value": [0.5, None]})
    for kind in (pl.Float32, pl.Float64):
        plan, _ = translated(numbers_of(frame, kind))
        if {dtype.polars_type for dtype in plan.schema.values()} != {kind()}:
            return False
        if any(numbers_of(frame, kind).collect().null_count().row(0)):
            return False
    return True


def _private_way() -> bool:
    import pylibcudf
    from cudf_polars import callback
    from cudf_polars.containers import DataFrame
    from cudf_polars.dsl.ir import IR, IRExecutionContext

    calls: tuple[tuple[Any, tuple[Any, ...], dict[str, Any]], ...] = (
        (callback.set_device, (None,), {}),
        (callback.set_memory_resource, (None, None, "executor"), {}),
        (IR.evaluate, ("plan",), {"cache": {}, "timer": None, "context": IRExecutionContext()}),
        (pylibcudf.interop.to_dlpack, ("table",), {"stream": None}),
    )
    for function, given, named in calls:
        inspect.signature(function).bind(*given, **named)
    return {"table", "stream"} <= set(DataFrame.__annotations__) and callable(pylibcudf.Table.shape)


def _memory() -> bool:
    import pylibcudf
    import rmm.mr
    from cuda.bindings import runtime

    said = rmm.mr.PoolMemoryResource.__doc__ or ""
    adaptors = (rmm.mr.StatisticsResourceAdaptor, rmm.mr.PrefetchResourceAdaptor)
    plain = (rmm.mr.ManagedMemoryResource, rmm.mr.CudaAsyncMemoryResource)
    calls = (runtime.cudaMemGetInfo, runtime.cudaGetDevice, runtime.cudaGetDeviceCount)
    return (
        "upstream_mr" in said
        and "initial_pool_size" in said
        and all(callable(each) for each in (*adaptors, *plain, *calls, pylibcudf.prefetch.enable))
        and hasattr(adaptors[0], "allocation_counts")
        and hasattr(runtime.cudaDeviceAttr, "cudaDevAttrConcurrentManagedAccess")
    )


def _raises(kind: type[BaseException], call: Callable[[], object]) -> bool:
    try:
        call()
    except kind:
        return True
    return False
