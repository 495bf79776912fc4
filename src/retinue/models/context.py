"""What the rest of the base tells about a customer: set attention over a few inducing vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from retinue.models.encoders import Norm


class BaseContext(nn.Module):
    """Induced set attention (Lee et al. 2019, eq. 9) within each group of readouts of one base at one cutoff.

    A summary is a weighted mean of the group's members, so neither their order nor their number matters, and a
    large sample of them gives nearly the summary of all. It starts with no say in the forecast.
    """

    def __init__(self, width: int, inducing: int) -> None:
        super().__init__()
        self.inducing = nn.Parameter(torch.randn(inducing, width))
        self.norm = Norm(width)
        self.member_key, self.member_value = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.query, self.key = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def summarise(self, members: Tensor, group: Tensor, groups: int) -> Tensor:
        """The inducing vectors' view of every group.

        Args:
            members: (R, width).
            group: (R,) long, below `groups`.
            groups: how many there may be; one without members gets zeros.

        Returns:
            (groups, inducing, width).
        """
        members = self.norm(members)
        scores = (self.member_key(members) @ self.inducing.T).float() / math.sqrt(
            members.shape[-1]
        )  # (R, inducing)
        where = group[:, None].expand_as(scores)
        highest = scores.new_zeros(groups, scores.shape[1]).scatter_reduce(
            0, where, scores.detach(), "amax", include_self=False
        )
        weight = (scores - highest[group]).exp()
        total = weight.new_zeros(groups, weight.shape[1]).index_add(0, group, weight)
        share = weight / total[group]
        parts = share[:, :, None] * self.member_value(members).float()[:, None]  # (R, inducing, width)
        empty = torch.zeros(groups, *parts.shape[1:], dtype=parts.dtype, device=parts.device)
        return empty.index_add(0, group, parts)

    def forward(self, rows: Tensor, summaries: Tensor, group: Tensor) -> Tensor:
        """What each row (R, width) takes from its group's summary (groups, inducing, width); (R, width)."""
        keys, values = self.key(summaries), self.value(summaries)  # (groups, inducing, width)
        query = self.query(self.norm(rows))
        scores = (query[:, None] * keys[group]).sum(-1) / math.sqrt(rows.shape[-1])  # (R, inducing)
        found: Tensor = (scores.softmax(-1)[:, :, None] * values[group]).sum(1)
        return found
