"""A sequence rung as a folder: the network's checkpoint, and in rung.json how it is asked and what is made of its answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor

from retinue.cluster import HERE, Spread
from retinue.events.store import write_text
from retinue.features.catalogue import Feature, split
from retinue.features.query import CATALOGUE
from retinue.forecasting.blend import Blend
from retinue.forecasting.calibration import Correction, Recalibrated
from retinue.forecasting.clocked import Clocked
from retinue.forecasting.intervals import NAMES, NOMINAL, Levels, tier_edges
from retinue.forecasting.outlook import Law, Predictor
from retinue.forecasting.rungs import Scorer
from retinue.forecasting.sequence import SequencePredictor
from retinue.forecasting.table import rows_of
from retinue.forecasting.tuned import TunedPredictor
from retinue.forecasting.zero_shot import InShards, read_base, units_at
from retinue.models.amortised import AmortisedLaw
from retinue.models.btyd import BetaGeometricNBD, ParetoNBD
from retinue.models.gamma_gamma import GammaGamma
from retinue.models.own_rate import OwnRate
from retinue.models.statistics import KEYS
from retinue.options import Rung, ValueOptions
from retinue.pretraining.pretrained import LAW, load_law
from retinue.pretraining.reading import Reading
from retinue.schema import (
    MARGIN_RATE,
    NET_SPEND_EVER,
    REFUND_VALUE_EVER,
    VALUED_TRANSACTIONS,
    InputError,
)
from retinue.sequences.tokens import Tokens, TokenStore
from retinue.training.checkpoint import CARD, WEIGHTS, Trained, load_checkpoint

RUNG = "rung.json"
ORDER_MODELS = {model.__name__: model for model in (OwnRate, BetaGeometricNBD, ParetoNBD)}
NEEDED = frozenset({*KEYS, NET_SPEND_EVER, REFUND_VALUE_EVER, VALUED_TRANSACTIONS, MARGIN_RATE})
AMORTISED = {"law": "amortised"}  # it stands in a file of its own
Plain = dict[str, Any]


@dataclass(frozen=True)
class SavedRung:
    """A trained sequence rung that can be asked about any later cutoff; nothing is fitted again.

    Attributes:
        name: Of the rung, in every row of its forecasts.
        trained: The network.
        columns: Features that it knows, in order; beside these it is told the first forecast.
        first: The first forecast, or the amortised law of a fine-tuned base model, which makes it.
        correction: Of the level; None where past origins agreed on none.
        levels: Of the intervals; nominal where none were kept.
        digest: Of the files; the same checkpoint has the same.
    """

    name: str
    trained: Trained
    columns: tuple[str, ...]
    first: Predictor | AmortisedLaw
    correction: Correction | None
    levels: Levels
    digest: str

    def predictor(
        self, tokens: Tokens, context: Tensor | None = None, reading: Reading | None = None
    ) -> Predictor:
        """The rung for customers with these tokens."""
        return self.corrected(self.reader(tokens, context, reading))

    def reader(
        self, tokens: Tokens, context: Tensor | None, reading: Reading | None
    ) -> SequencePredictor | TunedPredictor:
        """The network for customers with these tokens.

        Args:
            tokens: of the customers.
            context: of the base, where the network asks for it; None takes the customers asked about for the base.
            reading: of the base at the cutoff, for a fine-tuned base model; see `reading`.
        """
        if not isinstance(self.first, AmortisedLaw):
            return SequencePredictor(self.trained, tokens, self.first, self.columns, context)
        assert reading is not None
        return TunedPredictor(self.trained, reading, tokens, self.columns, context)

    def reading(self, tokens: TokenStore, cutoff: datetime, spread: Spread = HERE) -> Reading | None:
        """The base at a cutoff, as a fine-tuned base model reads it; None for others, who need none."""
        if not isinstance(self.first, AmortisedLaw):
            return None
        vocabulary, over = self.trained.vocabulary, InShards(tokens, spread)
        units = replace(
            units_at(over, cutoff), order_value=vocabulary.order_value, gap_days=vocabulary.gap_days
        )
        return read_base(self.first, vocabulary, over, cutoff, units)[0]

    def corrected(self, network: Clocked) -> Predictor:
        """The network's forecast, its level corrected as past origins had it."""
        return network if self.correction is None else Recalibrated(network, self.correction)

    def features(self, columns: Sequence[str]) -> tuple[Feature, ...]:
        """What must be known of customers at a cutoff, of what events with these columns support."""
        return needed(columns, self.columns)

    def rows(
        self, predictor: Predictor, buyers: pl.DataFrame, horizons: Sequence[int], value: ValueOptions
    ) -> pl.DataFrame:
        """Rows of `forecasts` for buyers at one cutoff.

        Args:
            predictor: from `predictor` or `corrected`.
            buyers: features of customers who have ordered.
            horizons: whole days.
            value: margin and discounting.
        """
        return rows_said(predictor, buyers, horizons, self.name, self.levels, value)


def needed(columns: Sequence[str], more: Sequence[str] = ()) -> tuple[Feature, ...]:
    """The features that rows of `forecasts` are made with, and some more, of what events with these columns support."""
    asked = NEEDED.union(more)
    return split([feature for feature in CATALOGUE if feature.name in asked], columns, None)[0]


def rows_said(
    predictor: Predictor,
    buyers: pl.DataFrame,
    horizons: Sequence[int],
    name: str,
    levels: Levels,
    value: ValueOptions,
) -> pl.DataFrame:
    """Rows of `forecasts` of what a rung of this name says of buyers at one cutoff."""
    said = predictor.outlook(buyers, horizons, value.discount_rate_yearly)
    wait = predictor.next_order_days(buyers)
    return rows_of(buyers, said, wait, horizons, name, levels, value)


def save_rung(scorer: Scorer, buyers: pl.DataFrame, folder: Path) -> None:
    """Writes rung.json into the folder of the network's checkpoint.

    Args:
        scorer: a fitted sequence rung.
        buyers: the base at its cutoff; the thirds by past spend, which interval levels go by, stay where they are here.
        folder: where the checkpoint stands.

    Raises:
        InputError: the rung has no network, since there was too little history to train one.
    """
    inner = scorer.predictor
    correction = inner.by if isinstance(inner, Recalibrated) else None
    inner = inner.inner if isinstance(inner, Recalibrated) else inner
    if not isinstance(inner, (SequencePredictor, TunedPredictor)):
        raise InputError(
            f"train: {scorer.rung.value} has learnt nothing beyond its first forecast, the past is too short. "
            "Give a later cutoff or more data."
        )
    told = _card(inner, scorer.rung) | {
        "correction": None if correction is None else asdict(correction),
        "levels": {
            "by_group": dict(zip(NAMES, scorer.levels.by_group.tolist(), strict=True)),
            "new_days": scorer.levels.new_days,
            "edges": [None if np.isinf(edge) else edge for edge in tier_edges(buyers)],
        },
    }
    write_text(json.dumps(told, indent=1), folder / RUNG)


def save_predictor(predictor: SequencePredictor, rung: Rung, folder: Path) -> None:
    """As `save_rung`, where nothing is known of the rung's past: no correction, nominal intervals."""
    told = _card(predictor, rung) | {"correction": None, "levels": None}
    write_text(json.dumps(told, indent=1), folder / RUNG)


def load_rung(folder: Path) -> SavedRung:
    """The rung of a folder.

    Raises:
        InputError: no finished checkpoint stands there, or it does not say how it is asked.
    """
    trained = load_checkpoint(folder)
    path = folder / RUNG
    if not path.is_file():
        raise InputError(
            f"checkpoint={folder}: holds no {RUNG}, which says what the network is told. Train it with retinue train."
        )
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return SavedRung(
            name=Rung(told["rung"]).value,
            trained=trained,
            columns=tuple(told["columns"]),
            first=load_law(folder / LAW)[0] if told["first"] == AMORTISED else _predictor(told["first"]),
            correction=None if told["correction"] is None else Correction(**told["correction"]),
            levels=_levels(told["levels"]),
            digest=_digest(folder),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"checkpoint={folder}: {RUNG} cannot be read ({' '.join(str(error).split())[:200]}). Train it again."
        ) from error


def _card(predictor: SequencePredictor | TunedPredictor, rung: Rung) -> Plain:
    first = AMORTISED if isinstance(predictor, TunedPredictor) else _told(predictor.first)
    return {"rung": rung.value, "columns": list(predictor.columns), "first": first}


def _told(first: Predictor) -> Plain:
    match first:
        case Law(OwnRate() | BetaGeometricNBD() | ParetoNBD() as orders, value):
            worth = None if value is None else asdict(value)
            return {"law": type(orders).__name__, "orders": asdict(orders), "value": worth}
        case Blend(one, other, weight):
            return {"blend": [_told(one), _told(other)], "weight": weight}
    raise TypeError(f"{type(first).__name__} cannot be a first forecast")


def _predictor(told: Plain) -> Predictor:
    if "blend" in told:
        law, other = (_predictor(part) for part in told["blend"])
        return Blend(law, other, told["weight"])
    value = None if told["value"] is None else GammaGamma(**told["value"])
    return Law(ORDER_MODELS[told["law"]](**told["orders"]), value)


def _levels(told: Plain | None) -> Levels:
    if told is None:
        return NOMINAL
    by_group = np.array([told["by_group"][name] for name in NAMES])
    edges = tuple(np.inf if edge is None else float(edge) for edge in told["edges"])
    return Levels(by_group, told["new_days"], edges)


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (CARD, WEIGHTS, RUNG):
        digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return digest.hexdigest()
