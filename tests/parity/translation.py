"""The private interfaces of cudf-polars 26.10, in this one file: would a query run on GPUs? Needs none.

Two gates. A query *translates* where cuDF has every operation of it. It *streams* where each operation also works
on parts of the rows: larger than the memory of a device, and on several of them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import polars as pl

ROWS_PER_PARTITION = 1_000
STREAMING = {
    "min_device_size": 80_000_000_000,  # else the device is asked, and there is none
    "dynamic_planning": {},  # as by default; without it all that follows a group_by counts as one partition
    "fallback_mode": "raise",
    "max_rows_per_partition": ROWS_PER_PARTITION,
}


def translation_errors(query: pl.LazyFrame) -> list[str]:
    """What cuDF cannot run of the query, in words; empty where it would run as a whole."""
    return _translated(query, pl.GPUEngine(executor="in-memory", raise_on_fail=True))[2]


def streaming_errors(query: pl.LazyFrame) -> list[str]:
    """Why the query needs all rows in one partition, in words; empty where it would run over partitions.

    The tables that it reads must be of more than `ROWS_PER_PARTITION` rows, or of more than one file: a query of one
    partition is refused, since it proves nothing.
    """
    from cudf_polars.streaming.parallel import lower_ir_graph

    engine = pl.GPUEngine(executor="streaming", raise_on_fail=True, executor_options=STREAMING)
    plan, options, errors = _translated(query, engine)
    if errors:
        return errors
    try:
        lowered = lower_ir_graph(plan, options, _statistics(plan, options))
    except NotImplementedError as error:
        return [f"NotImplementedError: {error}"]
    if max(part.count for part in lowered.partition_info.values()) < 2:
        return ["the tables are of one partition, which proves nothing"]
    return []


def _translated(query: pl.LazyFrame, engine: pl.GPUEngine) -> tuple[Any, Any, list[str]]:
    """Plan and options of the engine, and what cannot be translated."""
    from cudf_polars.dsl.translate import Translator

    visited: Any = query._ldf.visit()
    translator = Translator(visited, engine)
    plan = translator.translate_ir()
    return plan, translator.config_options, [f"{type(e).__name__}: {e}" for e in translator.errors]


def _statistics(plan: Any, options: Any) -> Any:
    """Sizes of the tables read; of files nothing is known, since their footers are read on a device: one is a partition."""
    from cudf_polars.dsl.ir import Scan
    from cudf_polars.dsl.traversal import traversal
    from cudf_polars.streaming.base import StatsCollector
    from cudf_polars.streaming.statistics import collect_statistics

    if any(isinstance(node, Scan) for node in traversal([plan])):
        return StatsCollector()
    with ThreadPoolExecutor(1) as threads:
        return collect_statistics(plan, options, threads)
