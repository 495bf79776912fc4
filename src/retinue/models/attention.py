"""Causal attention over packed histories, and the one function that chooses how it is computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn

HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Layout:
    """Where each of N packed tokens lies in a right-padded (C, longest) table."""

    customers: int
    longest: int
    slot: Tensor  # (N,) long, row * longest + place
    lengths: Tensor  # (C,) long

    def pad(self, packed: Tensor) -> Tensor:
        """(N, ...) to (C, longest, ...), zeros after each customer's last token."""
        table = packed.new_zeros(self.customers * self.longest, *packed.shape[1:])
        return table.index_copy(0, self.slot, packed).view(self.customers, self.longest, *packed.shape[1:])

    def unpad(self, padded: Tensor) -> Tensor:
        """(C, longest, ...) back to (N, ...)."""
        return padded.flatten(0, 1).index_select(0, self.slot)


def layout(cu_seqlens: Tensor, tokens: int, longest: int) -> Layout:
    """The layout of `tokens` packed tokens of customers that begin at `cu_seqlens`; no device sync."""
    starts, lengths = cu_seqlens[:-1].long(), cu_seqlens.diff().long()
    customers = len(lengths)
    row = torch.arange(customers, device=cu_seqlens.device).repeat_interleave(lengths, output_size=tokens)
    place = torch.arange(tokens, device=cu_seqlens.device) - starts[row]
    return Layout(customers, longest, row * longest + place, lengths)


def longest_of(cu_seqlens: Tensor) -> int:
    """Tokens of the longest history; on a GPU this waits for the device."""
    return int(cu_seqlens.diff().max())


def attend(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_len: int) -> Tensor:
    """Causal softmax attention of every token to its own customer's tokens so far.

    Padded scaled_dot_product_attention; on CUDA in half precision the varlen kernel, without padding.

    Args:
        q: (N, heads, d) packed queries; k and v alike.
        k: keys.
        v: values.
        cu_seqlens: (C + 1,) int32, where each customer begins; the last is N.
        max_len: tokens of the longest history.

    Returns:
        (N, heads, d).
    """
    if q.is_cuda and q.dtype in HALF:
        packed = varlen_attn(q, k, v, cu_seqlens, cu_seqlens, max_len, max_len, window_size=(-1, 0))
        assert isinstance(packed, Tensor)  # a pair only where the log normaliser is asked for
        return packed
    table = layout(cu_seqlens, len(q), max_len)
    q, k, v = (table.pad(x).transpose(1, 2) for x in (q, k, v))  # (C, heads, longest, d)
    return table.unpad(functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2))


def turns(position: Tensor, periods: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine for `rotate` at real positions (N,), for periods (d / 2,) in units of position; (N, 1, d / 2)."""
    angle = (position[:, None] * (2 * torch.pi / periods))[:, None]
    return angle.cos(), angle.sin()


def rotate(x: Tensor, turned: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary embedding (Su et al. 2021, eq. 34) of x (N, heads, d), d even, by `turns`; in float32.

    The scalar product of two of them depends on the difference of their positions only.
    """
    cos, sin = turned
    first, second = x.float().chunk(2, -1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)
