"""The steps of a training run: which customers, in which buckets, with which draws; a function of seed and step alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray

from retinue.config import TrainingOptions
from retinue.sequences.resident import Resident, Sampler
from retinue.training.module import Part, Step

Ints = NDArray[np.int64]
TOKENS_PER_BUCKET = 65_536
INNER_READOUTS = 8_192


@dataclass
class Steps:
    """The optimiser steps of one of several processes.

    Every process knows all buckets of a step and builds its own, so nothing is sent between them but gradients,
    and the numbers drawn for a bucket are the same whoever builds it.

    Attributes:
        data: On this process's device.
        training: readouts, buckets, horizons and steps.
        seed: Of order and draws.
        mixed: Lengths are not bucketed, so that each bucket is a fair sample of the base.
        rank: Of this process.
        processes: How many there are.
        start: Steps done before.
    """

    data: Resident
    training: TrainingOptions
    seed: int
    mixed: bool = False
    rank: int = 0
    processes: int = 1
    start: int = 0
    sampler: Sampler = field(init=False)

    def __post_init__(self) -> None:
        lengths = np.ones_like(self.data.lengths) if self.mixed else self.data.lengths
        each = max(1, self.training.readouts // self.training.buckets)
        self.sampler = Sampler(lengths, self.data.counts, each, TOKENS_PER_BUCKET, self.seed)

    def __len__(self) -> int:
        return self.training.steps

    def __iter__(self) -> Iterator[Step]:
        for index, buckets in enumerate(self._plan()):
            if index >= self.training.steps:
                return
            if index >= self.start:
                yield self._step(index, buckets)

    def state_dict(self) -> dict[str, int]:
        """Nothing that the trainer's step does not say."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """See `StepData.train_dataloader`."""

    def _plan(self) -> Iterator[list[Ints]]:
        """The buckets of each step, epoch after epoch."""
        waiting: list[Ints] = []
        epoch = 0
        while True:
            waiting += self.sampler.epoch(epoch)
            epoch += 1
            whole = len(waiting) // self.training.buckets * self.training.buckets
            for begin in range(0, whole, self.training.buckets):
                yield waiting[begin : begin + self.training.buckets]
            waiting = waiting[whole:]

    def _step(self, index: int, buckets: list[Ints]) -> Step:
        parts = tuple(
            self._part(index, place, people)
            for place, people in enumerate(buckets)
            if place % self.processes == self.rank
        )
        everybody = np.concatenate(buckets)
        readouts, tokens = (
            float(column[everybody].sum()) / self.processes
            for column in (self.data.counts, self.data.lengths)
        )
        waste = replace(self.sampler, lengths=self.data.lengths).padding_waste(buckets)
        return Step(index, parts, readouts, tokens, waste)

    def _part(self, index: int, place: int, people: Ints) -> Part:
        draw = int(np.random.SeedSequence([self.seed, index, place]).generate_state(1, np.uint64)[0] >> 1)
        generator = torch.Generator().manual_seed(draw)
        batch = self.data.batch(people, generator, self.training.horizons)
        return Part(batch, int(self.data.lengths[people].max()), draw)


def judged_parts(data: Resident, days: int | None, mixed: bool) -> Iterator[Part]:
    """The held-out readouts, all of them once, with one horizon each.

    Args:
        data: Held-out readouts.
        days: Horizon, or the observed window where that is shorter; None is always the window.
        mixed: See `Steps`.
    """
    lengths = np.ones_like(data.lengths) if mixed else data.lengths
    for people in Sampler(lengths, data.counts, INNER_READOUTS, 4 * TOKENS_PER_BUCKET).in_order():
        batch = data.batch(people, days=days)
        yield Part(batch, int(data.lengths[people].max()), 0)


class StepData(lightning.LightningDataModule):
    """Hands a trainer its process's steps, from where its last checkpoint stopped."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.steps = steps

    def train_dataloader(self) -> Steps:
        """The steps that are left."""
        assert self.trainer is not None
        self.steps.rank, self.steps.processes = self.trainer.global_rank, self.trainer.world_size
        self.steps.start = self.trainer.global_step
        return self.steps

    def transfer_batch_to_device(self, batch: Step, device: torch.device, dataloader_idx: int) -> Step:
        """The step as it is: it was gathered where it is needed."""
        return batch
