"""The Lightning module: one step's loss, the optimiser and its schedule. The maths is in models/."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor

from retinue.config import TrainingOptions
from retinue.models.network import Network
from retinue.sequences.batches import Batch
from retinue.training.objective import term_sums, term_weights


@dataclass(frozen=True)
class Part:
    """A batch of a step.

    Attributes:
        batch: With targets.
        max_len: Tokens of its longest history.
        seed: Of what is random in the network.
    """

    batch: Batch
    max_len: int
    seed: int


@dataclass(frozen=True)
class Step:
    """One process's part of an optimiser step.

    Attributes:
        index: Of the step, from 0.
        parts: This process's.
        readouts: Of the whole step over all processes, divided by the number of processes.
        tokens: Likewise.
        waste: Share of the padded tables of the step's histories that would be padding.
    """

    index: int
    parts: tuple[Part, ...]
    readouts: float
    tokens: float
    waste: float


class SequenceModule(lightning.LightningModule):
    """A network that learns.

    Gradients are means over the readouts of the whole step, however many processes share it: each divides its sums
    by its even share of rows, and what Lightning averages over processes is then the mean over all rows.
    """

    def __init__(
        self, network: Network, training: TrainingOptions, compiled: bool = False, proximity: float = 0.0
    ) -> None:
        """Trains a network.

        Args:
            network: that learns.
            training: weights of the losses, optimiser and schedule.
            compiled: torch.compile the losses.
            proximity: what the squared distance of the weights from where they start costs.
        """
        super().__init__()
        self.proximity = proximity
        self.begun = [each.detach().clone() for each in network.parameters()] if proximity else []
        self.network = network
        self.weights: Tensor
        self.training_options = training
        self.register_buffer("weights", torch.tensor(term_weights(training)), persistent=False)
        self.terms: list[Tensor] = []
        self.sums_of = torch.compile(self._sums, dynamic=True) if compiled else self._sums

    def _sums(self, batch: Batch, max_len: int) -> Tensor:
        assert batch.targets is not None
        clocks, after = self.network(batch, max_len)
        return term_sums(clocks, after, batch.targets)

    def training_step(self, step: Step, index: int) -> Tensor:
        """The weighted loss of this process's part."""
        sums = []
        for part in step.parts:
            self._seed(part.seed)
            sums.append(self.sums_of(part.batch, part.max_len))
        rows = (step.readouts,) * (len(self.weights) - 1) + (step.tokens,)
        terms = torch.stack(sums).sum(0) / torch.tensor(rows, device=self.device)
        loss: Tensor = terms @ self.weights
        for begun, weight in zip(self.begun, self.network.parameters(), strict=bool(self.begun)):
            loss = loss + self.proximity * (weight - begun.to(weight.device)).square().sum()
        self.terms.append(torch.cat([loss[None], terms]).detach())
        return loss

    def _seed(self, seed: int) -> None:
        """As torch.manual_seed does, for the one device that is used: where there is no GPU that costs milliseconds."""
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)

    def configure_optimizers(self) -> Any:
        """AdamW without decay of vectors, warm-up and cosine."""
        asked = self.training_options
        matrices = [each for each in self.network.parameters() if each.ndim > 1]
        vectors = [each for each in self.network.parameters() if each.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": asked.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        fused = self.device.type == "cuda"
        optimiser = torch.optim.AdamW(groups, lr=asked.learning_rate, betas=(0.9, 0.98), fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, Schedule(asked.steps, asked.warmup_share))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@dataclass(frozen=True)
class Schedule:
    """Share of the peak learning rate at a step: a linear rise, then half a cosine down to 2 %."""

    steps: int
    warmup_share: float

    def __call__(self, step: int) -> float:
        """At a step, from 0."""
        rise = max(1, round(self.steps * self.warmup_share))
        if step < rise:
            return (step + 1) / rise
        along = min(1.0, (step - rise) / max(1, self.steps - rise))
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * along))
