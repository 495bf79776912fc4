"""The trainer on the hardware asked for, of one process or many, and what runs on it."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytorch_lightning as lightning
import torch
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy

from retinue.accel.devices import choose_precision, float32_products, training_device
from retinue.options import Strategy as Asked
from retinue.options import TrainerOptions, TrainingOptions
from retinue.schema import InputError

log = logging.getLogger(__name__)


def trainer_of(asked: TrainerOptions, training: TrainingOptions) -> lightning.Trainer:
    """A trainer of steps on the hardware asked for; quiet, with nothing of its own kept.

    Raises:
        InputError: no GPU where one is asked for.
    """
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    device = training_device(asked.accelerator)
    on_gpu = device.type == "cuda"
    precision = choose_precision(asked.bf16, device)
    log.debug("precision: %s (%s)", precision.name, precision.reason)
    return lightning.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=asked.devices,
        num_nodes=asked.nodes,
        strategy=_strategy(asked, on_gpu),
        precision=precision.name,
        max_steps=training.steps,
        accumulate_grad_batches=asked.accumulate,
        gradient_clip_val=training.clip,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _strategy(asked: TrainerOptions, on_gpu: bool) -> Strategy | str:
    processes, backend = asked.devices * asked.nodes, None if on_gpu else "gloo"
    if processes == 1:
        return "auto"
    if is_sharded(asked):
        # FSDP2 without tensor parallelism; checkpoints are those of one process
        return ModelParallelStrategy(
            processes, 1, save_distributed_checkpoint=False, process_group_backend=backend
        )
    # A base without labels has embeddings that no loss reaches; DDP must look which.
    return DDPStrategy(process_group_backend=backend, find_unused_parameters=True)


def is_sharded(asked: TrainerOptions) -> bool:
    """Whether weights are split among processes: there must be several."""
    return asked.strategy is Asked.fsdp and asked.devices * asked.nodes > 1


def compiles(asked: TrainerOptions, device: torch.device) -> bool:
    """Whether the losses are compiled: null means on a GPU, where a C compiler is found, without fsdp and recompute.

    Raises:
        InputError: trainer.compile=true on a GPU, where Triton needs a C compiler and none is found.
    """
    if device.type == "cuda" and asked.compile is not False and not _has_compiler():
        if asked.compile:
            raise InputError(
                "trainer.compile=true: no C compiler is found (gcc, clang or CC). Install gcc, or set trainer.compile=false."
            )
        log.info("train: no C compiler is found, so the network is not compiled")
        return False
    if asked.compile is not None:
        return asked.compile
    return device.type == "cuda" and not asked.recompute and not is_sharded(asked)


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CC", ""), "gcc", "clang", "cc") if name)


def run_steps(
    trainer: lightning.Trainer,
    module: lightning.LightningModule,
    data: lightning.LightningDataModule,
    start: Path | None,
) -> None:
    """Fits; Ctrl-C comes through as such, where Lightning would end the process."""
    stops = signal.getsignal(signal.SIGINT)
    try:
        with _quiet(), float32_products(str(trainer.precision)):
            trainer.fit(module, datamodule=data, ckpt_path=start, weights_only=True)
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        signal.signal(signal.SIGINT, stops)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Lightning 2.6 and torch 2.13 warn of that no user can mend."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)`", FutureWarning)
        # the columns of a forecast are views, which nothing changes in place
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
        yield
