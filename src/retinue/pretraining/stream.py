"""An endless stream of simulated bases, read at a cutoff: a function of seed and number alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from retinue.models.amortised import AmortisedLaw
from retinue.pretraining.reading import (
    law_inputs,
    reading_of,
    readouts_of,
)
from retinue.sequences.base_sums import summary_of
from retinue.sequences.batches import Batch, Targets
from retinue.sequences.behaviour import Behaviour, behaviour_at
from retinue.sequences.resident import resident
from retinue.sequences.tokens import Tokens, tokens_of
from retinue.sequences.units import Units, units_of
from retinue.sequences.vocabulary import Vocabulary
from retinue.training.module import Part, Step
from retinue.worlds import simulate
from retinue.worlds.prior import Family, draw

LEAST_CUSTOMERS = 60
TRIES = 20
TOKENS_PER_BASE = 4_096
MOST_TOKENS = 1_000  # whoever has more, in thousands of customers one or two, is left out of steps
TIMES, APART = 3, 4  # a base is used so often, so many steps apart, each time with other customers
KEPT = 64
SALT = 4  # other bases than those of the law, of bins and of the judge


@dataclass(frozen=True)
class SimulatedBase:
    """A world at the end of its history.

    Attributes:
        tokens: Of all its events, those after the cutoff too.
        cutoff: Last instant of history.
        end: Last instant that is simulated.
        units: Of the base.
        behaviour: Of all customers who had ordered by then.
    """

    tokens: Tokens
    cutoff: datetime
    end: datetime
    units: Units
    behaviour: Behaviour

    @property
    def law_inputs(self) -> Tensor:
        """See `reading.law_inputs`."""
        sums = self.behaviour.sums
        return law_inputs(sums, summary_of(sums, self.units))


def simulated_base(seed: tuple[int, ...], family: Family = Family.prior) -> SimulatedBase:
    """The base of a seed; worlds in which fewer than 60 customers had come by the cutoff are drawn again."""
    for attempt in range(TRIES):
        lot = np.random.default_rng([*seed, attempt])
        drawn = draw(lot, family)
        world = simulate(drawn.spec, drawn.customers, int(lot.integers(2**31)))
        tokens = tokens_of(world.events.lazy(), "UTC")
        start = drawn.spec.start
        cutoff = start + timedelta(days=drawn.history_days, microseconds=-1)
        end = start + timedelta(days=drawn.spec.days, microseconds=-1)
        found = read_simulated(tokens, cutoff, end)
        if found is not None:
            return found
    raise RuntimeError(f"no world of family {family.value} with {LEAST_CUSTOMERS} customers in {TRIES} draws")


def read_simulated(tokens: Tokens, cutoff: datetime, end: datetime) -> SimulatedBase | None:
    """A world at a cutoff; None where too few had ordered."""
    if not len(tokens.customer):
        return None
    units = units_of([tokens], cutoff)
    behaviour = behaviour_at(tokens, cutoff, units)
    if len(behaviour.customer) < LEAST_CUSTOMERS:
        return None
    return SimulatedBase(tokens, cutoff, end, units, behaviour)


def sampled(
    base: SimulatedBase, law: AmortisedLaw, vocabulary: Vocabulary, customers: int, lot: np.random.Generator
) -> Batch:
    """Some customers of a base with what came after, all in group 0."""
    behaviour = base.behaviour
    mean_length = len(base.tokens.kind) / len(base.tokens.customer)
    count = min(
        len(behaviour.customer), customers, max(LEAST_CUSTOMERS // 2, round(TOKENS_PER_BASE / mean_length))
    )
    lengths = base.tokens.lengths[np.searchsorted(base.tokens.customer, behaviour.customer)]
    short = np.flatnonzero(lengths <= MOST_TOKENS)
    rows = np.sort(lot.choice(short, min(count, len(short)), replace=False))
    reading = reading_of(law, vocabulary, behaviour.sums, base.units, base.cutoff)
    some = replace(
        behaviour,
        **{name: column[rows] for name, column in vars(behaviour).items() if isinstance(column, np.ndarray)},
    )
    tokens = base.tokens.take(np.searchsorted(base.tokens.customer, some.customer))
    data = resident(tokens, readouts_of(reading, some, base.end), reading.vocabulary, base.units.season)
    generator = torch.Generator().manual_seed(int(lot.integers(2**62)))
    return data.batch(np.arange(len(data.lengths)), generator)


def together(batches: list[Batch]) -> Batch:
    """The batches as one, each a base and a group of its own."""
    columns: dict[str, Any] = {}
    for name in (
        "kind",
        "codes",
        "numbers",
        "gaps",
        "age",
        "calendar",
        "silence",
        "cutoff_calendar",
        "features",
        "anchor",
    ):
        columns[name] = torch.cat([getattr(batch, name) for batch in batches])
    tokens = np.cumsum([0, *(len(batch.kind) for batch in batches)])
    columns["at"] = torch.cat([b.at + int(t) for b, t in zip(batches, tokens, strict=False)])
    ends = [b.cu_seqlens[1:] + int(t) for b, t in zip(batches, tokens, strict=False)]
    columns["cu_seqlens"] = torch.cat([torch.zeros(1, dtype=torch.int32), *ends]).to(torch.int32)
    number = torch.repeat_interleave(
        torch.arange(len(batches)), torch.tensor([len(batch.at) for batch in batches])
    )
    targets = None
    if batches[0].targets is not None:
        names = Targets.__annotations__
        targets = Targets(**{n: torch.cat([getattr(b.targets, n) for b in batches]) for n in names})
    return Batch(**columns, base=number, group=number, targets=targets).check()


class WorldStream(IterableDataset[Step]):
    """Steps of so many bases each, from `start` on; of W workers each makes every W-th.

    Args:
        law: of the first forecast.
        vocabulary: of the prior.
        bases: in each step, over all processes.
        customers: of each base, at most.
        seed: of everything.
    """

    def __init__(
        self, law: AmortisedLaw, vocabulary: Vocabulary, bases: int, customers: int, seed: int
    ) -> None:
        self.law, self.vocabulary, self.bases, self.customers, self.seed = (
            law,
            vocabulary,
            bases,
            customers,
            seed,
        )
        self.start, self.steps, self.rank, self.processes, self.pieces = 0, 0, 0, 1, 1
        self.latest: dict[tuple[int, ...], SimulatedBase] = {}

    def __iter__(self) -> Iterator[Step]:
        torch.set_num_threads(1)
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for index in range(self.start + number, self.steps, workers):
            yield self.step(index)

    def _base(self, *number: int) -> SimulatedBase:
        """The base of a number; the latest ones are kept."""
        if number not in self.latest:
            self.latest[number] = simulated_base((self.seed, SALT, *number))
            if len(self.latest) > KEPT:
                del self.latest[next(iter(self.latest))]
        return self.latest[number]

    def step(self, index: int) -> Step:
        """This process's part of a step, one batch per piece; its rows are those of this process alone."""
        places = range(self.rank, self.bases, self.processes)
        seed = int(np.random.SeedSequence([self.seed, index, self.rank]).generate_state(1, np.uint64)[0] >> 1)
        parts, padded = [], 0
        for piece in range(self.pieces):
            batch = together([self._sampled(index, place) for place in places[piece :: self.pieces]])
            longest = int(batch.cu_seqlens.diff().max())
            parts.append(Part(batch, longest, seed + piece))
            padded += longest * (len(batch.cu_seqlens) - 1)
        readouts, tokens = (sum(len(getattr(part.batch, name)) for part in parts) for name in ("at", "kind"))
        return Step(index, tuple(parts), float(readouts), float(tokens), 1 - tokens / padded)

    def _sampled(self, index: int, place: int) -> Batch:
        base = self._base(index + APART * (TIMES - 1 - place % TIMES), place // TIMES)
        lot = np.random.default_rng([self.seed, index, place, 99])
        return sampled(base, self.law, self.vocabulary, self.customers, lot)
