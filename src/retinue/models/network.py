"""The sequence forecaster: an embedded history, its encoder's states, and what is read from them at a cutoff."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor, nn

from retinue.models.attention import longest_of
from retinue.models.clocks import ANCHOR, WIDTH, Clocks, clocks_from
from retinue.models.context import BaseContext
from retinue.models.encoders import GRUEncoder, Norm, Residual, TransformerEncoder, remade
from retinue.models.piecewise import RATIO_EDGES, TIME_EDGES, PiecewiseLinear, fixed_edges, spread
from retinue.options import Encoder
from retinue.schema import InputError
from retinue.sequences.batches import Batch

CODE_WIDTH = 16
READ_WIDTH = 128
READ_BLOCKS = 2
INDUCING = 8
CALENDAR = 6


@dataclass(frozen=True, eq=False)
class NetworkShape:
    """What a network is built from; `kinds` and `code_sizes` count the index 0 (unknown, none) too."""

    kinds: int
    code_sizes: tuple[int, ...]  # (F,)
    number_edges: Tensor  # (K, B) as `quantile_edges` gives them
    feature_edges: Tensor  # (D, B)
    families: tuple[int, ...] = ()  # (D,) family of each feature, for family_dropout
    encoder: Encoder = Encoder.gru
    width: int = 64
    layers: int = 1
    heads: int = 4
    dropout: float = 0.1
    family_dropout: float = 0.0
    context: bool = False
    free_clocks: int = 0  # of the forecast that it corrects, see clocks_from; 0 makes its own

    def __post_init__(self) -> None:
        transformer = self.encoder is Encoder.transformer
        if transformer and (self.width % self.heads or self.width // self.heads % 2):
            raise InputError(
                f"model: width / heads must be an even whole number, not {self.width} / {self.heads}."
                " Set model.width=64 model.heads=4."
            )
        if self.family_dropout and len(self.families) != len(self.feature_edges):
            raise InputError(
                f"model: family_dropout={self.family_dropout} needs the family of each of the {len(self.feature_edges)} features,"
                f" not of {len(self.families)}. Set model.family_dropout=0."
            )


@dataclass(frozen=True)
class NextEvent:
    """Raw forecasts of each token's successor; `next_event_loss` reads them."""

    kind_logits: Tensor  # (N, kinds)
    gap: Tensor  # (N, 2) mean and raw log deviation
    amount: Tensor  # (N, 2)


class TokenEmbedding(nn.Module):
    """One token as the sum of its parts: kind, codes, and numbers, times and calendar piecewise linear.

    The index 0 of kinds and codes is the zero vector, so what was never seen changes nothing; codes start at zero.
    """

    offsets: Tensor

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.kind = nn.Embedding(shape.kinds, shape.width, padding_idx=0)
        self.times = PiecewiseLinear(fixed_edges(TIME_EDGES, RATIO_EDGES, TIME_EDGES, TIME_EDGES))
        self.numbers = PiecewiseLinear(shape.number_edges)
        self.plain = spread(nn.Linear(self.times.width + CALENDAR + self.numbers.width, shape.width))
        rows = torch.tensor([0, *(size - 1 for size in shape.code_sizes)], dtype=torch.long).cumsum(0)
        self.register_buffer("offsets", rows[:-1])
        self.codes = nn.EmbeddingBag(1 + int(rows[-1]), CODE_WIDTH, mode="sum", padding_idx=0)
        self.code_out = nn.Linear(CODE_WIDTH, shape.width, bias=False)
        nn.init.normal_(self.kind.weight, std=0.5)
        nn.init.zeros_(self.codes.weight)
        with torch.no_grad():
            self.kind.weight[0] = 0.0

    def forward(self, batch: Batch) -> Tensor:
        """(N, width)."""
        times = self.times(torch.cat([batch.gaps, batch.age[:, None]], 1).float())
        plain = torch.cat([times, batch.calendar.float(), self.numbers(batch.numbers)], 1)
        embedded: Tensor = self.kind(batch.kind) + self.plain(plain)
        if len(self.offsets):
            rows = torch.where(batch.codes > 0, batch.codes + self.offsets, 0)
            embedded = embedded + self.code_out(self.codes(rows))
        return embedded


class Readout(nn.Module):
    """The future head's raw numbers from state, silence, calendar, features and, if asked for, the base's context."""

    families: Tensor

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.family_dropout = shape.family_dropout
        self.register_buffer("families", torch.tensor(shape.families, dtype=torch.long), persistent=False)
        self.silence = PiecewiseLinear(fixed_edges(TIME_EDGES, RATIO_EDGES, TIME_EDGES, RATIO_EDGES))
        self.features = PiecewiseLinear(shape.feature_edges)
        self.state_norm = Norm(shape.width)
        self.state = nn.Linear(shape.width, READ_WIDTH, bias=False)
        self.plain = spread(nn.Linear(self.silence.width + CALENDAR, READ_WIDTH))
        self.aggregates = _linear_or_none(self.features.width)
        self.context = BaseContext(READ_WIDTH, INDUCING) if shape.context else None
        self.blocks = nn.Sequential(*(Residual(READ_WIDTH, shape.dropout) for _ in range(READ_BLOCKS)))
        self.out = nn.Sequential(Norm(READ_WIDTH), nn.Dropout(shape.dropout), nn.Linear(READ_WIDTH, WIDTH))

    def hidden(self, states: Tensor, batch: Batch) -> Tensor:
        """(R, width) states to (R, READ_WIDTH): all that one readout alone knows."""
        plain = torch.cat([self.silence(batch.silence), batch.cutoff_calendar.float()], 1)
        hidden: Tensor = self.plain(plain) + self.state(self.state_norm(states))
        if self.aggregates is not None:
            hidden = hidden + self.aggregates(self.features(self.visible(batch.features)))
        return hidden

    def forward(self, states: Tensor, batch: Batch, context: Tensor | None) -> Tensor:
        """(R, width) states to (R, WIDTH) raw numbers; `context` replaces the summaries of the batch itself."""
        hidden = self.hidden(states, batch)
        if self.context is not None:
            group = context_group(batch)
            if context is None:
                context = self.context.summarise(hidden, group, _groups(group))
            hidden = hidden + self.context(hidden, context, group)
        raw: Tensor = self.out(self.blocks(hidden))
        return raw

    def visible(self, features: Tensor) -> Tensor:
        """While training, each row loses each family of features with the probability asked for."""
        if not (self.training and self.family_dropout):
            return features
        draw = torch.rand(len(features), len(self.families), device=features.device)
        return features.masked_fill(draw[:, self.families] < self.family_dropout, torch.nan)


def _linear_or_none(inputs: int) -> nn.Linear | None:
    return spread(nn.Linear(inputs, READ_WIDTH, bias=False)) if inputs else None


def context_group(batch: Batch) -> Tensor:
    """The (base, cutoff) of each readout, which a network with context needs."""
    if batch.group is None:
        raise InputError(
            "batch: group must number the (base, cutoff) of every readout when model.context=true, not None"
        )
    return batch.group


def _groups(group: Tensor) -> int:
    """How many there are; on a GPU, which would have to be waited for, how many there may be."""
    return len(group) if group.is_cuda or not len(group) else int(group.max()) + 1


class Network(nn.Module):
    """History and features at a cutoff to the distribution of the future.

    Args:
        shape: sizes, edges and options.
        neutral: (WIDTH,) raw numbers of `neutral_raw`, the forecast for everybody before any training.
    """

    def __init__(self, shape: NetworkShape, neutral: Tensor) -> None:
        super().__init__()
        self.shape = shape
        self.embed = TokenEmbedding(shape)
        self.encoder = _encoder(shape)
        self.next_norm = Norm(shape.width)
        self.next_event = nn.Linear(shape.width, shape.kinds + 4)
        self.readout = Readout(shape)
        self.power_raw = nn.Parameter(torch.zeros(1))  # a vector: what is sharded must have a dimension
        self.register_load_state_dict_pre_hook(_scalar_power)  # type: ignore[no-untyped-call]
        last = self.readout.out[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(neutral)
            if shape.free_clocks:
                last.bias[:ANCHOR] = 0.0
                # an anchor's value is net of refunds, the head's is not
                last.bias[ANCHOR] = torch.nn.functional.softplus(neutral[-1])

    def forward(
        self, batch: Batch, max_len: int | None = None, context: Tensor | None = None
    ) -> tuple[Clocks, NextEvent]:
        """The future after each readout, and after each token.

        Args:
            batch: C customers, N tokens, R readouts.
            max_len: tokens of the longest history, where it is known without asking the device.
            context: (groups, INDUCING, READ_WIDTH) of `summarise`, so that a forecast does not depend on which
                customers share its batch; else the batch's own readouts are the context.

        Returns:
            Clocks of R rows and raw next events of N rows.
        """
        states = self.states(batch, max_len)
        clocks = self.read(states.index_select(0, batch.at), batch, context)
        kind, gap, amount = self.next_event(self.next_norm(states)).split([self.shape.kinds, 2, 2], -1)
        return clocks, NextEvent(kind, gap, amount)

    def states(self, batch: Batch, max_len: int | None = None) -> Tensor:
        """The state after each token, (N, width)."""
        longest = longest_of(batch.cu_seqlens) if max_len is None else max_len
        embedded = remade(self.embed, self.encoder.recompute, batch)
        states: Tensor = self.encoder(embedded, batch.gaps[:, 0], batch.cu_seqlens, longest)
        return states

    def states_at(self, batch: Batch, max_len: int | None = None) -> Tensor:
        """The state after the last token of each of the batch's R readouts, (R, width)."""
        return self.states(batch, max_len).index_select(0, batch.at)

    def read(self, states: Tensor, batch: Batch, context: Tensor | None = None) -> Clocks:
        """The future of R readouts whose states (R, width) are known; the batch's tokens are not looked at."""
        free = self.shape.free_clocks
        if free and batch.anchor is None:
            raise InputError(
                f"batch: anchor must be given to a network that corrects a forecast (free_clocks={free})"
            )
        anchor = batch.anchor if free else None
        return clocks_from(self.readout(states, batch, context), self.power_raw[0], anchor, free)

    def summarise(self, states: Tensor, batch: Batch) -> Tensor:
        """The context that R readouts, whose states are known, make for their groups, (groups, INDUCING, READ_WIDTH)."""
        if self.readout.context is None:
            raise InputError("model: context must be true to summarise a base, not false")
        group = context_group(batch)
        return self.readout.context.summarise(self.readout.hidden(states, batch), group, _groups(group))


def _scalar_power(_: nn.Module, weights: dict[str, Tensor], prefix: str, *__: object) -> None:
    """Checkpoints hold the power of the shape as a number, some as a vector of one."""
    name = prefix + "power_raw"
    if name in weights:
        weights[name] = weights[name].reshape(1)


def _encoder(shape: NetworkShape) -> GRUEncoder | TransformerEncoder:
    match shape.encoder:
        case Encoder.gru:
            return GRUEncoder(shape.width, shape.layers, shape.dropout)
        case Encoder.transformer:
            return TransformerEncoder(shape.width, shape.layers, shape.heads, shape.dropout)
        case _:
            assert_never(shape.encoder)
