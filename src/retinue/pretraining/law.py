"""Training of the amortised law: the likelihood of simulated customers under what is read off their base's summary."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from retinue.models.amortised import AmortisedLaw, base_log_likelihoods
from retinue.models.piecewise import quantile_edges
from retinue.pretraining.stream import SimulatedBase, simulated_base
from retinue.training.module import Schedule

BINS = 8
CUSTOMERS = 512  # of each base
BASES_PER_STEP = 24
CUSTOMERS_PER_STEP = 256
LEARNING_RATE = 2e-3
HELD_OUT = 8  # one base in so many is judged on
SALT = 1
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """What the law learns from one base: its summary, its days of history, and (x, t_x, T) of customers, (3, R)."""

    inputs: Tensor
    span: float
    columns: Tensor

    @classmethod
    def of(cls, base: SimulatedBase, lot: np.random.Generator) -> Known:
        """Of a sample of its customers."""
        seen = base.behaviour
        rows = lot.choice(len(seen.customer), min(CUSTOMERS, len(seen.customer)), replace=False)
        columns = np.stack([seen.frequency[rows], seen.recency[rows], seen.age[rows]])
        return cls(base.law_inputs, base.units.span, torch.from_numpy(columns))


class _Known(IterableDataset[Known]):
    def __init__(self, bases: int, seed: int) -> None:
        self.bases, self.seed = bases, seed

    def __iter__(self) -> Iterator[Known]:
        torch.set_num_threads(1)
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for index in range(number, self.bases, workers):
            base = simulated_base((self.seed, SALT, index))
            yield Known.of(base, np.random.default_rng([self.seed, SALT, index, 99]))


def fit_amortised_law(bases: int, steps: int, seed: int, workers: int) -> tuple[AmortisedLaw, Tensor, float]:
    """The law, the (B, D) summaries of all bases, and its log-likelihood per order of bases it has not learnt from.

    Args:
        bases: simulated.
        steps: of 24 bases each.
        seed: of everything.
        workers: processes that simulate; 0 is this one.
    """
    loader = DataLoader(
        _Known(bases, seed),
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
    )
    known: list[Known] = []
    for each in loader:
        known.append(each)
        if len(known) % 500 == 0:
            log.info("pretrain: %d of %d bases for the law", len(known), bases)
    held, taught = known[::HELD_OUT], [one for i, one in enumerate(known) if i % HELD_OUT]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        law = AmortisedLaw(quantile_edges(torch.stack([one.inputs for one in taught]).numpy(), BINS))
    optimiser = torch.optim.AdamW(law.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, Schedule(steps, 0.05))
    lot = np.random.default_rng([seed, SALT])
    for step in range(steps):
        some = [taught[i] for i in lot.choice(len(taught), BASES_PER_STEP)]
        optimiser.zero_grad()
        loss = -_score(law, some, lot)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(law.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if (step + 1) % 250 == 0:
            log.info(
                "pretrain: law, step %d, held-out log-likelihood %.4f", step + 1, held_out_score(law, held)
            )
    return law.eval(), torch.stack([one.inputs for one in known]), held_out_score(law, held)


@torch.no_grad()
def held_out_score(law: AmortisedLaw, held: list[Known]) -> float:
    """Mean over bases of the log-likelihood per order, the first ones included."""
    return float(_score(law, held, None))


def _score(law: AmortisedLaw, some: list[Known], lot: np.random.Generator | None) -> Tensor:
    columns, base = [], []
    for i, one in enumerate(some):
        count = one.columns.shape[1]
        rows = np.arange(count)
        if lot is not None:
            rows = lot.choice(count, min(CUSTOMERS_PER_STEP, count), replace=False)
        columns.append(one.columns[:, torch.from_numpy(rows)])
        base.append(torch.full((len(rows),), i))
    which = torch.cat(base)
    spans = torch.tensor([one.span for one in some], dtype=torch.float64)
    parameters = law(torch.stack([one.inputs for one in some]), spans)
    # what is left of a log-likelihood once a day's width is taken out is alike for bases of any length
    scale = spans.log()[which] * torch.cat(columns, 1)[0]
    each = base_log_likelihoods(parameters, torch.cat(columns, 1), which) + scale
    # per order, or a base of daily shoppers would outweigh hundreds of others
    orders = torch.zeros(len(some), dtype=torch.float64).index_add(0, which, 1 + torch.cat(columns, 1)[0])
    weight = 1 / orders[which]
    return (each * weight).sum() / len(some)
