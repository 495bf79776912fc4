"""A trained network as a folder: weights.safetensors and card.json, which says all that loading it needs. No pickles."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from retinue.events.store import write_table, write_text, written_whole
from retinue.models.clocks import WIDTH
from retinue.models.network import Network, NetworkShape
from retinue.options import Encoder
from retinue.schema import SCHEMA_VERSION, InputError
from retinue.sequences.season import Season
from retinue.sequences.vocabulary import Vocabulary

FORMAT = 2
WEIGHTS, CARD, CURVE_FILE = "weights.safetensors", "card.json", "curve.parquet"
DIGESTS = "digests"
GIT_SECONDS = 10
Card = dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """A network with what it takes to read with it.

    Attributes:
        network: On the CPU, in eval mode, with the best averaged weights.
        vocabulary: Of the time it was trained on.
        season: Of that time.
        card: What card.json holds.
        curve: One row per step: loss, its terms, and the held-out log score where it was looked at.
    """

    network: Network
    vocabulary: Vocabulary
    season: Season
    card: Card
    curve: pl.DataFrame

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The features that a readout must have, in order."""
        return tuple(self.card["features"]["names"])


def shape_card(shape: NetworkShape) -> Card:
    """The sizes and options of a network, for JSON; its edges are beside them."""
    told = {name: value for name, value in vars(shape).items() if not isinstance(value, Tensor)}
    edges = {"number_edges": _listed(shape.number_edges), "feature_edges": _listed(shape.feature_edges)}
    return told | {"encoder": shape.encoder.value} | edges


def shape_from(told: Card) -> NetworkShape:
    """From what `shape_card` gave, after JSON."""
    edges = {name: _tensor(told[name]) for name in ("number_edges", "feature_edges")}
    tuples = {name: tuple(told[name]) for name in ("code_sizes", "families")}
    return NetworkShape(**{**told, **edges, **tuples, "encoder": Encoder(told["encoder"])})


def save_checkpoint(trained: Trained, folder: Path) -> None:
    """Writes the folder; the card comes last, so that a folder with a card is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).unlink(missing_ok=True)
    weights = {name: each.detach().cpu().contiguous() for name, each in trained.network.state_dict().items()}
    with written_whole(folder / WEIGHTS) as unfinished:
        save_file(weights, unfinished)
    write_table(trained.curve, folder / CURVE_FILE)
    card = trained.card | {
        DIGESTS: {"weights": _digest_of(folder / WEIGHTS), "card": _digest_of_card(trained.card)}
    }
    write_text(json.dumps(card, indent=1, ensure_ascii=False), folder / CARD)


def load_checkpoint(folder: Path) -> Trained:
    """The network of a folder that `save_checkpoint` wrote.

    Raises:
        InputError: no finished checkpoint stands there, or it is of another format or schema.
    """
    path = folder / CARD
    if not path.is_file():
        raise InputError(f"checkpoint={folder}: holds no {CARD}. Give a folder that retinue train has left.")
    try:
        card: Card = json.loads(path.read_text(encoding="utf-8"))
        found = (card["format"], card["schema_version"])
        if found != (FORMAT, SCHEMA_VERSION):
            raise InputError(
                f"checkpoint={folder}: is of format {found[0]} and schema {found[1]}, this is {FORMAT} and "
                f"{SCHEMA_VERSION}. Train it again."
            )
        shape = shape_from(card["shape"])
        _check_sizes(shape, folder)
        _check_digests(card, folder)
        network = Network(shape, torch.zeros(WIDTH))
        network.load_state_dict(load_file(folder / WEIGHTS))
        vocabulary, season = Vocabulary.from_dict(card["vocabulary"]), Season.from_dict(card["season"])
        curve = pl.read_parquet(folder / CURVE_FILE)
    except (
        OSError, KeyError, TypeError, ValueError, RuntimeError, AttributeError, SafetensorError, pl.exceptions.PolarsError,
    ) as error:  # fmt: skip
        if isinstance(error, InputError):
            raise
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"checkpoint={folder}: cannot be read ({said}). Copy it again, or train again."
        ) from error
    return Trained(network.eval(), vocabulary, season, card, curve)


def _check_sizes(shape: NetworkShape, folder: Path) -> None:
    """Raises InputError where the card asks for a network larger than the weights, before memory is taken for it."""
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        held = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (it is no dict)
    # each layer holds at least one square of the width, each kind and each code a vector
    asked = {
        "width": shape.width**2 * max(shape.layers, 1),
        "kinds": shape.kinds,
        "code_sizes": sum(shape.code_sizes),
    }
    for what, least in asked.items():
        if least > held:
            raise InputError(
                f"checkpoint={folder}: {what} in {CARD} asks for {least:,} weights or more, and {WEIGHTS} holds {held:,}. Copy "
                "the whole folder again, or train again."
            )


def _check_digests(card: Card, folder: Path) -> None:
    """Raises InputError where card or weights are not as they were saved; checkpoints of before carry no digests."""
    if DIGESTS not in card:
        return
    found = {"weights": _digest_of(folder / WEIGHTS), "card": _digest_of_card(card)}
    for what, name in (("weights", WEIGHTS), ("card", CARD)):
        if card[DIGESTS].get(what) != found[what]:
            raise InputError(
                f"checkpoint={folder}: {name} is not as it was saved (its digest is another). Copy the folder again, or train "
                "again."
            )


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of_card(card: Card) -> str:
    told = {name: value for name, value in card.items() if name != DIGESTS}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def git_commit() -> str | None:
    """The commit of this checkout; None where there is none."""
    here = Path(__file__).parent
    try:
        asked = ["git", "-C", str(here), "rev-parse", "HEAD"]
        told = subprocess.run(asked, capture_output=True, text=True, timeout=GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told.stdout.strip() or None if told.returncode == 0 else None


def about_code() -> Card:
    """What made a checkpoint: format, schema, version and commit."""
    return {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "retinue": version("retinue"),
        "git_commit": git_commit(),
    }


def edges_tensor(columns: Sequence[Sequence[float]]) -> Tensor:
    """Ragged rising edges as (columns, longest), NaN where a column has fewer; at least two wide."""
    longest = max([2, *(len(column) for column in columns)])
    rows = [[*column, *([math.nan] * (longest - len(column)))] for column in columns]
    return torch.tensor(rows, dtype=torch.float32).reshape(len(rows), longest)


def _listed(edges: Tensor) -> list[list[float | None]]:
    return [[None if math.isnan(edge) else edge for edge in column] for column in edges.tolist()]


def _tensor(listed: list[list[float | None]]) -> Tensor:
    rows = [[math.nan if edge is None else edge for edge in column] for column in listed]
    return torch.tensor(rows, dtype=torch.float32).reshape(len(rows), len(rows[0]) if rows else 2)
