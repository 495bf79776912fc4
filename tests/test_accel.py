"""The choice of engine, and k-means."""

from __future__ import annotations

import importlib
import logging
import types
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from threadpoolctl import threadpool_limits

from retinue import accel
from retinue.accel import EngineChoice, choose_engine, collect, data_device, data_fit, kmeans, torch_device
from retinue.config import Engine
from retinue.schema import InputError

CPU = EngineChoice(Engine.cpu, "a test")
CPU_DEVICE = torch.device("cpu")
GPU = EngineChoice(Engine.gpu, "a test")


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


def test_collect_hands_the_query_to_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    query = pl.LazyFrame({"x": [1, 2]}).select(pl.col("x").sum())
    assert collect(query, CPU).item() == 3
    engines = []
    monkeypatch.setattr(pl, "GPUEngine", lambda **options: options)
    monkeypatch.setattr(pl.LazyFrame, "collect", lambda self, engine: engines.append(engine))
    collect(query, GPU)
    assert engines == [{"raise_on_fail": True}]


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


def test_kmeans_gives_the_distinct_rows_where_there_are_too_few() -> None:
    np.testing.assert_array_equal(kmeans(np.array([[2.0], [1.0], [2.0]]), 5, 0, CPU), [[1.0], [2.0]])


def test_kmeans_on_a_gpu_asks_cuml_for_numpy_and_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class KMeans:
        def __init__(self, **options: Any) -> None:
            asked.update(options)

        def fit(self, matrix: np.ndarray) -> KMeans:
            self.cluster_centers_ = matrix[[100, 0, 50]]
            return self

    module = types.SimpleNamespace(KMeans=KMeans)
    monkeypatch.setattr(importlib, "import_module", lambda name: module if name == "cuml.cluster" else None)
    centroids = kmeans(blobs(), 3, 7, GPU, 4)
    assert (asked["n_clusters"], asked["random_state"], asked["n_init"], asked["output_type"]) == (
        3,
        7,
        4,
        "numpy",
    )
    assert centroids[:, 0].tolist() == sorted(centroids[:, 0].tolist())


def test_kmeans_sees_a_distinct_row_behind_many_equal_ones() -> None:
    matrix = np.concatenate([np.zeros((2000, 1)), [[5.0], [6.0], [9.0]]])
    assert kmeans(matrix, 3, 0, CPU)[:, 0].tolist() == pytest.approx([0.0, 5.5, 9.0], abs=1e-9)
    assert kmeans(matrix, 4, 0, CPU)[:, 0].tolist() == [0.0, 5.0, 6.0, 9.0]


@pytest.mark.gpu
def test_cuml_and_scikit_learn_find_the_same_centres() -> None:
    np.testing.assert_allclose(
        kmeans(blobs(), 3, 0, choose_engine(Engine.gpu)), kmeans(blobs(), 3, 0, CPU), atol=1e-3
    )
