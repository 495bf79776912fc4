"""The Lightning module: one step's loss, the optimiser and its schedule. The maths is in models/."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor

from retinue.models.network import Network
from retinue.options import TrainingOptions
from retinue.sequences.batches import Batch
from retinue.training.objective import term_sums, term_weights
from retinue.training.sharding import split, split_like, whole


@dataclass(frozen=True)
class Part:
    """A batch of a step.

    Attributes:
        batch: With targets.
        max_len: Tokens of its longest history.
        seed: Of what is random in the network.
        idle: It counts nothing: other processes have a part more, and all must run the network as often.
    """

    batch: Batch
    max_len: int
    seed: int
    idle: bool = False


@dataclass(frozen=True)
class Step:
    """One process's part of an optimiser step, or a piece of it.

    Attributes:
        index: Of the step, from 0.
        parts: This process's.
        readouts: Of the whole step over all processes, divided by the number of processes.
        tokens: Likewise.
        waste: Share of the padded tables of this process's histories that would be padding.
        piece: Which piece it is, from 0.
        pieces: One backward pass each; their gradients are summed before the optimiser moves.
    """

    index: int
    parts: tuple[Part, ...]
    readouts: float
    tokens: float
    waste: float
    piece: int = 0
    pieces: int = 1

    def split(self, pieces: int) -> Iterator[Step]:
        """The pieces of a whole step."""
        for piece in range(pieces):
            yield replace(self, parts=self.parts[piece::pieces], piece=piece, pieces=pieces)

    @property
    def is_last(self) -> bool:
        """Whether the optimiser moves after it."""
        return self.piece == self.pieces - 1


class SequenceModule(lightning.LightningModule):
    """A network that learns.

    Gradients are means over the readouts of the whole step, however many processes share it: each divides its sums
    by its even share of rows, and what Lightning averages over processes is then the mean over all rows.
    """

    def __init__(
        self,
        network: Network,
        training: TrainingOptions,
        compiled: bool = False,
        proximity: float = 0.0,
        sharded: bool = False,
        own_rows: bool = False,
    ) -> None:
        """Trains a network.

        Args:
            network: that learns.
            training: weights of the losses, optimiser and schedule.
            compiled: torch.compile the losses.
            proximity: what the squared distance of the weights from where they start costs.
            sharded: split the weights among the processes.
            own_rows: steps know the rows of their own process only, as if all had as many.
        """
        super().__init__()
        self.proximity = proximity
        self.begun = [each.detach().clone() for each in network.parameters()] if proximity else []
        self.network = network
        self.sharded, self.own_rows = sharded, own_rows
        self.weights: Tensor
        self.training_options = training
        self.register_buffer("weights", torch.tensor(term_weights(training)), persistent=False)
        self.terms: list[Tensor] = []
        self.sums_of = torch.compile(self._sums, dynamic=True) if compiled else self._sums

    def configure_model(self) -> None:
        """Splits the weights, once the processes know each other."""
        if not self.sharded:
            return
        assert self.device_mesh is not None
        split(self.network, self.device_mesh["data_parallel"])
        pairs = zip(self.begun, self.network.parameters(), strict=bool(self.begun))
        self.begun = [split_like(begun, weight) for begun, weight in pairs]

    def _sums(self, batch: Batch, max_len: int) -> Tensor:
        assert batch.targets is not None
        clocks, after = self.network(batch, max_len)
        return term_sums(clocks, after, batch.targets)

    def training_step(self, step: Step, index: int) -> Tensor:
        """The weighted loss of this process's part, or of a piece of it."""
        sums = []
        for part in step.parts:
            self._seed(part.seed)
            told = self.sums_of(part.batch, part.max_len)
            sums.append(0.0 * told if part.idle else told)
        rows = torch.tensor([step.readouts] * (len(self.weights) - 1) + [step.tokens], device=self.device)
        if self.own_rows:
            rows = self.trainer.strategy.reduce(rows, reduce_op="mean")
        terms = torch.stack(sums).sum(0) / rows
        loss: Tensor = terms @ self.weights
        told = loss.detach() + self._pull() if step.is_last else loss.detach()
        seen = torch.cat([told[None], terms.detach()])
        self.terms.append(seen if step.piece == 0 else self.terms.pop() + seen)
        return loss * step.pieces  # Lightning divides by their number

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What the optimiser keeps goes by number of the weight, not by its group, and none is missing.

        That is how split weights are read; the same file then suits any number of processes.
        """
        weights = list(self.parameters())
        number = {weight: i for i, weight in enumerate(weights)}
        for optimiser, kept in zip(self.trainer.optimizers, checkpoint["optimizer_states"], strict=True):
            if not kept:  # of split weights only the first process has all
                continue
            if not self.sharded:
                numbers = [number[weight] for group in optimiser.param_groups for weight in group["params"]]
                kept["state"] = {numbers[i]: state for i, state in kept["state"].items()}
                for group in kept["param_groups"]:
                    group["params"] = [numbers[i] for i in group["params"]]
            for i, weight in enumerate(weights):
                kept["state"].setdefault(i, _unmoved(weight))

    @torch.no_grad()
    def _pull(self) -> Tensor:
        """What it costs that the weights are away from where they began."""
        away = [(weight - begun).square().sum() for weight, begun in self._begun()]
        return self.proximity * sum((whole(each) for each in away), torch.zeros((), device=self.device))

    def _begun(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each weight, and where it began; none without a pull."""
        for weight, begun in zip(self.network.parameters(), self.begun, strict=True) if self.begun else ():
            yield weight, begun.to(weight.device)

    @torch.no_grad()
    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Adds the gradient of the pull, which split weights cannot take from a loss; it is clipped with the rest."""
        for weight, begun in self._begun():
            pull = 2 * self.proximity * (weight - begun)
            weight.grad = pull if weight.grad is None else weight.grad + pull

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
        fused = self.device.type == "cuda"  # on a CPU it would save half a millisecond of half a second
        optimiser = torch.optim.AdamW(groups, lr=asked.learning_rate, betas=(0.9, 0.98), fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, Schedule(asked.steps, asked.warmup_share))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _unmoved(weight: Tensor) -> dict[str, Tensor]:
    """What AdamW keeps of a weight before its first step; some are never reached by a loss."""
    nothing = torch.zeros(weight.shape)
    return {"step": torch.zeros(()), "exp_avg": nothing, "exp_avg_sq": nothing.clone()}


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
