"""Speed of the sequence forecaster on this machine: python scripts/bench_train.py [--seconds 6] [--busy].

Run it on an idle machine; on a busy one --busy counts the processor's seconds on one thread in place of the clock's,
and so tells what one core would do alone.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from retinue.accel.devices import matmul_rate
from retinue.forecasting.clocked import said_of_all
from retinue.models import clocks as law
from retinue.models.clocks import neutral_raw
from retinue.models.network import Network
from retinue.models.work import training_operations
from retinue.options import Encoder, ModelOptions, TrainingOptions
from retinue.sequences.readouts import Readouts
from retinue.sequences.resident import Resident, resident
from retinue.sequences.season import Season
from retinue.sequences.tokens import DAY_US, Tokens, calendar_of
from retinue.sequences.vocabulary import fit_vocabulary
from retinue.training.data import Steps
from retinue.training.fit import Task, new_network
from retinue.training.module import SequenceModule, Step

DAYS = 730
FEATURES = 60
CUTOFFS = 4
MEAN_TOKENS = 20
SCORED_TOKENS = 10
ALL_CUSTOMERS, SHARDS = 1_000_000, 10
CLOCK = [time.perf_counter]
HORIZONS = torch.tensor([30.0, 90.0, 365.0])
MODELS = {
    "gru 1x128": ModelOptions(Encoder.gru, width=128, layers=1),
    "gru 1x64": ModelOptions(Encoder.gru, width=64, layers=1),
    "transformer 2x64": ModelOptions(Encoder.transformer, width=64, layers=2),
    "transformer 4x128": ModelOptions(Encoder.transformer, width=128, layers=4),
}


def made_tokens(customers: int, mean_tokens: float, seed: int = 0, even: bool = False) -> Tokens:
    """Histories of geometric lengths (or all alike) over two years, of three kinds of event with an amount and a label."""
    lot = np.random.default_rng(seed)
    lengths = np.full(customers, round(mean_tokens)) if even else lot.geometric(1 / mean_tokens, customers)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    n, owner = int(offsets[-1]), np.repeat(np.arange(customers), lengths)
    event = lot.integers(0, DAYS * DAY_US, n)
    event = event[np.lexsort((event, owner))]
    first = np.zeros(n, bool)
    first[offsets[:-1]] = True
    gap = np.where(first, 0.0, np.diff(event, prepend=0) / DAY_US)
    day = (event // DAY_US).astype(np.int32)
    money = lot.lognormal(3.0, 0.7, n)
    return Tokens(
        customer=np.arange(customers), offsets=offsets, event=event, available=event, day=day,
        kind=lot.choice(3, n, p=(0.1, 0.8, 0.1)).astype(np.int16), log_gap=np.log1p(gap).astype(np.float32),
        calendar=calendar_of(day), numbers=np.stack([money, lot.poisson(3, n)], 1).astype(np.float32),
        codes=lot.integers(1, 200, (n, 1)).astype(np.uint32), money=money, kinds=("email", "order", "visit"),
        names=("amount", "quantity"), fields=("category",), zone="UTC",
        observation_end=datetime.fromtimestamp(DAYS * 86_400 - 1e-6, UTC), fingerprint="made",
    )  # fmt: skip


def made_readouts(tokens: Tokens, days: list[float], seed: int = 0, columns: int = FEATURES) -> Readouts:
    """Everybody who has an event by some days, with random features."""
    first = tokens.event[tokens.offsets[:-1]]
    pairs = [(np.flatnonzero(first <= day * DAY_US), int(day * DAY_US)) for day in days]
    customer = np.concatenate([who for who, _ in pairs])
    cutoff = np.concatenate([np.full(len(who), at) for who, at in pairs])
    order = np.lexsort((cutoff, customer))
    features = np.random.default_rng(seed).normal(size=(len(order), columns)).astype(np.float32)
    names = tuple(f"feature_{i}" for i in range(columns))
    return Readouts(customer[order], cutoff[order], features, names, tokens.observation_end)


def made_task(customers: int, mean_tokens: float = MEAN_TOKENS) -> Task:
    """A base to learn from, everybody read out at four cutoffs in its second year."""
    tokens = made_tokens(customers, mean_tokens)
    readouts = made_readouts(tokens, (DAYS * np.linspace(0.5, 0.875, CUTOFFS)).tolist())
    season = Season.fit(tokens.day[tokens.of_kind("order")], DAYS - 1)
    return Task(tokens, readouts, fit_vocabulary(tokens, tokens.observation_end), season)


def made_network(task: Task, model: ModelOptions, device: torch.device) -> Network:
    """Untrained, on a device."""
    torch.manual_seed(0)
    return new_network(task, model, neutral_raw(0.02, 0.3)).to(device)


@dataclass(frozen=True)
class Speed:
    """Of a network in training."""

    tokens: float  # per second, forward and backward
    readouts: float
    forward: float  # tokens per second, forward only
    step: float  # tokens per second with the gather, the optimiser and the rest of a step
    operations: float  # per second, forward and backward
    waste: float


def training_speed(
    task: Task,
    model: ModelOptions,
    seconds: float,
    device: torch.device,
    compiled: bool = False,
    readouts: int = 2_048,
) -> Speed:
    """Means over steps of so many readouts; what `fit_network` does, without its callbacks."""
    data = resident(task.tokens, task.readouts, task.vocabulary, task.season, device)
    asked = TrainingOptions(steps=10**6, readouts=readouts)
    module = SequenceModule(made_network(task, model, device), asked, compiled).to(device)
    module.train()
    steps = iter(Steps(data, asked, seed=0))
    optimiser = module.configure_optimizers()["optimizer"]
    drawn = [next(steps) for _ in range(4)]
    wait = waiter(device)
    both = timed(lambda i: torch.autograd.backward(loss_of(module, drawn[i % 4])), seconds, wait)
    with torch.no_grad():
        forward = timed(lambda i: loss_of(module, drawn[i % 4]), seconds / 2, wait)

    def whole_step(_: int) -> None:
        torch.autograd.backward(loss_of(module, next(steps)))
        torch.nn.utils.clip_grad_norm_(module.parameters(), asked.clip)
        optimiser.step()
        optimiser.zero_grad()

    whole = timed(whole_step, seconds / 2, wait)
    tokens, rows = (float(np.mean([getattr(s, n) for s in drawn])) for n in ("tokens", "readouts"))
    lengths = np.concatenate([part.batch.cu_seqlens.diff().cpu().numpy() for s in drawn for part in s.parts])
    operations = training_operations(module.network, lengths.astype(np.int64), int(4 * rows)) / 4
    waste = float(np.mean([s.waste for s in drawn]))
    return Speed(tokens / both, rows / both, tokens / forward, tokens / whole, operations / both, waste)


def loss_of(module: SequenceModule, step: Step) -> torch.Tensor:
    """Of a step, as in training."""
    module.terms.clear()
    return module.training_step(step, 0)


def timed(do: Callable[[int], object], seconds: float, wait: Callable[[], None]) -> float:
    """Median seconds of a call by `CLOCK`, after two to warm up."""
    for i in range(2):
        do(i)
    wait()
    took: list[float] = []
    while sum(took) < seconds or len(took) < 4:
        start = CLOCK[0]()
        do(len(took))
        wait()
        took.append(CLOCK[0]() - start)
    return float(np.median(took))


def waiter(device: torch.device) -> Callable[[], None]:
    """Waits for the device."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


@torch.inference_mode()
def scored(network: Network, data: Resident) -> torch.Tensor:
    """Survival, orders and spend of everybody at three horizons, as a forecast asks for them; their mean orders."""
    clocks = said_of_all(network, data)
    days = HORIZONS.double()
    law.survival(clocks, days), law.expected_spend(clocks, days)
    return law.expected_orders(clocks, days).mean()


def scoring_speed(
    model: ModelOptions, seconds: float, device: torch.device, customers: int = 16_384
) -> float:
    """Customers per second with ten events each, all on the device beforehand."""
    task, data = scored_base(customers, device)
    network = made_network(task, model, device).eval()
    return customers / timed(lambda _: scored(network, data), seconds, waiter(device))


def scored_base(customers: int, device: torch.device, seed: int = 0) -> tuple[Task, Resident]:
    """Customers of ten events each at the end of their data."""
    tokens = made_tokens(customers, SCORED_TOKENS, seed, even=True)
    readouts = made_readouts(tokens, [float(DAYS)])
    task = Task(tokens, readouts, fit_vocabulary(tokens, tokens.observation_end), Season.even())
    return task, resident(tokens, readouts, task.vocabulary, device=device)


def all_customers(shards: int) -> None:
    """A million customers, a shard at a time as `retinue forecast` does; peak memory of this process."""
    each = ALL_CUSTOMERS // shards
    network, seconds = None, 0.0
    for shard in range(shards):
        task, data = scored_base(each, torch.device("cpu"), shard)
        network = network or made_network(task, MODELS["gru 1x128"], torch.device("cpu")).eval()
        start = CLOCK[0]()
        scored(network, data)
        seconds += CLOCK[0]() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    told = f"{ALL_CUSTOMERS:,} customers in {shards} shard(s): peak {peak:.2f} GiB"
    print(f"{told}, network {ALL_CUSTOMERS / seconds:,.0f} customers/s", flush=True)


def machine() -> str:
    """Processor, threads, load and versions."""
    load = f", load {os.getloadavg()[0]:.1f}" + ", by processor time" * (CLOCK[0] is time.process_time)
    return f"{platform.machine()}, {torch.get_num_threads()} threads{load}; torch {version('torch')}"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--seconds", type=float, default=6.0, help="per figure")
    words.add_argument("--models", nargs="*", default=list(MODELS))
    words.add_argument("--customers", type=int, default=20_000)
    words.add_argument("--inside", type=int, help=argparse.SUPPRESS)
    words.add_argument("--busy", action="store_true", help="processor seconds on one thread")
    asked = words.parse_args()
    if asked.busy:
        torch.set_num_threads(1)
        CLOCK[0] = time.process_time
    if asked.inside:
        all_customers(asked.inside)
        return
    device = torch.device("cpu")
    rate = matmul_rate(device, 2.0, clock=CLOCK[0])
    table = Table(
        "model", "tokens/s fwd+bwd", "fwd only", "whole step", "readouts/s fwd+bwd", "GFLOP/s", "of matmul rate",
        "padding", "scored customers/s", title=f"{machine()}; matmul {rate / 1e9:.0f} GFLOP/s float32",
    )  # fmt: skip
    task = made_task(asked.customers)
    for name in asked.models:
        got = training_speed(task, MODELS[name], asked.seconds, device)
        scoring = scoring_speed(MODELS[name], asked.seconds / 2, device)
        table.add_row(
            name, *(f"{x:,.0f}" for x in (got.tokens, got.forward, got.step, got.readouts)),
            f"{got.operations / 1e9:.1f}", f"{got.operations / rate:.1%}", f"{got.waste:.1%}", f"{scoring:,.0f}",
        )  # fmt: skip
    Console(width=150).print(table)
    command = [sys.executable, str(Path(__file__)), "--inside", str(SHARDS), *["--busy"] * asked.busy]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
