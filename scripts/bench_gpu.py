"""What waits for a GPU, in one command of under ten minutes without a network: python scripts/bench_gpu.py.

Versions, device and memory; `pytest -m gpu`; features, hand-over to torch, k-means and every stage on the GPU beside the
CPU; then tokens/s, share of the matmul rate, and customers scored per second, in bfloat16 and eager as well as compiled.
Needs retinue and its dependencies, and pytest, hypothesis and mpmath for the tests. What needs cuDF is skipped where there
is none, and says so; without a CUDA device nothing is run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
import torch
from bench_features import LAST, made, stored  # type: ignore[import-not-found]
from bench_train import MODELS, machine, made_task, scoring_speed, training_speed  # type: ignore[import-not-found]
from polars.testing import assert_frame_equal
from rich.console import Console
from rich.table import Table

from retinue.accel.devices import matmul_rate, memory_report
from retinue.accel.engine import EngineChoice, choose_engine, collect, to_torch
from retinue.accel.kmeans import KMeansPlan, KMeansWay, fit_as_planned, kmeans
from retinue.config import resolve
from retinue.features import build
from retinue.features.table import Collect
from retinue.models.attention import attend
from retinue.options import Encoder, Engine, ModelOptions
from retinue.pipeline import advance
from retinue.runs import Run, Stage
from retinue.schema import (
    ACTION,
    CUSTOMER_ID,
    CUTOFF,
    EXPECTED_ORDERS,
    HORIZON_DAYS,
    P_CHURN,
    SEGMENT,
    InputError,
)
from retinue.segments.model import nearest_rows
from retinue.worlds import write_world

ROOT = Path(__file__).parents[1]
MOST_SECONDS = 570
TEST_SECONDS = 240
TESTS = ("tests/models", "tests/training", "tests/forecasting/test_scoring.py", "tests/accel")
TESTS_OF_CUDF = ("tests/parity",)
PACKAGES = ("polars", "cudf-polars-cu13", "cudf-polars-cu12", "cuml-cu13", "cuml-cu12", "xgboost")
LARGE = {
    "gru 1x256": ModelOptions(Encoder.gru, width=256, layers=1),
    "transformer 6x256": ModelOptions(Encoder.transformer, width=256, layers=6, heads=8),
}
SHAPES = ((4_096, 16), (1_024, 64), (128, 512), (16, 4_096))  # customers, tokens each
CPU = EngineChoice(Engine.cpu, "to compare with")
KEYS = [str(CUSTOMER_ID), str(CUTOFF)]
Section = Callable[[], "Table | str"]


def versions() -> str:
    """Machine, device and the packages that are there."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    device = torch.cuda.get_device_properties(0)
    capability = f"compute capability {device.major}.{device.minor}"
    return f"{machine()}; {device.name}, {capability}, CUDA {torch.version.cuda}; {', '.join(found)}"


def tests(has_cudf: bool) -> str:
    """Runs `pytest -m gpu`.

    Raises:
        RuntimeError: a test fails.
    """
    lacking = [name for name in ("pytest", "hypothesis", "mpmath") if find_spec(name) is None]
    if lacking:
        return f"pytest -m gpu: skipped, {', '.join(lacking)} is not installed"
    asked = [*TESTS, *TESTS_OF_CUDF * has_cudf]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *asked]
    if subprocess.run(command, cwd=ROOT, timeout=TEST_SECONDS, check=False).returncode:
        raise RuntimeError("pytest -m gpu does not hold")
    return "pytest -m gpu: held (what was skipped says why above)"


def features(engine: EngineChoice, events: int) -> Table:
    """All features of a made base on the CPU and by the engine, which must agree; the engine twice, as the first warms up."""
    table = Table("features by", "seconds", title=f"{events:,} events, 4 shards, one cutoff")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = stored(made(events, max(1, events // 26), 0), 4, folder)
        built: dict[str, pl.DataFrame] = {}
        ways: dict[str, Collect] = {
            "cpu": pl.LazyFrame.collect,
            f"{engine.name.value}, first": partial(collect, engine=engine),
            f"{engine.name.value}, again": partial(collect, engine=engine),
        }
        for i, (said, how) in enumerate(ways.items()):
            began = time.perf_counter()
            built[said] = pl.read_parquet(build(store, [LAST], folder / f"{i}.parquet", collect=how))
            table.add_row(said, f"{time.perf_counter() - began:.2f}")
        assert_frame_equal(built[f"{engine.name.value}, again"], built["cpu"], rel_tol=1e-9, abs_tol=1e-12)
    return table


def hand_over(engine: EngineChoice, rows: int) -> Table:
    """A frame of 60 columns to the device of the engine: as cuDF leaves it, and by way of the host."""
    device = torch.device("cuda" if engine.is_gpu else "cpu")
    random = np.random.default_rng(0)
    frame = pl.DataFrame({f"x{i}": random.random(rows, np.float32) for i in range(60)})
    query = frame.lazy().select(pl.all() * 2)
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "where it is": lambda: to_torch(query, engine),
        "by way of the host": lambda: torch.tensor(collect(query, engine).to_numpy()).to(device),
    }
    table = Table("hand-over to torch", "seconds", title=f"{rows:,} rows of 60 float32")
    found = []
    for said, way in ways.items():
        way()
        began = time.perf_counter()
        found.append(way())
        if device.type == "cuda":
            torch.cuda.synchronize()
        table.add_row(said, f"{time.perf_counter() - began:.3f}")
    torch.testing.assert_close(found[0], found[1])
    return table


def centroids(engine: EngineChoice, rows: int, k: int = 8) -> Table:
    """k-means of one matrix in every way there is, with the mean squared distance each leaves."""
    random = np.random.default_rng(0)
    matrix = random.standard_normal((rows, 10)) + 3 * random.integers(0, 2, (rows, 10))
    ways: dict[str, Callable[[], np.ndarray]] = {"cpu": lambda: kmeans(matrix, k, 0, CPU, 2)}
    if engine.is_gpu:
        several = torch.cuda.device_count() > 1 and find_spec("dask_cuda") is not None
        asked = [way for way in KMeansWay if several or way is not KMeansWay.spread]
        for way in asked:
            plan = KMeansPlan(way, "to compare", rows // 4 if way is KMeansWay.buffered else 0)
            ways[f"gpu, {way.value}"] = partial(fit_as_planned, matrix, k, 0, 2, plan)
    table = Table(
        "k-means", "seconds", "mean squared distance", title=f"{rows:,} x 10, {k} centroids, 2 starts"
    )
    for said, fit in ways.items():
        began = time.perf_counter()
        made_centroids = fit()
        took = time.perf_counter() - began
        left = ((matrix - made_centroids[nearest_rows(matrix, made_centroids)]) ** 2).sum(axis=1).mean()
        table.add_row(said, f"{took:.2f}", f"{left:.4f}")
    return table


def stages(engine: EngineChoice, customers: int) -> Table:
    """Every stage of a run on a simulated base with the CPU and with the engine, and how far their tables are apart."""
    table = Table("stages on", "seconds", "segments alike", "worst p_churn", "orders in all", "actions alike")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs: list[Run] = []
        write_world("rich", customers, 0, folder / "world")
        for how in (Engine.cpu, engine.name):
            asked = [
                "data=files", f"data.path={folder / 'world' / 'events.parquet'}", "cutoff=2023-09-30", "horizon_days=90",
                "forecaster=xgboost", f"engine={how.value}", f"output={folder / f'{len(runs)}'}",
            ]  # fmt: skip
            began = time.perf_counter()
            runs.append(advance(resolve(asked), Stage.report))
            table.add_row(how.value, f"{time.perf_counter() - began:.1f}", *apart(runs[0], runs[-1]))
    return table


def apart(one: Run, other: Run) -> tuple[str, str, str, str]:
    """Segments alike, largest difference of P(no order), ratio of expected orders, actions alike; features must agree."""
    assert_frame_equal(other.read("features"), one.read("features"), rel_tol=1e-9, abs_tol=1e-12)

    def alike(table: str, column: str) -> str:
        both = one.read(table).join(other.read(table), on=CUSTOMER_ID, validate="1:1")
        return f"{both.select(pl.col(column).eq_missing(pl.col(f'{column}_right')).mean()).item():.2%}"

    both = one.read("forecasts").join(other.read("forecasts"), on=[*KEYS, HORIZON_DAYS], validate="1:1")
    churn = both.select((pl.col(P_CHURN) - pl.col(f"{P_CHURN}_right")).abs().max()).item()
    orders = both.select(pl.col(f"{EXPECTED_ORDERS}_right").sum() / pl.col(EXPECTED_ORDERS).sum()).item()
    return alike("segments", str(SEGMENT)), f"{churn:.1e}", f"{orders:.5f}", alike("decisions", str(ACTION))


def speeds(device: torch.device, seconds: float, compiled: bool) -> Table:
    """Training and scoring, in mixed bfloat16."""
    rate = matmul_rate(device, 2.0, side=8_192)
    table = Table(
        "model", "tokens/s fwd+bwd", "fwd only", "whole step", "TFLOP/s", "of matmul rate", "scored customers/s",
        title=f"{torch.cuda.get_device_name(device)}; matmul {rate / 1e12:.0f} TFLOP/s bfloat16; compiled: {compiled}",
    )  # fmt: skip
    task = made_task(100_000)
    for name, model in (MODELS | LARGE).items():
        with torch.autocast(device.type, torch.bfloat16):
            got = training_speed(task, model, seconds, device, compiled=compiled, readouts=65_536)
            scoring = scoring_speed(model, seconds, device)
        table.add_row(
            name, *(f"{x:,.0f}" for x in (got.tokens, got.forward, got.step)),
            f"{got.operations / 1e12:.2f}", f"{got.operations / rate:.1%}", f"{scoring:,.0f}",
        )  # fmt: skip
    return table


def attention(device: torch.device) -> Table:
    """The varlen kernel against the padded path, one forward and backward pass, all histories of one length."""
    table = Table(
        "customers x tokens", "varlen bf16, ms", "padded float32, ms", title="attention, 8 heads of 32"
    )
    for customers, length in SHAPES:
        starts = (torch.arange(customers + 1, device=device) * length).int()
        cells = []
        for kind in (torch.bfloat16, torch.float32):
            made = [torch.randn(customers * length, 8, 32, device=device, dtype=kind) for _ in range(3)]
            q, k, v = (x.requires_grad_() for x in made)
            for _ in range(3):
                torch.autograd.backward(attend(q, k, v, starts, length).sum())
            torch.cuda.synchronize()
            began = time.perf_counter()
            for _ in range(10):
                torch.autograd.backward(attend(q, k, v, starts, length).sum())
            torch.cuda.synchronize()
            cells.append(f"{(time.perf_counter() - began) * 100:.2f}")
        table.add_row(f"{customers:,} x {length:,}", *cells)
    return table


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--seconds", type=float, default=3.0, help="per figure")
    words.add_argument("--compile", action="store_true", help="also compiled, minutes more")
    asked = words.parse_args()
    if not torch.cuda.is_available():
        print("bench_gpu: skipped, there is no CUDA device (torch.cuda.is_available() is false)")
        return
    print(versions(), flush=True)
    device, console = torch.device("cuda"), Console(width=150)
    try:
        engine, why = choose_engine(Engine.gpu), ""
    except InputError as error:
        engine, why = CPU, str(error)
    sections: dict[str, Section] = {"tests": partial(tests, engine.is_gpu)}
    of_cudf: dict[str, Section] = {
        "features": partial(features, engine, 2_000_000),
        "hand-over": partial(hand_over, engine, 1_000_000),
        "k-means": partial(centroids, engine, 1_000_000),
        "stages": partial(stages, engine, 5_000),
    }
    for name, section in of_cudf.items():
        sections[name] = section if engine.is_gpu else partial("{}: skipped, {}".format, name, why)
    sections |= {"attention": partial(attention, device)}
    for compiled in (False, True)[: 1 + asked.compile]:
        sections[f"speeds, compiled: {compiled}"] = partial(speeds, device, asked.seconds, compiled)
    failed = told(sections, console, MOST_SECONDS * (1 + asked.compile))
    console.print(f"memory in GiB: {memory_report()}")
    console.print(f"FAILED: {', '.join(failed)}" if failed else "all held")
    sys.exit(int(bool(failed)))


def told(sections: dict[str, Section], console: Console, most_seconds: float) -> list[str]:
    """Prints each section, one after the other while there is time; names of those that failed."""
    began, failed = time.perf_counter(), []
    for name, section in sections.items():
        passed = time.perf_counter() - began
        if passed > most_seconds:
            console.print(f"{name}: skipped, {passed:.0f} s have passed")
            continue
        try:
            console.print(section())
        except Exception as error:  # one section that fails must not take the others' figures along
            console.print(f"{name}: FAILED, {type(error).__name__}: {error}", markup=False)
            failed.append(name)
    return failed


if __name__ == "__main__":
    main()
