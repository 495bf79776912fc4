"""What is watched while a network trains: the weight average, the held-out score, when to stop, and what a restart needs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytorch_lightning as lightning
import torch

from retinue.options import TrainingOptions
from retinue.training.ema import WeightAverage
from retinue.training.module import SequenceModule, Step
from retinue.training.objective import TERMS
from retinue.training.sharding import split_like, whole

log = logging.getLogger(__name__)
LAST = "last.ckpt"
CURVE = pl.Schema(
    {
        "step": pl.Int64(),
        "loss": pl.Float64(),
        **dict.fromkeys(TERMS, pl.Float64()),
        "log_score": pl.Float64(),
    }
)
SCORED = "log_score"
Heard = Callable[[pl.DataFrame], None]
Judge = Callable[[lightning.Trainer, SequenceModule], float | None]


class Watch(lightning.Callback):
    """Averages weights after each step and looks at the held-out customers every `check_every` steps.

    What is best so far, the curve and the average are in the state, so that a restarted run goes on as if it had
    never stopped.
    """

    def __init__(
        self,
        module: SequenceModule,
        judge: Judge,
        training: TrainingOptions,
        folder: Path | None,
        heard: Heard | None = None,
    ) -> None:
        """Watches a module.

        Args:
            module: that is trained.
            judge: mean log score of the held-out readouts, higher is better; None where none are held out.
            training: check_every, patience, average and steps.
            folder: where `last.ckpt` is kept; None keeps none.
            heard: told the curve so far at every look, in the first process.
        """
        self.average = WeightAverage(module.network, training.average)
        self.judge = judge
        self.asked = training
        self.folder = folder
        self.heard = heard
        self.best = {name: each.clone() for name, each in self.average.weights.items()}
        self.best_score = -float("inf")
        self.best_step = 0
        self.waited = 0
        self.curve: list[list[float | None]] = []
        self.tokens = self.seconds = self.waste = 0.0
        self._since = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The averages join the weights where they are."""
        assert isinstance(pl_module, SequenceModule)
        for name, weight in pl_module.network.named_parameters():
            for weights in (self.average.weights, self.best):
                weights[name] = split_like(weights[name], weight)
        self._since = time.perf_counter()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """What is kept is whole."""
        self.best = {name: whole(each) for name, each in self.best.items()}

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Step,
        batch_idx: int,
    ) -> None:
        """Moves the average; looks, at every so many steps and at the last."""
        assert isinstance(pl_module, SequenceModule)
        if not batch.is_last:
            return
        self.average.update(pl_module.network)
        self.tokens += batch.tokens * trainer.world_size
        self.waste += batch.waste
        step = trainer.global_step
        if step % self.asked.check_every == 0 or step >= self.asked.steps:
            self._look(trainer, pl_module)

    def _look(self, trainer: lightning.Trainer, module: SequenceModule) -> None:
        losses = trainer.strategy.reduce(torch.stack(module.terms), reduce_op="mean")
        assert isinstance(losses, torch.Tensor)
        module.terms.clear()
        self.seconds += time.perf_counter() - self._since
        step = trainer.global_step
        with self.average.worn_by(module.network):
            score = self.judge(trainer, module)
        first = step - len(losses) + 1
        self.curve += [[first + i, *row, None] for i, row in enumerate(losses.double().cpu().tolist())]
        self.curve[-1][-1] = score
        self._compare(step, score)
        if self.waited >= self.asked.patience:
            trainer.should_stop = True
        recent = float(losses[:, 0].mean())
        said = "" if score is None else f", held-out log score {score:.4f}"
        log.info("train: step %d, loss %.4f%s, %.0f tokens/s", step, recent, said, self.tokens_per_second)
        if self.heard is not None and trainer.is_global_zero:
            self.heard(self.table())
        if self.folder is not None:
            trainer.save_checkpoint(self.folder / LAST)
        self._since = time.perf_counter()

    def _compare(self, step: int, score: float | None) -> None:
        """Keeps the average where it is the best so far, or where nothing tells."""
        if score is not None and score <= self.best_score:
            self.waited += 1
            return
        self.waited, self.best_step = 0, step
        self.best_score = self.best_score if score is None else score
        for name, each in self.average.weights.items():
            self.best[name].copy_(each)

    @property
    def tokens_per_second(self) -> float:
        """Over all processes, looks at the held-out customers not counted."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def padding_waste(self) -> float:
        """Mean share of padding in the padded tables of the steps."""
        return self.waste / len(self.curve) if self.curve else 0.0

    def table(self) -> pl.DataFrame:
        """One row per step: loss, its terms, and the held-out log score where it was looked at."""
        return pl.DataFrame(self.curve, schema=CURVE, orient="row")

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers only, so that it loads without running code, by however many processes."""
        average = self.average.state()
        average["weights"] = {name: whole(each) for name, each in average["weights"].items()}
        return {
            "average": average,
            "best": {name: whole(each) for name, each in self.best.items()},
            "best_score": self.best_score,
            "best_step": self.best_step,
            "waited": self.waited,
            "curve": self.curve,
            "spent": [self.tokens, self.seconds, self.waste],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from `state_dict`."""
        self.average.restore(state_dict["average"])
        for name, each in self.best.items():
            each.copy_(state_dict["best"][name])
        self.best_score, self.best_step = state_dict["best_score"], state_dict["best_step"]
        self.waited, self.curve = state_dict["waited"], state_dict["curve"]
        self.tokens, self.seconds, self.waste = state_dict["spent"]
