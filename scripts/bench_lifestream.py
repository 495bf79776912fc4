"""Our sequence networks beside pytorch-lifestream: make bench-lifestream, or python scripts/bench_lifestream.py [--busy].

Both run on the same customers, events and cutoffs, a GRU of one layer and the same width, on two threads, in processes
of their own that take turns; a figure is the median of three turns. --busy is for a machine that is doing other work:
one thread, and the processor's seconds in place of the clock's.

What differs. A step of ours reads every history once, as far as its last cutoff, and learns from all its cutoffs
(readouts) and from every next event; in the peer a training example is a sequence with one target, so that a customer
at four cutoffs is four sequences. Hence two figures: events that went through the encoder, and readouts learnt from,
per second. Ours reads the events' calendar as well, has a head of two gated blocks, and forecasts distributions of
orders and spend at several horizons, where the peer's head is one linear number and its loss a square. Ours puts
histories of like length into a batch, the peer any; the lengths tell how much that is: all alike, or geometric. Neither
is given features of a readout. The peer scores a quarter as many customers, since its speed does not depend on how many
there are; ours sorts them by length and wastes less the more there are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_train import (  # type: ignore[import-not-found]
    CLOCK,
    CUTOFFS,
    DAYS,
    MODELS,
    machine,
    made_network,
    made_readouts,
    made_tokens,
    scored,
    timed,
    training_speed,
    waiter,
)
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from retinue.sequences.readouts import Readouts, standing_of
from retinue.sequences.resident import ranges, resident
from retinue.sequences.season import Season
from retinue.sequences.tokens import Tokens
from retinue.sequences.vocabulary import fit_vocabulary
from retinue.training.fit import Task

HERE = Path(__file__).parent
CUSTOMERS, SCORED_BY_PEER = 20_000, 5_000
TURNS = 3
LEARNT_DAYS = (DAYS * np.linspace(0.5, 0.875, CUTOFFS)).tolist()
CPU = torch.device("cpu")


def base(case: dict[str, Any], days: list[float], customers: int = CUSTOMERS) -> tuple[Tokens, Readouts]:
    """The events of a case, and where they are read: at past cutoffs to learn from, or at their end to score."""
    tokens: Tokens = made_tokens(customers, case["tokens"], even=case["even"])
    return tokens, made_readouts(tokens, days, columns=0)


def written(tokens: Tokens, readouts: Readouts, path: Path) -> None:
    """The peer's sequences: each readout's history, as one run of rows per field."""
    at = standing_of(tokens, readouts, 1.0).at
    begins = tokens.offsets[:-1][np.searchsorted(tokens.customer, readouts.customer)]
    lengths = at + 1 - begins
    rows = ranges(begins, lengths)
    columns: dict[str, NDArray[Any]] = {
        "kind": tokens.kind.astype(np.int64) + 1,  # 0 is padding
        "category": tokens.codes[:, 0].astype(np.int64),
        "log_gap": tokens.log_gap,
        "amount": np.log1p(tokens.numbers[:, 0]),
        "quantity": np.log1p(tokens.numbers[:, 1]),
    }
    target = np.random.default_rng(0).normal(size=len(lengths)).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    kept: dict[str, Any] = {name: column[rows] for name, column in columns.items()}
    np.savez(path, offsets=offsets, target=target, **kept)


def ours(case: dict[str, Any]) -> dict[str, float]:
    """Events and readouts learnt from, and customers scored, per second."""
    model, seconds = MODELS[case["model"]], case["seconds"]
    tokens, readouts = base(case, LEARNT_DAYS)
    vocabulary = fit_vocabulary(tokens, tokens.observation_end)
    season = Season.fit(tokens.day[tokens.of_kind("order")], DAYS - 1)
    speed = training_speed(Task(tokens, readouts, vocabulary, season), model, seconds, CPU)
    tokens, readouts = base(case, [float(DAYS)])
    task = Task(tokens, readouts, fit_vocabulary(tokens, tokens.observation_end), Season.even())
    data = resident(tokens, readouts, task.vocabulary, device=CPU)
    network = made_network(task, model, CPU).eval()
    scoring = timed(lambda _: scored(network, data), seconds, waiter(CPU))
    learnt = speed.step * speed.readouts / speed.tokens
    return {"events": speed.step, "readouts": learnt, "scored": CUSTOMERS / scoring}


def told_by(command: list[str]) -> dict[str, Any]:
    """The JSON on a process' last line."""
    surroundings = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compared(case: dict[str, Any], peer: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Medians over turns of ours and of the peer."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "case.json").write_text(json.dumps(case), encoding="utf-8")
        written(*base(case, LEARNT_DAYS), folder / "learnt.npz")
        written(*base(case, [float(DAYS)], SCORED_BY_PEER), folder / "scored.npz")
        commands = (
            [sys.executable, __file__, "--ours", json.dumps(case)],
            [str(peer), str(HERE / "bench_lifestream_peer.py"), name],
        )
        turns = [[told_by(command) for command in commands] for _ in range(TURNS)]
    for mine, theirs in turns:
        print(
            f"{case['model']}, {'even' if case['even'] else 'geometric'}: {mine}, {theirs}",
            file=sys.stderr,
            flush=True,
        )
    figures = ("events", "readouts", "scored")
    mine, theirs = (
        {name: float(np.median([turn[side][name] for turn in turns])) for name in figures} for side in (0, 1)
    )
    return mine, {**theirs, "versions": turns[0][1]["versions"]}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--models", nargs="*", default=["gru 1x128", "gru 1x64"])
    words.add_argument("--tokens", type=int, default=20, help="mean events of a customer")
    words.add_argument("--seconds", type=float, default=3.0, help="per figure and turn")
    words.add_argument(
        "--peer", type=Path, default=Path(".venv-lifestream/bin/python"), help="its interpreter"
    )
    words.add_argument("--busy", action="store_true", help="processor seconds on one thread")
    words.add_argument("--ours", type=json.loads, help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.busy or (asked.ours and asked.ours["busy"]):
        torch.set_num_threads(1)
        CLOCK[0] = time.process_time
    if asked.ours:
        print(json.dumps(ours(asked.ours)))
        return
    table = Table("model", "lengths", "per second", "retinue", "pytorch-lifestream", "ratio")
    for model in asked.models:
        for even in (True, False):
            case = {"model": model, "width": MODELS[model].width, "tokens": asked.tokens, "even": even}
            mine, theirs = compared({**case, "seconds": asked.seconds, "busy": asked.busy}, asked.peer)
            lengths = f"{'all' if even else 'geometric, mean'} {asked.tokens}"
            for name, what in (
                ("events", "events trained on"),
                ("readouts", "readouts trained on"),
                ("scored", "customers scored"),
            ):
                pair = mine[name], theirs[name]
                table.add_row(model, lengths, what, *(f"{x:,.0f}" for x in pair), f"{pair[0] / pair[1]:.2f}")
            table.title = f"{machine()}; " + ", ".join(" ".join(each) for each in theirs["versions"].items())
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
