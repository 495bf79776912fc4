"""The choice of engine, how queries run on it, and how their results become tensors."""

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

import polars as pl
import pytest
import torch

from retinue.accel import engine
from retinue.accel.engine import (
    SPILL_DEVICE_LIMIT,
    EngineChoice,
    choose_engine,
    collect,
    cudf_engine,
    to_torch,
)
from retinue.options import Engine
from retinue.schema import InputError

CPU = EngineChoice(Engine.cpu, "a test")
GPU = EngineChoice(Engine.gpu, "a test")
SPILL_VARIABLE = "RAPIDSMPF_SPILL_DEVICE_LIMIT"
no_cudf = pytest.mark.skipif(find_spec("cudf_polars") is not None, reason="cudf-polars is installed")


def pretend(monkeypatch: pytest.MonkeyPatch, extra: bool, devices: int = 0, code: int = 0) -> None:
    runtime = types.SimpleNamespace(cudaGetDeviceCount=lambda: (code, devices))
    real = importlib.import_module

    def load(name: str, *rest: Any) -> Any:
        return runtime if name == "cuda.bindings.runtime" else real(name, *rest)

    monkeypatch.setattr(engine, "find_spec", lambda name: object() if extra else None)
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
    monkeypatch.setattr(engine, "_told", set())
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


def test_the_smoke_command_works_once_and_tells_a_machine_without_a_gpu() -> None:
    command = [sys.executable, "-m", "retinue.accel"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "a query and its tensor: 3 on " in ran.stdout
    if not torch.cuda.is_available():
        assert "engine: cpu" in ran.stderr
        assert ran.returncode == 1


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
