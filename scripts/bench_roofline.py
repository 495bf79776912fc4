"""How far each stage is from what this machine could do at most: python scripts/bench_roofline.py [--events 2_000_000].

Measured first: bytes per second that memory moves (a copy: read and write) and operations per second of products of matrices.
For each stage: the bytes that must be moved at least (every input column read once, every output written once) and the
operations of its products; the time both would take at those rates, the time it took, and the time an H100 would need at its
data sheet's 3.35 TB/s and 989 TFLOP/s (dense bfloat16). Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl
import torch
from bench_train import made_network, made_task, scored, scored_base  # type: ignore[import-not-found]
from rich.console import Console
from rich.table import Table

from retinue.accel.devices import matmul_rate
from retinue.accel.engine import EngineChoice
from retinue.accel.kmeans import kmeans
from retinue.config import resolve
from retinue.events.prepare import prepare
from retinue.events.store import Store
from retinue.features import build
from retinue.models.btyd import fit
from retinue.models.statistics import statistics_of
from retinue.models.work import scoring_operations, training_operations
from retinue.options import Encoder, Engine, ModelOptions, Rung, TrainingOptions
from retinue.sequences.resident import resident
from retinue.sequences.tokens import write_tokens
from retinue.training.data import Steps
from retinue.training.module import SequenceModule
from retinue.worlds.kinds import Kind, spec_of
from retinue.worlds.world import simulate

H100_BYTES, H100_OPERATIONS = 3.35e12, 989e12
CUTOFF = datetime(2023, 10, 2, 23, 59, 59, 999_999, tzinfo=UTC)
COPIED = 1 << 28  # bytes; far above any cache
REPEATS = 3
ROWS, COLUMNS, K = 200_000, 32, 64
MODEL = ModelOptions(Encoder.gru, width=128, layers=1)


@dataclass(frozen=True)
class Work:
    """What a stage must do at least, and how long it took.

    Attributes:
        name: of the stage.
        moved: bytes.
        operations: of products of matrices.
        seconds: median of its runs.
    """

    name: str
    moved: float
    operations: float
    seconds: float


def memory_rate() -> float:
    """Bytes per second, read and written, of the fastest of several copies on all threads."""
    source, target = torch.ones(COPIED // 4), torch.empty(COPIED // 4)
    return 2 * COPIED / min(_seconds(lambda: target.copy_(source)) for _ in range(10))


def _seconds(do: Callable[[], object]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def _median(do: Callable[[], object], repeats: int = REPEATS) -> float:
    return float(np.median([_seconds(do) for _ in range(repeats)]))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def of_events(folder: Path, events: int) -> list[Work]:
    """Raw rows to events, tokens and features."""
    raw = simulate(spec_of(Kind.rich), max(events // 25, 100), 0).events.drop("base", "customer")
    raw.write_parquet(folder / "raw.parquet")
    options = resolve([f"data.path={folder}/raw.parquet", "data.time_zone=UTC"])
    out = folder / "events"
    seconds = _median(lambda: prepare(options.data, out, 1))
    store = Store.open(out)
    rows = store.scan().collect()
    made = [Work(f"prepare, {raw.height:,} rows", raw.estimated_size() + rows.estimated_size(), 0.0, seconds)]
    seconds = _median(lambda: write_tokens(store, folder / "tokens"))
    made.append(Work("tokens", rows.estimated_size() + _size(folder / "tokens"), 0.0, seconds))
    seconds = _median(lambda: build(store, [CUTOFF], folder / "features.parquet"))
    features = pl.read_parquet(folder / "features.parquet")
    made.append(
        Work(
            f"features, {features.height:,} customers",
            rows.estimated_size() + features.estimated_size(),
            0.0,
            seconds,
        )
    )
    return made


def of_kmeans() -> Work:
    """Ten passes over the rows, which is about what the fit takes; it stops by itself, so this flatters or wrongs it."""
    lot = np.random.default_rng(0)
    rows = lot.normal(size=(ROWS, COLUMNS)) + 3 * lot.normal(size=(K, COLUMNS))[lot.integers(0, K, ROWS)]
    engine = EngineChoice(Engine.cpu, "bench")
    passes = 10
    return Work(
        f"k-means, {ROWS:,} x {COLUMNS}, k = {K}, one start", passes * rows.nbytes, passes * 2.0 * ROWS * COLUMNS * K,
        _median(lambda: kmeans(rows, K, 0, engine, restarts=1)),
    )  # fmt: skip


def of_law() -> Work:
    """A hundred likelihoods of 100,000 histories; elementwise, so that only the bytes of the histories count."""
    lot = np.random.default_rng(0)
    customers = 100_000
    age = lot.uniform(30, 700, customers).round()
    frequency = lot.poisson(2.0, customers).astype(np.float64)
    recency = np.where(frequency > 0, np.maximum((age * lot.uniform(0, 1, customers)).round(), 1.0), 0.0)
    ids = pl.int_range(customers, eager=True).cast(pl.String)
    histories = pl.DataFrame(
        {"customer_id": ids, "frequency": frequency, "recency_days": recency, "T_days": age}
    )
    statistics = statistics_of(histories)
    return Work(
        f"Pareto/NBD fit, {customers:,} customers", 100 * 3 * 8.0 * customers, 0.0,
        _median(lambda: fit(Rung.pareto_nbd, statistics.distinct)),
    )  # fmt: skip


def of_network(device: torch.device) -> list[Work]:
    """A training step of GRU 128 and the scoring of 16,384 customers of ten events."""
    task = made_task(20_000)
    data = resident(task.tokens, task.readouts, task.vocabulary, task.season, device)
    asked = TrainingOptions(steps=10**6)
    module = SequenceModule(made_network(task, MODEL, device), asked, False).to(device)
    module.train()
    step = next(iter(Steps(data, asked, seed=0)))
    lengths = torch.cat([part.batch.cu_seqlens.diff() for part in step.parts]).numpy().astype(np.int64)
    weights = 4.0 * sum(weight.numel() for weight in module.network.parameters())
    states = 4.0 * MODEL.width * float(lengths.sum())

    def train() -> None:
        module.terms.clear()
        torch.autograd.backward(module.training_step(step, 0))

    made = [
        Work(
            f"GRU 128 forward and backward, {int(lengths.sum()):,} events", 3 * (weights + 4 * states),
            training_operations(module.network, lengths, int(step.readouts)), _median(train, 5),
        )
    ]  # fmt: skip
    customers = 16_384
    scored_task, rows = scored_base(customers, device)
    network = made_network(scored_task, MODEL, device).eval()
    of_each = np.full(customers, 10, np.int64)
    made.append(
        Work(
            f"scoring, {customers:,} customers of ten events", weights + 8 * 4.0 * MODEL.width * of_each.sum(),
            scoring_operations(network, of_each, customers), _median(partial(scored, network, rows)),
        )
    )  # fmt: skip
    return made


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--events", type=lambda text: int(text.replace("_", "")), default=2_000_000)
    asked = words.parse_args()
    device = torch.device("cpu")
    moves, multiplies = memory_rate(), matmul_rate(device, 2.0)
    load = os.getloadavg()[0]
    table = Table(
        "stage", "GB moved at least", "GFLOP", "limit, s", "by", "took, s", "of the limit", "H100 limit, ms",
        title=f"{platform.machine()}, {torch.get_num_threads()} threads, load {load:.1f}; memory {moves / 1e9:.1f} GB/s, "
        f"products {multiplies / 1e9:.0f} GFLOP/s float32; torch {version('torch')}, polars {version('polars')}",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        made = of_events(Path(folder), asked.events)
    for work in [*made, of_kmeans(), of_law(), *of_network(device)]:
        times = {"memory": work.moved / moves, "products": work.operations / multiplies}
        by = max(times, key=lambda name: times[name])
        there = max(work.moved / H100_BYTES, work.operations / H100_OPERATIONS)
        table.add_row(
            work.name, f"{work.moved / 1e9:.3f}", f"{work.operations / 1e9:.1f}", f"{times[by]:.4f}", by,
            f"{work.seconds:.3f}", f"{times[by] / work.seconds:.1%}", f"{there * 1e3:.3f}",
        )  # fmt: skip
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
