"""Where networks learn and in what precision, what fits there, and what memory is told."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from retinue.accel.devices import (
    BF16,
    FLOAT32,
    choose_precision,
    data_device,
    data_fit,
    float32_products,
    memory_report,
    precision_of,
    torch_device,
    training_device,
)
from retinue.accel.engine import (
    EngineChoice,
    collect,
)
from retinue.options import Accelerator, Engine
from retinue.schema import InputError
from tests.models.devices import NO_GPU

CPU = EngineChoice(Engine.cpu, "a test")
CPU_DEVICE = torch.device("cpu")


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


@pytest.mark.gpu
def test_tensors_live_on_the_gpu_beside_the_queries(gpu: EngineChoice) -> None:
    assert torch_device(gpu).type == "cuda"


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
