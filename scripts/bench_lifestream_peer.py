"""pytorch-lifestream's side of bench_lifestream.py, in an environment and a process of its own: FOLDER; JSON to stdout.

Runs what its documentation advises: records in memory, `SeqToTargetDataset` with its collate function,
`PtlsDataModule`, `TrxEncoder` and `RnnSeqEncoder` under `SequenceToTarget`, Lightning's trainer; for scoring
`inference_data_loader` and `predict`. Where there is a choice it gets the faster one: logs taken beforehand, since its
own scalers run sequence by sequence; no metrics, no logger, no checkpoints, no progress bar; no worker processes, which
brought nothing on two cores; the best of some batch sizes.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch

CATEGORIES = {"kind": 4, "category": 201}  # sizes, with 0 for padding
CATEGORY_WIDTH = 16
NUMBERS = ("log_gap", "amount", "quantity")
WARM_UP = 3
CLOCK = [time.perf_counter]
BATCHES = (64, 512)  # its default, and one that its own guides take
SCORED_BATCHES = (64, 512)  # as its loader has it: 512
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Stopwatch(lightning.Callback):
    """Time and events of the batches after the first few; stops the trainer when the time is up."""

    def __init__(self, seconds: float) -> None:
        self.limit, self.begun = seconds, 0.0
        self.batches = self.events = self.sequences = 0
        self.seconds = 0.0

    def on_train_batch_end(self, trainer: lightning.Trainer, *about: Any) -> None:
        """Counts a batch."""
        padded = about[2][0]
        self.batches += 1
        if self.batches <= WARM_UP:
            self.begun = CLOCK[0]()
            return
        self.events += int(padded.seq_lens.sum())
        self.sequences += len(padded.seq_lens)
        self.seconds = CLOCK[0]() - self.begun
        trainer.should_stop = self.seconds >= self.limit


def records(folder: Path, name: str) -> list[dict[str, Any]]:
    """One record of tensors per sequence, logs taken beforehand, so that no step has to."""
    columns = dict(np.load(folder / f"{name}.npz"))
    offsets, target = columns.pop("offsets"), columns.pop("target")
    ends = offsets[1:-1].tolist()
    cut = {each: torch.from_numpy(column).tensor_split(ends) for each, column in columns.items()}
    return [
        {each: parts[i] for each, parts in cut.items()} | {"target": float(target[i])}
        for i in range(len(target))
    ]


def module(width: int) -> Any:
    """GRU of one layer over events projected to its width, and a head of one number."""
    nn, supervised = import_module("ptls.nn"), import_module("ptls.frames.supervised")
    torch.manual_seed(0)
    events = nn.TrxEncoder(
        embeddings={name: {"in": size, "out": CATEGORY_WIDTH} for name, size in CATEGORIES.items()},
        numeric_values=dict.fromkeys(NUMBERS, "identity"),
        linear_projection_size=width,
    )
    return supervised.SequenceToTarget(
        seq_encoder=nn.RnnSeqEncoder(trx_encoder=events, hidden_size=width, type="gru"),
        head=nn.Head(input_size=width, objective="regression"),
        loss=torch.nn.MSELoss(),
        metric_list=import_module("torchmetrics").MeanSquaredError(),
        optimizer_partial=partial(torch.optim.AdamW, lr=5e-4),
        lr_scheduler_partial=partial(torch.optim.lr_scheduler.StepLR, step_size=10),
        train_update_n_steps=10**9,
    )


def trained(data: Any, width: int, seconds: float, batch: int) -> dict[str, float]:
    """Events and sequences per second under Lightning's trainer."""
    watch = Stopwatch(seconds)
    rows = import_module("ptls.frames").PtlsDataModule(
        train_data=data, train_batch_size=batch, train_drop_last=True
    )
    trainer = lightning.Trainer(max_epochs=1_000, gradient_clip_val=1.0, callbacks=[watch], **QUIET)
    trainer.fit(module(width), rows)
    return {"events": watch.events / watch.seconds, "readouts": watch.sequences / watch.seconds}


def scored(rows: list[dict[str, Any]], width: int, seconds: float, batch: int) -> float:
    """Sequences per second, the median of several passes over all of them after one to warm up."""
    loaders = import_module("ptls.data_load.datasets.dataloaders")
    predictor = lightning.Trainer(**QUIET)
    network = module(width)
    took: list[float] = []
    while sum(took[1:]) < seconds or len(took) < 3:
        start = CLOCK[0]()
        found: Any = predictor.predict(network, loaders.inference_data_loader(rows, batch_size=batch))
        took.append(CLOCK[0]() - start)
        assert sum(len(part) for part in found) == len(rows)
    return len(rows) / float(np.median(took[1:]))


def main(folder: Path) -> None:
    """Prints the best batch size's speed of training and of scoring."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    width, seconds = case["width"], case["seconds"]
    if case["busy"]:
        torch.set_num_threads(1)
        CLOCK[0] = time.process_time
    data = import_module("ptls.frames.supervised").SeqToTargetDataset(
        records(folder, "learnt"), target_col_name="target", target_dtype=torch.float32
    )
    training = [trained(data, width, seconds, batch) for batch in BATCHES]
    rows = [{name: row[name] for name in row if name != "target"} for row in records(folder, "scored")]
    best = max(training, key=lambda each: each["events"])
    scoring = max(scored(rows, width, seconds, batch) for batch in SCORED_BATCHES)
    versions = {each: version(each) for each in ("pytorch-lifestream", "torch")}
    print(json.dumps({**best, "scored": scoring, "versions": versions}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
