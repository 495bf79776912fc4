"""The base model of a folder, asked about a whole base shard by shard."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import polars as pl

from retinue.cluster import HERE, Spread
from retinue.features.catalogue import Feature
from retinue.forecasting.intervals import NOMINAL
from retinue.forecasting.outlook import Predictor
from retinue.forecasting.saved import needed, rows_said
from retinue.forecasting.zero_shot import InShards, ZeroShot, base_at
from retinue.options import Rung, ValueOptions
from retinue.pretraining.pretrained import LAW, Pretrained, load_pretrained
from retinue.sequences.tokens import Tokens, TokenStore
from retinue.training.checkpoint import CARD, WEIGHTS, Trained


@dataclass(frozen=True)
class BaseModel:
    """The base model for batch scoring, see `Scoring`.

    Attributes:
        model: The network, law and prior.
        digest: Of the files.
        name: Of the rung.
    """

    model: Pretrained
    digest: str
    name: str = Rung.zero_shot.value

    @property
    def trained(self) -> Trained:
        """The network, in units of no base."""
        return self.model.trained

    def features(self, columns: Sequence[str]) -> tuple[Feature, ...]:
        """What must be known of customers to write their rows."""
        return needed(columns)

    def at(
        self, tokens: TokenStore, cutoff: datetime, spread: Spread = HERE
    ) -> Callable[[Tokens], Predictor]:
        """The rung for customers with some tokens, once it has read the base."""
        base = base_at(
            self.model, InShards(tokens, spread), lambda codes: tokens.read(customers=codes), cutoff
        )
        return partial(ZeroShot, base)

    def rows(
        self, predictor: Predictor, buyers: pl.DataFrame, horizons: Sequence[int], value: ValueOptions
    ) -> pl.DataFrame:
        """Rows of `forecasts` for buyers at one cutoff."""
        return rows_said(predictor, buyers, horizons, self.name, NOMINAL, value)


def load_base_model(folder: Path) -> BaseModel:
    """The base model of a folder.

    Raises:
        InputError: none stands there.
    """
    digest = hashlib.sha256()
    for name in (CARD, WEIGHTS, LAW):
        path = folder / name
        digest.update(hashlib.sha256(path.read_bytes() if path.is_file() else b"").digest())
    return BaseModel(load_pretrained(folder), digest.hexdigest())
