"""Packed histories of made-up customers, and networks with weights shaken out of their quiet start."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from retinue.models.clocks import neutral_raw
from retinue.models.network import Network, NetworkShape
from retinue.models.piecewise import quantile_edges
from retinue.options import Encoder
from retinue.sequences.batches import Batch

M = TypeVar("M", bound=nn.Module)

KINDS, CODE_SIZES, NUMBERS, FEATURES = 5, (7, 4), 3, 6
FAMILIES = (0, 0, 0, 1, 1, 2)


@dataclass(frozen=True)
class History:
    """One customer's tokens (L) and readouts (R), as the fields of `Batch`; `at` counts from the first token."""

    tokens: dict[str, Tensor]
    readouts: dict[str, Tensor]

    @property
    def length(self) -> int:
        return len(self.tokens["kind"])


def history(seed: int, length: int, at: tuple[int, ...] = (), group: int = 0) -> History:
    """A customer with `length` random tokens, read out after the tokens `at` (the last, where none is named)."""
    rng = torch.Generator().manual_seed(seed)
    places = at or (length - 1,)
    rows = len(places)
    numbers, features = (
        torch.randn(length, NUMBERS, generator=rng),
        torch.randn(rows, FEATURES, generator=rng),
    )
    numbers[torch.rand(length, NUMBERS, generator=rng) < 0.2] = torch.nan
    features[torch.rand(rows, FEATURES, generator=rng) < 0.2] = torch.nan
    codes = [torch.randint(0, size, (length, 1), generator=rng) for size in CODE_SIZES]
    tokens = {
        "kind": torch.randint(0, KINDS, (length,), generator=rng),
        "codes": torch.cat(codes, 1),
        "numbers": numbers,
        "gaps": torch.rand(length, 3, generator=rng) * 4,
        "age": torch.rand(length, generator=rng).cumsum(0),
        "calendar": torch.rand(length, 6, generator=rng) * 2 - 1,
    }
    readouts = {
        "at": torch.tensor(places),
        "silence": torch.rand(rows, 4, generator=rng) * 4,
        "cutoff_calendar": torch.rand(rows, 6, generator=rng) * 2 - 1,
        "features": features,
        "base": torch.zeros(rows, dtype=torch.long),
        "group": torch.full((rows,), group),
    }
    return History(tokens, readouts)


def batch_of(*customers: History) -> Batch:
    lengths = torch.tensor([customer.length for customer in customers])
    ends = lengths.cumsum(0)
    at = [c.readouts["at"] + end - c.length for c, end in zip(customers, ends, strict=True)]
    tokens = {name: torch.cat([c.tokens[name] for c in customers]) for name in customers[0].tokens}
    readouts = {name: torch.cat([c.readouts[name] for c in customers]) for name in customers[0].readouts}
    starts = torch.cat([torch.zeros(1, dtype=torch.long), ends]).int()
    return Batch(**tokens, **{**readouts, "at": torch.cat(at)}, cu_seqlens=starts, targets=None).check()


def rows_of(customer: History, rows: slice) -> History:
    """The same customer with these tokens only; a readout at its last token."""
    tokens = {name: x[rows] for name, x in customer.tokens.items()}
    return replace(
        customer, tokens=tokens, readouts={**customer.readouts, "at": torch.tensor([len(tokens["kind"]) - 1])}
    )


def shape(encoder: Encoder = Encoder.gru, **options: object) -> NetworkShape:
    values = np.random.default_rng(0).normal(size=(500, max(NUMBERS, FEATURES))).astype(np.float32)
    given: dict[str, object] = {"width": 16, "heads": 2, "layers": 2, "families": FAMILIES, **options}
    return NetworkShape(
        KINDS,
        CODE_SIZES,
        quantile_edges(values[:, :NUMBERS], 4),
        quantile_edges(values[:, :FEATURES], 12),
        encoder=encoder,
        **given,  # type: ignore[arg-type]
    )


@cache
def neutral() -> Tensor:
    return neutral_raw(0.01, 0.3)


def network(encoder: Encoder = Encoder.gru, **options: object) -> Network:
    """An evaluated network as it is before training."""
    torch.manual_seed(1)
    return Network(shape(encoder, **options), neutral()).eval()


def shake(module: M, seed: int = 3) -> M:
    """Random weights everywhere: at the start much is zero, and a test of it would hold for nothing."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(torch.randn(weight.shape, generator=rng), alpha=0.3)
    return module
