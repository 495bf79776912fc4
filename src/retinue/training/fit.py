"""Fits a network: one call from tokens and readouts to trained weights, on one process or many."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from torch import Tensor

from retinue.accel.devices import matmul_rate
from retinue.events.store import write_table, write_text
from retinue.models.clocks import TIMESCALES, neutral_raw
from retinue.models.network import Network, NetworkShape
from retinue.models.piecewise import quantile_edges
from retinue.models.work import training_operations
from retinue.options import ModelOptions, Options
from retinue.schema import InputError
from retinue.sequences.readouts import Readouts
from retinue.sequences.resident import Resident, resident
from retinue.sequences.season import Season
from retinue.sequences.tokens import DAY_US, Tokens
from retinue.sequences.vocabulary import BINS, Vocabulary
from retinue.training.checkpoint import (
    CARD,
    Trained,
    about_code,
    edges_tensor,
    load_checkpoint,
    save_checkpoint,
    shape_card,
    shape_from,
)
from retinue.training.data import StepData, Steps, judged_parts
from retinue.training.held_out import HELD_OUT_FILE, held_out
from retinue.training.levels import settle, settle_shapes
from retinue.training.module import SequenceModule
from retinue.training.objective import count_scores
from retinue.training.sharding import wearing
from retinue.training.trainer import compiles, is_sharded, run_steps, trainer_of
from retinue.training.watch import LAST, Heard, Watch

KEY = "last.key"
MEASURED_SECONDS = 0.2
REACH = 0.5  # of the longest window seen: clocks slower than that are not told apart by it
LEAST_RATE = 1e-5  # orders per customer and business day
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What a network is to learn.

    Attributes:
        tokens: Of all customers of the readouts; what became available after their `end` is in no target.
        readouts: To learn from.
        vocabulary: Of training time.
        season: Of training time.
        inner: Readouts of other customers, for early stopping; None trains all steps.
        judged_days: Horizon of the held-out score; None is each whole window.
        families: Family of each feature, needed for model.family_dropout.
    """

    tokens: Tokens
    readouts: Readouts
    vocabulary: Vocabulary
    season: Season
    inner: Readouts | None = None
    judged_days: int | None = None
    families: tuple[int, ...] = ()


def fit_network(
    task: Task,
    options: Options,
    out: Path | None = None,
    heard: Heard | None = None,
    start: Network | None = None,
) -> Trained:
    """Trains the network of `options.model` and returns the best average of its weights.

    Adam with decoupled decay (Loshchilov and Hutter 2019), warm-up and cosine, clipped gradients, an exponential
    average of weights; the average with the best held-out log score of counts is what is kept. Where `out` holds
    the checkpoint of the same task and options, that is returned; where it holds their `last.ckpt`, training goes
    on from there.

    Args:
        task: what to learn from.
        options: model, trainer, training and seed.
        out: folder for the checkpoint; only the first process writes. None writes nothing.
        heard: told the curve so far at every look at the held-out customers.
        start: a network that has learnt elsewhere, to go on from and to stay near; None begins anew.

    Raises:
        InputError: nothing to learn from, or no GPU where one is asked for.
    """
    _check(task, options)
    key = _key(task, options, start)
    if out is not None and (found := _finished(out, key)) is not None:
        log.info("train: %s is finished, kept", out)
        return found
    trainer = trainer_of(options.trainer, options.training)
    device = trainer.strategy.root_device
    data = _resident(task, task.readouts, device)
    held = _resident(task, task.inner, device) if task.inner is not None and len(task.inner) else None
    neutral, mixed = _neutral(data), options.model.context
    module = _module(task, options, data, neutral, start)
    watch = Watch(module, _Judge(held, task.judged_days, mixed), options.training, out, heard)
    trainer.callbacks.append(watch)  # type: ignore[attr-defined]
    last = last_of(out, key, trainer.is_global_zero) if out is not None else None
    with torch.random.fork_rng(devices=[]):
        run_steps(trainer, module, StepData(Steps(data, options.training, options.seed, mixed)), last)
    network = wearing(module.network, watch.best, device)
    if held is not None:
        settle_shapes(network, held, mixed)
    card = _card(task, options, network, watch) | {"key": key}
    if out is not None and trainer.is_global_zero:
        card["matmul_share"] = _matmul_share(network, data, watch, trainer.world_size)
        if held is not None:
            out.mkdir(parents=True, exist_ok=True)
            write_table(held_out(network, held, neutral, task.vocabulary.order_value), out / HELD_OUT_FILE)
    trained = Trained(network.cpu().eval(), task.vocabulary, task.season, card, watch.table())
    if out is not None and trainer.is_global_zero:
        save_checkpoint(trained, out)
        for name in (LAST, KEY):
            (out / name).unlink(missing_ok=True)
    return trained


def _check(task: Task, options: Options) -> None:
    if not len(task.readouts):
        raise InputError(
            "train: there is no customer at any past cutoff. Give an earlier cutoff or more data."
        )
    if options.trainer.accumulate > options.training.buckets:
        raise InputError(
            f"trainer.accumulate={options.trainer.accumulate}: must be at most training.buckets={options.training.buckets}."
        )


def _module(
    task: Task, options: Options, data: Resident, neutral: Tensor, start: Network | None
) -> SequenceModule:
    """What learns: a new network whose level fits the data, or the one to go on from, which is to stay near itself."""
    if start is None:
        network = new_network(task, options.model, neutral, options.seed)
        settle(network.to(data.device), data, options.training, options.seed)
    else:
        network = start.to(data.device).train()
    network.encoder.recompute = options.trainer.recompute
    compiled = compiles(options.trainer, data.device)
    proximity = options.training.proximity if start is not None else 0.0
    return SequenceModule(network, options.training, compiled, proximity, is_sharded(options.trainer))


def new_network(task: Task, model: ModelOptions, neutral: Tensor, seed: int = 0) -> Network:
    """The untrained network of a task.

    Args:
        task: its vocabulary and features give sizes and edges.
        model: the options.
        neutral: raw numbers of the forecast for everybody before training.
        seed: of its weights.
    """
    shape = NetworkShape(
        kinds=task.vocabulary.kind_count,
        code_sizes=task.vocabulary.code_counts,
        number_edges=edges_tensor(task.vocabulary.edges),
        feature_edges=quantile_edges(task.readouts.features, BINS),
        families=task.families,
        free_clocks=free_clocks(task.readouts),
        **{**asdict(model), "encoder": model.encoder},
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Network(shape_from(json.loads(json.dumps(shape_card(shape)))), neutral)


def free_clocks(readouts: Readouts) -> int:
    """How many clocks of a first forecast the windows seen can tell apart; 0 where there is none to correct."""
    if readouts.anchor is None:
        return 0
    longest = (readouts.end.timestamp() * 1e6 - float(readouts.cutoff.min())) / DAY_US
    return max(1, len([days for days in TIMESCALES if days <= REACH * longest]))


class _Judge:
    """Mean log score of the held-out counts, over all processes."""

    def __init__(self, held: Resident | None, days: int | None, mixed: bool) -> None:
        self.held, self.days, self.mixed = held, days, mixed

    @torch.no_grad()
    def __call__(self, trainer: lightning.Trainer, module: SequenceModule) -> float | None:
        if self.held is None:
            return None
        network = module.network
        network.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=module.device)
        shared = trainer.global_rank, trainer.world_size
        for part in judged_parts(self.held, self.days, self.mixed, *shared):
            assert part.batch.targets is not None
            clocks, _ = network(part.batch, part.max_len)
            scores = count_scores(clocks, part.batch.targets)
            if not part.idle:
                sums += torch.stack([scores.double().sum(), torch.ones_like(scores).double().sum()])
        network.train()
        total = trainer.strategy.reduce(sums, reduce_op="sum")
        assert isinstance(total, Tensor)
        return float(total[0] / total[1])


def _matmul_share(network: Network, data: Resident, watch: Watch, processes: int) -> float:
    """Products per second of training, as a share of what these devices do in plain products."""
    tokens = float(data.lengths.sum())
    each = training_operations(network, data.lengths, int(data.counts.sum())) / tokens
    return watch.tokens_per_second * each / (matmul_rate(data.device, MEASURED_SECONDS) * processes)


def _resident(task: Task, readouts: Readouts, device: torch.device) -> Resident:
    return resident(task.tokens, readouts, task.vocabulary, task.season, device)


def _neutral(data: Resident) -> Tensor:
    """The raw forecast that is right for the base on average, from the whole windows of its readouts."""
    assert data.truth is not None
    rows = torch.arange(len(data.truth.which), device=data.home)
    days = data.truth.days[data.truth.which][:, None]
    none = torch.zeros(0, dtype=torch.long, device=data.home)
    seen = data.truth.targets(none, rows, days)
    orders, window, gross, refunds = (
        float(column.double().sum()) for column in (seen.orders, seen.window, seen.gross, seen.refunds)
    )
    rate = max(orders / window if window else 0.0, LEAST_RATE)
    gone = float((seen.orders[:, 0] == 0).double().mean())
    value = gross / orders if orders and gross > 0 else 1.0
    return neutral_raw(rate, gone, value, refund_share=refunds / gross if gross > 0 else 0.0)


def _finished(folder: Path, key: str) -> Trained | None:
    """What an earlier run of the same task left there."""
    card = folder / CARD
    if not card.is_file() or f'"{key}"' not in card.read_text(encoding="utf-8"):
        return None
    return load_checkpoint(folder)


def last_of(folder: Path, key: str, may_write: bool) -> Path | None:
    """Where an earlier run of the same task stopped; what another left is not gone on with."""
    last, known = folder / LAST, folder / KEY
    if last.is_file() and known.is_file() and known.read_text(encoding="utf-8") == key:
        log.info("train: goes on from %s", last)
        return last
    if may_write:
        last.unlink(missing_ok=True)
        write_text(key, known)
    return None


def _key(task: Task, options: Options, start: Network | None) -> str:
    digest = hashlib.sha256(task.tokens.fingerprint.encode())
    for weight in [] if start is None else start.state_dict().values():
        digest.update(np.ascontiguousarray(weight.detach().cpu().numpy()).data)
    told = [asdict(options.model), asdict(options.training), options.seed, task.judged_days, task.families]
    told += [task.vocabulary.as_dict(), task.season.as_dict(), task.readouts.names]
    digest.update(json.dumps(told, default=str).encode())
    for readouts in (task.readouts, *([task.inner] if task.inner is not None else [])):
        for column in (readouts.customer, readouts.cutoff, readouts.features, readouts.anchor):
            digest.update(b"" if column is None else np.ascontiguousarray(column).data)
        digest.update(readouts.end.isoformat().encode())
    return digest.hexdigest()


def _card(task: Task, options: Options, network: Network, watch: Watch) -> dict[str, Any]:
    model, training = asdict(options.model), asdict(options.training)
    seen = task.readouts
    card = about_code() | {
        "options": {"model": model, "training": training, "seed": options.seed},
        "shape": shape_card(network.shape),
        "vocabulary": task.vocabulary.as_dict(),
        "season": task.season.as_dict(),
        "features": {"names": list(seen.names)},
        "zone": task.tokens.zone,
        "training_end": seen.end.isoformat(),
        "cutoffs": [_instant(us) for us in np.unique(seen.cutoff).tolist()],
        "data_fingerprint": task.tokens.fingerprint,
        "customers": len(np.unique(seen.customer)),
        "readouts": len(seen),
        "held_out": 0 if task.inner is None else len(task.inner),
        "best_step": watch.best_step,
        "best_log_score": watch.best_score if np.isfinite(watch.best_score) else None,
        "tokens_per_second": watch.tokens_per_second,
        "padding_waste": watch.padding_waste,
    }
    plain: dict[str, Any] = json.loads(json.dumps(card, default=_value))
    return plain


def _value(thing: Any) -> Any:
    return thing.value


def _instant(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat()
