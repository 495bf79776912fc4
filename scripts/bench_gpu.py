"""What waits for a GPU, in one command of under ten minutes without a network: python scripts/bench_gpu.py.

Versions and device, `pytest -m gpu`, then tokens/s, share of the matmul rate, and customers scored per second, in
bfloat16 and eager as well as compiled. Needs retinue and its dependencies; without a CUDA device it says so and ends.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch
from bench_train import MODELS, machine, made_task, scoring_speed, training_speed  # type: ignore[import-not-found]
from rich.console import Console
from rich.table import Table

from retinue.accel import matmul_rate
from retinue.config import Encoder, ModelOptions
from retinue.models.attention import attend

ROOT = Path(__file__).parents[1]
TEST_SECONDS = 300
LARGE = {
    "gru 1x256": ModelOptions(Encoder.gru, width=256, layers=1),
    "transformer 6x256": ModelOptions(Encoder.transformer, width=256, layers=6, heads=8),
}
SHAPES = ((4_096, 16), (1_024, 64), (128, 512), (16, 4_096))  # customers, tokens each


def tests() -> bool:
    """Whether `pytest -m gpu` holds."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/models", "tests/training"]
    return subprocess.run(command, cwd=ROOT, timeout=TEST_SECONDS, check=False).returncode == 0


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
    print(machine(), flush=True)
    held, device, console = tests(), torch.device("cuda"), Console(width=150)
    for compiled in (False, True)[: 1 + asked.compile]:
        console.print(speeds(device, asked.seconds, compiled))
    console.print(attention(device))
    print(f"pytest -m gpu: {'held' if held else 'FAILED'}")
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
