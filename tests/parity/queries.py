"""Every query that may run on a GPU: a new feature or family is covered without being named, by a walk of the catalogue.

What the other rooms ask of events is named here once; a walk of their source finds what was forgotten.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl

import retinue
from retinue.evaluation.folds import PastStore, ScrambledStore
from retinue.events import timeline
from retinue.events.store import Store, buyer_codes
from retinue.features import CATALOGUE, Family, features_at
from retinue.features.frames import Frames, Whole, joined, priced, spread, whole_of
from retinue.features.query import AGGREGATES, held_at
from retinue.features.table import stacked
from retinue.schema import (
    AMOUNT,
    CATEGORIES,
    CATEGORY,
    CUSTOMER,
    EVENTS,
    FREQUENCY,
    LINES,
    ORDER,
    RECENCY_DAYS,
    T_DAYS,
)
from retinue.sequences.tokens import in_order
from tests.features.histories import CUTOFF, ZONE, history, table
from tests.features.stores import stored

ROOMS = ("events", "features", "sequences", "models", "evaluation")  # who asks anything of all events
HORIZON_DAYS, SHARDS = 30, 4
Named = tuple[str, pl.LazyFrame]

# Queries that translate but need all rows at once, and why that is no harm; one that streams must leave the list.
ONE_PARTITION = {
    "events.orders.summed": "an order's labels are those of the first of its sorted lines; of one shard, which fits in "
    "memory, on the CPU, where input is read and the form that streams takes about half as long again",
    "evaluation.folds.ScrambledStore.scan": "turns the columns of later events upside down; a check of the backtest, "
    "which real forecasts never read",
}


@cache
def made_events() -> pl.DataFrame:
    """Some thousand events of every type, with unknown values, before and after the cutoff."""
    return table(history(5, customers=120))


def events(*optional: str) -> pl.LazyFrame:
    """Events with the required columns and these."""
    return made_events().lazy().select(*EVENTS.columns, *(c for c in EVENTS.optional if c in optional))


def queries(folder: Path) -> Iterator[Named]:
    """Every query with its name: the function that makes it as `room.file.function`, then `: ` and of what.

    Args:
        folder: Where a store of the events is written, which some of the queries read.
    """
    rich = events(*EVENTS.optional)
    yield from _of_features(rich)
    yield from _of_times(rich)
    yield from _of_stores(stored(made_events(), folder, SHARDS))
    yield name_of(in_order), in_order(rich, ZONE)
    yield from _of_the_rest(rich)


def function_of(name: str) -> str:
    """The function that a query is named after."""
    return name.split(":", maxsplit=1)[0]


def name_of(made: Any) -> str:
    """A function, method or class as `room.file.name`."""
    return f"{made.__module__}.{made.__qualname__}".removeprefix("retinue.")


def lazy_functions(source: Path = Path(retinue.__file__).parent) -> set[str]:
    """Public functions and methods of the rooms that say they return a LazyFrame, or several, as `room.file.name`."""
    return {
        ".".join((*path.relative_to(source).with_suffix("").parts, *names))
        for room in ROOMS
        for path in sorted((source / room).rglob("*.py"))
        for names, function in _functions(ast.parse(path.read_text(encoding="utf-8")).body)
        if function.returns is not None and "LazyFrame" in ast.unparse(function.returns)
        if not any(name.startswith("_") for name in names)
    }


def _functions(body: list[ast.stmt]) -> Iterator[tuple[tuple[str, ...], ast.FunctionDef]]:
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield (node.name,), node
        elif isinstance(node, ast.ClassDef):
            for names, function in _functions(node.body):
                yield (node.name, *names), function


def untranslatable() -> pl.LazyFrame:
    """A query that cuDF cannot run: a list operation. A gate that lets it through is blind."""
    return (
        events(AMOUNT).group_by("customer").agg(pl.col("amount")).with_columns(pl.col("amount").list.sort())
    )


def unstreamable() -> dict[str, pl.LazyFrame]:
    """Queries that cuDF runs on all rows at once only. A gate that lets one through is blind."""
    rows, amount = events(AMOUNT), pl.col(AMOUNT)
    return {
        "median": rows.group_by(CUSTOMER).agg(amount.median()),
        "first of unsorted rows": rows.group_by(CUSTOMER).agg(amount.first()),
        "median of groups": rows.group_by(CUSTOMER, "event_type")
        .agg(amount.sum())
        .group_by("event_type")
        .agg(amount.median()),
        "running sum over all rows": rows.with_columns(amount.cum_sum()),
        "numbers of rows": rows.with_row_index(),
    }


def _of_features(rich: pl.LazyFrame) -> Iterator[Named]:
    """Every feature, every family, all features of a rich and of a bare base, and what they are made from."""
    asked, frames = name_of(features_at), Frames(rich, CUTOFF, ZONE)
    for feature in CATALOGUE:
        yield f"{asked}: {feature.name}", features_at(rich, CUTOFF, ZONE, features=[feature])
    for family in Family:
        yield f"{asked}: family {family.value}", features_at(rich, CUTOFF, ZONE, [family])
    yield f"{asked}: a bare base", features_at(events(AMOUNT), CUTOFF, ZONE)
    yield f"{asked}: all features", features_at(rich, CUTOFF, ZONE)
    for aggregate in AGGREGATES.values():
        yield name_of(aggregate), aggregate(frames)
    for shared in ("known", "customers", "orders", "order_days"):
        yield f"{name_of(Frames)}.{shared}", getattr(frames, shared)
    yield name_of(Frames.of), frames.of(ORDER)
    yield name_of(priced), priced(frames)
    yield name_of(spread), spread(frames.orders, pl.col(CATEGORY), "category")
    yield name_of(joined), joined(frames.customers, [frames.order_days])
    whole = whole_of(frames)
    for sums in ("cohorts", "prices", "months"):
        yield f"{name_of(Whole.tables)}: {sums}", getattr(whole, sums)
    yield name_of(stacked), stacked(whole)
    yield name_of(held_at), held_at(rich, CUTOFF, ZONE)


def _of_times(rich: pl.LazyFrame) -> Iterator[Named]:
    yield name_of(timeline.history), timeline.history(rich, CUTOFF)
    yield name_of(timeline.future), timeline.future(rich, CUTOFF, HORIZON_DAYS, ZONE)
    yield name_of(timeline.not_yet_known), timeline.not_yet_known(rich, CUTOFF)


def _of_stores(store: Store) -> Iterator[Named]:
    """Of files: a partition or more each."""
    yield name_of(Store.scan), store.scan()
    past = (store.folder, store.manifest, CUTOFF - timedelta(days=HORIZON_DAYS))
    yield name_of(PastStore.scan), PastStore(*past).scan()
    yield name_of(ScrambledStore.scan), ScrambledStore(*past).scan()
    yield name_of(buyer_codes), buyer_codes(store.scan())
    yield f"{name_of(features_at)}: of a store", features_at(store.scan(), CUTOFF, ZONE)
    yield f"{name_of(in_order)}: of a store", in_order(store.scan(), ZONE)


def _of_the_rest(rich: pl.LazyFrame) -> Iterator[Named]:
    """Labels, lines summed to orders and order histories, whose files also need what the GPU plan has not."""
    with _stand_ins("retinue.config", "torch", "retinue.models.btyd", "retinue.models.fitting"):
        from retinue.events.cleaning import CLOCK, SAME_A, SAME_B
        from retinue.events.orders import Grouping, summed
        from retinue.models.statistics import distinct_histories
    rooms = [f"retinue.evaluation.{name}" for name in ("metrics", "profit", "proper")]
    with _stand_ins(*rooms, "retinue.models.predictive"):
        from retinue.evaluation.realised import realised

    yield name_of(realised), realised(rich, CUTOFF, HORIZON_DAYS, ZONE)
    lines = made_events().drop(LINES, CATEGORIES).with_row_index(SAME_A)
    lines = lines.with_columns(
        pl.col(SAME_A).cast(pl.UInt64),
        pl.col(SAME_A).cast(pl.UInt64).alias(SAME_B),
        pl.lit(True).alias(CLOCK),
    )
    columns = tuple(str(c) for c in (*EVENTS.columns, *EVENTS.optional))
    yield name_of(summed), summed(lines.lazy(), Grouping(columns, None, ZONE))
    keys = (FREQUENCY, RECENCY_DAYS, T_DAYS)
    buyers = pl.DataFrame({str(key): range(made_events().height) for key in keys}).cast(pl.Float64)
    yield name_of(distinct_histories), distinct_histories(buyers.lazy())


@contextmanager
def _stand_ins(*names: str) -> Iterator[None]:
    """Empty modules for what some files need beside their query (torch, scipy, hydra): the GPU plan has none of it."""

    class Empty(ModuleType):
        def __getattr__(self, name: str) -> Any:
            return type(name, (), {})

    missing = [name for name in names if not _loads(name)]
    sys.modules.update({name: Empty(name) for name in missing})
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


def _loads(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True
