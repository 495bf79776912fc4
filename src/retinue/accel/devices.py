"""Where networks and trees learn, in what precision, how much memory is taken, and how fast products are."""

from __future__ import annotations

import logging
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from retinue.accel.engine import EngineChoice, device_bytes, query_memory
from retinue.options import Accelerator
from retinue.schema import InputError

if TYPE_CHECKING:
    import torch

GIB = 2**30
STORE_SHARE = (
    0.5  # of a GPU's free memory that data may take; weights, gradients and hidden numbers need the rest
)
REPEATS = 4
BF16: Final = "bf16-mixed"
FLOAT32: Final = "32-true"
LEAST_BF16 = (8, 0)  # compute capability: Ampere and later multiply in bfloat16 and TF32

log = logging.getLogger(__name__)


def torch_device(engine: EngineChoice) -> torch.device:
    """Where tensors of this run live."""
    import torch  # noqa: PLC0415  as above

    return torch.device("cuda" if engine.is_gpu and torch.cuda.is_available() else "cpu")


def data_fit(needed: int, free: int) -> bool:
    """Whether data of so many bytes may lie on a device with so many free, with `STORE_SHARE` of these at most."""
    return needed <= STORE_SHARE * free


def data_device(needed: int, device: torch.device) -> torch.device:
    """Where data of so many bytes lie that a network on a device reads: there, or on the host where they do not fit."""
    import torch  # noqa: PLC0415  as above

    if device.type != "cuda" or data_fit(needed, torch.cuda.mem_get_info(device)[0]):
        return device
    log.info("data: %.1f GB stay on the host, they do not fit on the GPU", needed / 1e9)
    return torch.device("cpu")


def xgboost_device(engine: EngineChoice) -> str:
    """Where trees grow: cuda or cpu, in XGBoost's words."""
    return "cuda" if engine.is_gpu else "cpu"


def training_device(asked: Accelerator) -> torch.device:
    """Where a network trains: a GPU needs torch alone, not cuDF, so this does not follow from the engine.

    Raises:
        InputError: no GPU where one is asked for.
    """
    import torch  # noqa: PLC0415  as above

    there = torch.cuda.is_available()
    if asked is Accelerator.gpu and not there:
        raise InputError("trainer.accelerator=gpu: no CUDA device is here. Give trainer=cpu.")
    return torch.device("cuda" if there and asked is not Accelerator.cpu else "cpu")


@dataclass(frozen=True)
class Precision:
    """In what a network trains, in Lightning's words, and why."""

    name: Literal["bf16-mixed", "32-true"]
    reason: str


def choose_precision(bf16: bool, device: torch.device) -> Precision:
    """Bfloat16 where it is asked for and the device multiplies in it, else float32."""
    import torch  # noqa: PLC0415  as above

    return precision_of(bf16, torch.cuda.get_device_capability(device) if device.type == "cuda" else None)


def precision_of(bf16: bool, capability: tuple[int, int] | None) -> Precision:
    """As `choose_precision`, by the compute capability of the device; None is the CPU."""
    if not bf16:
        return Precision(FLOAT32, "trainer.bf16=false")
    if capability is None:
        return Precision(FLOAT32, "the CPU computes in float32")
    if capability < LEAST_BF16:
        has, least = (".".join(map(str, version)) for version in (capability, LEAST_BF16))
        return Precision(FLOAT32, f"the device has compute capability {has}, bfloat16 needs {least}")
    return Precision(BF16, "trainer.bf16=true")


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Products of float32 matrices in TF32 beside bfloat16, which keeps fewer bits still; else, and afterwards, as before."""
    import torch  # noqa: PLC0415  as above

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == BF16 else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def memory_report() -> dict[str, float]:
    """GiB: most of the host's that this process has held; of a GPU that it has used, all, free, and most by torch and cuDF.

    A GPU that is not in use stays so: asking would start it.
    """
    found = {"host_peak": _host_peak_bytes() / GIB}
    torch: Any = sys.modules.get("torch")
    of_torch = torch is not None and torch.cuda.is_initialized()
    of_queries = query_memory.cache_info().currsize > 0
    if of_torch or of_queries:
        free, total = torch.cuda.mem_get_info() if of_torch else device_bytes()
        found |= {"device_total": total / GIB, "device_free": free / GIB}
    if of_torch:
        found["torch_peak"] = torch.cuda.max_memory_allocated() / GIB
    if of_queries:
        found["cudf_peak"] = query_memory().allocation_counts.peak_bytes / GIB
    return {name: round(value, 3) for name, value in found.items()}


def _host_peak_bytes() -> int:
    """Most resident memory; from /proc where there is one, since a fork's maxrss begins with its parent's."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    told = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    if told is not None:
        return told * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def matmul_rate(
    device: torch.device,
    seconds: float = 0.3,
    side: int = 1_024,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Floating point operations per second of this device in square products, bfloat16 on a GPU, else float32.

    Args:
        device: to measure.
        seconds: to measure for; the fastest product counts.
        side: of the matrices.
        clock: seconds, of the wall or of the processor.
    """
    import torch  # noqa: PLC0415  as above

    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    left, right = (torch.rand(side, side, device=device, dtype=kind) for _ in range(2))
    out = left @ right
    best, began = math.inf, clock()
    while clock() - began < seconds:
        start = clock()
        for _ in range(REPEATS):
            torch.mm(left, right, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, (clock() - start) / REPEATS)
    return 2 * side**3 / best
