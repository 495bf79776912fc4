"""Pretraining: a law and then a network that learn from simulated bases, judged on families they never see."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytorch_lightning as lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from retinue.models.amortised import AmortisedLaw
from retinue.models.clocks import Clocks, J, expected_orders, neutral_raw
from retinue.models.network import Network, NetworkShape
from retinue.models.piecewise import quantile_edges
from retinue.options import Encoder, Options, PretrainingOptions, TrainingOptions
from retinue.pretraining.law import fit_amortised_law
from retinue.pretraining.pretrained import LAW, Pretrained, Prior, load_law, load_pretrained, save_law
from retinue.pretraining.reading import READOUT_NAMES, prior_vocabulary
from retinue.pretraining.stream import WorldStream, sampled, simulated_base
from retinue.schema import InputError
from retinue.sequences.batches import Batch
from retinue.sequences.season import Season
from retinue.sequences.vocabulary import BINS
from retinue.training.checkpoint import CARD, Trained, about_code, edges_tensor, save_checkpoint, shape_card
from retinue.training.fit import KEY, last_of
from retinue.training.module import SequenceModule, Step
from retinue.training.objective import count_scores
from retinue.training.sharding import wearing
from retinue.training.trainer import compiles, is_sharded, run_steps, trainer_of
from retinue.training.watch import LAST, Heard, Watch
from retinue.worlds.prior import HELD_OUT, Family

FREE_CLOCKS = J - 1  # all but the century, which three years cannot tell from a decade
NEUTRAL = neutral_raw(1 / 60, 0.4)
EDGE_BASES = 200
EDGE_SALT, JUDGED_SALT = 2, 3
AMOUNT_EDGES = tuple(np.linspace(-4.0, 4.0, 25).tolist())
AHEAD = 8  # steps that each worker simulates ahead
log = logging.getLogger(__name__)


def pretrain(options: Options, out: Path, heard: Heard | None = None) -> Pretrained:
    """Simulates, trains and saves; the same command again goes on where it stopped, and keeps what is finished.

    First the amortised law learns from `law_bases` worlds; then the network, on top of it, from an endless stream.
    The average of weights with the best log score on held-out bases is kept: half of these come from the prior, half
    from families that no step ever draws.

    Args:
        options: pretraining, trainer and seed.
        out: folder of the checkpoint; only the first process writes.
        heard: told the curve so far at every look.

    Raises:
        InputError: fewer bases in a step than processes, or backward passes of them.
    """
    asked, key = options.pretraining, _key(options)
    least = options.trainer.devices * options.trainer.nodes * options.trainer.accumulate
    if asked.bases < least:
        raise InputError(
            f"pretraining.bases={asked.bases}: must be at least trainer.devices × trainer.nodes × trainer.accumulate = {least}."
        )
    if (out / CARD).is_file() and f'"{key}"' in (out / CARD).read_text(encoding="utf-8"):
        log.info("pretrain: %s is finished, kept", out)
        return load_pretrained(out)
    training = _training(asked)
    trainer = trainer_of(options.trainer, training)
    out.mkdir(parents=True, exist_ok=True)
    start = last_of(out, key, trainer.is_global_zero)
    vocabulary = prior_vocabulary(AMOUNT_EDGES)
    law, prior = _law(options, out, trainer.is_global_zero)
    stream = WorldStream(law, vocabulary, asked.bases, asked.customers, options.seed)
    judged = [
        (family, _base(stream, family, JUDGED_SALT, i)) for i, family in enumerate(_families(asked.judged))
    ]
    network = _network(stream, asked, options.seed)
    network.encoder.recompute = options.trainer.recompute
    compiled = compiles(options.trainer, trainer.strategy.root_device)
    module = SequenceModule(network, training, compiled, sharded=is_sharded(options.trainer), own_rows=True)
    watch = Watch(module, _Judge([batch for _, batch in judged]), training, out, heard)
    trainer.callbacks.append(watch)  # type: ignore[attr-defined]
    with torch.random.fork_rng(devices=[]):
        run_steps(trainer, module, StreamData(stream, asked.workers), start)
    network = wearing(network, watch.best, torch.device("cpu")).eval()
    card = about_code() | {
        "key": key,
        "options": {"pretraining": asdict(asked), "seed": options.seed},
        "shape": shape_card(network.shape),
        "vocabulary": vocabulary.as_dict(),
        "season": Season.even().as_dict(),
        "features": {"names": list(READOUT_NAMES)},
        "weights": sum(each.numel() for each in (*network.parameters(), *law.parameters())),
        "best_step": watch.best_step,
        "best_log_score": watch.best_score,
        "tokens_per_second": watch.tokens_per_second,
        "held_out": _by_family(network, judged),
    }
    trained = Trained(network, vocabulary, Season.even(), json.loads(json.dumps(card)), watch.table())
    if trainer.is_global_zero:
        save_checkpoint(trained, out)
        for name in (LAST, KEY):
            (out / name).unlink(missing_ok=True)
    return Pretrained(trained, law, prior)


class StreamData(lightning.LightningDataModule):
    """Hands a trainer its process's steps of the stream, simulated ahead by workers."""

    def __init__(self, stream: WorldStream, workers: int) -> None:
        super().__init__()
        self.stream, self.workers = stream, workers

    def train_dataloader(self) -> Iterable[Step]:
        """The steps that are left, in pieces."""
        assert self.trainer is not None
        self.stream.rank, self.stream.processes = self.trainer.global_rank, self.trainer.world_size
        self.stream.start, self.stream.steps = self.trainer.global_step, self.trainer.max_steps
        self.stream.pieces = self.trainer.accumulate_grad_batches
        ahead = AHEAD if self.workers else None
        # started afresh, a worker has no threads of its parent's to wait for
        how = "spawn" if self.workers else None
        steps: DataLoader[Step] = DataLoader(
            self.stream,
            batch_size=None,
            num_workers=self.workers,
            prefetch_factor=ahead,
            multiprocessing_context=how,
        )
        return _Pieces(steps, self.stream.pieces)

    def transfer_batch_to_device(self, batch: Step, device: torch.device, dataloader_idx: int) -> Step:
        """The step on the device."""
        parts = tuple(replace(part, batch=part.batch.to(device)) for part in batch.parts)
        return replace(batch, parts=parts)


@dataclass(frozen=True)
class _Pieces:
    """Steps, each in pieces."""

    steps: Iterable[Step]
    pieces: int

    def __iter__(self) -> Iterator[Step]:
        for step in self.steps:
            yield from step.split(self.pieces)


class _Judge:
    """Mean over held-out bases of the log score of counts in the whole window; every process looks at all."""

    def __init__(self, judged: Sequence[Batch]) -> None:
        self.judged = judged

    @torch.no_grad()
    def __call__(self, trainer: lightning.Trainer, module: SequenceModule) -> float | None:
        if not self.judged:
            return None
        network = module.network
        network.eval()
        scores = [_said(network, batch.to(module.device))[1].mean() for batch in self.judged]
        network.train()
        return float(torch.stack(scores).double().mean())


def _said(network: Network, batch: Batch) -> tuple[Clocks, Tensor]:
    """The clocks of a batch, and the log score of the count in each one's whole window."""
    assert batch.targets is not None
    clocks, _ = network(batch)
    return clocks, count_scores(clocks, batch.targets)


@torch.no_grad()
def _by_family(network: Network, judged: Sequence[tuple[Family, Batch]]) -> dict[str, dict[str, float]]:
    """Per family: log score, the middle size of the log ratio of expected to realised orders, and bases."""
    found: dict[str, list[tuple[float, float]]] = {}
    for family, batch in judged:
        assert batch.targets is not None
        clocks, scores = _said(network, batch)
        expected = float(expected_orders(clocks, batch.targets.horizon[:, -1:]).sum())
        ratio = np.log((expected + 1) / (float(batch.targets.orders[:, -1].sum()) + 1))
        found.setdefault(family.value, []).append((float(scores.mean()), float(ratio)))
    return {
        name: {
            "log_score": float(np.mean([score for score, _ in rows])),
            "log_total_off": float(np.median([abs(ratio) for _, ratio in rows])),
            "log_total": float(np.mean([ratio for _, ratio in rows])),
            "bases": len(rows),
        }
        for name, rows in found.items()
    }


def _families(count: int) -> list[Family]:
    return [Family.prior if i % 2 else HELD_OUT[i // 2 % len(HELD_OUT)] for i in range(count)]


def _base(stream: WorldStream, family: Family, salt: int, number: int) -> Batch:
    seed = (stream.seed, salt, number)
    base = simulated_base(seed, family)
    return sampled(base, stream.law, stream.vocabulary, stream.customers, np.random.default_rng([*seed, 99]))


def _law(options: Options, out: Path, may_write: bool) -> tuple[AmortisedLaw, Prior]:
    asked, path = options.pretraining, out / LAW
    if path.is_file():
        return load_law(path)
    law, inputs, score = fit_amortised_law(asked.law_bases, asked.law_steps, options.seed, asked.workers)
    log.info("pretrain: law learnt, log-likelihood per order on held-out bases %.4f", score)
    prior = Prior.of(inputs)
    if may_write:
        save_law(law, prior, path)
    return law, prior


def _network(stream: WorldStream, asked: PretrainingOptions, seed: int) -> Network:
    seen = [_base(stream, Family.prior, EDGE_SALT, i).features.numpy() for i in range(EDGE_BASES)]
    shape = NetworkShape(
        kinds=stream.vocabulary.kind_count,
        code_sizes=(),
        number_edges=edges_tensor(stream.vocabulary.edges),
        feature_edges=quantile_edges(np.concatenate(seen), BINS),
        encoder=Encoder.gru,
        width=asked.width,
        dropout=asked.dropout,
        context=True,
        free_clocks=FREE_CLOCKS,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Network(shape, NEUTRAL)


def _training(asked: PretrainingOptions) -> TrainingOptions:
    return TrainingOptions(
        steps=asked.steps,
        learning_rate=asked.learning_rate,
        check_every=asked.check_every,
        patience=asked.patience,
        weight_decay=0.02,
        warmup_share=0.02,
    )


def _key(options: Options) -> str:
    told = [asdict(options.pretraining), options.seed]
    return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()
