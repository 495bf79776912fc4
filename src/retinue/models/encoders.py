"""Histories to states: a GRU and a causal transformer with one call signature over packed tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from retinue.models.attention import attend, layout, rotate, turns

PADDING_LIMIT = 4  # a table this many times as large as its tokens costs more than several of like lengths
ROTARY_EXPONENTS = (1.0, 12.0)  # turns of 2 to 4,096 summed log1p days


def remade(module: nn.Module, on: bool, *inputs: Any) -> Any:
    """What the module says; if `on`, what is inside it is made again in the backward pass (Chen et al. 2016)."""
    if on and torch.is_grad_enabled():
        return checkpoint(module, *inputs, use_reentrant=False)
    return module(*inputs)


class Norm(nn.RMSNorm):
    """Root mean square norm (Zhang and Sennrich 2019, eq. 4) in the precision of its weights, whatever comes in."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., width)."""
        return super().forward(x.to(self.weight.dtype))


class SwiGLU(nn.Module):
    """Gated two-layer network (Shazeer 2020, eq. 6), width to width, about 8 width² weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 8 * -(-width // 3)
        self.gates = nn.Linear(width, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., width)."""
        gate, value = self.gates(x).chunk(2, -1)
        out: Tensor = self.out(functional.silu(gate) * value)
        return out


class Residual(nn.Module):
    """x + dropout(SwiGLU(norm(x)))."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.inner, self.drop = Norm(width), SwiGLU(width), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., width)."""
        out: Tensor = x + self.drop(self.inner(self.norm(x)))
        return out


class GRUEncoder(nn.Module):
    """Gated recurrent units (Cho et al. 2014): the state after a token needs only the state before it."""

    recompute = False

    def __init__(self, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)

    def forward(self, x: Tensor, log_gap: Tensor, cu_seqlens: Tensor, max_len: int) -> Tensor:
        """States after each token.

        Args:
            x: (N, width) embedded tokens, packed by customer.
            log_gap: (N,) log1p days since the previous token; not used here, the embedding tells it.
            cu_seqlens: (C + 1,) int32, where each customer begins; the last is N.
            max_len: tokens of the longest history.

        Returns:
            (N, width).
        """
        lengths = cu_seqlens.diff()
        if len(lengths) * max_len <= PADDING_LIMIT * len(x):
            return self._padded(x, cu_seqlens, max_len)
        level = lengths.clamp(min=1).float().log2().ceil().int()
        level_of = level.repeat_interleave(lengths.long(), output_size=len(x))
        places, states = [], []
        for each in sorted(set(level.tolist())):
            place, mine = (level_of == each).nonzero()[:, 0], lengths[level == each]
            begins = functional.pad(mine.cumsum(0), (1, 0)).int()
            places.append(place)
            states.append(self._padded(x[place], begins, int(mine.max())))
        return torch.cat(states)[torch.cat(places).argsort()]

    def _padded(self, x: Tensor, cu_seqlens: Tensor, max_len: int) -> Tensor:
        table = layout(cu_seqlens, len(x), max_len)
        # on a GPU the dropout between layers has a random state of its own, which would have moved on
        again = self.recompute and not self.gru.dropout
        states: Tensor = remade(self.gru, again, table.pad(x))[0]
        return table.unpad(states)


class TransformerEncoder(nn.Module):
    """Causal transformer, rotary over the summed log gaps, so that attention knows time and not only order."""

    periods: Tensor
    recompute = False

    def __init__(self, width: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(layers))
        self.norm = Norm(width)
        periods = torch.logspace(*ROTARY_EXPONENTS, width // heads // 2, base=2.0)
        self.register_buffer("periods", periods, persistent=False)

    def forward(self, x: Tensor, log_gap: Tensor, cu_seqlens: Tensor, max_len: int) -> Tensor:
        """States after each token; arguments and result as `GRUEncoder.forward`."""
        if not torch.is_grad_enabled():
            # attention cuts its sums by the length of the table, which thus is that of all histories up to it
            max_len = 1 << (max_len - 1).bit_length()
        turned = turns(_positions(log_gap, cu_seqlens, max_len), self.periods)
        for block in self.blocks:
            x = remade(block, self.recompute, x, turned, cu_seqlens, max_len)
        out: Tensor = self.norm(x)
        return out


def _positions(log_gap: Tensor, cu_seqlens: Tensor, max_len: int) -> Tensor:
    """(N,) sum of the customer's log gaps so far, summed within the customer: no rounding from others."""
    table = layout(cu_seqlens, len(log_gap), max_len)
    return table.unpad(table.pad(torch.nan_to_num(log_gap.float())).cumsum(1))


class _Block(nn.Module):
    """Pre-norm attention with normalised queries and keys (Henry et al. 2020), then SwiGLU."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, head = heads, width // heads
        self.norm, self.drop = Norm(width), nn.Dropout(dropout)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_norm, self.k_norm = Norm(head), Norm(head)
        self.out = nn.Linear(width, width, bias=False)
        self.rest = Residual(width, dropout)

    def forward(self, x: Tensor, turned: tuple[Tensor, Tensor], cu_seqlens: Tensor, max_len: int) -> Tensor:
        """(N, width) to (N, width)."""
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).unbind(1)  # (N, heads, d) each
        q = rotate(self.q_norm(q), turned).to(v.dtype)
        k = rotate(self.k_norm(k), turned).to(v.dtype)
        found = attend(q, k, v, cu_seqlens, max_len).flatten(1)
        out: Tensor = self.rest(x + self.drop(self.out(found)))
        return out
