"""`python -m retinue.accel`: what hardware there is, put to work once."""

from __future__ import annotations

import logging

import polars as pl

from retinue.accel.devices import choose_precision, memory_report, training_device
from retinue.accel.engine import choose_engine, to_torch
from retinue.options import Accelerator, Engine


def main() -> int:
    """Says what there is and puts it to work once: `python -m retinue.accel`; 1 where there is no GPU to work on."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    engine = choose_engine(Engine.auto)
    device = training_device(Accelerator.auto)
    precision = choose_precision(True, device)
    print(
        f"networks train on: {device.type}; with trainer.bf16=true in {precision.name} ({precision.reason})"
    )
    told = to_torch(pl.LazyFrame({"x": [1, 2]}).select(pl.col("x").sum()), engine)
    print(f"a query and its tensor: {told.item():.0f} on {told.device.type}")
    print(f"memory in GiB: {memory_report()}")
    return int(not engine.is_gpu or device.type != "cuda")


if __name__ == "__main__":
    raise SystemExit(main())
