"""Reading histories for forecasts: what a GRU makes of tokens, without gradients, on a CPU, in half of torch's time.

What a token adds to the gates of the first layer is linear between the edges of its numbers. So embedding and input
weights are one table, of whose rows each token adds up a few. The rest is products and gates over customers in order of
length, where nothing is padded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from retinue.models.encoders import GRUEncoder
from retinue.models.network import CALENDAR, Network, TokenEmbedding
from retinue.models.piecewise import Lookup
from retinue.schema import InputError
from retinue.sequences.batches import Batch

# a product of fewer rows rounds otherwise, and a forecast would follow from who else is asked about
LEAST_ROWS = 4
ROWS_AT_ONCE = 1_024  # whose gates a core's cache holds


class GRUReader:
    """The states of a GRU network in eval mode, equal to those of `Network.states` but for rounding.

    In float32 and from a width of 12 on, a customer's are the same to the last bit whoever else is read, on one thread.

    Args:
        network: its weights are copied, from whatever device they are on.

    Raises:
        InputError: its encoder is no GRU.
    """

    def __init__(self, network: Network) -> None:
        if not isinstance(network.encoder, GRUEncoder):
            raise InputError(
                f"model: encoder must be gru to stream, not {network.shape.encoder.value}. Set model=gru."
            )
        gru = network.encoder.gru
        self.width, self.dtype = gru.hidden_size, network.power_raw.dtype
        layers = [[weight.detach().double().cpu() for weight in layer] for layer in gru.all_weights]
        # beside the hidden state's own bias of the candidate, which the reset gate is to see, all are added to the input
        biases = [inner + _but_candidate(hidden) for _, _, inner, hidden in layers]
        incoming = [(inner, bias) for (inner, *_), bias in zip(layers, biases, strict=True)]
        self._tokens = _Tokens.of(network.embed, *incoming[0], self.dtype)
        self._between = [
            (_doubled(bias).to(self.dtype), _doubled(inner.T).to(self.dtype).contiguous())
            for inner, bias in incoming[1:]
        ]
        self._cells = [_Cell.of(hidden, bias, self.dtype) for _, hidden, _, bias in layers]

    def start(self, customers: int) -> Tensor:
        """The state before any token, (layers, customers, width); its last layer is what `Network.read` takes."""
        return torch.zeros(len(self._cells), customers, self.width, dtype=self.dtype)

    @torch.no_grad()
    def states_at(self, batch: Batch) -> Tensor:
        """The state after the last token of each of the batch's R readouts, (R, width)."""
        order = _Order.of(batch.cu_seqlens)
        states = self._read(batch, order, self.start(len(order.customers)))[-1]
        return states.index_select(0, order.row.index_select(0, batch.at))

    @torch.no_grad()
    def step(self, state: Tensor, batch: Batch) -> Tensor:
        """The state (layers, C, width) after a batch of new tokens only; costs nothing per token already seen.

        Customers without new tokens keep their state.
        """
        order = _Order.of(batch.cu_seqlens)
        some = batch.cu_seqlens.diff().nonzero()[:, 0]
        last = order.row.index_select(0, batch.cu_seqlens[1:].long().index_select(0, some) - 1)
        after = [states.index_select(0, last) for states in self._read(batch, order, state)]
        return state.index_copy(1, some, torch.stack(after))

    def _read(self, batch: Batch, order: _Order, state: Tensor) -> list[Tensor]:
        """Of each layer the states after each row of the order, (rows, width)."""
        rows, weights, calendar = (order.arranged(each) for each in self._tokens.told(batch))
        found = [torch.empty(len(rows), self.width, dtype=self.dtype) for _ in self._cells]
        now = list(order.first(state))
        for here, sizes in order.blocks():
            gates = self._tokens.gates(rows[here], weights[here], calendar[here])
            for layer, cell in enumerate(self._cells):
                if layer:
                    bias, inner = self._between[layer - 1]
                    gates = torch.addmm(bias, found[layer - 1][here], inner)
                now[layer] = cell.through(gates, sizes, now[layer], found[layer][here])
        return found


@dataclass(frozen=True)
class _Order:
    """Tokens by their place in the history, at each place by falling length of it.

    Attributes:
        customers: (C,) the longest history first.
        row: (N,) of each token.
        sizes: Rows of each place: a customer's offset is the same at each; the last of too few have nobody.
    """

    customers: Tensor
    row: Tensor
    sizes: list[int]

    @classmethod
    def of(cls, cu_seqlens: Tensor) -> _Order:
        """Of histories that begin at `cu_seqlens`, (C + 1,)."""
        starts, lengths = cu_seqlens[:-1].long(), cu_seqlens.diff().long()
        tokens, customers = int(cu_seqlens[-1]), lengths.argsort(descending=True, stable=True)
        everybody = torch.arange(len(lengths))
        offset = torch.empty_like(customers).index_copy_(0, customers, everybody)
        owner = everybody.repeat_interleave(lengths, output_size=tokens)
        place = torch.arange(tokens) - starts[owner]
        sizes = torch.bincount(place).clamp_(min=LEAST_ROWS)
        return cls(customers, (sizes.cumsum(0) - sizes)[place] + offset[owner], sizes.tolist())

    def arranged(self, column: Tensor) -> Tensor:
        """(N, ...) to (rows, ...), zeros where there is nobody."""
        return column.new_zeros(sum(self.sizes), *column.shape[1:]).index_copy_(0, self.row, column)

    def first(self, state: Tensor) -> Tensor:
        """(layers, C, width) as the rows of the first place."""
        nobody = max(0, LEAST_ROWS - len(self.customers))
        return functional.pad(state.index_select(1, self.customers), (0, 0, 0, nobody))

    def blocks(self) -> Iterator[tuple[slice, list[int]]]:
        """Places in a row, about `ROWS_AT_ONCE` rows together: the rows, and the sizes."""
        first, begin, end = 0, 0, 0
        for place, size in enumerate(self.sizes):
            end += size
            if end - begin >= ROWS_AT_ONCE or place + 1 == len(self.sizes):
                yield slice(begin, end), self.sizes[first : place + 1]
                first, begin = place + 1, end


@dataclass(frozen=True)
class _Tokens:
    """What tokens add to the gates of the first layer.

    Attributes:
        table: (rows, 3 * width): kinds, with all that is added to everybody; numbers; codes.
        calendar: (CALENDAR, 3 * width).
        numbers: Times and numbers, each where its rows of the table begin.
        codes: (F,) where the rows of each field begin, less the 1 that its first label has.
        none: The row of no code.
    """

    table: Tensor
    calendar: Tensor
    numbers: tuple[tuple[int, Lookup], ...]
    codes: Tensor
    none: int

    @classmethod
    def of(cls, embed: TokenEmbedding, inner: Tensor, bias: Tensor, dtype: torch.dtype) -> _Tokens:
        """Of an embedding and the layer's (3 * width, width) input weights and (3 * width,) bias, in float64."""
        kind, plain, constant, codes, code_out = (
            weight.detach().double().cpu()
            for weight in (
                embed.kind.weight,
                embed.plain.weight,
                embed.plain.bias,
                embed.codes.weight,
                embed.code_out.weight,
            )
        )
        widths = [embed.times.width, CALENDAR, embed.numbers.width]
        times, calendar, numbers = torch.split(inner @ plain, widths, 1)
        looked_up = [Lookup.of(embed.times, times), Lookup.of(embed.numbers, numbers)]
        none = functional.pad(codes[1:], (0, 0, 1, 0))  # as the bag has it, whatever its weights say
        parts = [
            (kind + constant) @ inner.T + bias,
            *(each.table for each in looked_up),
            none @ (code_out.T @ inner.T),
        ]
        begins = [sum(len(part) for part in parts[:i]) for i in range(len(parts))]
        table, calendar = (_doubled(each).to(dtype).contiguous() for each in (torch.cat(parts), calendar.T))
        placed = tuple(zip(begins[1:3], looked_up, strict=True))
        return cls(table, calendar, placed, embed.offsets.cpu() + begins[3], begins[3])

    def told(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Of a batch's N tokens the rows they look up and their weights, (N, L) each, and their calendar."""
        kinds = self.numbers[0][0]  # where other rows begin
        assert not len(batch.kind) or 0 <= int(batch.kind.min()) <= int(batch.kind.max()) < kinds
        values = torch.cat([batch.gaps, batch.age[:, None]], 1), batch.numbers
        rows = [batch.kind[:, None], torch.where(batch.codes > 0, batch.codes + self.codes, self.none)]
        weights = [torch.ones(each.shape, dtype=self.table.dtype) for each in rows]
        for (begin, look_up), value in zip(self.numbers, values, strict=True):
            places, shares = look_up(value)
            rows.append(places + begin)
            weights.append(shares.to(self.table.dtype))
        return torch.cat(rows, 1), torch.cat(weights, 1), batch.calendar.to(self.table.dtype)

    def gates(self, rows: Tensor, weights: Tensor, calendar: Tensor) -> Tensor:
        """(n, 3 * width)."""
        found = functional.embedding_bag(rows, self.table, mode="sum", per_sample_weights=weights)
        return found.addmm_(calendar, self.calendar)


@dataclass(frozen=True)
class _Cell:
    """One layer's step, with the reset gate r, the update gate z and the candidate n of torch.nn.GRU.

    The candidate's sums are doubled: tanh(x) = 2 sigmoid(2 x) - 1, which takes a third of tanh's time.
    """

    gates: Tensor  # (width, 2 * width) r, z
    candidate: Tensor  # (width, width)
    bias: Tensor  # (width,) of the candidate

    @classmethod
    def of(cls, hidden: Tensor, bias: Tensor, dtype: torch.dtype) -> _Cell:
        """Of the layer's (3 * width, width) hidden weights and (3 * width,) bias."""
        width = hidden.shape[1]
        weight = _doubled(hidden.T).to(dtype)
        parts = weight[:, : 2 * width], weight[:, 2 * width :], _doubled(bias)[2 * width :].to(dtype)
        return cls(*(part.contiguous() for part in parts))

    def through(self, gates: Tensor, sizes: list[int], state: Tensor, out: Tensor) -> Tensor:
        """The state after several places, each with its rows; all that come by are written to `out`.

        Args:
            gates: (rows, 3 * width) what comes in; overwritten.
            sizes: rows of each place, never rising.
            state: (at least the first size, width).
            out: (rows, width).
        """
        width, inner = len(self.bias), torch.empty(sizes[0], len(self.bias), dtype=out.dtype)
        for sums, found in zip(torch.split(gates, sizes), torch.split(out, sizes), strict=True):
            state = state[: len(sums)]
            both, new = sums[:, : 2 * width], sums[:, 2 * width :]
            both.addmm_(state, self.gates).sigmoid_()
            before = torch.addmm(self.bias, state, self.candidate, out=inner[: len(sums)])
            new.addcmul_(both[:, :width], before).sigmoid_().mul_(2.0).sub_(1.0)
            state = torch.lerp(new, state, both[:, width:], out=found)
        return state


def _doubled(gates: Tensor) -> Tensor:
    """(..., 3 * width) with the candidate's third doubled."""
    width = gates.shape[-1] // 3
    return torch.cat([gates[..., : 2 * width], 2 * gates[..., 2 * width :]], -1)


def _but_candidate(bias: Tensor) -> Tensor:
    """(3 * width,) with zeros in the candidate's third."""
    return torch.cat([bias[: len(bias) // 3 * 2], torch.zeros_like(bias[len(bias) // 3 * 2 :])])
