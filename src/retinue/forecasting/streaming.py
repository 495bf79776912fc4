"""Streaming: what a GRU knows of each customer, advanced by new events alone, and the forecast from there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from retinue.accel.processes import one_thread, side_by_side
from retinue.events.store import written_whole
from retinue.events.timeline import is_after, is_known
from retinue.forecasting.clocked import (
    CONTEXT_CUSTOMERS,
    READ_TOGETHER,
    READOUTS_PER_BATCH,
    Clocked,
    by_customer,
    joined,
    said_in_batches,
)
from retinue.forecasting.saved import SavedRung
from retinue.forecasting.sequence import readouts_at
from retinue.forecasting.table import buyers_of, forecasts_table
from retinue.models.amortised import AmortisedLaw
from retinue.models.clocks import Clocks
from retinue.models.reading import GRUReader
from retinue.options import ValueOptions
from retinue.schema import CUTOFF, InputError
from retinue.sequences.batches import Batch
from retinue.sequences.readouts import Readouts, local_day
from retinue.sequences.resident import Sampler, ranges
from retinue.sequences.seen import Seen
from retinue.sequences.tokens import CALENDAR, Ints, Tokens, calendar_of, tokens_of
from retinue.sequences.vocabulary import Encoded
from retinue.training.checkpoint import Trained

FORMAT = "1"


@dataclass
class StreamingState:
    """Every customer's state after all that was known at one instant.

    Attributes:
        rung: Whose network reads; a gru.
        zone: Where the shoppers live.
        through: The instant; None before any event.
        seen: Who is known.
        hidden: (layers, C, width).
    """

    rung: SavedRung
    zone: str
    through: datetime | None = None
    seen: Seen = field(default_factory=Seen.nobody)
    hidden: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0))

    def __post_init__(self) -> None:
        if isinstance(self.rung.first, AmortisedLaw):
            raise InputError(
                "state: a fine-tuned base model reads the whole base anew at each cutoff and cannot stream. Train without init=."
            )
        self.reader = GRUReader(self.rung.trained.network)
        if not self.hidden.numel():
            self.hidden = self.reader.start(len(self.seen.customer))

    def update(self, events: pl.LazyFrame, until: datetime) -> None:
        """Advances the customers of these events; the work is that of the new events, whatever came before.

        An event counts from when it was known. Who was never seen before starts fresh; with such customers the
        table of states is copied once, to keep it in the order of codes.

        Args:
            events: All of the base's that became known after `through` and up to `until`, in any order.
            until: What the state then stands at.

        Raises:
            InputError: an event was known at `through` already, or not yet at `until`. Nothing is changed then, nor when
                anything else goes wrong before all new states are there.
        """
        tokens = tokens_of(events, self.zone)
        self._check(tokens, until)
        if len(tokens.customer):
            before = replace(self.seen), self.hidden  # admitting makes them anew
            try:
                self._admit(tokens.customer)
                rows = self.seen.rows_of(tokens.customer)[0]
                advanced = self._advanced(tokens, rows)
            except BaseException:
                self.seen, self.hidden = before
                raise
            self._keep(advanced)
            self.seen.take(tokens, rows)
        self.through = until

    def forecast(
        self, features: pl.DataFrame, horizons: Sequence[int], value: ValueOptions | None = None
    ) -> pl.DataFrame:
        """The `forecasts` table, equal to what reading every history anew would give.

        Args:
            features: of some customers, or all, at the instant that the state stands at.
            horizons: whole days.
            value: margin and discounting.

        Raises:
            InputError: features of another instant, or of a customer who was never seen.
        """
        buyers = buyers_of(features)
        if buyers.is_empty():
            return forecasts_table([])
        predictor = self.rung.corrected(StreamedPredictor(self.rung.trained, self))
        return forecasts_table(
            [self.rung.rows(predictor, buyers, sorted(set(horizons)), value or ValueOptions())]
        )

    def save(self, path: Path) -> None:
        """Writes one safetensors file, whole or not at all."""
        columns = {name: torch.from_numpy(np.asarray(column)) for name, column in vars(self.seen).items()}
        about = {
            "format": FORMAT,
            "rung": self.rung.digest,
            "zone": self.zone,
            "through": json.dumps(None if self.through is None else self.through.isoformat()),
        }
        with written_whole(path) as unfinished:
            save_file({**columns, "hidden": self.hidden.contiguous()}, unfinished, about)

    @classmethod
    def load(cls, path: Path, rung: SavedRung) -> StreamingState:
        """The state that `save` wrote.

        Raises:
            InputError: there is none, or another checkpoint made it: its numbers mean nothing to this one.
        """
        try:
            with safe_open(path, "pt") as file:
                about, columns = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            said = " ".join(str(error).split())[:200]
            raise InputError(
                f"state={path}: cannot be read ({said}). Start from no state and give all events."
            ) from error
        if (about.get("format"), about.get("rung")) != (FORMAT, rung.digest):
            raise InputError(
                f"state={path}: was made by another checkpoint. Start from no state and give all events."
            )
        hidden = columns.pop("hidden")
        through = json.loads(about["through"])
        return cls(
            rung,
            about["zone"],
            None if through is None else datetime.fromisoformat(through),
            Seen(**{name: column.numpy().copy() for name, column in columns.items()}),
            hidden,
        )

    def _check(self, tokens: Tokens, until: datetime) -> None:
        early = np.zeros(len(tokens.available), bool)
        if self.through is not None:
            if not is_after(until, self.through):
                raise InputError(
                    f"state: stands at {self.through}, and cannot go back to {until}. Load an earlier state."
                )
            early = is_known(tokens.available, self.through)
        late = ~is_known(tokens.available, until)
        for wrong, rule in (
            (
                early,
                f"was known by {self.through}, which the state has read; give each event once, or replay",
            ),
            (late, f"is known only after {until}; give it with a later update"),
        ):
            if wrong.any():
                who = tokens.customer[tokens.owner[wrong]][0]
                raise InputError(f"state: {int(wrong.sum()):,} events (first: customer {who}): each {rule}.")

    def _admit(self, customers: Ints) -> None:
        """Makes room for those not seen before."""
        new = customers[~self.seen.rows_of(customers)[1]]
        if len(new):
            order = torch.from_numpy(self.seen.admit(new))
            fresh = self.reader.start(len(new))
            self.hidden = torch.cat([self.hidden, fresh], dim=1)[:, order]

    def _advanced(self, tokens: Tokens, rows: Ints) -> list[tuple[Tensor, Tensor]]:
        """Rows of customers with new tokens, a batch at a time, and their new states."""
        lengths, begins = tokens.lengths, tokens.offsets[:-1]
        encoded = self.seen.encoded(tokens, rows, self.rung.trained.vocabulary)

        def advanced(people: Ints) -> tuple[Tensor, Tensor]:
            batch = _of_tokens(encoded, begins[people], lengths[people])
            mine = torch.from_numpy(rows[people])
            return mine, self.reader.step(self.hidden[:, mine], batch)

        return side_by_side(advanced, Sampler(lengths, np.ones_like(lengths), *READ_TOGETHER).in_order())

    @torch.inference_mode()  # states that were made in this mode can only be written in it
    def _keep(self, advanced: list[tuple[Tensor, Tensor]]) -> None:
        for mine, states in advanced:
            self.hidden[:, mine] = states


@dataclass(frozen=True)
class StreamedPredictor(Clocked):
    """The network as a rung that starts from saved states in place of histories."""

    trained: Trained
    state: StreamingState
    latest: list[tuple[pl.DataFrame, Clocks]] = field(default_factory=list, compare=False)

    @property
    def zone(self) -> str:
        """Where days are read."""
        return self.state.zone

    def read(self, buyers: pl.DataFrame) -> Clocks:
        """What the network says of each buyer, in float64, in the order of the rows."""
        network, rung = self.trained.network, self.state.rung
        cutoff = buyers[CUTOFF][0]
        if buyers[CUTOFF].n_unique() > 1 or cutoff != self.state.through:
            raise InputError(
                f"features: are of {cutoff}, and the state stands at {self.state.through}. Update it up to there, "
                "also where nothing happened."
            )
        unit = self.trained.vocabulary.order_value
        assert not isinstance(rung.first, AmortisedLaw)
        readouts = readouts_at([buyers], rung.columns, rung.first, cutoff, unit)
        context = self._context(readouts.take(np.arange(min(CONTEXT_CUSTOMERS, len(readouts)))))
        everybody = np.arange(len(readouts))
        batches = np.split(everybody, everybody[READOUTS_PER_BATCH::READOUTS_PER_BATCH])
        said = said_in_batches(
            lambda some: network.read(*self._at(readouts.take(some)), context),
            batches,
            lambda some: some,
            True,
        )
        return joined([said], torch.from_numpy(np.argsort(by_customer(buyers))))

    @one_thread()
    @torch.inference_mode()
    def _context(self, readouts: Readouts) -> Tensor | None:
        """What the network is told of the base, as `context_of` has it; None where it asks for nothing."""
        network = self.trained.network
        return None if network.readout.context is None else network.summarise(*self._at(readouts))

    def _at(self, readouts: Readouts) -> tuple[Tensor, Batch]:
        """States (R, width) of readouts, and a batch without tokens of what else is known there."""
        rows, there = self.state.seen.rows_of(readouts.customer)
        if not there.all():
            raise InputError(
                f"features: {int((~there).sum()):,} customers (first: {readouts.customer[~there][0]}) were never seen by "
                "the state. Take features and updates from the same events."
            )
        count = len(readouts)
        assert self.state.through is not None
        day = np.full(count, int(np.floor(local_day(self.state.through, self.zone))))
        silence = self.state.seen.silence(readouts.cutoff, rows, self.trained.vocabulary.gap_days)
        zeros = torch.zeros(count, dtype=torch.int64)
        batch = replace(
            _no_tokens(),
            at=zeros,
            silence=torch.from_numpy(silence),
            cutoff_calendar=torch.from_numpy(calendar_of(day)),
            features=torch.from_numpy(readouts.features),
            anchor=None if readouts.anchor is None else torch.from_numpy(readouts.anchor),
            base=zeros,
            group=zeros,
        )
        return self.state.hidden[-1, torch.from_numpy(rows)], batch


def _of_tokens(encoded: Encoded, begins: Ints, lengths: Ints) -> Batch:
    """A batch of runs of tokens, without readouts."""
    rows = ranges(begins, lengths)
    seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    picked = {name: torch.from_numpy(np.asarray(column[rows])) for name, column in vars(encoded).items()}
    columns: dict[str, Any] = {**picked, "cu_seqlens": torch.from_numpy(seqlens)}
    return replace(_no_tokens(), **columns)


def _no_tokens() -> Batch:
    """A batch of nobody."""
    none, whole = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    wide = torch.zeros(0, CALENDAR)
    return Batch(
        kind=whole,
        codes=whole[:, None],
        numbers=none[:, None],
        gaps=torch.zeros(0, 3),
        age=none,
        calendar=wide,
        cu_seqlens=torch.zeros(1, dtype=torch.int32),
        at=whole,
        silence=torch.zeros(0, 4),
        cutoff_calendar=wide,
        features=none[:, None],
        base=whole,
    )
