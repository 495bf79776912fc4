"""Numbers as piecewise-linear codes between quantiles, with a flag for null."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_NULL, _FLAG, _LOWEST = -1e30, -1e29, -1e28  # a null's stand-in, the edge of its flag, and -inf's stand-in
# log1p of days: an hour, half a day, then days to ten years
TIME_EDGES = tuple(
    np.log1p([0, 1 / 24, 0.5, 1, 2, 4, 7, 10, 14, 21, 30, 45, 60, 90, 135, 180, 270, 365, 730, 1460, 3650])
)
# log ratio of two times: a fiftieth to fifty times
RATIO_EDGES = tuple(np.linspace(-4.0, 4.0, 17))


def quantile_edges(values: NDArray[np.float32], bins: int) -> Tensor:
    """Edges of about equally filled bins per column, for `PiecewiseLinear`.

    A value that alone fills a bin (the zeros of a count) becomes one edge, and the other edges are quantiles of
    the rest. Null and infinite values are left out.

    Args:
        values: (rows, columns).
        bins: at most this many bins per column.

    Returns:
        (columns, bins + 1) float32, rising, then NaN where a column has fewer distinct values.
    """
    edges = np.full((values.shape[1], bins + 1), np.nan, np.float32)
    for column, found in enumerate(values.T.astype(np.float32)):
        column_edges = _edges(np.sort(found[np.isfinite(found)]), bins)
        edges[column, : len(column_edges)] = column_edges
    return torch.from_numpy(edges)


def _edges(ordered: NDArray[np.float32], bins: int) -> NDArray[np.float32]:
    """Rising edges of one column's finite values in order; at most bins + 1, none for an empty column."""
    distinct, counts = np.unique(ordered, return_counts=True)
    if len(distinct) <= bins + 1:
        return distinct
    atoms = distinct[counts * bins > len(ordered)]
    rest = ordered[~np.isin(ordered, atoms)]
    places = np.linspace(0, len(rest) - 1, bins + 1 - len(atoms)).round().astype(np.int64)
    return np.unique(np.concatenate([atoms, rest[places]]))


def fixed_edges(*columns: tuple[float, ...]) -> Tensor:
    """The given edges of each column side by side, (columns, longest), NaN where a column has fewer."""
    longest = max(len(column) for column in columns)
    return torch.tensor(
        [column + (float("nan"),) * (longest - len(column)) for column in columns], dtype=torch.float32
    )


def spread(layer: nn.Linear) -> nn.Linear:
    """The layer with weights wide enough that piecewise codes, most of them the same for everybody, tell rows apart.

    A code is 0 or 1 nearly everywhere, with a variance of about 1/6; weights of variance 3 / inputs give outputs
    of variance near one half, on a par with normalised states.
    """
    nn.init.normal_(layer.weight, std=math.sqrt(3 / layer.in_features))
    return layer


class PiecewiseLinear(nn.Module):
    """Each number as its way through every bin, 0 to 1, and a null flag (Gorishniy et al. 2022, eq. 1).

    Below the first edge every bin is 0, above the last every bin is 1: a number far outside what was fitted
    saturates. Null gives 0 everywhere and the flag 1.

    Args:
        edges: (columns, B), rising; NaN, or equal to the one before, for edges a column does not have.
    """

    lower: Tensor
    slope: Tensor

    def __init__(self, edges: Tensor) -> None:
        super().__init__()
        width = edges[:, 1:] - edges[:, :-1]
        there = width > 0  # false for NaN too
        lower = torch.where(there, edges[:, :-1], 0.0)
        slope = torch.where(there, 1 / width, 0.0)
        # the null flag is one more bin, falling, that only a null's stand-in is far enough below to fill
        self.register_buffer("lower", nn.functional.pad(lower, (0, 1), value=_FLAG).float())
        self.register_buffer("slope", nn.functional.pad(slope, (0, 1), value=-1.0).float())

    @property
    def width(self) -> int:
        """Numbers per row that come out."""
        return self.lower.numel()

    def forward(self, values: Tensor) -> Tensor:
        """(rows, columns), NaN where null, to (rows, columns * B): each column's bins, then its flag."""
        finite = torch.nan_to_num(values.float(), nan=_NULL, neginf=_LOWEST)
        # in place: three passes over the largest table of a readout
        return (finite[..., None] - self.lower).mul_(self.slope).clamp_(0.0, 1.0).flatten(1)


@dataclass(frozen=True)
class Lookup:
    """The product of piecewise-linear codes and a matrix, as two rows of a table per number: it is linear in between.

    Of columns with two edges or more, as `fixed_edges` and a vocabulary have them.

    Attributes:
        table: (columns * (B + 1), out), of each column the sums at its B edges, then the row of null.
        lower: (columns, B - 1) where each bin begins; one that a column does not have begins with the next it has.
        begin: (columns, B - 1) as `lower`, 0 where there is none.
        slope: (columns, B - 1).
    """

    table: Tensor
    lower: Tensor
    begin: Tensor
    slope: Tensor

    @classmethod
    def of(cls, codes: PiecewiseLinear, weight: Tensor) -> Lookup:
        """Of a layer's weight (out, codes.width), in its precision."""
        columns, bins = codes.lower.shape
        by_code = weight.T.reshape(columns, bins, len(weight))
        begin, slope = codes.lower[:, :-1].to(weight.device), codes.slope[:, :-1].to(weight.device)
        there = slope > 0
        sums = (by_code[:, :-1] * there[..., None]).cumsum(1)
        table = torch.cat([torch.zeros_like(by_code[:, :1]), sums, by_code[:, -1:]], 1)
        lower = torch.where(there, begin, torch.inf).flip(1).cummin(1).values.flip(1)
        return cls(table.flatten(0, 1), lower, begin, slope)

    def __call__(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, columns), NaN where null, to rows of the table and their weights, both (rows, 2 * columns)."""
        number = values.float().T.contiguous()
        null = number.isnan()
        number = torch.nan_to_num(number, nan=_NULL, neginf=_LOWEST)
        below = torch.searchsorted(self.lower, number, right=True).sub_(1).clamp_(min=0)
        begin, slope = self.begin.gather(1, below), self.slope.gather(1, below)
        above = number.sub_(begin).mul_(slope).clamp_(0.0, 1.0)
        columns, bins = self.lower.shape
        first = torch.arange(columns, device=below.device)[:, None] * (bins + 2)
        low = first + torch.where(null, bins + 1, below)
        return torch.cat([low, torch.where(null, low, low + 1)]).T, torch.cat([1 - above, above]).T
