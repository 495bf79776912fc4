"""The choice of engine, how queries and k-means run on it, precision, hand-over to torch, and memory."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from retinue import accel
from retinue.accel import (
    BF16,
    FLOAT32,
    SPILL_DEVICE_LIMIT,
    EngineChoice,
    KMeansPlan,
    KMeansWay,
    choose_engine,
    choose_precision,
    collect,
    cudf_engine,
    data_device,
    data_fit,
    fit_as_planned,
    float32_products,
    kmeans,
    memory_report,
    plan_kmeans,
    precision_of,
    to_torch,
    torch_device,
    training_device,
)
from retinue.options import Accelerator, Engine
from retinue.schema import InputError
from tests.models.devices import NO_GPU

CPU = EngineChoice(Engine.cpu, "a test")
CPU_DEVICE = torch.device("cpu")
GPU = EngineChoice(Engine.gpu, "a test")
SPILL_VARIABLE = "RAPIDSMPF_SPILL_DEVICE_LIMIT"
no_cudf = pytest.mark.skipif(find_spec("cudf_polars") is not None, reason="cudf-polars is installed")


def pretend(monkeypatch: pytest.MonkeyPatch, extra: bool, devices: int = 0, code: int = 0) -> None:
    runtime = types.SimpleNamespace(cudaGetDeviceCount=lambda: (code, devices))
    real = importlib.import_module

    def load(name: str, *rest: Any) -> Any:
        return runtime if name == "cuda.bindings.runtime" else real(name, *rest)

    monkeypatch.setattr(accel, "find_spec", lambda name: object() if extra else None)
    monkeypatch.setattr(importlib, "import_module", load)


@pytest.mark.parametrize(
    ("extra", "devices", "code", "chosen", "why"),
    [
        (False, 0, 0, Engine.cpu, "not installed"),
        (True, 0, 100, Engine.cpu, "cudaGetDeviceCount says 100"),
        (True, 0, 0, Engine.cpu, "no CUDA device"),
        (True, 1, 0, Engine.gpu, "are there"),
    ],
)
def test_auto_takes_the_gpu_where_there_is_one_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    extra: bool, devices: int, code: int, chosen: Engine, why: str,
) -> None:  # fmt: skip
    pretend(monkeypatch, extra, devices, code)
    monkeypatch.setattr(accel, "_told", set())
    with caplog.at_level(logging.INFO):
        choice = choose_engine(Engine.auto)
    assert choice.name is chosen
    assert why in choice.reason
    assert choice.reason in caplog.text


def test_a_gpu_that_was_asked_for_and_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, extra=True, devices=0)
    with pytest.raises(InputError, match="engine=gpu: needs a GPU, but there is no CUDA device"):
        choose_engine(Engine.gpu)
    pretend(monkeypatch, extra=False)
    with pytest.raises(InputError, match="not installed"):
        choose_engine(Engine.gpu)


def test_a_cpu_that_was_asked_for_is_taken_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, extra=True, devices=1)
    assert choose_engine(Engine.cpu).name is Engine.cpu
    assert choose_engine(Engine.gpu).is_gpu


def test_a_query_on_the_cpu_is_run_by_polars() -> None:
    query = pl.LazyFrame({"x": [1, 2]}).select(pl.col("x").sum())
    assert collect(query, CPU).item() == collect(query, CPU, whole_base=True).item() == 3


@no_cudf
@pytest.mark.parametrize("whole_base", [False, True])
def test_a_query_for_the_gpu_never_runs_on_the_cpu_instead(whole_base: bool) -> None:
    query = pl.LazyFrame({"x": [1]})
    with pytest.raises(ImportError):
        collect(query, GPU, whole_base)
    with pytest.raises(ImportError):
        query.collect(engine=cudf_engine(whole_base))
    with pytest.raises(ImportError):
        to_torch(query, GPU)


def test_the_spill_limit_of_the_user_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SPILL_VARIABLE, "55%")
    cudf_engine(whole_base=True)
    assert os.environ[SPILL_VARIABLE] == "55%"
    monkeypatch.delenv(SPILL_VARIABLE)
    cudf_engine()
    assert SPILL_VARIABLE not in os.environ
    cudf_engine(whole_base=True)
    assert os.environ[SPILL_VARIABLE] == SPILL_DEVICE_LIMIT
    monkeypatch.delenv(SPILL_VARIABLE)


@pytest.mark.parametrize(("dtype", "kind"), [(None, torch.float32), (torch.float64, torch.float64)])
def test_a_frame_becomes_a_tensor(dtype: torch.dtype | None, kind: torch.dtype) -> None:
    frame = pl.DataFrame({"count": [3, None], "told": [True, False], "value": [0.5, float("nan")]})
    made = to_torch(frame.lazy(), CPU, dtype)
    expected = torch.tensor([[3, 1, 0.5], [torch.nan, 0, torch.nan]], dtype=kind)
    torch.testing.assert_close(made, expected, rtol=0, atol=0, equal_nan=True)
    assert to_torch(frame.clear(), CPU, dtype).shape == (0, 3)


def test_a_tensor_is_not_the_memory_of_its_frame() -> None:
    frame = pl.DataFrame({"value": [1.0, 2.0]})
    to_torch(frame, CPU, torch.float64).zero_()
    assert frame["value"].to_list() == [1.0, 2.0]


def test_tensors_live_on_the_cpu_without_a_gpu() -> None:
    assert torch_device(CPU).type == "cpu"


@pytest.mark.parametrize(("needed", "there"), [(0, True), (500, True), (501, False)])
def test_data_take_half_of_what_is_free_on_a_gpu_at_most(
    needed: int, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert data_fit(needed, 1_000) is there
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1_000, 8_000))
    gpu = torch.device("cuda", 1)
    assert data_device(needed, gpu) == (gpu if there else CPU_DEVICE)
    assert data_device(10**15, CPU_DEVICE) == CPU_DEVICE


def blobs() -> np.ndarray:
    random = np.random.default_rng(0)
    return np.concatenate(
        [c + 0.1 * random.standard_normal((50, 2)) for c in ([3.0, 0.0], [0.0, 3.0], [-3.0, 0.0])]
    )


def test_kmeans_finds_planted_centres_in_ascending_order() -> None:
    centroids = kmeans(blobs(), 3, 0, CPU)
    np.testing.assert_allclose(centroids, [[-3.0, 0.0], [0.0, 3.0], [3.0, 0.0]], atol=0.1)


def test_kmeans_does_not_depend_on_the_number_of_threads() -> None:
    matrix = np.random.default_rng(1).standard_normal((3000, 6))
    with threadpool_limits(1):
        one = kmeans(matrix, 5, 0, CPU, 2)
    with threadpool_limits(2):
        two = kmeans(matrix, 5, 0, CPU, 2)
    np.testing.assert_array_equal(one, two)


def many(rows: int = 70_000, seed: int = 2) -> np.ndarray:
    """Six groups far from the origin and from each other, more rows than are fitted whole."""
    random = np.random.default_rng(seed)
    centres = 1e6 + 10.0 * random.permutation(np.eye(6)).astype(float)
    return centres[random.integers(0, 6, rows)] + random.standard_normal((rows, 6))


def test_kmeans_of_many_rows_finds_what_rounds_over_all_of_them_find(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = many()
    found = kmeans(matrix, 6, 0, CPU, 3)
    monkeypatch.setattr(accel, "WHOLE_ROWS", len(matrix))
    np.testing.assert_allclose(found, kmeans(matrix, 6, 0, CPU, 3), atol=0.01)


def test_kmeans_of_many_rows_does_not_depend_on_the_number_of_threads() -> None:
    matrix = np.random.default_rng(1).standard_normal((70_000, 4))
    with threadpool_limits(1):
        one = kmeans(matrix, 5, 3, CPU, 2)
    with threadpool_limits(2):
        two = kmeans(matrix, 5, 3, CPU, 2)
    np.testing.assert_array_equal(one, two)


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


@pytest.mark.parametrize(
    ("bf16", "capability", "name", "why"),
    [
        (True, (9, 0), BF16, "trainer.bf16=true"),
        (True, (8, 0), BF16, "trainer.bf16=true"),
        (True, (7, 5), FLOAT32, "compute capability 7.5, bfloat16 needs 8.0"),
        (True, None, FLOAT32, "the CPU computes in float32"),
        (False, (9, 0), FLOAT32, "trainer.bf16=false"),
    ],
)
def test_bfloat16_is_used_where_it_is_asked_for_and_there(
    bf16: bool, capability: tuple[int, int] | None, name: str, why: str
) -> None:
    found = precision_of(bf16, capability)
    assert (found.name, why in found.reason) == (name, True)


def test_a_network_trains_on_the_cpu_where_there_is_no_gpu() -> None:
    assert choose_precision(True, training_device(Accelerator.cpu)).name == FLOAT32
    if not torch.cuda.is_available():
        assert training_device(Accelerator.auto).type == "cpu"
        with pytest.raises(InputError, match="no CUDA device is here"):
            training_device(Accelerator.gpu)


def test_tf32_goes_with_bfloat16_and_goes_again() -> None:
    before = torch.get_float32_matmul_precision()
    with float32_products(FLOAT32):
        assert torch.get_float32_matmul_precision() == before
    with pytest.raises(KeyError), float32_products(BF16):  # noqa: PT012
        assert torch.get_float32_matmul_precision() == "high"
        raise KeyError
    assert torch.get_float32_matmul_precision() == before


def test_the_memory_report_sees_what_this_process_has_held() -> None:
    before = memory_report()
    assert 0.05 < before["host_peak"] < 100
    held = np.ones(int((before["host_peak"] + 0.1) * 2**27))  # 0.1 GiB more than ever before, in doubles
    assert memory_report()["host_peak"] >= before["host_peak"] + 0.1 - 1e-3
    del held
    assert memory_report()["host_peak"] >= before["host_peak"] + 0.1 - 1e-3
    if not torch.cuda.is_available():
        assert set(before) == {"host_peak"}


def test_kmeans_sees_a_distinct_row_behind_many_equal_ones() -> None:
    matrix = np.concatenate([np.zeros((2000, 1)), [[5.0], [6.0], [9.0]]])
    assert kmeans(matrix, 3, 0, CPU)[:, 0].tolist() == pytest.approx([0.0, 5.5, 9.0], abs=1e-9)
    assert kmeans(matrix, 4, 0, CPU)[:, 0].tolist() == [0.0, 5.0, 6.0, 9.0]


def test_the_smoke_command_works_once_and_tells_a_machine_without_a_gpu() -> None:
    command = [sys.executable, "-m", "retinue.accel"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "a query and its tensor: 3 on " in ran.stdout
    if not torch.cuda.is_available():
        assert "engine: cpu" in ran.stderr
        assert ran.returncode == 1


@pytest.fixture
def gpu() -> EngineChoice:
    """The GPU engine, or a skip that says what is missing: a machine may have torch's GPU without cuDF."""
    try:
        return choose_engine(Engine.gpu)
    except InputError as error:
        pytest.skip(str(error))


@pytest.mark.gpu
@pytest.mark.parametrize("whole_base", [False, True])
def test_both_ways_of_a_query_give_the_rows_of_the_cpu(
    gpu: EngineChoice, tmp_path: Path, whole_base: bool
) -> None:
    rows = pl.DataFrame({"key": [i % 7 for i in range(10_000)], "x": range(10_000)})
    rows.write_parquet(tmp_path / "rows.parquet")
    query = pl.scan_parquet(tmp_path / "rows.parquet").group_by("key").agg(pl.col("x").sum()).sort("key")
    assert collect(query, gpu, whole_base).equals(collect(query, CPU))


@pytest.mark.gpu
def test_what_cudf_cannot_run_is_an_error(gpu: EngineChoice) -> None:
    lists = pl.LazyFrame({"x": [[2, 1]]}).select(pl.col("x").list.sort())
    with pytest.raises(pl.exceptions.ComputeError, match="unsupported"):
        collect(lists, gpu)


@pytest.mark.gpu
def test_tensors_live_on_the_gpu_beside_the_queries(gpu: EngineChoice) -> None:
    assert torch_device(gpu).type == "cuda"


@pytest.mark.gpu
@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("rows", [0, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_frame_becomes_a_tensor_on_the_gpu(
    gpu: EngineChoice, columns: int, rows: int, dtype: torch.dtype
) -> None:
    frame = pl.DataFrame({"a": [1, None, 3, 4, 5], "b": [0.5] * 5, "c": [True, False, None, True, True]})
    asked = frame.select(frame.columns[:columns]).head(rows)
    made = to_torch(asked, gpu, dtype)
    assert made.is_cuda
    torch.testing.assert_close(made.cpu(), to_torch(asked, CPU, dtype), rtol=0, atol=0, equal_nan=True)


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


@pytest.mark.gpu
def test_the_memory_report_sees_torch_and_cudf(gpu: EngineChoice) -> None:
    tensor = torch.zeros(2**28, device="cuda")  # 1 GiB
    collect(pl.LazyFrame({"x": range(1_000_000)}).select(pl.col("x").sort()), gpu)
    found = memory_report()
    assert 1.0 <= found["torch_peak"] <= found["device_total"] - found["device_free"] + 0.1
    assert found["cudf_peak"] >= 8e6 / 2**30 * 0.9
    del tensor


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)
def test_the_precision_asked_for_is_the_devices() -> None:
    device = training_device(Accelerator.gpu)
    assert device.type == "cuda"
    assert (choose_precision(True, device).name == BF16) == torch.cuda.is_bf16_supported(False)
