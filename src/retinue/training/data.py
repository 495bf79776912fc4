"""The steps of a training run: which customers, in which buckets, with which draws; a function of seed and step alone."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray

from retinue.options import TrainingOptions
from retinue.sequences.resident import Resident, Sampler
from retinue.training.module import Part, Step

Ints = NDArray[np.int64]
TOKENS_PER_BUCKET = 65_536
INNER_READOUTS = 8_192


@dataclass
class Steps:
    """The optimiser steps of one of several processes.

    Every process knows all buckets of a step and builds its share of them, so nothing is sent between them but
    gradients, and the horizons drawn are the same whoever builds them. All processes have equally many parts in a
    step, as sharded weights are gathered by all of them at once.

    Attributes:
        data: On this process's device.
        training: readouts, buckets, horizons and steps.
        seed: Of order and draws.
        mixed: Lengths are not bucketed, so that each bucket is a fair sample of the base, and stays whole.
        rank: Of this process.
        processes: How many there are; a bucket may hold so many times as many tokens as one process takes at once.
        start: Steps done before.
        pieces: In which each process works through its part of a step, see `Step.pieces`.
    """

    data: Resident
    training: TrainingOptions
    seed: int
    mixed: bool = False
    rank: int = 0
    processes: int = 1
    start: int = 0
    pieces: int = 1
    sampler: Sampler = field(init=False)

    def __post_init__(self) -> None:
        lengths = np.ones_like(self.data.lengths) if self.mixed else self.data.lengths
        each = max(1, self.training.readouts // self.training.buckets)
        self.sampler = Sampler(lengths, self.data.counts, each, TOKENS_PER_BUCKET * self.processes, self.seed)

    def __len__(self) -> int:
        return self.training.steps * self.pieces

    def __iter__(self) -> Iterator[Step]:
        steps = self._built()
        for step in ahead(steps, self.data.device) if self.data.is_far else steps:
            yield from step.split(self.pieces)

    def _built(self) -> Iterator[Step]:
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
        shares = shared_out(self.data.lengths, buckets, self.processes, self.mixed)
        turns = max(self.pieces, *(len(share) for share in shares))
        mine = shares[self.rank]
        parts = [self._part(index, place, people, buckets[place]) for place, people in mine]
        everybody = np.concatenate(buckets)
        shortest = everybody[[self.data.lengths[everybody].argmin()]]
        idle = [replace(self._part(index, 0, shortest, shortest), idle=True)] * (turns - len(parts))
        readouts, tokens = (
            float(column[everybody].sum()) / self.processes
            for column in (self.data.counts, self.data.lengths)
        )
        own = [people for _, people in mine]
        waste = replace(self.sampler, lengths=self.data.lengths).padding_waste(own)
        return Step(index, (*parts, *idle), readouts, tokens, waste)

    def _part(self, index: int, place: int, people: Ints, bucket: Ints) -> Part:
        draw = int(np.random.SeedSequence([self.seed, index, place]).generate_state(1, np.uint64)[0] >> 1)
        generator = torch.Generator().manual_seed(draw)
        batch = self.data.batch(people, generator, self.training.horizons, among=bucket)
        # shares of one bucket must not lose the same hidden numbers
        seed = draw if self.mixed else draw + self.rank
        return Part(batch, int(self.data.lengths[people].max()), seed)


def ahead(steps: Iterator[Step], device: torch.device) -> Iterator[Step]:
    """Each step once the next one is begun, on a stream of its own: its copies run beside the work on this one."""
    cards = torch.get_device_module(device)
    side = cards.Stream()
    waiting: list[tuple[Step, Any]] = []
    while True:
        with cards.stream(side):
            step = next(steps, None)
            if step is not None:
                waiting.append((step, side.record_event()))
        if not waiting:
            return
        if step is None or len(waiting) > 1:
            first, copied = waiting.pop(0)
            stream = cards.current_stream()
            stream.wait_event(copied)
            if device.type == "cuda":
                for part in first.parts:
                    part.batch.used_on(stream)
            yield first


def shared_out(
    lengths: Ints, buckets: list[Ints], processes: int, whole: bool = False
) -> list[list[tuple[int, Ints]]]:
    """Each process's share of the buckets of a step, with about as many tokens, padding included, as every other's.

    The longest histories first, each goes to the process that has least so far (Graham 1969), so all get about the
    same lengths of every bucket.

    Args:
        lengths: (P,) tokens of each customer.
        buckets: customers of each.
        processes: how many share them.
        whole: buckets are not divided.

    Returns:
        For each process the number of a bucket and its customers of it, where it has any.
    """
    if processes == 1:
        return [list(enumerate(buckets))]
    if whole:
        padded = np.array([lengths[people].max() * len(people) for people in buckets])
        owners = list(_dealt(padded, np.arange(len(buckets)), processes)[:, None])
    else:
        sizes = np.array([len(people) for people in buckets])
        place = np.repeat(np.arange(len(buckets)), sizes)
        owners = np.split(_dealt(lengths[np.concatenate(buckets)], place, processes), sizes.cumsum()[:-1])
    shares: list[list[tuple[int, Ints]]] = [[] for _ in range(processes)]
    for number, (people, owner) in enumerate(zip(buckets, owners, strict=True)):
        for rank in np.unique(owner).tolist():
            shares[rank].append((number, people if whole else people[owner == rank]))
    return shares


def _dealt(lengths: Ints, place: Ints, processes: int) -> Ints:
    """Who gets each, by falling length to whoever has least; each is padded to the first of its place and owner."""
    loads = [(0, rank) for rank in range(processes)]
    longest: dict[tuple[int, int], int] = {}
    owner = np.empty(len(lengths), dtype=np.int64)
    places, each = place.tolist(), lengths.tolist()
    for which in np.argsort(-lengths, kind="stable").tolist():
        load, rank = loads[0]
        owner[which] = rank
        padded = longest.setdefault((places[which], rank), each[which])
        heapq.heapreplace(loads, (load + padded, rank))
    return owner


def judged_parts(
    data: Resident, days: int | None, mixed: bool, rank: int = 0, processes: int = 1
) -> Iterator[Part]:
    """The held-out readouts, all of them once over all processes, with one horizon each.

    Args:
        data: Held-out readouts.
        days: Horizon, or the observed window where that is shorter; None is always the window.
        mixed: See `Steps`.
        rank: Of this process.
        processes: How many there are; each gets equally many parts.
    """
    lengths = np.ones_like(data.lengths) if mixed else data.lengths
    buckets = Sampler(lengths, data.counts, INNER_READOUTS, 4 * TOKENS_PER_BUCKET).in_order()
    for begin in range(0, len(buckets), processes):
        mine = begin + rank
        people = buckets[min(mine, len(buckets) - 1)]
        batch = data.batch(people, days=days)
        yield Part(batch, int(data.lengths[people].max()), 0, idle=mine >= len(buckets))


class StepData(lightning.LightningDataModule):
    """Hands a trainer its process's steps, from where its last checkpoint stopped."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.steps = steps

    def train_dataloader(self) -> Steps:
        """The steps that are left."""
        assert self.trainer is not None
        return replace(
            self.steps,
            rank=self.trainer.global_rank,
            processes=self.trainer.world_size,
            start=self.trainer.global_step,
            pieces=self.trainer.accumulate_grad_batches,
        )

    def transfer_batch_to_device(self, batch: Step, device: torch.device, dataloader_idx: int) -> Step:
        """The step as it is: it was gathered where it is needed."""
        return batch
