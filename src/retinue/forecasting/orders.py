"""Scoring a fitted order model on many histories in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from retinue.accel.processes import one_thread
from retinue.models.btyd import Histories, OrderForecast, OrderModel, predict

Array = NDArray[np.float64]
CHUNK_ROWS = 4_096  # × forty nodes fits a core's cache


@dataclass(frozen=True)
class Orders:
    """The order forecast of each distinct history: (h, distinct) each."""

    p_churn: Array
    expected_orders: Array
    discounted_orders: Array
    shape: Array


@one_thread()
def score_orders(
    model: OrderModel, of: Histories, horizons: list[int], discount_rate_yearly: float
) -> Orders:
    """Predictions for each distinct history, in chunks of bounded memory."""
    pieces: list[OrderForecast] = []
    for part in _chunks(of):
        pieces.append(predict(model, part, horizons, discount_rate_yearly))
    return Orders(
        p_churn=torch.cat([piece.p_churn for piece in pieces], 1).numpy(),
        expected_orders=torch.cat([piece.expected_orders for piece in pieces], 1).numpy(),
        discounted_orders=torch.cat([piece.discounted_orders for piece in pieces], 1).numpy(),
        shape=torch.cat([piece.shape for piece in pieces], 1).numpy(),
    )


@one_thread()
def order_waits(model: OrderModel, of: Histories) -> Array:
    """Median wait of each distinct history, NaN where more likely never; (distinct,)."""
    return torch.cat([model.next_order_days(part) for part in _chunks(of)]).numpy()


@one_thread()
def order_chances(model: OrderModel, of: Histories, days: Sequence[float]) -> Array:
    """P(an order within so many days) of each distinct history; (days, distinct)."""
    times = torch.tensor(list(days), dtype=torch.float64)
    parts = [
        torch.stack([model.p_order(part, day) for day in times]) * model.p_alive(part) for part in _chunks(of)
    ]
    return torch.cat(parts, 1).numpy()


def _chunks(of: Histories) -> Iterator[Histories]:
    for start in range(0, len(of.frequency), CHUNK_ROWS):
        yield Histories(*(getattr(of, item.name)[start : start + CHUNK_ROWS] for item in fields(of)))
